"""What can't be translated is refused with the place and the reason, and nothing else gets past."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eas_queue import adapters
from eas_queue.adapters.errors import Unadaptable
from tests.adapters.bodies import asample, choice, completion
from tests.support.completions_server import REQUEST

adapter = adapters.named("openai_completions")
IMAGE = {"type": "image", "data": "", "format": "png"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


def chunks(*values: Any) -> dict[str, Any]:
    return {"prompt": {"chunks": list(values)}}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "the body is no JSON"),
        (b"\xff", "the body is no JSON"),
        (b"[" * 10_000, "the body is no JSON"),
        (b'{"seed": ' + b"9" * 10_000 + b"}", "the body is no JSON"),
        (b"NaN", "the body is no JSON"),
        (b"[]", "no JSON object"),
        (b"{}", "sampling_params.max_tokens is missing"),
        (asample(prompt=None), "prompt is missing"),
        (asample(prompt="text"), "prompt is missing"),
        (asample(**chunks()), "the prompt has no token"),
        (asample(**chunks({"tokens": []})), "the prompt has no token"),
        (asample(**chunks({"tokens": [1]}, IMAGE)), "prompt.chunks[1] is of type 'image'"),
        (asample(**chunks({"type": "image_asset_pointer"})), "prompt.chunks[0] is of type 'image_asset_pointer'"),
        (asample(**chunks({"type": 1})), "prompt.chunks[0] is of type '1'"),
        (asample(**chunks("text")), "prompt.chunks[0] is no JSON object"),
        (asample(**chunks({})), "prompt.chunks[0] has no list of tokens"),
        (asample(**chunks({"tokens": "1"})), "prompt.chunks[0] has no list of tokens"),
        (asample(**chunks({"tokens": [1, "2"]})), "prompt.chunks[0].tokens holds something else"),
        (asample(**chunks({"tokens": [True]})), "prompt.chunks[0].tokens holds something else"),
        (asample(**chunks({"tokens": [1.0]})), "prompt.chunks[0].tokens holds something else"),
        (asample(**chunks({"tokens": [-1]})), "prompt.chunks[0].tokens holds something else"),
        (asample(**chunks({"tokens": [2**31]})), "prompt.chunks[0].tokens holds something else"),
        (asample(num_samples=0), "num_samples is no whole number from 1 on"),
        (asample(num_samples="2"), "num_samples is no whole number"),
        (asample(num_samples=True), "num_samples is no whole number"),
        (asample(num_samples=129), "num_samples is 129: a completions request gives at most 128"),
        (asample(topk_prompt_logprobs=-1), "topk_prompt_logprobs is no whole number"),
        (asample(topk_sample_logprobs=3), "topk_sample_logprobs is not translated"),
        (asample(target_prompt_logprobs=[[1]]), "target_prompt_logprobs is not translated"),
        (asample(prompt_alt_tokens_k=1), "prompt_alt_tokens_k is not translated"),
        (asample(prompt_logprobs_last_n=4), "prompt_logprobs_last_n is not translated"),
        (asample(record_stability_info=True), "record_stability_info is not translated"),
        (asample(sampling_params=[1]), "sampling_params is no JSON object"),
        (asample(sampling_params=None), "sampling_params.max_tokens is missing"),
        (asample(params={"max_tokens": None}), "sampling_params.max_tokens is missing"),
        (asample(params={"max_tokens": 0}), "sampling_params.max_tokens is no whole number from 1 on"),
        (asample(params={"max_tokens": 1.5}), "sampling_params.max_tokens is no whole number"),
        (asample(params={"temperature": "hot"}), "sampling_params.temperature is no number"),
        (asample(params={"temperature": True}), "sampling_params.temperature is no number"),
        (asample(params={"temperature": 2.1}), "sampling_params.temperature is not from 0 to 2"),
        (asample(params={"temperature": 10**400}), "sampling_params.temperature is"),
        (asample(params={"temperature": -0.1}), "sampling_params.temperature is not from 0 to 2"),
        (asample(params={"top_p": 1.1}), "sampling_params.top_p is not from 0 to 1"),
        (asample().replace(b'"max_tokens"', b'"top_p": 1e999, "max_tokens"'), "sampling_params.top_p is no number"),
        (asample(params={"top_k": -2}), "sampling_params.top_k is no whole number from -1 on"),
        (asample(params={"top_k": 0.5}), "sampling_params.top_k is no whole number"),
        (asample(params={"seed": 2**63}), "sampling_params.seed has more than 64 bits"),
        (asample(params={"seed": "1"}), "sampling_params.seed is no whole number"),
        (asample(params={"stop": ["a", 1]}), "sampling_params.stop is neither"),
        (asample(params={"stop": [-1]}), "sampling_params.stop is neither"),
        (asample(params={"stop": [[1]]}), "sampling_params.stop is neither"),
        (asample(params={"stop": 1}), "sampling_params.stop is neither"),
        (asample(params={"stop": {"a": 1}}), "sampling_params.stop is neither"),
        (asample(params={"stop": ""}), "sampling_params.stop holds an empty text"),
        (asample(params={"stop": ["a", ""]}), "sampling_params.stop holds an empty text"),
        (asample(params={"stop": list("abcde")}), "sampling_params.stop has 5 texts"),
    ],
)
def test_a_request_is_refused_at_once_and_when_it_is_to_be_sent(body: bytes, says: str) -> None:
    for refuse in (lambda: adapter.check(body), lambda: adapter.request(body, "m")):
        with pytest.raises(Unadaptable) as caught:
            refuse()
        assert says in str(caught.value)
        assert len(str(caught.value)) < 200


def test_what_would_hold_others_up_is_not_read() -> None:
    """In the web that is everybody, in a worker its other attempts."""
    began_s = time.process_time()
    for body in (b"[" + b"1," * 1_200_001 + b"1]", b'{"a": [' + b"[]," * 1_200_001 + b"1]}", b"[" * 600_001):
        with pytest.raises(Unadaptable, match="the body has more than 1,200,000 values"):
            adapter.check(body)
    with pytest.raises(Unadaptable, match="the answer has more than 4,000,000 values"):
        adapter.answer(asample(), b'{"choices": [{"token_ids": [' + b"1," * 4_000_001 + b"1]}]}")
    assert time.process_time() - began_s < 1


@settings(deadline=None)
@given(
    st.sampled_from(["prompt", "sampling_params", "num_samples", "prompt_logprobs", "topk_prompt_logprobs", ""])
    | st.just("chunk"),
    st.sampled_from(["max_tokens", "temperature", "top_p", "top_k", "seed", "stop"]),
    JSON,
)
def test_whatever_stands_anywhere_is_refused_or_fits_the_schema(field: str, param: str, value: Any) -> None:
    if field == "chunk":
        body = asample(**chunks({"tokens": value}))
    else:
        body = asample(**{field: value}) if field else asample(params={param: value})

    with contextlib.suppress(Unadaptable):
        adapter.check(body)
        REQUEST.validate(json.loads(adapter.request(body, "m")))


def plain(**fields: Any) -> bytes:
    return completion(choice(8) | fields)


OWN: list[Any] = [None, {"2": {"logprob": -1}}, {"3": {"logprob": -1}}]


@pytest.mark.parametrize(
    ("asked", "answered", "says"),
    [
        ({}, b"", "the answer is no JSON"),
        ({}, b"<html>", "the answer is no JSON"),
        ({}, b"[]", "the answer has no list of choices"),
        ({}, b'{"choices": [1]}', "the answer has no list of choices"),
        ({}, b'{"error": {"message": "no"}}', "target_url must be the address of completions"),
        ({}, completion(), "the answer has 0 choices, 1 were asked for"),
        ({"num_samples": 3}, completion(choice(8), choice(8, index=1)), "the answer has 2 choices, 3 were asked for"),
        ({"num_samples": 2}, completion(choice(8), choice(8)), "not numbered from 0 to 1"),
        ({"num_samples": 2}, completion(choice(8), choice(8, index=2)), "not numbered from 0 to 1"),
        ({}, plain(index=None), "not numbered"),
        ({}, plain(index=[]), "not numbered"),
        ({}, plain(finish_reason="content_filter"), "choices[0] was cut by the server's content filter"),
        ({}, plain(finish_reason="abort"), "choices[0] ended by 'abort'"),
        ({}, plain(finish_reason="repetition"), "choices[0] ended by 'repetition'"),
        ({}, plain(finish_reason=None), "choices[0] ended by 'None'"),
        ({}, plain(finish_reason=["stop"]), "choices[0] ended by"),
        ({}, plain(token_ids=None, logprobs=None), "--return-tokens-as-token-ids"),
        ({}, plain(token_ids=None, logprobs={"tokens": [" t8"]}), "choices[0] has no token ids"),
        ({}, plain(token_ids=None, logprobs={"tokens": ["8"]}), "choices[0] has no token ids"),
        ({}, plain(token_ids=None, logprobs={"tokens": [8]}), "choices[0] has no token ids"),
        ({}, plain(token_ids=None, logprobs={"tokens": ["token_id:"]}), "choices[0] has no token ids"),
        ({}, plain(token_ids=None, logprobs={"tokens": ["token_id:-8"]}), "choices[0] has no token ids"),
        ({}, plain(token_ids=["8"]), "choices[0] has no token ids"),
        ({}, plain(token_ids=8), "choices[0] has no token ids"),
        ({}, plain(token_ids=[8, 9]), "token_logprobs is not one number for each of 2 tokens"),
        ({}, plain(logprobs={"token_logprobs": [None]}), "token_logprobs is not one number"),
        ({}, plain(logprobs={"token_logprobs": ["-1"]}), "token_logprobs is not one number"),
        ({}, plain(logprobs={"token_logprobs": -1}), "token_logprobs is not one number"),
        ({"prompt_logprobs": True}, plain(), "choices[0] has no prompt_logprobs"),
        ({"topk_prompt_logprobs": 1}, plain(prompt_logprobs=None), "choices[0] has no prompt_logprobs"),
        ({"prompt_logprobs": True}, plain(prompt_logprobs=OWN[:2]), "prompt_logprobs has 2 entries for 3 tokens"),
        ({"prompt_logprobs": True}, plain(prompt_logprobs=[None, None, OWN[2]]), "[1] does not tell that of token 2"),
        ({"prompt_logprobs": True}, plain(prompt_logprobs=[None, {"7": {}}, OWN[2]]), "[1] does not tell"),
        ({"prompt_logprobs": True}, plain(prompt_logprobs=[None, {"2": -1}, OWN[2]]), "[1] does not tell"),
        ({"prompt_logprobs": True}, plain(prompt_logprobs=[None, {"2": {"logprob": "x"}}, OWN[2]]), "does not tell"),
        ({"topk_prompt_logprobs": 1}, plain(prompt_logprobs=[*OWN[:2], OWN[2] | {"x": {"logprob": 0}}]), "[2] does"),
    ],
)
def test_an_answer_that_is_not_the_sample_that_was_asked_for_is_refused(
    asked: dict[str, Any], answered: bytes, says: str
) -> None:
    with pytest.raises(Unadaptable) as caught:
        adapter.answer(asample(**asked), answered)

    assert says in str(caught.value)
    assert len(str(caught.value)) < 260


@settings(deadline=None)
@given(st.sampled_from([*choice(8), "prompt_logprobs", ""]), JSON, st.booleans())
def test_whatever_an_answer_holds_is_refused_or_is_a_sample(field: str, value: Any, of_prompt: bool) -> None:
    answered = plain(**{field: value}) if field else json.dumps({"choices": value}).encode()

    with contextlib.suppress(Unadaptable):
        found = json.loads(adapter.answer(asample(prompt_logprobs=of_prompt), answered))
        (sequence,) = found["sequences"]
        assert sequence["stop_reason"] in ("stop", "length")
        assert all(type(token) is int for token in sequence["tokens"])
        assert sequence["logprobs"] is None or len(sequence["logprobs"]) == len(sequence["tokens"])
