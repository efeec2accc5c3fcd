"""The faults of targets: a tenth of the requests goes to one that misbehaves; the others must not notice."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.chaos.faults import nothing
from tests.chaos.fleet import MAX_RESULT_BYTES
from tests.chaos.ledger import Allowed
from tests.chaos.load import Item
from tests.chaos.scene import Fault, healthy

FAILURE = frozenset({"FAILURE"})
SUCCESS = frozenset({"SUCCESS"})
TIMEOUT = frozenset({"TargetTimeout"})
BROKEN = frozenset({"TargetUnreachable", "TargetBroken"})


def _plan(scripts: list[str], expect: frozenset[str]) -> Callable[[str, int], Item]:
    def plan(service: str, number: int) -> Item:
        if number % 10:
            return healthy(service, number)
        return Item(f"{service}-bad", random.choice(scripts), expect)

    return plan


def _fault(name: str, title: str, scripts: list[str], expect: frozenset[str], cuts: frozenset[str]) -> Fault:
    sections = f"""
[services.{name}-bad]
max_attempts = 2
timeout_s = 0.5
retry_delay_s = 0.2
"""
    return Fault(
        name,
        f"a tenth of the requests: {title}",
        nothing,
        Allowed(cuts=cuts, only=f"{name}-bad"),
        plan=_plan(scripts, expect),
        sections=sections,
    )


TARGETS = [
    _fault("target-hangs", "the target never answers", ["hang=1"], FAILURE, TIMEOUT),
    _fault("target-drips", "the answer drips beyond `timeout_s`", ["drip_s=0.2&drips=20"], FAILURE, TIMEOUT),
    _fault(
        "target-large",
        "the answer is larger than `MAX_RESULT_BYTES`",
        [f"body_bytes={MAX_RESULT_BYTES + 1}", f"body_bytes={40 * MAX_RESULT_BYTES}"],
        FAILURE,
        frozenset(),
    ),
    _fault(
        "target-closes",
        "the target closes early, midway or by RST",
        ["close=early", "close=midway", "close=reset"],
        FAILURE,
        BROKEN,
    ),
    _fault("target-redirects", "the target redirects", ["redirect=http://127.0.0.1:9/"], FAILURE, frozenset()),
    _fault("target-broken", "the answer is not HTTP", ["broken=1"], FAILURE, BROKEN),
    _fault("target-fails-first", "503 at the first attempt", ["fail_first=1"], SUCCESS, frozenset({"TargetFailed"})),
]
