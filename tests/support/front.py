"""A client that sends exactly what it is told to, and a target that answers what no well-behaved one would."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import json
import re
import socket
import socketserver
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import redis

from eas_queue.store import keys
from tests.support.installation import TERMINAL, TOKEN, Installation, await_condition
from tests.support.server import RedisServer
from tests.support.target_client import Target

LIMITED_TOKEN = "limited-to-the-service-demo"
READER_TOKEN = "may-read-but-never-submit"
RATED_TOKEN = "three-at-once-then-one-in-two-seconds"
ROLE_TOKENS = {role: f"may-do-nothing-but-{role}" for role in ("submit", "read", "consume", "admin")}
MAX_PAYLOAD_BYTES = 100_000
MAX_WAIT_S = 2


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def request_id(self) -> str:
        return self.headers["X-Eas-Queueservice-Request-Id"]


class OddTarget(socketserver.ThreadingTCPServer):
    """Answers with bytes that a well-behaved target would not send, chosen by the last segment of the path."""

    daemon_threads = True
    allow_reuse_address = True
    answers: Mapping[str, tuple[bytes, bytes]] = {
        "headers": (
            b"Set-Cookie: session=1\r\nStrict-Transport-Security: max-age=1\r\nX-Result-Source: elsewhere\r\n"
            b"X-Eas-Queueservice-Request-Id: forged\r\nX-Bell: a\x07b\r\nX-Name: \xc3\xa9\r\nX-Two: 1\r\nX-Two: 2\r\n",
            b"body",
        ),
        "nan": (b"Content-Type: application/json\r\n", b'{"loss": NaN}'),
        "infinite": (b"Content-Type: application/json\r\n", b'{"loss": 1e999}'),
        "deep": (b"Content-Type: application/json\r\n", b"[" * 20_000 + b"]" * 20_000),
        "coded": (b"Content-Type: text/plain\r\nContent-Encoding: gzip\r\n", gzip.compress(b"text", mtime=0)),
    }

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _OddHandler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()


class _OddHandler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        name = self.rfile.readline().split()[1].rpartition(b"/")[2].decode()
        length = 0
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        self.rfile.read(length)
        head, body = OddTarget.answers[name]
        self.wfile.write(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n" % len(body) + head + b"\r\n" + body
        )


class Front:
    """A client of the installation that sends exactly what it is told to."""

    def __init__(self, installation: Installation, target: Target, server: RedisServer) -> None:
        self.installation, self.target = installation, target
        self.port = installation.port
        self._redis: redis.Redis = server.client()

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str | bytes] | None = None,
        *,
        token: str | None = TOKEN,
    ) -> Answer:
        """*path* goes out as it is. An iterable *body* is sent in chunks."""
        sent = dict(headers or {})
        if token is not None:
            sent.setdefault("Authorization", f"Bearer {token}")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def raw(self, data: bytes) -> bytes:
        """All that comes back for these bytes; the client's side is shut down after them."""
        received = b""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(data)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                while piece := connection.recv(65_536):
                    received += piece
        return received

    def post(self, path: str = "demo", body: Any = b"{}", headers: Mapping[str, str | bytes] | None = None) -> Answer:
        return self.call("POST", f"/api/predict/{path}", body, headers)

    def submit(self, path: str = "demo", body: Any = b"{}", headers: Mapping[str, str | bytes] | None = None) -> str:
        answer = self.post(path, body, headers)
        assert answer.status == 200, answer.body
        return answer.request_id

    def look(self, request_id: str, service: str = "demo") -> Answer:
        return self.call("GET", f"/api/predict/{service}/requests/{request_id}")

    def result(self, request_id: str, service: str = "demo") -> Answer:
        return self.call("GET", f"/api/predict/{service}/requests/{request_id}/result")

    def delete(self, request_id: str, service: str = "demo") -> Answer:
        return self.call("DELETE", f"/api/predict/{service}/requests/{request_id}")

    def await_status(self, request_id: str, service: str, *words: str) -> Answer:
        def is_there() -> Answer | None:
            answer = self.look(request_id, service)
            return answer if answer.json["status"] in words else None

        found: Answer = await_condition(is_there, what=f"{request_id} becomes {words}")
        return found

    def ended(self, path: str = "demo", body: Any = b"{}", headers: Mapping[str, str | bytes] | None = None) -> Answer:
        """Submit, and the status once it has ended."""
        answer = self.post(path, body, headers)
        assert answer.status == 200, answer.body
        return self.await_status(answer.request_id, re.split("[/?]", path)[0], *TERMINAL)

    def echo(
        self, path: str = "demo?echo=1", body: Any = b"{}", headers: Mapping[str, str | bytes] | None = None
    ) -> Any:
        """What the target received."""
        request_id = self.ended(path, body, headers).json["request_id"]
        return self.result(request_id, re.split("[/?]", path)[0]).json

    @contextlib.contextmanager
    def occupied(self, service: str) -> Iterator[str]:
        """The only slot of *service* is taken meanwhile."""
        request_id = self.submit(f"{service}?hang=1")
        self.await_status(request_id, service, "STARTED")
        try:
            yield request_id
        finally:
            self.delete(request_id, service)

    def subscribers(self, request_id: str) -> int:
        """How many web processes listen for changes of this request."""
        ((_, count),) = self._redis.pubsub_numsub(keys.note_channel(request_id))
        return int(count)

    def services(self) -> set[bytes]:
        """The names that have a number."""
        names: Any = self._redis.hkeys(keys.SERVICES)
        return set(names)

    def stored(self) -> set[bytes]:
        """The keys of all request records."""
        return set(self._redis.scan_iter(f"{keys.PREFIX}*:{keys.RECORD_SUFFIX}*", count=1000))

    def close(self) -> None:
        self._redis.close()


def digest(token: str) -> str:
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()


def assert_problem(answer: Answer, status: int, code: str) -> dict[str, Any]:
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json
    assert problem["type"] == f"urn:eas-queue:error:{code}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    return problem
