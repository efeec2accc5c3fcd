"""A server and a web that stay for all tests of a file; each test starts the workers that it needs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.support.installation import Installation, Process
from tests.support.server import RedisServer


class Standing:
    """The server and the installation with its web. Made by ``standing``."""

    def __init__(self, server: RedisServer, installation: Installation) -> None:
        self.server, self.installation = server, installation
        self._env = dict(installation.env)
        self._kept = list(installation.processes)
        self._worker: tuple[str, int, Process] | None = None

    def alone(self) -> Installation:
        """Nothing but what stays runs, with the settings of the beginning; the server keeps what it has."""
        for process in reversed(self.installation.processes):
            if process not in self._kept:
                process.kill()
        self.installation.processes[:] = self._kept
        self.installation.env = dict(self._env)
        self._worker = None
        for process in self._kept:
            assert process.popen.poll() is None, f"{process.name} ended in an earlier test:\n{process.log[-3000:]}"
        return self.installation

    def emptied(self) -> Installation:
        """The same, and the server is as new."""
        installation = self.alone()
        with self.server.client() as client:
            client.flushall()
            client.script_flush()
        return installation

    def at_work(self, pool: str = "gevent", concurrency: int = 50) -> Installation:
        """One worker runs beside what stays: that of the test before where it is such a one, else a new one."""
        running = self._worker and self._worker[2].popen.poll() is None and self._worker[:2]
        if running != (pool, concurrency) or len(self.installation.processes) != len(self._kept) + 1:
            self._worker = pool, concurrency, self.emptied().worker(pool, concurrency)
        return self.installation

    def keep(self) -> None:
        """What runs now stays, too."""
        self._kept = list(self.installation.processes)


@contextlib.contextmanager
def standing(target_url: str, **settings: object) -> Iterator[Standing]:
    """*settings*: as of an Installation."""
    server = RedisServer().start()
    try:
        with Installation(server.url, target_url, **settings) as installation:
            installation.web()
            yield Standing(server, installation)
    finally:
        server.stop()
