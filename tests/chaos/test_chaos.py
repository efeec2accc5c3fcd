"""The short ledger: a few hundred requests under faults of each kind. All of it, with more requests: ``make chaos``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from tests.chaos.__main__ import FAULTS
from tests.chaos.faults import kill_server
from tests.chaos.fleet import Fleet
from tests.chaos.scene import run

COUNT = 300
SHORT = {
    "worker-kill-one": 5.0,  # seconds of load
    "worker-freeze": 9.0,
    "web-kill-all": 3.0,
    "server-kill": 5.0,
    "submit-interrupted": 3.0,
    "worker-server-reset": 5.0,
    "worker-target-reset": 5.0,
    "target-closes": 3.0,
}


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet(services="".join(FAULTS[name].sections for name in SHORT)) as made:
        yield made


@pytest.mark.parametrize("name", SHORT)
def test_the_promises_hold_under(fleet: Fleet, name: str) -> None:
    fault = dataclasses.replace(FAULTS[name], duration_s=SHORT[name])
    if name == "server-kill":
        fault = dataclasses.replace(fault, act=kill_server(3))

    row = run(fleet, fault, count=COUNT)

    assert row.red <= {"recovery"}, row
    assert row.recovery_s <= 2 * row.recovery_limit_s, row  # other tests run beside it, unlike in `make chaos`
    assert row.acknowledged == row.submitted >= COUNT
    assert row.terminal + row.undone == row.acknowledged
