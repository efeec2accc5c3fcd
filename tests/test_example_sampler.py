"""The example's samples: what the model says, what each parameter of a request does, and what is refused."""

from __future__ import annotations

import json
import math
import random
import time
from collections import Counter
from typing import Any

import pytest

from examples.tinker import asample
from examples.tinker.sampler import NGrams, Params, Sample, as_text, choose, prompt_logprobs
from tests.support.own_target import Call, OwnTarget, Reply

KETTLES = as_text(b"A bad kettle.\nA good kettle.\nA good kettle.\n")


def ask(prompt: bytes | list[int], body: dict[str, Any] | None = None, **params: Any) -> dict[str, Any]:
    asked = {"prompt": {"chunks": [{"type": "encoded_text", "tokens": list(prompt)}]}, "sampling_params": params}
    return asample.answer(asked | (body or {}), {})


def sequence(prompt: bytes | list[int], **params: Any) -> dict[str, Any]:
    (found,) = ask(prompt, **params)["sequences"]
    return dict(found)


# The model


def test_what_followed_more_often_is_likelier_and_nothing_is_impossible() -> None:
    model = NGrams(KETTLES, map(chr, range(256)))

    after = model.distribution("A ")

    assert after["g"] > after["b"] > after["k"] > after["\xff"] > 0


@pytest.mark.parametrize("before", ["", "A ", "kettle", "\xff\xfe", "A good kettle"])
def test_the_probabilities_are_those_of_single_tokens_and_add_up_to_one(before: str) -> None:
    model = NGrams(KETTLES, map(chr, range(256)))

    found = model.distribution(before)

    assert math.fsum(found.values()) == pytest.approx(1)
    assert found == pytest.approx({token: model.probability(token, before) for token in map(chr, range(256))})


def test_a_token_that_is_not_in_the_vocabulary_has_no_probability() -> None:
    assert NGrams(KETTLES).probability("x", "A ") == 0


def test_followers_are_counted_where_contexts_overlap_too() -> None:
    assert NGrams("aaab").probability("a", "aa") == NGrams("aaab").distribution("aa")["a"] > 0.5


# Drawing


def test_tokens_are_drawn_as_often_as_the_model_says() -> None:
    distribution = {"a": 0.6, "b": 0.3, "c": 0.1}
    source = random.Random(1)

    drawn = Counter(choose(distribution, Params(1), source) for _ in range(20_000))

    assert {token: count / 20_000 for token, count in drawn.items()} == pytest.approx(distribution, abs=0.015)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_temperature_is_the_root_of_the_odds(temperature: float) -> None:
    source = random.Random(2)

    drawn = Counter(choose({"a": 0.8, "b": 0.2}, Params(1, temperature), source) for _ in range(20_000))

    assert drawn["a"] / drawn["b"] == pytest.approx(4 ** (1 / temperature), rel=0.1)


@pytest.mark.parametrize(
    ("params", "possible"),
    [
        (Params(1, temperature=0), "b"),
        (Params(1, temperature=1e-300), "b"),
        (Params(1, temperature=1e300), "abcd"),
        (Params(1, top_k=2), "bc"),
        (Params(1, top_k=9), "abcd"),
        (Params(1, top_k=0), "abcd"),
        (Params(1, top_p=0), "b"),
        (Params(1, top_p=0.4), "b"),
        (Params(1, top_p=0.41), "bc"),
        (Params(1, top_k=3, top_p=0.99), "abc"),
    ],
)
def test_top_k_and_top_p_leave_the_likeliest(params: Params, possible: str) -> None:
    source = random.Random(3)

    drawn = {choose({"a": 0.2, "b": 0.4, "c": 0.3, "d": 0.1}, params, source) for _ in range(300)}

    assert drawn == set(possible)


def test_a_samples_logprobs_are_those_of_the_model_whatever_the_temperature() -> None:
    model = NGrams(KETTLES)
    sample = Sample(model, "A ", Params(12, temperature=3.0, top_k=5), random.Random(4))
    while sample.stop_reason is None:
        sample.step()

    whole = "A " + as_text(sample.tokens)

    assert sample.logprobs == pytest.approx(prompt_logprobs(model, whole)[2:])
    assert len(sample.tokens) == 12


def test_a_sure_token_has_no_more_than_probability_one() -> None:
    found = sequence([9707] * 50, max_tokens=50)

    assert found["tokens"] == [9707] * 50
    assert max(found["logprobs"]) <= 0
    assert sum(found["logprobs"]) == pytest.approx(0)


# What is asked for


def test_bytes_are_continued_as_text_to_the_end_of_a_sentence() -> None:
    found = sequence(b"The soup was", max_tokens=1000, seed=5)

    text = bytes(found["tokens"]).decode()
    assert found["stop_reason"] == "stop"
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert len(found["logprobs"]) == len(found["tokens"])


def test_other_prompts_are_continued_with_their_own_tokens() -> None:
    found = sequence([9707, 11, 1879, 0, 9707, 11], max_tokens=60)

    assert set(found["tokens"]) <= {9707, 11, 1879, 0}
    assert (len(found["tokens"]), found["stop_reason"]) == (60, "length")


def test_a_seed_gives_the_same_samples_again_and_different_ones_among_them() -> None:
    first, again, other = (ask(b"A ", {"num_samples": 4}, max_tokens=30, seed=seed) for seed in (6, 6, 7))

    assert first == again
    assert first["sequences"] != other["sequences"]
    assert len({tuple(found["tokens"]) for found in first["sequences"]}) == 4


def test_a_sample_does_not_depend_on_those_beside_it() -> None:
    alone, among = (ask(b"A ", {"num_samples": n}, max_tokens=30, seed=8)["sequences"] for n in (1, 3))

    assert among[0] == alone[0]


def test_without_a_seed_samples_differ() -> None:
    assert len({tuple(sequence(b"A ", max_tokens=40)["tokens"]) for _ in range(5)}) > 1


@pytest.mark.parametrize(
    ("stop", "end"),
    [("e", b"e"), (["xyzzy", " a"], b" a"), ([32], b" "), ([200, 10], b"\n"), (None, b"\n"), ("\u00e9", b"\n")],
)
def test_stops_end_a_sample_and_are_its_last_tokens(stop: object, end: bytes) -> None:
    found = sequence(b"The hotel", max_tokens=1000, seed=9, stop=stop)

    assert found["stop_reason"] == "stop"
    tokens = bytes(found["tokens"])
    assert tokens.endswith((end, b"\n"))
    assert end not in tokens[:-1]


def test_an_empty_list_of_stops_goes_on_to_the_last_token() -> None:
    found = sequence(b"The hotel", max_tokens=300, seed=10, stop=[])

    assert (len(found["tokens"]), found["stop_reason"]) == (300, "length")
    assert 10 in found["tokens"]


def test_ids_stop_where_the_text_is_not_known() -> None:
    found = sequence([1000, 1001, 1000, 1001, 1002], max_tokens=1000, stop=[1002])

    assert (found["tokens"][-1], found["stop_reason"]) == (1002, "stop")


def test_logprobs_of_the_prompt_are_given_when_asked_for() -> None:
    asked, not_asked = (ask(b"The hotel", {"prompt_logprobs": flag}, max_tokens=1) for flag in (True, False))

    first, *others = asked["prompt_logprobs"]
    assert first is None
    assert len(others) == len(b"hotel") + 3
    assert all(logprob < 0 for logprob in others)
    assert not_asked["prompt_logprobs"] is None


def test_chunks_are_one_prompt_and_what_is_null_or_zero_is_as_if_missing() -> None:
    body = {"num_samples": None, "topk_prompt_logprobs": 0, "target_prompt_logprobs": None, "type": "sample"}
    params = {"max_tokens": 20, "seed": 11, "temperature": None, "top_k": None, "top_p": None, "stop": None}
    chunks = [{"tokens": list(b"The ")}, {"type": "encoded_text", "tokens": list(b"hotel")}]

    found = asample.answer({"prompt": {"chunks": chunks}, "sampling_params": params} | body, {})

    assert found == ask(b"The hotel", max_tokens=20, seed=11)


def test_without_parameters_it_samples_to_the_end() -> None:
    found = asample.answer({"prompt": {"chunks": [{"tokens": list(b"The ")}]}}, {})

    assert found["sequences"][0]["stop_reason"] == "stop"


# What is refused


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"prompt": {"chunks": []}}, "the prompt"),
        ({"prompt": {"chunks": [{"tokens": []}]}}, "the prompt"),
        ({"prompt": {"chunks": [{"tokens": [1] * 16_385}]}}, "the prompt"),
        ({"prompt": {"chunks": [{"type": "image"}]}}, "prompt.chunks"),
        ({"prompt": {"chunks": [7]}}, "prompt.chunks"),
        ({"prompt": {"chunks": {}}}, "prompt.chunks"),
        ({"prompt": {"chunks": [{"tokens": [-1]}]}}, "tokens"),
        ({"prompt": {"chunks": [{"tokens": [True]}]}}, "tokens"),
        ({"prompt": {"chunks": [{"tokens": [0x110000]}]}}, "tokens"),
        ({"num_samples": 0}, "num_samples"),
        ({"num_samples": 17}, "num_samples"),
        ({"num_samples": "2"}, "num_samples"),
        ({"sampling_params": []}, "sampling_params"),
        ({"topk_prompt_logprobs": 5}, "topk_prompt_logprobs"),
        ({"target_prompt_logprobs": {"data": []}}, "target_prompt_logprobs"),
    ],
)
def test_a_wrong_request_is_refused_by_name(body: dict[str, Any], named: str) -> None:
    with pytest.raises(asample.NotSampled, match=rf"^(each of )?{named}"):
        ask(b"A", body, max_tokens=1) if "sampling_params" in body or "prompt" in body else ask(b"A", body)


@pytest.mark.parametrize(
    "params",
    [
        {"max_tokens": 0},
        {"max_tokens": 4097},
        {"max_tokens": 2.0},
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_p": 1.1},
        {"top_p": "1"},
        {"top_k": -2},
        {"seed": "x"},
        {"stop": 7},
        {"stop": [""]},
        {"stop": ["a", 7]},
        {"stop": [-1]},
    ],
)
def test_a_wrong_parameter_is_refused_by_name(params: dict[str, Any]) -> None:
    with pytest.raises(asample.NotSampled, match=f"^{next(iter(params))} "):
        ask(b"A", **params)


@pytest.mark.parametrize("value", ["", "soon", "-1", "nan", "6.1"])
def test_a_delay_that_is_no_number_or_adds_up_to_more_than_a_minute_is_refused(value: str) -> None:
    body = {"prompt": {"chunks": [{"tokens": [65]}]}, "sampling_params": {"max_tokens": 10}}

    with pytest.raises(asample.NotSampled, match=r"^X-Token-Delay-S must be a number from 0 to 6"):
        asample.answer(body, {"X-Token-Delay-S": value})


def test_texts_do_not_stop_where_the_tokenizer_is_not_known() -> None:
    with pytest.raises(asample.NotSampled, match=r"^stop must be token ids"):
        ask([9707], stop="\n")


@pytest.mark.parametrize("body", [None, [], "x", {"text": "x"}, {"prompt": "x"}, {"prompt": {"text": "x"}}])
def test_all_else_is_no_sampling_request(body: object) -> None:
    assert not asample.is_asked(body)


# Telling how far it is


def test_progress_is_told_while_it_takes_long() -> None:
    told: list[Call] = []

    def act(call: Call) -> Reply:
        told.append(call)
        return 204, b""

    queue = OwnTarget()
    queue.act = act
    try:
        headers = {"X-Progress-Url": f"{queue.url}/api/progress/7", "X-Progress-Token": "secret-of-the-attempt"}
        body = {"prompt": {"chunks": [{"tokens": [9707]}]}, "sampling_params": {"max_tokens": 8}}
        asample.answer(body, headers | {"X-Token-Delay-S": "0.15"})
        slow = len(told)
        asample.answer(body, headers)
    finally:
        queue.stop()

    assert 1 <= slow == len(told) <= 2  # and nothing of the fast one
    progress = [json.loads(call.body)["progress"] for call in told]
    assert all(0 < said["tokens_generated"] < said["max_tokens"] == 8 for said in progress)
    assert {(call.path, call.headers["x-progress-token"]) for call in told} == {
        ("/api/progress/7", "secret-of-the-attempt")
    }


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "file:///etc/hostname", "http://[", "nonsense"])
def test_where_progress_is_not_taken_nothing_happens(url: str) -> None:
    started = time.monotonic()

    assert not asample.report(url, "x", {"tokens_generated": 1, "max_tokens": 2})
    assert time.monotonic() - started < 2
