"""Sampling requests as Tinker's clients write them, answered by a small model: which token follows which.

It is no language model, whatever model a client names. A prompt of ids up to 255 is taken for the bytes of English text
and continued as the sentences of examples/sentiment go on; a line feed is the end of a text. Any other prompt is in the
ids of a tokenizer that is not known here: it is continued with its own tokens, by what followed what in it, and no end.
"""

from __future__ import annotations

import functools
import json
import math
import os
import time
import urllib.request
from random import Random
from typing import Any, Protocol

from examples.sentiment.model import TRAIN_FILE, parse
from examples.tinker.sampler import TOKEN_MOST, NGrams, Params, Sample, as_text, prompt_logprobs

WHAT_IT_IS = "counts of which token followed which; no language model"
PROMPT_TOKENS_MOST, TOKENS_MOST, SAMPLES_MOST = 16_384, 4_096, 16
DELAY_MOST_S = 60.0  # of all tokens together
REPORT_EVERY_S = 0.5
DELAY_HEADER = "X-Token-Delay-S"
END = "\n"
# What a request may ask for besides; none of it has a place in the answer here.
NOT_GIVEN = (
    "topk_prompt_logprobs",
    "topk_sample_logprobs",
    "target_prompt_logprobs",
    "prompt_alt_tokens_k",
    "prompt_logprobs_last_n",
)


class Headers(Protocol):
    """Of a request; any mapping that finds them will do."""

    def get(self, name: str, default: str, /) -> str: ...


class NotSampled(ValueError):
    """A request that is not answered; the text says what is wrong with it."""


def is_asked(body: object) -> bool:
    """Is this a sampling request? All else is not for this module."""
    return isinstance(body, dict) and isinstance(body.get("prompt"), dict) and "chunks" in body["prompt"]


def answer(body: dict[str, Any], headers: Headers) -> dict[str, Any]:
    """The samples. The header `X-Token-Delay-S` makes it as slow as a large model. Then it tells the queue how far it
    is, by the two headers that the queue adds. Raises NotSampled.
    """
    prompt = _prompt(body["prompt"]["chunks"])
    is_bytes = max(prompt) <= "\xff"
    model = _sentences() if is_bytes else NGrams(prompt)
    samples = _whole(body, "num_samples", 1, 1, SAMPLES_MOST)
    params, seed = _params(body.get("sampling_params"), is_bytes=is_bytes)
    delay_s = _delay_s(headers.get(DELAY_HEADER, "0"), DELAY_MOST_S / params.max_tokens)
    for name in NOT_GIVEN:
        if body.get(name):
            raise NotSampled(f"{name}: not given here, this is a small example")

    # Each sample has a generator of its own, so that none depends on how long the others are.
    seed = int.from_bytes(os.urandom(8)) if seed is None else seed
    sources = [Random(f"{seed}/{number}") for number in range(samples)]  # noqa: S311  nothing secret
    found = [Sample(model, prompt, params, source) for source in sources]
    _run(found, params.max_tokens, delay_s, headers)
    return {
        "sequences": [
            {"tokens": sample.tokens, "logprobs": sample.logprobs, "stop_reason": sample.stop_reason}
            for sample in found
        ],
        "prompt_logprobs": prompt_logprobs(model, prompt) if body.get("prompt_logprobs") is True else None,
        "type": "sample",
        "sampled_by": WHAT_IT_IS,
    }


def _run(samples: list[Sample], max_tokens: int, delay_s: float, headers: Headers) -> None:
    """All at the same pace, as a server that works on them together would."""
    url, token = headers.get("X-Progress-Url", ""), headers.get("X-Progress-Token", "")
    reported_s = time.monotonic()
    open_ones, generated = samples, 0
    while open_ones:
        time.sleep(delay_s)
        for sample in open_ones:
            sample.step()
        open_ones = [sample for sample in open_ones if sample.stop_reason is None]
        generated += 1
        if url and open_ones and time.monotonic() >= reported_s + REPORT_EVERY_S:
            if not report(url, token, {"tokens_generated": generated, "max_tokens": max_tokens}):
                url = ""
            reported_s = time.monotonic()


def report(url: str, token: str, progress: dict[str, int]) -> bool:
    """Tell the queue. False where it does not take it: nothing depends on that."""
    headers = {"X-Progress-Token": token, "Content-Type": "application/json"}
    content = json.dumps({"progress": progress}).encode()
    # No proxies: the queue is where it says it is.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        if not url.startswith(("http://", "https://")):
            return False
        request = urllib.request.Request(url, content, headers)  # noqa: S310  the line above
        with opener.open(request, timeout=2):
            return True
    except (OSError, ValueError):
        return False


@functools.cache
def _sentences() -> NGrams:
    lines = TRAIN_FILE.read_text(encoding="utf-8").splitlines()
    text = "".join(f"{END}{example.sentence}" for example in parse(lines)) + END
    return NGrams(as_text(text.encode()), map(chr, range(256)))


# ------------------------------------------------------------------------------------------------- what was asked
def _prompt(chunks: object) -> str:
    if not isinstance(chunks, list) or not all(isinstance(chunk, dict) for chunk in chunks):
        raise NotSampled("prompt.chunks must be a list of objects")
    tokens: list[int] = []
    for chunk in chunks:
        if not isinstance(chunk.get("tokens"), list):
            raise NotSampled("each of prompt.chunks must have a list of tokens: there are no images here")
        tokens += chunk["tokens"]
    if not 1 <= len(tokens) <= PROMPT_TOKENS_MOST:
        raise NotSampled(f"the prompt must have 1 to {PROMPT_TOKENS_MOST:,} tokens, it has {len(tokens):,}")
    return _tokens(tokens, "tokens in prompt.chunks")


def _tokens(tokens: list[Any], where: str) -> str:
    if not all(type(token) is int and 0 <= token <= TOKEN_MOST for token in tokens):
        raise NotSampled(f"{where} must be whole numbers from 0 to {TOKEN_MOST:,}")
    return as_text(tokens)


def _params(found: object, *, is_bytes: bool) -> tuple[Params, int | None]:
    """With the seed, if one was given."""
    if found is None:
        found = {}
    if not isinstance(found, dict):
        raise NotSampled("sampling_params must be an object")
    params = Params(
        max_tokens=_whole(found, "max_tokens", TOKENS_MOST, 1, TOKENS_MOST),
        temperature=_number(found, "temperature", 1.0, math.inf),
        top_k=_whole(found, "top_k", -1, -1, 2**31),
        top_p=_number(found, "top_p", 1.0, 1.0),
        stop=_stop(found.get("stop"), is_bytes=is_bytes),
    )
    return params, None if found.get("seed") is None else _whole(found, "seed", 0, -(2**63), 2**64 - 1)


def _stop(stop: object, *, is_bytes: bool) -> tuple[str, ...]:
    """Besides what is asked for, the end of a text stops; only an empty list asks for no stop at all."""
    own = (END,) if is_bytes else ()
    if stop is None:
        return own
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list):
        raise NotSampled("stop must be a text, a list of texts or a list of token ids")
    if not stops:
        return ()
    if not all(isinstance(one, str) for one in stops):
        return own + tuple(_tokens(stops, "stop"))
    if not is_bytes:
        raise NotSampled("stop must be token ids for this prompt: its tokenizer, and so the text, is not known here")
    if "" in stops:
        raise NotSampled("stop has an empty text")
    return own + tuple(as_text(one.encode(errors="surrogatepass")) for one in stops)


def _delay_s(text: str, most_s: float) -> float:
    try:
        return _number({DELAY_HEADER: float(text)}, DELAY_HEADER, 0.0, most_s)
    except ValueError as exc:  # NotSampled, too
        raise NotSampled(f"{DELAY_HEADER} must be a number from 0 to {most_s:g}: {DELAY_MOST_S:g} s in all") from exc


def _whole(values: dict[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = default if values.get(name) is None else values[name]
    if type(value) is not int or not least <= value <= most:
        raise NotSampled(f"{name} must be a whole number from {least} to {most}")
    return value


def _number(values: dict[str, Any], name: str, default: float, most: float) -> float:
    value = default if values.get(name) is None else values[name]
    # Written so that nan, which compares false with everything, is refused too.
    if type(value) not in (int, float) or not 0 <= value <= most or math.isinf(value):
        raise NotSampled(f"{name} must be a number from 0{f' to {most:g}' if most < math.inf else ''}")
    return float(value)
