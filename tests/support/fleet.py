"""Many samples at once by tinker's official client, in one process of its own: tests/clients/tinker_fleet.py."""

from __future__ import annotations

import collections
import itertools
import json
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from tests.support.installation import TOKEN
from tests.support.own_target import Call, Reply
from tests.support.program import PATIENCE_S, ClientProgram
from tests.support.sample_target import SampleTarget, sampled

ENVIRONMENT = "tinker"
HIGH, SCRIPT = "high", "script"
MODEL, SERVICE = "Qwen/Qwen3-0.6B", "fleet"
MOST_TOKENS = 8


def services(slots: int) -> str:
    """The services file."""
    return f'[services.{SERVICE}]\nmax_concurrency = {slots}\naliases = ["{MODEL}"]\n'


class FleetTarget(SampleTarget):
    """Takes *delay_s* for a call, and counts. Between ``hold`` and ``release`` calls come and none is answered."""

    def __init__(self, delay_s: float = 0) -> None:
        super().__init__()
        self.act = self._counted
        self._delay_s = delay_s
        self._counts = threading.Lock()
        self._holds = 0
        self.running = self.most_running = 0

    def hold(self) -> None:
        self._holds += 1
        self.does(SERVICE, f"hold {self._holds}")

    def release(self, *names: str) -> None:
        self.does(SERVICE)
        super().release(*names, str(self._holds))

    def requests(self) -> dict[int, list[str]]:
        """By the number of the sample: the request ids of its calls, in order."""
        found = collections.defaultdict(list)
        for call in self.calls():
            number = json.loads(call.body)["prompt"]["chunks"][0]["tokens"][0]
            found[number].append(call.headers["x-request-id"])
        return dict(found)

    def _counted(self, call: Call) -> Reply:
        with self._counts:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        try:
            time.sleep(self._delay_s)
            return self._act(call)
        finally:
            with self._counts:
                self.running -= 1


@dataclass(frozen=True)
class Begun:
    """A sample that was asked for. Its number is the first token of its prompt."""

    number: int
    kind: str
    samples: int

    @property
    def asked(self) -> dict[str, Any]:
        """What makes its result, as the wire has it."""
        chunks = [{"tokens": [self.number, 7, self.number * 3 + 1]}]
        return {
            "prompt": {"chunks": chunks},
            "num_samples": self.samples,
            "sampling_params": {"max_tokens": MOST_TOKENS},
        }

    def assert_its_own(self, said: dict[str, Any], request_id: str) -> None:
        """*said* is the result of this sample, of the request that the target saw."""
        assert "error" not in said, said
        assert said["tokens"] == [sequence["tokens"] for sequence in sampled(self.asked)["sequences"]], said
        assert said["ids"] == [f"{request_id}:{i}" for i in range(self.samples)], said
        assert said.get("request_id", request_id) == request_id, said


class Fleet:
    """The client's process. A ``with`` block ends by killing it."""

    def __init__(self, url: str) -> None:
        env = {"TINKER_BASE_URL": url, "TINKER_API_KEY": TOKEN}
        self._program = ClientProgram(ENVIRONMENT, "tinker_fleet", MODEL, MOST_TOKENS, env=env)
        self._numbers = itertools.count(1)
        self._said: dict[int, list[dict[str, Any]]] = collections.defaultdict(list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._program.kill()

    def await_ready(self) -> str:
        """The version of the client, when it has its sampling session."""
        return str(self._program.hear()["ready"])

    def begin(self, kind: str, count: int) -> list[Begun]:
        """Samples of one, two and three sequences. Returns before they are submitted."""
        begun = [Begun(number, kind, 1 + number % 3) for number in itertools.islice(self._numbers, count)]
        for one in begun:
            prompt = one.asked["prompt"]["chunks"][0]["tokens"]
            self._program.tell(n=one.number, kind=kind, prompt=prompt, samples=one.samples)
        return begun

    def hear(self, one: Begun, *, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """The next that is said of it: of a script's sample first that it was submitted, then its end."""
        while not self._said[one.number]:
            said = self._program.hear(timeout_s=timeout_s)
            self._said[said["n"]].append(said)
        return self._said[one.number].pop(0)

    def await_submitted(self, begun: Iterable[Begun]) -> None:
        """Of scripts."""
        for one in begun:
            said = self.hear(one)
            assert "submitted" in said, said

    def ends(self, begun: Iterable[Begun], *, timeout_s: float = PATIENCE_S) -> dict[Begun, dict[str, Any]]:
        """*timeout_s*: of silence."""
        return {one: self.hear(one, timeout_s=timeout_s) for one in begun}
