"""A real Redis-protocol server for tests: the one that ships with the project, or TEST_REDIS_SERVER's."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from eas_queue import embedded

# Below those that systems give to outgoing connections: one could take a port between the probe and its use.
PORTS = range(10_000, 32_000)


def _candidates() -> Iterator[int]:
    """All of PORTS, or this process's share where tests run in several, again and again."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = len(PORTS) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    ports = list(PORTS[worker * share : (worker + 1) * share])
    first = os.getpid() * 7 % share
    return itertools.cycle(ports[first:] + ports[:first])


_ports = _candidates()


def free_port() -> int:
    """A port that nobody listens on, and that no other call in these tests gives for long."""
    for port in _ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    raise AssertionError("unreachable: the candidates never end")


class RedisServer:
    """One server on loopback with its append-only file in a folder of its own; it survives ``kill`` and ``start``."""

    def __init__(self, *, maxmemory_bytes: int = 1_073_741_824, more: tuple[str, ...] = ()) -> None:
        """*more*: further lines of its configuration."""
        self._folder = tempfile.TemporaryDirectory(prefix="eas-queue-test-", ignore_cleanup_errors=True)
        self._program = os.environ.get("TEST_REDIS_SERVER") or str(embedded.find_server())
        self.port = free_port()
        self.password = "test-password"
        self.url = f"redis://:{self.password}@127.0.0.1:{self.port}/0"
        self._conf = Path(self._folder.name, "server.conf")
        self._conf.write_text(
            embedded.configuration(
                Path(self._folder.name), port=self.port, password=self.password, maxmemory_bytes=maxmemory_bytes
            )
            + "".join(f"{line}\n" for line in more)
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        """Where its data is."""
        return Path(self._folder.name)

    def start(self) -> RedisServer:
        with Path(self._folder.name, "server.log").open("ab") as log:
            self._process = subprocess.Popen([self._program, str(self._conf)], stdout=log, stderr=log)
        client = redis.Redis.from_url(self.url)
        deadline = time.monotonic() + 10
        while True:
            try:
                client.ping()
                break
            except redis.RedisError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        client.close()
        return self

    def await_on_disk(self) -> None:
        """Return when all that was answered is in the file. While an fsync runs, the server holds writes back."""
        with self.client() as client:
            deadline = time.monotonic() + 10
            while True:
                found: Any = client.info("persistence")
                if not found["aof_buffer_length"] and not found["aof_pending_bio_fsync"]:
                    return
                assert time.monotonic() < deadline, found
                time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL: what was not yet written is lost, see ``await_on_disk``."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        if self._process is not None:
            self.kill()
        self._folder.cleanup()

    def commands(self, name: str) -> int:
        """How often this command has run since the start, or since ``forget_commands``, in scripts too."""
        with self.client() as client:
            found: Any = client.info("commandstats")
        return int(found.get(f"cmdstat_{name}", {"calls": 0})["calls"])

    def forget_commands(self) -> None:
        with self.client() as client:
            client.config_resetstat()

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)
