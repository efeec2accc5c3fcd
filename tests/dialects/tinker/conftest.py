"""One installation for all wire tests of this dialect, and a client that speaks it by hand."""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import struct
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.front import LIMITED_TOKEN, RATED_TOKEN, ROLE_TOKENS, Answer, Front, digest
from tests.support.installation import TOKEN, Installation, await_condition
from tests.support.own_target import Call, OwnTarget, Reply
from tests.support.server import RedisServer, free_port
from tests.support.target_client import Target

MAX_WAIT_S = 1  # and so the longest time for which a poll is held
MAX_PAYLOAD_BYTES = 8_000_000
PULLED = 120
MODEL = "Qwen/Qwen3-0.6B"
COLONS = "openai/gpt-oss-20b:peft:131072"
UNKNOWN_ID = "ffff0000-0000-8000-8000-000000000000"
PROTOBUF = "application/x-protobuf"
BACKPRESSURE = {"X-Tinker-Sampling-Backpressure": "1"}
# What newer high-level clients say when they poll.
HIGH_LEVEL = {"X-Tinker-Request-Type": "Sample", "X-Tinker-Request-Iteration": "0", "Accept": PROTOBUF}
TOKENS, LOGPROBS = [7, 8, 9], [-0.5, -1.25, -2.0]
KEYS = [
    "request_id",
    "type",
    "status",
    "queue_state",
    "queue_state_reason",
    "queue_depth",
    "queue_position",
    "estimated_wait_s",
    "progress",
    "retry_after_s",
]


def sampled(call: Call) -> Reply:
    """As many samples as were asked for."""
    count = json.loads(call.body).get("num_samples", 1)
    return 200, json.dumps({"sequences": [sequence() for _ in range(count)], "type": "sample"}).encode()


def sequence(**members: Any) -> dict[str, Any]:
    return {"tokens": TOKENS, "logprobs": LOGPROBS, "stop_reason": "length", **members}


def body_of(session: str, **members: Any) -> dict[str, Any]:
    """A request as the newest client writes it."""
    return {
        "num_samples": 1,
        "prompt": {"chunks": [{"tokens": [1, 2, 3], "type": "encoded_text"}]},
        "sampling_params": {"max_tokens": 8, "temperature": 1.0, "top_k": -1, "top_p": 1.0},
        "sampling_session_id": session,
        "prompt_logprobs": False,
        "topk_prompt_logprobs": 0,
        "type": "sample",
        **members,
    }


class Gate:
    """A target that lets each call wait until the test opens it."""

    def __init__(self, reply: Reply | None = None) -> None:
        self._reply = reply
        self._calls: queue.Queue[Call] = queue.Queue()
        self._open = threading.Event()

    def __call__(self, call: Call) -> Reply:
        self._calls.put(call)
        self._open.wait(30)
        return self._reply or sampled(call)

    def await_call(self) -> Call:
        return self._calls.get(timeout=10)

    def open(self) -> None:
        self._open.set()


class Tinker:
    """The calls of Tinker's and MinT's clients, by hand."""

    def __init__(self, front: Front, server: RedisServer) -> None:
        self.front, self.server, self.port = front, server, front.port
        self._pool = ThreadPoolExecutor(40)

    def close(self) -> None:
        self._pool.shutdown()

    def call(
        self,
        method: str,
        path: str,
        content: Any = None,
        headers: Mapping[str, str | bytes] | None = None,
        *,
        token: str | None = TOKEN,
    ) -> Answer:
        """*path*: below /api/v1/. Objects and lists go out as JSON, text, bytes and pieces as they are."""
        body = json.dumps(content) if isinstance(content, dict | list) else content
        sent: dict[str, str | bytes] = {"Content-Type": "application/json", "Accept": "application/json"}
        if token is not None:
            sent["X-API-Key"] = token
        return self.front.call(method, f"/api/v1/{path}", body, {**sent, **(headers or {})}, token=None)

    def post(self, path: str, content: Any = None, headers: Mapping[str, str] | None = None, **more: Any) -> Answer:
        return self.call("POST", path, {} if content is None else content, headers, **more)

    def apart(self, path: str, content: Any = None, headers: Mapping[str, str] | None = None) -> Future[Answer]:
        """The same, in a thread of its own."""
        return self._pool.submit(self.post, path, content, headers)

    def session(self, model: str = MODEL, **more: Any) -> str:
        """The id of a sampling session. *model*: the name of a base model, or a path."""
        name = "model_path" if model.startswith("tinker://") else "base_model"
        answer = self.post("create_sampling_session", {"session_id": "s", "sampling_session_seq_id": 0, name: model})
        assert answer.status == 200, answer.body
        return str(answer.json["sampling_session_id"])

    def post_sample(self, session: str, headers: Mapping[str, str] | None = None, **members: Any) -> Answer:
        return self.post("asample", body_of(session, **members), headers)

    def sample(self, model: str = MODEL, headers: Mapping[str, str] | None = None, **members: Any) -> str:
        """The id of a new request, of a script that asks for backpressure unless *headers* say otherwise."""
        answer = self.post_sample(self.session(model), BACKPRESSURE if headers is None else headers, **members)
        assert answer.status == 200, answer.body
        return str(answer.json["request_id"])

    def poll(self, request_id: str, headers: Mapping[str, str] | None = None) -> Answer:
        return self.post("retrieve_future", {"request_id": request_id}, headers)

    def poll_apart(self, request_id: str, headers: Mapping[str, str] | None = None) -> Future[Answer]:
        return self.apart("retrieve_future", {"request_id": request_id}, headers)

    def await_end(self, request_id: str, headers: Mapping[str, str] | None = None) -> Answer:
        """What a poll says of it once it has ended."""

        def ended() -> Answer | None:
            answer = self.poll(request_id, headers)
            return None if answer.status == 408 else answer

        found: Answer = await_condition(ended, what=f"{request_id} ends")
        assert found.status == 200, found.body
        return found

    def result(self, model: str = MODEL, accept: str = "application/json", **members: Any) -> Answer:
        """What has become of a new request."""
        return self.await_end(self.sample(model, **members), {"Accept": accept})

    def cancel(self, request_id: str) -> Answer:
        return self.post("cancel_future", {"request_id": request_id})

    def take(self, service: str, size: int = 1) -> list[str]:
        """The ids of requests of a pull service that now run."""
        content = {"queues": [f"{service}:1"], "size": size, "wait": 5, "worker": {"id": "w"}}
        answer = self.front.call("POST", "/v1/queue/take", json.dumps(content))
        assert answer.status == 200, answer.body
        return [str(task["task_id"]) for task in answer.json.get(f"{service}:1", [])]

    def complete(self, request_id: str, content: Any = None) -> None:
        answer = self.front.call("POST", f"/v1/queue/{request_id}/complete", json.dumps(content or {}))
        assert answer.status == 200, answer.body


def assert_refused(answer: Answer, status: int, words: str = "") -> dict[str, Any]:
    assert answer.status == status, (answer.status, answer.body)
    assert answer.headers["Content-Type"] == "application/json"
    content: dict[str, Any] = answer.json
    assert isinstance(content["detail"], str) and 3 < len(content["detail"]) < 800
    assert content["status"] == status and content["code"]
    assert "error" not in content
    assert words in content["detail"], content["detail"]
    return content


def floats(data: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def ints(data: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(data) // 4}i", data))


def fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """(number, value) of each field of a protobuf message, as its encoding says: a number, or bytes."""
    found: list[tuple[int, int | bytes]] = []
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while at < len(data):
        tag = number()
        if tag & 7 == 0:
            found.append((tag >> 3, number()))
        else:
            assert tag & 7 == 2, "this dialect has numbers and bytes only"
            length = number()
            assert at + length <= len(data)
            found.append((tag >> 3, data[at : at + length]))
            at += length
    return found


@pytest.fixture(scope="package")
def shared_model() -> Iterator[OwnTarget]:
    target = OwnTarget()
    target.act = sampled
    yield target
    target.stop()


@pytest.fixture
def model(shared_model: OwnTarget) -> Iterator[OwnTarget]:
    """The target of all services; a test sets what it does."""
    yield shared_model
    shared_model.act = sampled


@pytest.fixture
def gate(model: OwnTarget) -> Iterator[Gate]:
    """Calls of the target wait until the test opens it."""
    made = Gate()
    model.act = made
    yield made
    made.open()


def tokens_toml() -> str:
    text = f"""
        [tokens]
        "{digest(LIMITED_TOKEN)}" = {{ services = ["demo"] }}
        "{digest(RATED_TOKEN)}" = {{ rate_per_s = 0.01, burst = 1 }}
    """
    for role, token in ROLE_TOKENS.items():
        text += f'"{digest(token)}" = {{ roles = ["{role}"] }}\n'
    return text


@contextlib.contextmanager
def client_of(installation: Installation, target: Target, server: RedisServer) -> Iterator[Tinker]:
    """Of a running installation."""
    front = Front(installation, target, server)
    client = Tinker(front, server)
    yield client
    client.close()
    front.close()


@pytest.fixture(scope="package")
def tinker(shared_target: Target, shared_model: OwnTarget) -> Iterator[Tinker]:
    url = shared_model.url
    services_toml = f"""
        [defaults]
        allow_unlisted = true
        target_url = "{url}/{{service}}"
        retry_delay_s = 0
        [services]
        demo = {{ aliases = ["{MODEL}", "{COLONS}", "acme/demo"] }}
        "acme.dotted" = {{}}
        deep = {{ aliases = ["acme/demo/v2"] }}
        subpaths = {{ target_url = "{url}/base/{{path}}" }}
        wide = {{ max_concurrency = 5 }}
        narrow = {{ mode = "pull", max_queue_length = 1 }}
        hasty = {{ timeout_s = 0.2, max_attempts = 1 }}
        once = {{ max_attempts = 1 }}
        patient = {{ retry_delay_s = 3600, retry_delay_max_s = 3600 }}
        nowhere = {{ target_url = "http://127.0.0.1:{free_port()}/", max_attempts = 1 }}
    """
    for number in range(PULLED):
        services_toml += f'pulled-{number} = {{ mode = "pull", aliases = ["acme/pulled-{number}"] }}\n'
    services_toml += tokens_toml()
    server = RedisServer().start()
    settings = {"max_payload_bytes": MAX_PAYLOAD_BYTES, "max_wait_s": MAX_WAIT_S, "sweep_s": 0.1}
    try:
        with Installation(server.url, url, services_toml=services_toml, **settings) as installation:
            installation.web("-w", "2", "-b", f"127.0.0.1:{installation.port}")
            installation.worker("gevent", 50)
            with client_of(installation, shared_target, server) as client:
                yield client
    finally:
        server.stop()


@pytest.fixture(scope="package")
def open_to_all(shared_target: Target, shared_model: OwnTarget) -> Iterator[Tinker]:
    """Another installation: it asks for no tokens, serves what is listed, and lets nobody wait."""
    server = RedisServer().start()
    listed = f'[services]\ndemo = {{ aliases = ["{MODEL}"] }}\nplain = {{}}\n'
    settings = {"auth": "off", "api_tokens": "", "max_wait_s": 0}
    try:
        with Installation(server.url, shared_model.url, services_toml=listed, **settings) as installation:
            installation.web("-w", "1", "-b", f"127.0.0.1:{installation.port}")
            with client_of(installation, shared_target, server) as client:
                yield client
    finally:
        server.stop()


@pytest.fixture(scope="package")
def _numbers() -> Iterator[int]:
    return itertools.count()


@pytest.fixture
def pulled(_numbers: Iterator[int]) -> str:
    """The name of a pull service of its own, which other clients know as `acme/<name>`."""
    number = next(_numbers)
    assert number < PULLED, "raise PULLED"
    return f"pulled-{number}"
