"""One installation for all wire tests of this dialect, and a client that speaks it by hand."""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.front import LIMITED_TOKEN, MAX_PAYLOAD_BYTES, RATED_TOKEN, ROLE_TOKENS, Answer, Front, digest
from tests.support.installation import CELERY, TOKEN, Installation, await_condition
from tests.support.receiver import Receiver, accepts
from tests.support.server import RedisServer
from tests.support.target_client import Target

ENDPOINT = "/v1/work"
UNKNOWN_ID = "ffff0000-0000-8000-8000-000000000000"
UNKNOWN_TASK = "TASK-65535-1-C-261127000000-0000-0000000080008000000000000000"
ALIASED = 10
SECRET = "whsec_" + base64.b64encode(b"a secret of the take API's tests").decode()


class Stream:
    """A streaming put: its head and its events, read as they come."""

    def __init__(self, port: int, content: Mapping[str, Any]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
        self._connection.request("POST", "/v1/queue/put", json.dumps(content), {"Authorization": f"Bearer {TOKEN}"})
        self._response: http.client.HTTPResponse | None = None

    @property
    def head(self) -> http.client.HTTPResponse:
        if self._response is None:
            self._response = self._connection.getresponse()
        return self._response

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
        self._connection.close()

    def __iter__(self) -> Iterator[dict[str, str]]:
        """The fields of each event, until the server closes; comments are no events."""
        fields: dict[str, str] = {}
        while line := self.head.readline():
            text = line.decode().removesuffix("\n")
            name, _, value = text.partition(":")
            if not text:
                if fields:
                    yield fields
                fields = {}
            elif name:
                fields[name] = f"{fields[name]}\n{value}" if name in fields else value
        assert not fields, "the last event is not complete"


class Bella:
    """The calls of workers and their clients, by hand."""

    def __init__(self, front: Front) -> None:
        self.front, self.port = front, front.port

    def call(
        self,
        method: str,
        path: str,
        content: Any = None,
        headers: Mapping[str, str | bytes] | None = None,
        *,
        token: str | None = TOKEN,
    ) -> Answer:
        """*path*: below /v1/queue/. Text and bytes go out as they are, all else as JSON."""
        body = content if content is None or isinstance(content, str | bytes) else json.dumps(content)
        if isinstance(body, str):
            body = body.encode()
        sent = {"Content-Type": "application/json", **(headers or {})}
        return self.front.call(method, f"/v1/queue/{path}", body, sent, token=token)

    def register(self, name: str, endpoint: str = ENDPOINT, *, token: str = TOKEN) -> Answer:
        return self.call("POST", "register", {"queue": name, "endpoint": endpoint}, token=token)

    def post_put(self, queue: str, data: Any = None, *, token: str = TOKEN, **members: Any) -> Answer:
        content = {"queue": queue, "endpoint": "/v1/chat", "data": {} if data is None else data, **members}
        return self.call("POST", "put", content, token=token)

    def put(self, queue: str, data: Any = None, **members: Any) -> str:
        """The task id. *members*: as the body has them; level 1 unless said otherwise."""
        answer = self.post_put(queue, data, **{"level": 1, **members})
        assert answer.status == 200, answer.body
        return str(answer.json["data"])

    def put_apart(self, queue: str, data: Any = None, **members: Any) -> str:
        """The same, and the next one is put in another millisecond."""
        task_id = self.put(queue, data, **members)
        now_ms = time.time_ns() // 1_000_000
        while time.time_ns() // 1_000_000 <= now_ms:
            pass
        return task_id

    def post_take(self, *queues: str, size: Any = 1, token: str = TOKEN, **members: Any) -> Answer:
        return self.call("POST", "take", {"queues": queues, "size": size, **members}, token=token)

    def take(self, *queues: str, size: Any = 1, token: str = TOKEN, **members: Any) -> dict[str, list[dict[str, Any]]]:
        answer = self.post_take(*queues, size=size, token=token, **members)
        assert answer.status == 200, answer.body
        found: dict[str, list[dict[str, Any]]] = answer.json
        return found

    def take_one(self, queue: str, **members: Any) -> dict[str, Any]:
        """The one task that this queue gives, waited for."""
        taken = self.take(queue, **{"wait": 5, **members})
        assert list(taken) == [queue] and len(taken[queue]) == 1, taken
        return taken[queue][0]

    def taken_ids(self, *queues: str, size: int = 1, **members: Any) -> list[str]:
        """All ids of a take, queue by queue."""
        return [task["task_id"] for tasks in self.take(*queues, size=size, **members).values() for task in tasks]

    def held(self, queue: str, data: Any = None, **members: Any) -> str:
        """The id of a new task that was taken with these."""
        task_id = self.put(queue, data)
        assert self.taken_ids(f"{queue}:1", strategy="active_passive", **members) == [task_id]
        return task_id

    def held_with_callback(self, queue: str, url: str, **members: Any) -> str:
        """The same, with a callback."""
        task_id = self.put(queue, callback_url=url)
        assert self.taken_ids(f"{queue}:1", **members) == [task_id]
        return task_id

    def get(self, task_id: str) -> dict[str, Any]:
        answer = self.call("GET", task_id)
        assert answer.status == 200, answer.body
        found: dict[str, Any] = answer.json
        return found

    def await_status(self, task_id: str, status: str) -> dict[str, Any]:
        def is_there() -> dict[str, Any] | None:
            task = self.get(task_id)
            return task if task["status"] == status else None

        found: dict[str, Any] = await_condition(is_there, what=f"{task_id} becomes {status}")
        return found

    def complete(self, task_id: str, content: Any = None, *, token: str = TOKEN) -> Answer:
        return self.call("POST", f"{task_id}/complete", {} if content is None else content, token=token)

    def cancel(self, task_id: str, *, token: str = TOKEN) -> Answer:
        return self.call("POST", f"{task_id}/cancel", token=token)

    def renew(self, task_id: str, process_timeout: Any = 60, **members: Any) -> Answer:
        return self.call("POST", f"{task_id}/renew", {"process_timeout": process_timeout, **members})

    def progress(self, task_id: str, **members: Any) -> Answer:
        return self.call("POST", f"{task_id}/progress", members)

    def stats(self, name: str) -> dict[str, Any]:
        answer = self.call("GET", f"{name}/stats")
        assert answer.status == 200, answer.body
        found: dict[str, Any] = answer.json
        return found

    @contextlib.contextmanager
    def blocking(self, queue: str, data: Any = None, **members: Any) -> Iterator[Future[Answer]]:
        """A blocking put under way."""
        with ThreadPoolExecutor(1) as pool:
            yield pool.submit(self.post_put, queue, data, **{"response_mode": "blocking", **members})

    @contextlib.contextmanager
    def streaming(self, queue: str, data: Any = None, **members: Any) -> Iterator[Stream]:
        content = {"queue": queue, "endpoint": "/v1/chat", "data": {} if data is None else data}
        with contextlib.closing(Stream(self.port, {**content, "response_mode": "streaming", **members})) as stream:
            yield stream

    def natively(self, queue: str, task_id: str) -> dict[str, Any]:
        """The status that the native protocol tells of it."""
        found: dict[str, Any] = self.front.look(request_id_of(task_id), queue).json
        return found


def request_id_of(task_id: str) -> str:
    digits = "".join(task_id.split("-")[-2:])
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def assert_refused(answer: Answer, status: int, words: str = "") -> None:
    assert answer.status == status, (answer.status, answer.body)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-cache"
    content = answer.json
    assert list(content) == ["code", "message", "timestamp"]
    assert content["code"] == status
    assert 3 < len(content["message"]) < 600
    assert words in content["message"]
    assert abs(content["timestamp"] / 1000 - time.time()) < 60


@pytest.fixture(scope="package")
def front(shared_target: Target) -> Iterator[Front]:
    services_toml = """
        [defaults]
        allow_unlisted = true
        [services]
        demo = { aliases = ["acme/demo"] }
        pulled = { mode = "pull" }
        opened = { mode = "pull" }
        listed = { mode = "pull" }
        narrow = { mode = "pull", max_queue_length = 2 }
        once = { mode = "pull", max_attempts = 1 }
    """
    for number in range(ALIASED):
        services_toml += f'aliased-{number} = {{ mode = "pull", aliases = ["acme/aliased-{number}"] }}\n'
    services_toml += f"""
        [tokens]
        "{digest(LIMITED_TOKEN)}" = {{ services = ["pulled"] }}
        "{digest(RATED_TOKEN)}" = {{ rate_per_s = 0.01, burst = 1 }}
    """
    for role, token in ROLE_TOKENS.items():
        services_toml += f'"{digest(token)}" = {{ roles = ["{role}"] }}\n'
    server = RedisServer().start()
    settings = {
        "max_payload_bytes": MAX_PAYLOAD_BYTES,
        "max_result_bytes": MAX_PAYLOAD_BYTES,
        "max_wait_s": 10,
        "sweep_s": 0.1,
        "webhook_secret": SECRET,
        "webhook_allow_private": "true",
        "webhook_retry_delays_s": "0.1,0.2",
    }
    try:
        with Installation(server.url, shared_target.url, services_toml=services_toml, **settings) as installation:
            installation.web("-w", "2", "-b", f"127.0.0.1:{installation.port}")
            client = Front(installation, shared_target, server)
            yield client
            client.close()
    finally:
        server.stop()


@pytest.fixture(scope="package")
def bella(front: Front) -> Bella:
    return Bella(front)


@pytest.fixture(scope="package")
def strict(shared_target: Target) -> Iterator[Bella]:
    """Another installation: what is not listed is not allowed, no webhooks, and nobody waits for long."""
    server = RedisServer().start()
    listed = '[services]\ndemo = {}\npulled = { mode = "pull" }\n'
    try:
        limits = {"max_wait_s": 1, "max_result_bytes": 3000}
        with Installation(server.url, shared_target.url, services_toml=listed, **limits) as installation:
            installation.web("-w", "1", "-b", f"127.0.0.1:{installation.port}")
            client = Front(installation, shared_target, server)
            yield Bella(client)
            client.close()
    finally:
        server.stop()


@pytest.fixture(scope="package")
def worker(front: Front) -> None:
    """One that forwards requests of services with a target, and delivers callbacks."""
    command = [*CELERY, "-A", "app.celery_app", "worker", "--loglevel=info", "-P", "gevent", "-c", "20"]
    process = front.installation.start("worker", [*command, "-Q", "celery,high_priority,webhooks"])
    process.await_log(" ready.")


@pytest.fixture(scope="package")
def shared_receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def receiver(shared_receiver: Receiver, worker: None) -> Iterator[Receiver]:
    """Of callbacks; a test sets what it answers."""
    shared_receiver.deliveries.clear()
    yield shared_receiver
    shared_receiver.act = accepts


@pytest.fixture(scope="package")
def _numbers() -> Iterator[int]:
    return itertools.count()


@pytest.fixture
def queue(bella: Bella, _numbers: Iterator[int]) -> str:
    """The name of a queue of its own."""
    name = f"queue-{next(_numbers)}"
    assert bella.register(name).status == 200
    return name


@pytest.fixture
def other(bella: Bella, _numbers: Iterator[int]) -> str:
    """Another one."""
    name = f"queue-{next(_numbers)}"
    assert bella.register(name).status == 200
    return name


@pytest.fixture(scope="package")
def _aliases() -> Iterator[int]:
    return itertools.count()


@pytest.fixture
def aliased(_aliases: Iterator[int]) -> str:
    """The name of a queue of its own that clients of fal know as `acme/<name>`."""
    number = next(_aliases)
    assert number < ALIASED, "raise ALIASED"
    return f"aliased-{number}"
