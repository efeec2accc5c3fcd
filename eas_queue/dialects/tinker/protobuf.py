"""A target's answer as the SDK takes it: JSON `{"sequences": [..]}` in, the message of sample.proto out."""

from __future__ import annotations

import array
import json
import math
import sys
from collections.abc import Sequence
from typing import Any

import pydantic_core

from eas_queue.dialects.tinker import sample_pb2
from eas_queue.dialects.tinker.parameters import SAMPLES_MOST

STOP_REASONS = {"stop": sample_pb2.STOP, "length": sample_pb2.LENGTH}
# What takes about a second of this process at most, in which nobody else is served.
VALUES_MOST, PARTS_MOST = 4_000_000, 1_000_000
FILLED_MOST = 1_000_000  # values that rows of different length may be filled up with, beyond as many as there are
_NO_TOKEN, _NO_LOGPROB = 0, -99999.0  # what fills up a row of top tokens


class NotSample(Exception):
    """What the target answered is no sample; the message says why."""


def content_of(body: bytes) -> Any:
    """What an answer says, as Python has it; NaN and infinities, which Python's targets write, are numbers.

    Raises NotSample for what is no JSON in UTF-8, and for more than VALUES_MOST values.
    """
    if body.count(b",") > VALUES_MOST or body.count(b"[") + body.count(b"{") + body.count(b":") > PARTS_MOST:
        raise NotSample(
            f"its answer has more than {VALUES_MOST:,} values, or more than {PARTS_MOST:,} lists and members; "
            "ask for fewer samples or tokens at once"
        )
    try:
        return pydantic_core.from_json(body)
    except ValueError as exc:
        raise NotSample(f"its answer can't be read as JSON: {exc}") from exc


def sample(body: bytes, samples: int | None) -> bytes:
    """*samples*: how many sequences were asked for, None where nobody knows. Raises NotSample."""
    content = _sample_of(body, samples)
    sequences = content["sequences"]
    message = sample_pb2.Sample(sequences=[_sequence(sequence, at) for at, sequence in enumerate(sequences)])
    if content.get("prompt_logprobs") is not None:
        message.prompt_logprobs = _floats(content["prompt_logprobs"], "prompt_logprobs")
    if content.get("topk_prompt_logprobs") is not None:
        message.prompt_top_tokens.CopyFrom(_top_tokens(content["topk_prompt_logprobs"], "topk_prompt_logprobs"))
    hits = content.get("prompt_cache_hit_tokens")
    if type(hits) is int and 0 <= hits < 2**31:
        message.prompt_cache_hit_tokens = hits
    return message.SerializeToString()


def check(body: bytes, samples: int | None) -> None:
    """For older clients, which take samples as JSON. Raises NotSample, also for what they take for something else."""
    content = _sample_of(body, samples)
    if "error" in content or content.get("type") == "try_again" or content.get("status") == "complete_metadata":
        raise NotSample("its answer has members that say something else: error, or a type or status of the protocol's")


def _sample_of(body: bytes, samples: int | None) -> dict[str, Any]:
    content = content_of(body)
    sequences = content.get("sequences") if isinstance(content, dict) else None
    if not isinstance(sequences, list):
        raise NotSample('its answer has no list "sequences"')
    if len(sequences) > SAMPLES_MOST:
        raise NotSample(f"its answer has {len(sequences)} sequences, more than {SAMPLES_MOST}")
    if samples is not None and len(sequences) != samples:
        raise NotSample(f"its answer has {len(sequences)} sequences, {samples} were asked for")
    found: dict[str, Any] = content
    return found


def _sequence(sequence: Any, at: int) -> sample_pb2.Sequence:
    where = f"sequences[{at}]"
    if not isinstance(sequence, dict):
        raise NotSample(f"{where} is not an object")
    reason = sequence.get("stop_reason")
    if not isinstance(reason, str) or reason not in STOP_REASONS:
        raise NotSample(f"{where}.stop_reason is {json.dumps(reason)[:80]}; there are {' and '.join(STOP_REASONS)}")
    tokens: Any = sequence.get("tokens")
    message = sample_pb2.Sequence(stop_reason=STOP_REASONS[reason], tokens=_ints(tokens, f"{where}.tokens"))
    logprobs: Any = sequence.get("logprobs")
    if logprobs is not None:
        message.logprobs = _floats(logprobs, f"{where}.logprobs")
        if len(logprobs) != len(tokens):
            raise NotSample(f"{where} has {len(tokens)} tokens and {len(logprobs)} logprobs")
    if sequence.get("topk_logprobs") is not None:
        message.top_tokens.CopyFrom(_top_tokens(sequence["topk_logprobs"], f"{where}.topk_logprobs"))
    return message


def _top_tokens(rows: Any, where: str) -> sample_pb2.TopTokens:
    if not isinstance(rows, list) or not all(row is None or isinstance(row, list) for row in rows):
        raise NotSample(f"{where} is not a list with a list or null for each position")
    lengths = [len(row or ()) for row in rows]
    width, given = max(lengths, default=0), sum(lengths)
    if width * len(rows) > 2 * given + FILLED_MOST:
        raise NotSample(f"{where} has {len(rows)} rows of very different length, {width} at most")
    tokens: list[Any] = []
    logprobs: list[Any] = []
    try:
        for row, length in zip(rows, lengths, strict=True):
            for token, logprob in row or ():
                tokens.append(token)
                logprobs.append(logprob)
            tokens += [_NO_TOKEN] * (width - length)
            logprobs += [_NO_LOGPROB] * (width - length)
    except (TypeError, ValueError) as exc:
        raise NotSample(f"{where} has something that is not [token, logprob]") from exc
    return sample_pb2.TopTokens(
        token_ids=_ints(tokens, where), logprobs=_floats(logprobs, where), k=width, length=len(rows)
    )


def _ints(values: Any, where: str) -> bytes:
    if not isinstance(values, list) or not set(map(type, values)) <= {int}:
        raise NotSample(f"{where} is not a list of token ids")
    return _packed("i", values, where)


def _floats(values: Any, where: str) -> bytes:
    """A missing value becomes NaN."""
    if not isinstance(values, list) or not set(map(type, values)) <= {int, float, type(None)}:
        raise NotSample(f"{where} is not a list of numbers")
    return _packed("f", [math.nan if value is None else value for value in values], where)


def _packed(kind: str, values: Sequence[int | float], where: str) -> bytes:
    """Four bytes each, little-endian."""
    try:
        found: array.array[Any] = array.array(kind, values)
    except OverflowError as exc:
        raise NotSample(f"{where} has a number that is out of range") from exc
    if sys.byteorder == "big":
        found.byteswap()
    return found.tobytes()
