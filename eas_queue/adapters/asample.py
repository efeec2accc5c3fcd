"""The body of Tinker's asample, read leniently: keys may be missing, and those of no meaning here may be anything."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import pydantic_core

from eas_queue.adapters.errors import Unadaptable

BODY_VALUES_MOST = 1_200_000  # a prompt of a million tokens; some 0.15 s of a web process
_TOKEN_MAX = 2**31 - 1  # token ids travel as int32 in the protobuf form of a result
# What a later tinker may ask for besides; its answer has no place in the JSON form of a result.
_NOT_GIVEN = (
    "topk_sample_logprobs",
    "target_prompt_logprobs",
    "prompt_alt_tokens_k",
    "prompt_logprobs_last_n",
    "record_stability_info",
)


@dataclass(frozen=True, slots=True)
class Asample:
    """One request to sample, with Tinker's own defaults for what its client left out."""

    tokens: list[int]
    num_samples: int
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int  # -1: no limit
    seed: int | None
    stop_texts: tuple[str, ...]
    stop_tokens: tuple[int, ...]
    stops_nowhere: bool  # an empty list of stops: not even at the model's own end
    prompt_logprobs: bool
    topk_prompt_logprobs: int


def read(body: bytes) -> Asample:
    """Raises Unadaptable where it is none, or asks for something that no result could tell."""
    asked = loads(body, "the body", values_most=BODY_VALUES_MOST)
    if not isinstance(asked, dict):
        raise Unadaptable("the body is no JSON object")
    for name in _NOT_GIVEN:
        if asked.get(name):
            raise Unadaptable(f"{name} is not translated for this service; leave it out")
    params = asked.get("sampling_params")
    if params is None:
        params = {}
    if not isinstance(params, dict):
        raise Unadaptable("sampling_params is no JSON object")
    if params.get("max_tokens") is None:
        raise Unadaptable("sampling_params.max_tokens is missing: without it the target would stop after 16 tokens")
    top_k = _integer(params, "top_k", "sampling_params.", least=-1, default=-1)
    texts, tokens, nowhere = _stops(params.get("stop"))
    return Asample(
        tokens=_prompt(asked.get("prompt")),
        num_samples=_integer(asked, "num_samples", "", least=1, default=1),
        max_tokens=_integer(params, "max_tokens", "sampling_params.", least=1, default=1),
        temperature=_number(params, "temperature"),
        top_p=_number(params, "top_p"),
        top_k=top_k or -1,
        seed=None if params.get("seed") is None else _integer(params, "seed", "sampling_params.", default=0),
        stop_texts=texts,
        stop_tokens=tokens,
        stops_nowhere=nowhere,
        prompt_logprobs=bool(asked.get("prompt_logprobs")),
        topk_prompt_logprobs=_integer(asked, "topk_prompt_logprobs", "", least=0, default=0),
    )


def loads(body: bytes, what: str, *, values_most: int) -> Any:
    """*body* as JSON. Raises Unadaptable, which does not repeat it, also for more than *values_most* values."""
    if body.count(b",") > values_most or body.count(b"{") + body.count(b"[") > values_most // 2:
        raise Unadaptable(f"{what} has more than {values_most:,} values, which is not read")
    try:
        return pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as exc:
        raise Unadaptable(f"{what} is no JSON: {exc}") from None


def are_tokens(values: list[Any]) -> bool:
    """Whether all are token ids. Types by set: one look per value in C, a prompt may have a hundred thousand."""
    return not values or (set(map(type, values)) == {int} and min(values) >= 0 and max(values) <= _TOKEN_MAX)


def is_number(value: Any) -> bool:
    """Whether it is one that a float can be; NaN is not."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _prompt(prompt: Any) -> list[int]:
    chunks = prompt.get("chunks") if isinstance(prompt, dict) else None
    if not isinstance(chunks, list):
        raise Unadaptable('prompt is missing, or no {"chunks": [..]}')
    tokens: list[int] = []
    for index, chunk in enumerate(chunks):
        where = f"prompt.chunks[{index}]"
        if not isinstance(chunk, dict):
            raise Unadaptable(f"{where} is no JSON object")
        kind = chunk.get("type")
        if kind not in (None, "encoded_text"):
            raise Unadaptable(f"{where} is of type {str(kind)[:40]!r}: a completions server takes encoded_text only")
        values = chunk.get("tokens")
        if not isinstance(values, list):
            raise Unadaptable(f"{where} has no list of tokens")
        if not are_tokens(values):
            raise Unadaptable(f"{where}.tokens holds something else than token ids, 0 to {_TOKEN_MAX}")
        tokens += values
    if not tokens:
        raise Unadaptable("the prompt has no token")
    return tokens


def _stops(stop: Any) -> tuple[tuple[str, ...], tuple[int, ...], bool]:
    """Texts, token ids, and whether there is to be no stop at all."""
    if stop is None:
        return (), (), False
    values = [stop] if isinstance(stop, str) else stop
    if isinstance(values, list):
        if all(isinstance(value, str) for value in values):
            if "" in values:
                raise Unadaptable("sampling_params.stop holds an empty text")
            return tuple(values), (), not values
        if are_tokens(values):
            return (), tuple(values), False
    raise Unadaptable("sampling_params.stop is neither a text, nor a list of texts, nor a list of token ids")


def _integer(found: dict[str, Any], name: str, where: str, *, default: int, least: int | None = None) -> int:
    value = found.get(name)
    if value is None:
        return default
    if type(value) is not int or (least is not None and value < least):
        raise Unadaptable(f"{where}{name} is no whole number" + ("" if least is None else f" from {least} on"))
    return value


def _number(params: dict[str, Any], name: str) -> float:
    """Of *name*, whose default is 1."""
    value = params.get(name)
    if value is None:
        return 1.0
    if not is_number(value):
        raise Unadaptable(f"sampling_params.{name} is no number")
    return float(value)
