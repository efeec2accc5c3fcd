"""Many samples at once by tinker's official client, in one process of its own: tests/clients/tinker_fleet.py."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from tests.support.installation import TOKEN
from tests.support.program import PATIENCE_S, ClientProgram
from tests.support.samples import prompt_of, tokens_of

ENVIRONMENT = "tinker"
HIGH, SCRIPT = "high", "script"


@dataclass(frozen=True)
class Begun:
    """A sample that was asked for. Its number is the first token of its prompt."""

    number: int
    kind: str
    samples: int

    def assert_its_own(self, said: dict[str, Any], request_id: str) -> None:
        """*said* is the result of this sample, of the request that the target saw."""
        assert "error" not in said, said
        prompt = prompt_of(self.number)
        assert said["tokens"] == [tokens_of(prompt, i) for i in range(self.samples)], said
        assert said["ids"] == [f"{request_id}:{i}" for i in range(self.samples)], said
        assert said.get("request_id", request_id) == request_id, said


class Fleet:
    """The client's process. A ``with`` block ends by killing it."""

    def __init__(self, url: str, model: str) -> None:
        env = {"TINKER_BASE_URL": url, "TINKER_API_KEY": TOKEN}
        self._program = ClientProgram(ENVIRONMENT, "tinker_fleet", model, env=env)
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
            self._program.tell(n=one.number, kind=kind, prompt=prompt_of(one.number), samples=one.samples)
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
