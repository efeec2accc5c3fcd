"""Waiting for longer than one poll lasts: how often clients of Tinker's API ask, and that nobody starves beside others.

One story, told once: one slot is taken for longer than a poll is held, behind it wait the script's pollers and samples
of two releases of the high-level client. The tests read what was seen.
"""

from __future__ import annotations

import collections
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.tinker_sdk import TINKER, TINKER_022, House, Sdk, house

HOLD_S = 25.0  # a poll of the high-level client lasts so long, and no longer than 45 s
TAKEN_S = HOLD_S + 2
SCRIPTS = 10
SAMPLES = {TINKER: (1, 4), TINKER_022: (4, 1)}  # of each client, so many sequences
ENOUGH_S = 30.0


@dataclass
class Story:
    scripts: list[dict[str, Any]]
    """What the script's pollers said."""
    results: dict[str, list[Any]]
    polls: list[dict[str, Any]]
    """Those that have been answered."""
    lasted_s: float
    order: list[int]
    """Samples of each call of the target."""
    errors: dict[str, str]
    """What the clients have logged."""


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with house(TINKER, TINKER_022) as place:
        yield told(place)


def told(place: House) -> Story:
    model, name = place.model(), uuid.uuid4().hex
    samplers = {each: place.sdk(each).sampler(model) for each in SAMPLES}
    began = time.monotonic()
    first = samplers[TINKER].begin([1], f"hold {name}")
    place.target.await_held(name)
    callings = {
        each: [samplers[each].begin([7, 8], num_samples=count) for count in counts] for each, counts in SAMPLES.items()
    }
    with place.script(TINKER, model, count=SCRIPTS) as script:
        said = heard(script_lines(script, began))
        place.target.release(name)
        said += script.rest(timeout_s=ENOUGH_S)
    results = {each: [calling.result(timeout_s=ENOUGH_S) for calling in some] for each, some in callings.items()}
    results[TINKER].append(first.result())
    return Story(
        said,
        results,
        place.wire("retrieve_future"),
        time.monotonic() - began,
        [int(call.headers.get("content-length", 0)) for call in place.target.calls(model=model)],
        {each: place.sdk(each).program.errors for each in SAMPLES},
    )
