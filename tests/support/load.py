"""Clients that keep their connections: what a restart behind them would show at once, as an error."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable

PAUSE_S = 0.1


class Connection:
    """One TCP connection, never opened anew: a server that closes it makes the next call fail."""

    def __init__(self, port: int, token: str) -> None:
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=40)
        self._http.connect()
        self._http.auto_open = 0

    def post(self, path: str, **headers: str) -> tuple[int, str]:
        self._http.request("POST", path, b'{"a": 1}', self._headers | headers)
        answer = self._http.getresponse()
        return answer.status, answer.read().decode()

    def close(self) -> None:
        self._http.close()


class Load:
    """*clients* threads, each with one connection, that call *act* with it again and again until ``stop``, or once."""

    def __init__(
        self, port: int, token: str, clients: int, act: Callable[[Connection], str], *, once: bool = False
    ) -> None:
        self.answers: list[str] = []
        self.errors: list[str] = []
        self._stopping = threading.Event()
        self._act = act
        if once:
            self._stopping.set()
        self._threads = [threading.Thread(target=self._run, args=(Connection(port, token),)) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _run(self, connection: Connection) -> None:
        try:
            self.answers.append(self._act(connection))
            while not self._stopping.is_set():
                time.sleep(PAUSE_S)
                self.answers.append(self._act(connection))
        except Exception as exc:
            self.errors.append(repr(exc))
        finally:
            connection.close()

    def stop(self) -> None:
        """Return when every client has had the answer it waits for."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(60)
