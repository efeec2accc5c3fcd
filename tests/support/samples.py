"""A real target that samples: its tokens follow from the prompt, so that an answer tells whose it is."""

from __future__ import annotations

import collections
import json
import threading
from typing import Any

from tests.support.own_target import Call, OwnTarget, Reply

LONGEST_HOLD_S = 30


def prompt_of(number: int) -> list[int]:
    """Tokens that no other number has."""
    return [number, 7, number * 3 + 1]


def tokens_of(prompt: list[int], sequence: int) -> list[int]:
    """What the target samples for it; each sequence differs."""
    return [sequence, *(token + 1000 for token in reversed(prompt))]


class SampleTarget(OwnTarget):
    """Takes *delay_s* for a call. Between ``hold`` and ``release`` calls come and none is answered."""

    def __init__(self, delay_s: float = 0) -> None:
        super().__init__()
        self.act = self._act
        self.delay_s = delay_s
        self.most_running = 0
        self._running = 0
        self._lock = threading.Lock()
        self._calls: dict[int, list[str]] = collections.defaultdict(list)
        self._open = threading.Event()
        self._open.set()

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    @property
    def running(self) -> int:
        with self._lock:
            return self._running

    def calls(self) -> dict[int, list[str]]:
        """By the first token of the prompt: the request ids that came with it, in order."""
        with self._lock:
            return {number: list(found) for number, found in self._calls.items()}

    def _act(self, call: Call) -> Reply:
        asked: Any = json.loads(call.body)
        prompt = [token for chunk in asked["prompt"]["chunks"] for token in chunk["tokens"]]
        with self._lock:
            self._calls[prompt[0]].append(call.headers["x-request-id"])
            self._running += 1
            self.most_running = max(self.most_running, self._running)
        if self.delay_s:
            threading.Event().wait(self.delay_s)
        self._open.wait(LONGEST_HOLD_S)
        with self._lock:
            self._running -= 1
        sequences = [
            {"tokens": tokens, "logprobs": [-0.5] * len(tokens), "stop_reason": "stop"}
            for tokens in (tokens_of(prompt, i) for i in range(asked["num_samples"]))
        ]
        return 200, json.dumps({"sequences": sequences}).encode()

    def stop(self) -> None:
        self.release()
        super().stop()
