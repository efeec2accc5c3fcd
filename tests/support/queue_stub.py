"""What answers as a queue would, or as none should: for failures that the real one can't be brought to."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from eas_queue.dialects.eas import frames_pb2


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    status: int = 200
    body: bytes = b"OK"
    headers: dict[str, str] = field(default_factory=dict)


class Pusher:
    """The queue's end of a WebSocket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def push(self, index: int, data: bytes = b"", **tags: str) -> None:
        self.send(frames_pb2.DataFrameProto(index=index, data=data, tags=tags).SerializeToString())

    def send(self, payload: bytes, *, opcode: int = 2) -> None:
        size = struct.pack("!B", len(payload)) if len(payload) < 126 else struct.pack("!BQ", 127, len(payload))
        self._connection.sendall(bytes([0x80 | opcode]) + size + payload)

    def close(self) -> None:
        """A close frame, as a service that stops sends it."""
        self.send(struct.pack("!H", 1001), opcode=8)

    def await_end(self, timeout_s: float = 10) -> bytes:
        """All that the client still sends until it closes: frames, masked."""
        self._connection.settimeout(timeout_s)
        received = b""
        with contextlib.suppress(ConnectionError):
            while piece := self._connection.recv(65_536):
                received += piece
        return received


class QueueStub:
    """*answer* is called for each HTTP request, *pushes* in turn for each WebSocket that is opened, then refusals."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[Asked] = []
        self.answer: Callable[[Asked], Answer] = lambda asked: Answer()
        self.pushes: list[Callable[[Pusher], None] | Answer] = []
        self._server = _Server(self)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}/api/predict/demo"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, stub: QueueStub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.stub = stub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        asked = Asked(
            self.command,
            parts.path,
            dict(parse_qsl(parts.query, keep_blank_values=True)),
            {name.lower(): value for name, value in self.headers.items()},
            self.rfile.read(int(self.headers.get("Content-Length", "0"))),
        )
        stub = self.server.stub
        stub.asked.append(asked)
        if asked.headers.get("upgrade") != "websocket":
            self._answer(stub.answer(asked))
            return
        push = stub.pushes.pop(0) if stub.pushes else Answer(404, b"nothing more is pushed")
        if isinstance(push, Answer):
            self._answer(push)
            return
        accept = hashlib.sha1(f"{asked.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode())
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(accept.digest()).decode())
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            push(Pusher(self.connection))

    do_GET = do_POST = do_PUT = do_DELETE = _handle

    def _answer(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in ({"Content-Length": str(len(answer.body))} | answer.headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def items_json(*items: tuple[int, bytes, dict[str, str]]) -> bytes:
    return json.dumps(
        [{"index": index, "data": base64.b64encode(data).decode(), "tags": tags} for index, data, tags in items]
    ).encode()
