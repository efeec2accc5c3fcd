"""The short account of takers that are killed. With 20 of them and 2,000 tasks: `make chaos`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.taking import MAX_ATTEMPTS, Site, run, site


@pytest.fixture(scope="module")
def place() -> Iterator[Site]:
    with site() as made:
        yield made


def test_tasks_survive_their_takers_and_each_delivery_is_counted(place: Site) -> None:
    account = run(place, takers=6, tasks=200, kills=20, deadly=[MAX_ATTEMPTS])

    assert account.problems == []
    assert account.completed == account.tasks == 200
    assert account.kills >= 20
    assert account.deliveries > account.tasks  # or nothing was lost, and the test has shown nothing
    assert account.most > MAX_ATTEMPTS
    assert account.late > 0
