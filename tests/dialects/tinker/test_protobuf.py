"""Samples as bytes: what goes in as JSON comes out of the message, whatever the numbers; anything else is refused."""

from __future__ import annotations

import json
import math
import struct
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eas_queue.dialects.tinker import protobuf, sample_pb2
from tests.dialects.tinker.conftest import fields, floats, ints, sequence

TOKEN_IDS = st.integers(-(2**31), 2**31 - 1)
NUMBERS = st.one_of(st.none(), st.floats(width=32), st.floats(), st.integers(-(10**9), 10**9))
ROWS = st.lists(st.one_of(st.none(), st.lists(st.tuples(TOKEN_IDS, st.floats(width=32)), max_size=4)), max_size=5)


@st.composite
def _sequences(draw: st.DrawFn) -> dict[str, Any]:
    tokens = draw(st.lists(TOKEN_IDS, max_size=20))
    found: dict[str, Any] = {"tokens": tokens, "stop_reason": draw(st.sampled_from(["stop", "length"]))}
    if draw(st.booleans()):
        found["logprobs"] = draw(st.lists(NUMBERS, min_size=len(tokens), max_size=len(tokens)))
    if draw(st.booleans()):
        found["topk_logprobs"] = draw(ROWS)
    return found


SAMPLES = st.fixed_dictionaries(
    {"sequences": st.lists(_sequences(), max_size=4)},
    optional={
        "prompt_logprobs": st.lists(NUMBERS, max_size=10),
        "topk_prompt_logprobs": ROWS,
        "prompt_cache_hit_tokens": st.integers(0, 2**31 - 1),
        "request_id": st.text(max_size=5),
    },
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inside: st.one_of(
        st.lists(inside, max_size=4),
        st.dictionaries(
            st.sampled_from(
                ["sequences", "tokens", "logprobs", "stop_reason", "prompt_logprobs", "topk_logprobs", "x"]
            ),
            inside,
            max_size=4,
        ),
    ),
    max_leaves=20,
)


def coded(body: bytes) -> tuple[bytes, str]:
    """The message, or why there is none."""
    try:
        return protobuf.sample(body, None), ""
    except protobuf.NotSample as exc:
        return b"", str(exc)


def as_float(value: float | None) -> float:
    """The nearest float of four bytes."""
    if value is None:
        return math.nan
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def shown(values: list[float]) -> list[str]:
    """NaN equals nothing, not even itself."""
    return [repr(value) for value in values]


def assert_top(found: sample_pb2.TopTokens, rows: list[list[tuple[int, float]] | None]) -> None:
    width = max((len(row) for row in rows if row), default=0)
    assert (found.length, found.k) == (len(rows), width)
    pairs = list(zip(ints(found.token_ids), floats(found.logprobs), strict=True))
    assert len(pairs) == width * len(rows)
    for number, row in enumerate(rows):
        own = pairs[number * width : (number + 1) * width]
        expected = [(token, as_float(logprob)) for token, logprob in row or ()]
        expected += [(0, -99999.0)] * (width - len(expected))
        assert [repr(pair) for pair in own] == [repr(pair) for pair in expected]


@given(SAMPLES)
@settings(max_examples=120, deadline=None)
def test_every_sample_comes_out_as_it_went_in(content: dict[str, Any]) -> None:
    body = json.dumps(content).encode()
    message = sample_pb2.Sample.FromString(protobuf.sample(body, len(content["sequences"])))

    assert len(message.sequences) == len(content["sequences"])
    for found, given_ in zip(message.sequences, content["sequences"], strict=True):
        assert ints(found.tokens) == given_["tokens"]
        assert sample_pb2.StopReason.Name(found.stop_reason) == given_["stop_reason"].upper()
        assert found.HasField("logprobs") is ("logprobs" in given_)
        assert shown(floats(found.logprobs)) == shown([as_float(each) for each in given_.get("logprobs", [])])
        assert found.HasField("top_tokens") is ("topk_logprobs" in given_)
        if "topk_logprobs" in given_:
            assert_top(found.top_tokens, given_["topk_logprobs"])
    assert message.HasField("prompt_logprobs") is ("prompt_logprobs" in content)
    assert shown(floats(message.prompt_logprobs)) == shown(
        [as_float(each) for each in content.get("prompt_logprobs", [])]
    )
    assert message.HasField("prompt_top_tokens") is ("topk_prompt_logprobs" in content)
    if "topk_prompt_logprobs" in content:
        assert_top(message.prompt_top_tokens, content["topk_prompt_logprobs"])
    assert message.prompt_cache_hit_tokens == content.get("prompt_cache_hit_tokens", 0)
    assert protobuf.sample(body, None) == protobuf.sample(body, len(content["sequences"]))


@given(SAMPLES, st.integers(0, 8))
@settings(max_examples=60, deadline=None)
def test_another_number_of_samples_is_refused(content: dict[str, Any], samples: int) -> None:
    if samples != len(content["sequences"]):
        with pytest.raises(protobuf.NotSample, match=f"{samples} were asked for"):
            protobuf.sample(json.dumps(content).encode(), samples)


@given(st.one_of(JSON.map(lambda value: json.dumps(value).encode()), st.binary(max_size=40)))
@settings(max_examples=200, deadline=None)
def test_whatever_comes_is_a_sample_or_is_refused_in_words(body: bytes) -> None:
    found, refused = coded(body)

    assert 5 < len(refused) < 300 or all(number in (1, 2, 3, 4) for number, _ in fields(found))


@given(JSON, st.sampled_from(["tokens", "logprobs", "stop_reason", "topk_logprobs"]))
@settings(max_examples=120, deadline=None)
def test_so_is_whatever_stands_in_a_sample(value: Any, member: str) -> None:
    found, refused = coded(json.dumps({"sequences": [sequence(**{member: value})]}).encode())

    assert len(refused) < 300 and (member in refused or "logprobs" in refused or not refused)
    assert len(sample_pb2.Sample.FromString(found).sequences) == (0 if refused else 1)


def test_floats_are_rounded_as_four_bytes_are() -> None:
    values = [0.1, -0.1, 1 / 3, 16_777_217, 1e-46, -1e-46, 3.4028235e38, 3.5e38, -1e300]
    content = {"sequences": [{"tokens": list(range(9)), "logprobs": values, "stop_reason": "stop"}]}
    message = sample_pb2.Sample.FromString(protobuf.sample(json.dumps(content).encode(), 1))

    found = floats(message.sequences[0].logprobs)
    assert shown(found) == shown([as_float(value) for value in values])
    assert found[-2:] == [math.inf, -math.inf]


def test_a_large_one_takes_a_second_at_most_and_its_own_size_a_few_times() -> None:
    rows = [[[token, -0.125 * token] for token in range(20)] for _ in range(2_000)]
    content = {"sequences": [sequence()], "topk_prompt_logprobs": rows, "prompt_logprobs": [-0.5] * 40_000}
    body = json.dumps(content).encode()
    began_s = time.process_time()
    found = protobuf.sample(body, 1)
    spent_s = time.process_time() - began_s
    tracemalloc.start()
    protobuf.sample(body, 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(found) > 4 * 100_000
    assert spent_s < 1
    assert peak < 40 * len(body)


def test_one_wide_row_among_many_is_refused_before_it_is_filled_up() -> None:
    """Each row is as long as the longest: a small answer would become a huge message."""
    rows = [[[1, -1.0]] * 2_000] + [[]] * 2_000
    body = json.dumps({"sequences": [sequence()], "topk_prompt_logprobs": rows}).encode()
    tracemalloc.start()
    _, refused = coded(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert "topk_prompt_logprobs" in refused
    assert peak < 100 * len(body)
