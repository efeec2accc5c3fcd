"""The forwarder of a service with an adapter: what its target gets, and what becomes of the answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import pytest

from eas_queue.engine.retry import Answer, NoAnswer
from eas_queue.engine.service import Service
from eas_queue.store.shapes import Leased
from eas_queue.worker.attempt import Attempt
from tests.adapters.bodies import asample
from tests.support.completions_server import CompletionsServer
from tests.support.own_target import Call, OwnTarget, Reply
from tests.support.raw_target import send


@pytest.fixture
def completions() -> Iterator[CompletionsServer]:
    server = CompletionsServer()
    yield server
    server.stop()


@pytest.fixture
def other() -> Iterator[OwnTarget]:
    target = OwnTarget()
    yield target
    target.stop()


def attempt(
    url: str,
    *,
    body: bytes | None = None,
    headers: Sequence[tuple[str, str]] = (),
    aliases: tuple[str, ...] = (),
    name: str = "qwen",
) -> Attempt:
    service = Service(name=name, result_ttl_s=60, target_url=url, aliases=aliases, adapter="openai_completions")
    meta = json.dumps({"path": "", "query": "", "headers": list(headers)}).encode()
    work = Leased(name, "0001", "1.0.n", 1, meta, asample() if body is None else body, 0, 0, 0)
    return Attempt(service, work, lease_until_s=float("inf"))


def test_the_target_gets_a_completions_request_and_the_client_a_sample(completions: CompletionsServer) -> None:
    headers = [("Content-Type", "text/plain"), ("content-encoding", "gzip"), ("X-Mine", "1")]

    got = send(attempt(completions.url, body=asample(1, 2, params={"max_tokens": 3}), headers=headers))

    assert isinstance(got, Answer)
    assert got.status_code == 200
    assert json.loads(got.body)["sequences"] == [
        {"tokens": [13, 14, 15], "logprobs": [-14 / 16, -15 / 16, -1.0], "stop_reason": "length"}
    ]
    assert [value for name, value in got.headers if name.lower() == "content-type"] == ["application/json"]
    assert got.header("x-served-by") == "completions"
    assert (completions.misfits, [asked["prompt"] for asked in completions.asked]) == ([], [[1, 2]])
    (call,) = completions.calls
    assert (call.headers["content-type"], call.headers["x-mine"]) == ("application/json", "1")
    assert "content-encoding" not in call.headers
    assert call.headers["x-request-id"] == "0001"


@pytest.mark.parametrize(
    ("aliases", "said", "model"),
    [
        ((), None, "qwen"),
        ((), "Qwen/Qwen3-0.6B", "qwen"),
        (("Qwen/Qwen3-0.6B", "small"), None, "Qwen/Qwen3-0.6B"),
        (("Qwen/Qwen3-0.6B", "small"), "small", "small"),
        (("Qwen/Qwen3-0.6B", "small"), "qwen", "Qwen/Qwen3-0.6B"),
        (("Qwen/Qwen3-0.6B", "small"), "somebody/elses", "Qwen/Qwen3-0.6B"),
    ],
)
def test_the_model_is_the_alias_that_was_asked_for(
    completions: CompletionsServer, aliases: tuple[str, ...], said: str | None, model: str
) -> None:
    headers = [] if said is None else [("X-Tinker-Model", said)]

    assert isinstance(send(attempt(completions.url, aliases=aliases, headers=headers)), Answer)

    assert [asked["model"] for asked in completions.asked] == [model]


@pytest.mark.parametrize("status", [300, 400, 422, 429, 500, 503])
def test_answers_other_than_2xx_pass_as_they_are(other: OwnTarget, status: int) -> None:
    other.act = lambda call: (status, b'{"error": "none"}', {"Content-Type": "text/odd"})

    got = send(attempt(other.url))

    assert isinstance(got, Answer)
    assert (got.status_code, got.body, got.header("content-type")) == (status, b'{"error": "none"}', "text/odd")


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"choices": []}', b'{"sequences": []}'])
def test_an_answer_that_is_no_sample_is_final(other: OwnTarget, body: bytes) -> None:
    other.act = lambda call: (200, body)

    got = send(attempt(other.url))

    assert isinstance(got, NoAnswer)
    assert (got.status_code, got.error_type, got.final) == (502, "TargetBroken", True)
    assert got.detail.startswith(f"{other.url.removeprefix('http://')} gave no usable answer: the answer ")


def test_a_server_without_token_ids_is_told_how_to_start(completions: CompletionsServer) -> None:
    completions.tells = "nothing"

    got = send(attempt(completions.url))

    assert isinstance(got, NoAnswer)
    assert "choices[0] has no token ids" in got.detail
    assert "--return-tokens-as-token-ids" in got.detail


def test_what_was_submitted_before_there_was_an_adapter_is_not_sent(other: OwnTarget) -> None:
    calls: list[Call] = []

    def keep(call: Call) -> Reply:
        calls.append(call)
        return 200, b"{}"

    other.act = keep

    got = send(attempt(other.url, body=b'{"text": "Lovely."}'))

    assert isinstance(got, NoAnswer)
    assert (got.status_code, got.error_type, got.final) == (502, "Unadaptable", True)
    assert "sampling_params.max_tokens is missing" in got.detail
    assert calls == []


def test_a_service_without_an_adapter_passes_every_byte(other: OwnTarget) -> None:
    other.act = lambda call: (200, call.body, {"Content-Type": "text/odd"})
    sent = attempt(other.url, body=asample() + b" ", headers=[("Content-Type", "text/odder")])
    sent.service = sent.service.model_copy(update={"adapter": ""})

    got = send(sent)

    assert isinstance(got, Answer)
    assert (got.body, got.header("content-type")) == (asample() + b" ", "text/odd")
