"""A token model small enough to read: it counts which token followed which others. It is no language model.

    model = NGrams(as_text(b"A bad kettle.\\nA good kettle.\\n"))
    sample = Sample(model, as_text(b"A g"), Params(max_tokens=8, stop=("\\n",)), random.Random(7))
    while sample.stop_reason is None:
        sample.step()

A token is a character here, the one whose code point is its id: strings are the lists of numbers that Python searches
fastest. So nothing is counted until it is asked for, and a model is made in no time.

The probability of a token after some others is a mixture: how often it followed the last five of them, the last four,
and so on down to how often it occurs at all, and, for what never occurred, one part in all tokens that there are. Each
has the more weight the fewer different tokens followed there (Witten and Bell's smoothing). So every token of the
vocabulary has a probability above zero, and together they have one.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random

CONTEXT_TOKENS = 5
TOKEN_MOST = 0x10FFFF
_CONTEXTS_KEPT = 10_000


def as_text(tokens: Iterable[int]) -> str:
    """Token ids as the string that stands for them here; those of a `bytes` are its bytes."""
    return "".join(map(chr, tokens))


@dataclass(frozen=True, slots=True)
class Params:
    """*top_k* -1: no limit. *stop*: strings of tokens, of which each ends a sample that ends with it."""

    max_tokens: int
    temperature: float = 1.0
    top_k: int = -1
    top_p: float = 1.0
    stop: tuple[str, ...] = ()


class NGrams:
    """What follows what in *text*. *vocabulary*: the tokens there are, at least those of the text."""

    def __init__(self, text: str, vocabulary: Iterable[str] = ()) -> None:
        self._text = text
        self._vocabulary = dict.fromkeys(itertools.chain(vocabulary, text))
        self._followers = functools.lru_cache(_CONTEXTS_KEPT)(self._count)

    def probability(self, token: str, before: str) -> float:
        """Of *token* after *before*; 0 where it is not in the vocabulary."""
        if token not in self._vocabulary:
            return 0.0
        *parts, (_, everywhere) = self._mixture(before)
        return math.fsum([everywhere, *(weight * followers[token] for followers, weight in parts)])

    def distribution(self, before: str) -> dict[str, float]:
        """The probability of each token of the vocabulary after *before*."""
        *parts, (_, everywhere) = self._mixture(before)
        found = dict.fromkeys(self._vocabulary, everywhere)
        for followers, weight in parts:
            for token, count in followers.items():
                found[token] += weight * count
        return found

    def _mixture(self, before: str) -> Iterator[tuple[Counter[str], float]]:
        """Counts, each with what one of its counts is worth, of the longest context first; last what each token has."""
        rest = 1.0
        for length in range(min(CONTEXT_TOKENS, len(before)), -1, -1):
            followers = self._followers(before[len(before) - length :])
            total, different = followers.total(), len(followers)
            if total:
                yield followers, rest / (total + different)
                rest *= different / (total + different)
        yield Counter(), rest / len(self._vocabulary)

    def _count(self, context: str) -> Counter[str]:
        if not context:
            return Counter(self._text)
        found: Counter[str] = Counter()
        at = self._text.find(context)
        while at >= 0:
            found.update(self._text[at + len(context) : at + len(context) + 1])
            at = self._text.find(context, at + 1)
        return found


class Sample:
    """One continuation of *prompt*, a token per step."""

    def __init__(self, model: NGrams, prompt: str, params: Params, random: Random) -> None:
        self._model, self._params, self._random = model, params, random
        self._before = prompt[-CONTEXT_TOKENS:]
        self._text = ""
        self.logprobs: list[float] = []
        self.stop_reason: str | None = None

    @property
    def tokens(self) -> list[int]:
        return [ord(token) for token in self._text]

    def step(self) -> None:
        """Its next token. The log probability is the model's own, before temperature, top_k and top_p."""
        distribution = self._model.distribution(self._before)
        token = choose(distribution, self._params, self._random)
        self._text += token
        self._before = (self._before + token)[-CONTEXT_TOKENS:]
        self.logprobs.append(_log(distribution[token]))
        if self._text.endswith(self._params.stop):
            self.stop_reason = "stop"
        elif len(self._text) >= self._params.max_tokens:
            self.stop_reason = "length"


def choose(distribution: dict[str, float], params: Params, random: Random) -> str:
    """A token drawn at the temperature from the likeliest that top_k and then top_p leave; at 0 the likeliest."""
    top_k = 1 if params.temperature == 0 else params.top_k
    if top_k < 1 and params.top_p >= 1:
        tokens = list(distribution)
    else:
        tokens = heapq.nlargest(top_k if top_k > 0 else len(distribution), distribution, key=distribution.__getitem__)
    if len(tokens) == 1:
        return tokens[0]
    likeliest = max(map(distribution.__getitem__, tokens))  # divided by it, not all become 0 at a low temperature
    weights = [(distribution[token] / likeliest) ** (1 / params.temperature) for token in tokens]
    if params.top_p < 1:
        enough = params.top_p * math.fsum(weights)
        kept = 1 + sum(1 for weight in itertools.accumulate(weights) if weight < enough)
        tokens, weights = tokens[:kept], weights[:kept]
    return random.choices(tokens, weights)[0]


def prompt_logprobs(model: NGrams, prompt: str) -> list[float | None]:
    """Of each token of the prompt after those before it; of the first one none."""
    return [
        None if at == 0 else _log(model.probability(token, prompt[max(0, at - CONTEXT_TOKENS) : at]))
        for at, token in enumerate(prompt)
    ]


def _log(probability: float) -> float:
    return min(0.0, math.log(probability))  # a sure token's may add up to a little more than 1
