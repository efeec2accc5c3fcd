"""One installation for all wire tests of this dialect, and a client that speaks it by hand."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.support.front import LIMITED_TOKEN, MAX_PAYLOAD_BYTES, RATED_TOKEN, ROLE_TOKENS, Answer, Front, digest
from tests.support.installation import TOKEN, Installation, await_condition
from tests.support.own_target import OwnTarget, ok
from tests.support.server import RedisServer, free_port
from tests.support.target_client import Target

MAX_WAIT_S = 2
QUEUE_HOST, RUN_HOST = "queue.example.test", "run.example.test"
SINGLES = 40


class Events:
    """A status stream, read as it comes."""

    def __init__(self, port: int, path: str, token: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Key {token}\r\n"
            "Accept: application/json, text/event-stream\r\nContent-Type: application/json\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        self._lines = self.socket.makefile("rb")
        self.status = int(self._lines.readline().split()[1])
        self.headers: dict[str, str] = {}
        while line := self._lines.readline().decode("latin-1").strip():
            name, _, value = line.partition(": ")
            self.headers[name.lower()] = value
        self.comments = 0

    def close(self) -> None:
        self._lines.close()
        self.socket.close()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The data of each event, until the server closes. Each has to arrive as one chunk."""
        while True:
            size = int(self._lines.readline(), 16)
            chunk = self._lines.read(size)
            self._lines.readline()
            if not size:
                return
            assert chunk.endswith(b"\n\n") and chunk.isascii()
            if chunk.startswith(b":"):
                self.comments += 1
                continue
            assert chunk.startswith(b"data: ") and chunk.count(b"\n") == 2
            yield json.loads(chunk[6:])


class Fal:
    """The calls of fal's clients, by hand."""

    def __init__(self, front: Front) -> None:
        self.front, self.port = front, front.port
        self.base = f"http://127.0.0.1:{front.port}/fal"

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str | bytes] | None = None,
        *,
        token: str | None = TOKEN,
    ) -> Answer:
        sent = dict(headers or {})
        if token is not None:
            sent.setdefault("Authorization", f"Key {token}")
        return self.front.call(method, path, body, sent, token=None)

    def post(
        self, endpoint: str, content: Any = None, headers: Mapping[str, str] | None = None, *, host: str = "/fal"
    ) -> Answer:
        body = json.dumps({} if content is None else content)
        return self.call("POST", f"{host}/{endpoint}", body, {"Content-Type": "application/json", **(headers or {})})

    def submit(self, endpoint: str, content: Any = None, headers: Mapping[str, str] | None = None) -> str:
        answer = self.post(endpoint, content, headers)
        assert answer.status == 200, answer.body
        return str(answer.json["request_id"])

    def status(self, name: str, request_id: str, query: str = "") -> Answer:
        return self.call("GET", f"/fal/{name}/requests/{request_id}/status{query}")

    def result(self, name: str, request_id: str) -> Answer:
        return self.call("GET", f"/fal/{name}/requests/{request_id}")

    def cancel(self, name: str, request_id: str) -> Answer:
        return self.call("PUT", f"/fal/{name}/requests/{request_id}/cancel")

    def await_word(self, name: str, request_id: str, word: str) -> dict[str, Any]:
        def is_there() -> dict[str, Any] | None:
            content: dict[str, Any] = self.status(name, request_id).json
            return content if content["status"] == word else None

        found: dict[str, Any] = await_condition(is_there, what=f"{request_id} becomes {word}")
        return found

    def ended(self, endpoint: str, content: Any = None, headers: Mapping[str, str] | None = None) -> tuple[str, Answer]:
        """(name, result) of a request that has ended."""
        name = "/".join(endpoint.partition("?")[0].split("/")[:2])
        request_id = self.submit(endpoint, content, headers)
        self.await_word(name, request_id, "COMPLETED")
        return request_id, self.result(name, request_id)

    @contextlib.contextmanager
    def stream(self, name: str, request_id: str, query: str = "?logs=1") -> Iterator[Events]:
        path = f"/fal/{name}/requests/{request_id}/status/stream{query}"
        with contextlib.closing(Events(self.port, path, TOKEN)) as events:
            yield events

    @contextlib.contextmanager
    def occupied(self, name: str) -> Iterator[str]:
        """The only slot of the service is taken meanwhile."""
        request_id = self.submit(f"{name}?hang=1")
        self.await_word(name, request_id, "IN_PROGRESS")
        try:
            yield request_id
        finally:
            self.cancel(name, request_id)


@pytest.fixture(scope="package")
def shared_own_target() -> Iterator[OwnTarget]:
    target = OwnTarget()
    yield target
    target.stop()


@pytest.fixture
def own_target(shared_own_target: OwnTarget) -> Iterator[OwnTarget]:
    """The target of `acme/own`; a test sets what it does."""
    yield shared_own_target
    shared_own_target.act = ok


@pytest.fixture(scope="package")
def front(shared_target: Target, shared_own_target: OwnTarget) -> Iterator[Front]:
    services_toml = f"""
        [defaults]
        allow_unlisted = false
        retry_delay_s = 0
        [services]
        demo = {{ aliases = ["acme/demo", "workflows/acme/flow", "1714827/joke"] }}
        "acme.dotted" = {{}}
        own = {{ target_url = "{shared_own_target.url}/{{path}}", aliases = ["acme/own"] }}
        flat = {{ target_url = "{shared_own_target.url}/flat", aliases = ["acme/flat"] }}
        hasty = {{ timeout_s = 0.2, max_attempts = 2, aliases = ["acme/hasty"] }}
        urgent = {{ max_concurrency = 1, deadline_s = 0.2, aliases = ["acme/urgent"] }}
        narrow = {{ max_concurrency = 1, max_queue_length = 1, aliases = ["acme/narrow"] }}
        patient = {{ target_url = "{shared_own_target.url}/", retry_delay_s = 3600, aliases = ["acme/patient"] }}
        pulled = {{ mode = "pull", aliases = ["acme/pulled"] }}
        nowhere = {{ target_url = "http://127.0.0.1:{free_port()}/", max_attempts = 2, aliases = ["acme/nowhere"] }}
    """
    for i in range(SINGLES):
        services_toml += f'single-{i} = {{ max_concurrency = 1, aliases = ["acme/single-{i}"] }}\n'
    services_toml += f'[tokens]\n"{digest(LIMITED_TOKEN)}" = {{ services = ["demo"] }}\n'
    services_toml += f'"{digest(RATED_TOKEN)}" = {{ rate_per_s = 0.01, burst = 1 }}\n'
    for role, token in ROLE_TOKENS.items():
        services_toml += f'"{digest(token)}" = {{ roles = ["{role}"] }}\n'
    server = RedisServer().start()
    settings = {
        "max_payload_bytes": MAX_PAYLOAD_BYTES,
        "max_wait_s": MAX_WAIT_S,
        "sweep_s": 0.1,
        "fal_queue_host": QUEUE_HOST,
        "fal_sync_host": RUN_HOST,
    }
    try:
        with Installation(server.url, shared_target.url, services_toml=services_toml, **settings) as installation:
            installation.web("-w", "2", "-b", f"127.0.0.1:{installation.port}")
            installation.worker("gevent", 50)
            client = Front(installation, shared_target, server)
            yield client
            client.close()
    finally:
        server.stop()


@pytest.fixture(scope="package")
def fal(front: Front) -> Fal:
    return Fal(front)


@pytest.fixture(scope="package")
def _singles() -> Iterator[int]:
    return itertools.count()


@pytest.fixture
def single(_singles: Iterator[int]) -> str:
    """The name of an endpoint with one slot that no other test uses."""
    number = next(_singles)
    assert number < SINGLES, "raise SINGLES"
    return f"acme/single-{number}"
