"""What a completions server is sent for an asample."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings

from eas_queue import adapters
from tests.adapters.bodies import ASAMPLES, asample
from tests.support.completions_server import EXTENSIONS, PUBLISHED, REQUEST

adapter = adapters.named("openai_completions")


def sent(body: bytes) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(adapter.request(body, "acme/model"))
    REQUEST.validate(content)
    return content


def test_all_is_said_though_the_client_says_little() -> None:
    assert sent(asample(7, 8, 9)) == {
        "model": "acme/model",
        "prompt": [7, 8, 9],
        "n": 1,
        "max_tokens": 8,
        "temperature": 1.0,
        "top_p": 1.0,
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "logprobs": 0,
        "echo": False,
        "stream": False,
        "top_k": -1,
        "min_p": 0,
        "repetition_penalty": 1,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }


def test_chunks_are_one_prompt() -> None:
    chunks = [{"tokens": [1]}, {"type": "encoded_text", "tokens": []}, {"type": "encoded_text", "tokens": [2, 3]}]

    assert sent(asample(prompt={"chunks": chunks}))["prompt"] == [1, 2, 3]


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (None, {}),
        ("END", {"stop": ["END"], "skip_special_tokens": False}),
        (["a", "b"], {"stop": ["a", "b"], "skip_special_tokens": False}),
        ([5, 6], {"stop_token_ids": [5, 6]}),
        (list(range(100)), {"stop_token_ids": list(range(100))}),
        ([], {"ignore_eos": True}),
    ],
)
def test_stops(stop: Any, expected: dict[str, Any]) -> None:
    plain, content = sent(asample()), sent(asample(params={"stop": stop}))

    assert {name: value for name, value in content.items() if name not in plain} == expected


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"temperature": 0, "top_p": 0.5}, {"temperature": 0.0, "top_p": 0.5}),
        ({"top_k": 40, "seed": -5}, {"top_k": 40, "seed": -5}),
        ({"top_k": 0}, {"top_k": -1}),
        ({"max_tokens": 1}, {"max_tokens": 1}),
    ],
)
def test_sampling_params(params: dict[str, Any], expected: dict[str, Any]) -> None:
    assert sent(asample(params=params)).items() >= expected.items()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"prompt_logprobs": True}, 0),
        ({"prompt_logprobs": True, "topk_prompt_logprobs": 5}, 5),
        ({"topk_prompt_logprobs": 2}, 2),
        ({"prompt_logprobs": False, "topk_prompt_logprobs": 0}, None),
    ],
)
def test_prompt_logprobs(fields: dict[str, Any], expected: int | None) -> None:
    assert sent(asample(num_samples=3, **fields)).get("prompt_logprobs") == expected


@settings(deadline=None)
@given(ASAMPLES)
def test_whatever_a_client_asks_for_fits_the_published_schema(asked: dict[str, Any]) -> None:
    body = json.dumps(asked).encode()

    adapter.check(body)
    content = sent(body)

    params = asked["sampling_params"]
    assert content["prompt"] == [token for chunk in asked["prompt"]["chunks"] for token in chunk["tokens"]]
    assert content["n"] == (asked.get("num_samples") or 1)
    assert content["max_tokens"] == params["max_tokens"]
    assert content["temperature"] == (1 if params.get("temperature") is None else params["temperature"])
    assert content.get("seed") == params.get("seed")
    stop = params.get("stop")
    stops = [stop] if isinstance(stop, str) else stop or []
    assert (content.get("stop") or content.get("stop_token_ids") or []) == stops
    assert ("ignore_eos" in content) == (stop == [])


def test_only_known_extensions_go_beyond_the_published_schema() -> None:
    body = asample(params={"stop": ["a"], "seed": 1}, prompt_logprobs=True)
    extensions = {name for stop in (["a"], [1], []) for name in sent(asample(params={"stop": stop}))} | set(sent(body))

    assert extensions - PUBLISHED == set(EXTENSIONS)
