"""A real HTTP target that samples for clients of Tinker's API: what it answers can be computed from what was asked."""

from __future__ import annotations

import collections
import json
import threading
from typing import Any

from tests.support.own_target import Call, OwnTarget, Reply

LONGEST_HOLD_S = 60
LOOK_EACH_S = 0.02


class SampleTarget(OwnTarget):
    """Sample n of a prompt is the prompt, each token n + 1 greater. The stop strings of a call are its steps:

    "hold NAME"         wait until the test releases this name, or the caller is gone
    "tell N M"          report that N of M tokens are there
    "answer 422 TEXT"   with this status and body, instead of 200 and samples
    """

    def __init__(self) -> None:
        super().__init__()
        self.act = self._act
        self._lock = threading.Lock()
        self._steps: dict[str, list[str]] = {}
        self._calls: list[Call] = []
        self._abandoned: set[str] = set()
        self._holders: dict[str, str] = {}
        self._held: dict[str, threading.Event] = collections.defaultdict(threading.Event)
        self._released: dict[str, threading.Event] = collections.defaultdict(threading.Event)

    def does(self, service: str, *steps: str) -> None:
        """The steps of each call to this service that has none of its own."""
        self._steps[service] = list(steps)

    def calls(self, *, model: str | None = None, request_id: str | None = None) -> list[Call]:
        """So far, in order: those for this model, as its client named it, or of this request."""
        with self._lock:
            return [
                call
                for call in self._calls
                if model in (None, call.headers.get("x-tinker-model"))
                and request_id in (None, call.headers.get("x-request-id"))
            ]

    def is_abandoned(self, request_id: str) -> bool:
        """Whether a call of this request was held and its caller has gone."""
        with self._lock:
            return request_id in self._abandoned

    def await_held(self, name: str, *, timeout_s: float = 10) -> str:
        """Until a call waits for this name; the id of its request."""
        with self._lock:
            event = self._held[name]
        assert event.wait(timeout_s), f"no call has come to {name!r} within {timeout_s} s"
        with self._lock:
            return self._holders[name]

    def release(self, *names: str) -> None:
        """Those that wait, and those that will."""
        with self._lock:
            for name in names:
                self._released[name].set()

    def stop(self) -> None:
        self.release(*list(self._held))
        super().stop()

    def _act(self, call: Call) -> Reply:
        with self._lock:
            self._calls.append(call)
        for step in steps(call) or self._steps.get(call.path.split("/")[3], []):
            word, _, given = step.partition(" ")
            if word == "hold":
                self._hold(call, given)
            elif word == "tell":
                done, of = map(int, given.split())
                told = call.report(progress={"tokens_generated": done, "max_tokens": of})
                assert told == 204, told
            else:
                assert word == "answer", step
                status, _, text = given.partition(" ")
                return int(status), text.encode()
        return 200, json.dumps(sampled(json.loads(call.body))).encode()

    def _hold(self, call: Call, name: str) -> None:
        with self._lock:
            held, released = self._held[name], self._released[name]
            self._holders[name] = call.headers["x-request-id"]
        held.set()
        for _ in range(int(LONGEST_HOLD_S / LOOK_EACH_S)):
            if released.wait(LOOK_EACH_S):
                return
            if call.is_abandoned():
                with self._lock:
                    self._abandoned.add(call.headers["x-request-id"])
                return


def steps(call: Call) -> list[str]:
    stop: list[str] | None = json.loads(call.body)["sampling_params"].get("stop")
    return stop or []


def sampled(asked: dict[str, Any]) -> dict[str, Any]:
    """What it answers. All numbers are exact as floats of four bytes."""
    prompt = [token for chunk in asked["prompt"]["chunks"] for token in chunk["tokens"]]
    most = asked["sampling_params"]["max_tokens"]
    sequences = [
        {
            "tokens": [token + n + 1 for token in prompt][:most],
            "logprobs": [-0.25 * (n + 1) * (i + 1) for i in range(min(most, len(prompt)))],
            "stop_reason": "length" if most <= len(prompt) else "stop",
        }
        for n in range(asked.get("num_samples", 1))
    ]
    scored = [None, *(-0.5 * i for i in range(1, len(prompt)))]
    k = asked.get("topk_prompt_logprobs") or 0
    best = [None, *([[token + j, -1.5 * (j + 1)] for j in range(k)] for token in prompt[1:])]
    return {
        "type": "sample",
        "sequences": sequences,
        "prompt_logprobs": scored if asked.get("prompt_logprobs") else None,
        "topk_prompt_logprobs": best if k else None,
    }
