"""A target made of raw sockets, and attempts against it: for what ordinary servers don't do."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Any

from eas_queue.engine.retry import Answer, NoAnswer
from eas_queue.engine.service import Service
from eas_queue.forward import Forwarder
from eas_queue.store.shapes import Leased
from eas_queue.worker.attempt import Attempt, Closed

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Handle = Callable[[socket.socket], None]


class RawTarget:
    """Serves each connection with *handle*, in a thread of its own. *connections*: how many were accepted."""

    def __init__(self, handle: Handle, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self._handle, self._tls = handle, tls
        self._listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{self.port}/"
        self.connections = 0
        self.heads: list[bytes] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else a reset may overtake what was sent
        with connection, contextlib.suppress(OSError, EOFError):
            if self._tls is None:
                self._handle(connection)
            else:
                with self._tls.wrap_socket(connection, server_side=True) as encrypted:
                    self._handle(encrypted)

    def read_request(self, connection: socket.socket) -> bytes:
        """Head and body; the body. Raises EOFError when the other side has closed."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += _received(connection)
        head, _, body = data.partition(b"\r\n\r\n")
        self.heads.append(head)
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        while len(body) < length:
            body += _received(connection)
        return body

    def __enter__(self) -> RawTarget:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


def answering(*answers: bytes, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> RawTarget:
    """Gives each request of a connection the next of *answers*, the last one again and again."""

    def handle(connection: socket.socket) -> None:
        left = list(answers)
        while True:
            target.read_request(connection)
            connection.sendall(left.pop(0) if len(left) > 1 else left[0])

    target = RawTarget(handle, tls=tls, host=host)
    return target


def _received(connection: socket.socket) -> bytes:
    data = connection.recv(1_000_000)
    if not data:
        raise EOFError
    return data


def attempt_at(
    url: str,
    *,
    body: bytes = b"{}",
    timeout_s: float = 30,
    path: str = "",
    query: str = "",
    headers: Sequence[tuple[str, str]] = (),
) -> Attempt:
    meta = json.dumps({"path": path, "query": query, "headers": list(headers)}).encode()
    service = Service(name="s", result_ttl_s=60, target_url=url, timeout_s=timeout_s)
    return Attempt(service, Leased("s", "0001", "1.0.n", 1, meta, body, 0, 0, 0), lease_until_s=float("inf"))


def forwarder(*, max_result_bytes: int = 10**6, connections: int = 4) -> Forwarder:
    return Forwarder(connections=connections, max_result_bytes=max_result_bytes, progress_url="http://web/progress/")


def send(attempt: Attempt, **options: Any) -> Answer | NoAnswer | Closed:
    """By a forwarder of its own."""
    with contextlib.closing(forwarder(**options)) as own:
        return own.send(attempt)


class Sending(threading.Thread):
    """*got*: what the forwarder says of *attempt*, in a thread."""

    def __init__(self, by: Forwarder, attempt: Attempt) -> None:
        super().__init__(daemon=True)
        self._by, self._attempt = by, attempt
        self.start()

    def run(self) -> None:
        self._got = self._by.send(self._attempt)

    def got(self, within_s: float = 5) -> Answer | NoAnswer | Closed:
        self.join(within_s)
        assert not self.is_alive(), "it is still being sent"
        return self._got
