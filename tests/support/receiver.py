"""A real receiver of webhooks: keeps what came, answers what the test says, and can be away or silent for a while."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Delivery:
    """One POST as it came. *headers*: names in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes
    at_s: float = field(default_factory=time.monotonic)

    @property
    def request_id(self) -> str:
        return self.headers.get("webhook-id") or self.headers["x-fal-webhook-request-id"]


def accepts(delivery: Delivery) -> int:
    return 204


class Receiver:
    """*act* gets each delivery in a thread of its own and returns the status, 0 to hang up without one."""

    def __init__(self, act: Callable[[Delivery], int] = accepts, host: str = "127.0.0.1") -> None:
        self.act = act
        self.deliveries: list[Delivery] = []
        self._host = host
        self._server: ThreadingHTTPServer | None = None
        self._silent: socket.socket | None = None
        self._lock = threading.Lock()
        self.port = 0
        self.listen()

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self.port}"

    def listen(self) -> None:
        """Begin, or be back at the same port."""
        if self._silent is not None:
            self._silent.close()
            self._silent = None
        self._server = _Server((self._host, self.port), self._handler())
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        """Nobody listens at the port any more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        if self._silent is not None:
            self._silent.close()
            self._silent = None

    def fall_silent(self) -> None:
        """Connections are accepted by the system, and nobody ever answers."""
        self.close()
        self._silent = socket.create_server((self._host, self.port), backlog=1024)

    def of(self, request_id: str) -> list[Delivery]:
        return [delivery for delivery in list(self.deliveries) if delivery.request_id == request_id]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                delivery = Delivery(self.path, headers, self.rfile.read(int(headers["content-length"])))
                with receiver._lock:
                    receiver.deliveries.append(delivery)
                status = receiver.act(delivery)
                self.close_connection = True
                if status:
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024
    allow_reuse_address = True
