"""The sample that a completion is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eas_queue import adapters
from tests.adapters.bodies import ASAMPLES, TOKENS, asample, choice, completion
from tests.support.completions_server import ANSWER, logprob_of
from tests.support.completions_server import completion as completion_of

adapter = adapters.named("openai_completions")
LOGPROBS = st.floats(-1e4, 0, allow_nan=False)


def sample(asked: bytes, answered: bytes) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(adapter.answer(asked, answered))
    assert list(content) == ["type", "sequences", "prompt_logprobs", "topk_prompt_logprobs"]
    assert content["type"] == "sample"
    return content


def test_tokens_logprobs_and_the_reason_of_the_end() -> None:
    assert sample(asample(), completion(choice(8, 16, finish_reason="length"))) == {
        "type": "sample",
        "sequences": [{"tokens": [8, 16], "logprobs": [-1.0, -2.0], "stop_reason": "length"}],
        "prompt_logprobs": None,
        "topk_prompt_logprobs": None,
    }


def test_samples_stand_in_the_order_of_their_numbers() -> None:
    answered = completion(choice(8, index=2), choice(9, index=0), choice(10, index=1))

    assert [each["tokens"] for each in sample(asample(num_samples=3), answered)["sequences"]] == [[9], [10], [8]]


@pytest.mark.parametrize("ids", [{}, {"token_ids": None}])
def test_ids_are_read_out_of_the_tokens_where_the_server_tells_them_there(ids: dict[str, None]) -> None:
    told = {name: value for name, value in choice(8, 16).items() if name != "token_ids"} | ids

    assert sample(asample(), completion(told))["sequences"][0]["tokens"] == [8, 16]


@pytest.mark.parametrize("logprobs", [None, {}, {"token_logprobs": None}])
def test_a_server_without_logprobs_gives_none(logprobs: Any) -> None:
    told = choice(8, logprobs=logprobs)

    (sequence,) = sample(asample(), completion(told))["sequences"]

    assert sequence == {"tokens": [8], "logprobs": None, "stop_reason": "stop"}


def test_a_sample_may_be_empty() -> None:
    assert sample(asample(), completion(choice()))["sequences"] == [
        {"tokens": [], "logprobs": [], "stop_reason": "stop"}
    ]


def test_of_the_prompt_those_of_its_own_tokens_and_of_the_likeliest() -> None:
    second = {"2": {"logprob": -3.0, "rank": 9}, "7": {"logprob": -0.5}, "8": {"logprob": -1}}
    told = [None, second, {"3": {"logprob": -2}}]
    answered = completion(choice(8, prompt_logprobs=told))

    both = sample(asample(prompt_logprobs=True, topk_prompt_logprobs=2), answered)
    own = sample(asample(prompt_logprobs=True), answered)
    top = sample(asample(topk_prompt_logprobs=2), answered)

    assert both["prompt_logprobs"] == own["prompt_logprobs"] == [None, -3.0, -2.0]
    assert both["topk_prompt_logprobs"] == top["topk_prompt_logprobs"] == [None, [[7, -0.5], [8, -1.0]], [[3, -2.0]]]
    assert (own["topk_prompt_logprobs"], top["prompt_logprobs"]) == (None, None)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.tuples(TOKENS, LOGPROBS), max_size=5), st.sampled_from(["stop", "length"])),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
    st.randoms(),
)
def test_nothing_of_a_sample_is_lost(samples: list[Any], as_texts: bool, random: Any) -> None:
    choices = []
    for index, (pairs, reason) in enumerate(samples):
        told = choice(*(token for token, _ in pairs), index=index, finish_reason=reason)
        told["logprobs"]["token_logprobs"] = [logprob for _, logprob in pairs]
        if as_texts:
            del told["token_ids"]
        choices.append(told)
    random.shuffle(choices)

    found = sample(asample(num_samples=len(samples)), completion(*choices))

    assert [
        (list(zip(each["tokens"], each["logprobs"], strict=True)), each["stop_reason"]) for each in found["sequences"]
    ] == samples


@settings(max_examples=50, deadline=None)
@given(ASAMPLES)
def test_a_server_that_follows_the_schema_is_understood(asked: dict[str, Any]) -> None:
    asked["sampling_params"]["max_tokens"] = min(asked["sampling_params"]["max_tokens"], 5)
    asked["num_samples"] = min(asked.get("num_samples") or 1, 3)
    body = json.dumps(asked).encode()
    wanted = json.loads(adapter.request(body, "m"))
    answered = completion_of(wanted)
    ANSWER.validate(answered)

    found = sample(body, json.dumps(answered).encode())

    assert len(found["sequences"]) == wanted["n"]
    for each in found["sequences"]:
        assert each["logprobs"] == [logprob_of(token) for token in each["tokens"]]
        assert len(each["tokens"]) == wanted["max_tokens"] or each["stop_reason"] == "stop"
    own, top, prompt = found["prompt_logprobs"], found["topk_prompt_logprobs"], wanted["prompt"]
    assert (own is not None) == bool(asked.get("prompt_logprobs"))
    assert own is None or own == [None, *map(logprob_of, prompt[1:])]
    likely = asked.get("topk_prompt_logprobs") or 0
    assert (top is not None) == (likely > 0)
    assert top is None or [len(each) for each in top[1:]] == [likely] * (len(prompt) - 1)
