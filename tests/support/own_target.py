"""A real HTTP target whose answer is a function that the test sets."""

from __future__ import annotations

import json
import select
import socket
import sys
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Call:
    """One POST as it came."""

    path: str
    headers: dict[str, str]
    body: bytes
    connection: socket.socket

    def is_abandoned(self) -> bool:
        """Whether the caller has closed its connection, as the queue does with a request that was cancelled."""
        if not select.select([self.connection], [], [], 0)[0]:
            return False
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except ConnectionError:
            return True

    def report(self, **content: Any) -> int:
        """Tell the queue of progress, as a target does; the HTTP status of its answer."""
        request = urllib.request.Request(
            self.headers["x-progress-url"],
            json.dumps(content).encode(),
            {"X-Progress-Token": self.headers["x-progress-token"], "Content-Type": "application/json"},
        )
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as response:
                return int(response.status)
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code


Reply = tuple[int, bytes] | tuple[int, bytes, dict[str, str]]  # status, body, headers besides JSON's


def ok(call: Call) -> Reply:
    return 200, b'{"ok": true}'


class OwnTarget(ThreadingHTTPServer):
    """*act* gets each call in a thread of its own and returns status and JSON body, or headers with them."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.act: Callable[[Call], Reply] = ok
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a caller that has gone: that is what a cancel does."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: OwnTarget

    def do_POST(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", "0")))
        call = Call(self.path, headers, body, self.connection)
        status, body, *more = self.server.act(call)
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | (more[0] if more else {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass
