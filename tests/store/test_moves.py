"""The stamp of a service: another one whenever somebody has another place. The random histories look at it as well."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from eas_queue.store.shapes import Leased
from tests.support.desk import Desk
from tests.support.drive import HAND_BACK, RETRY, SUCCEEDED, Driver


def cancel_first(drive: Driver) -> str:
    return drive.store.cancel("s", next(iter(drive.members("s", "wait"))))


STEPS: dict[str, Callable[[Driver, Leased], object]] = {  # with a request that runs
    "a submit": lambda drive, _: drive.submit(),
    "a submit to the front": lambda drive, _: drive.submit(priority_class=200),
    "a start": lambda drive, _: drive.start(),
    "a cancel": lambda drive, _: drive.store.cancel("s", list(drive.members("s", "wait"))[1]),
    "a release": lambda drive, work: drive.finish(work, HAND_BACK),
    "a retry": lambda drive, work: drive.finish(work, RETRY),
    "a submit for one that is cancelled": lambda drive, _: (cancel_first(drive), drive.submit()),
    "a release for one that is cancelled": lambda drive, work: (cancel_first(drive), drive.finish(work, HAND_BACK)),
    "an end and a start": lambda drive, work: drive.finish(work, SUCCEEDED, 1),
}


@pytest.mark.parametrize("step", STEPS)
def test_each_move_is_another_stamp_and_nothing_else_is(drive: Driver, step: str) -> None:
    for _ in range(4):
        drive.submit()
    (work,) = drive.start()
    (before,) = drive.store.moves(["s"])
    assert drive.store.moves(["s", "other"])[0] == before
    drive.progress(work, "{}")
    assert drive.store.moves(["s"]) == [before]

    STEPS[step](drive, work)

    assert drive.store.moves(["s"]) != [before]


def test_a_watcher_that_takes_another_one_instead_is_another_stamp(drive: Driver) -> None:
    drive.submit()
    drive.submit()
    lane = Desk(drive, "input")
    for user in "ab":
        assert lane.join(f"s/{user}", window=1) == 1
    assert lane.indexes("s/a") == [1]
    drive.check()

    lane.refuse("s", 1)
    assert lane.indexes("s/a", "s/b", most=1) == [2]

    assert next(iter(drive.members("s", "wait").values())) % 2**44 == 1
    drive.check()


def test_one_that_comes_back_while_another_one_starts_is_another_stamp(drive: Driver) -> None:
    first, second = drive.submit(), drive.submit()
    (work,) = drive.start()
    assert list(drive.members("s", "wait")) == [second]
    drive.check()

    drive.finish(work, RETRY)
    drive.start()
    drive.pass_time(RETRY.delay_ms + 1)
    drive.sweep()

    assert list(drive.members("s", "wait")) == [first]
    drive.check()


def test_one_that_comes_back_for_one_that_is_cancelled_is_another_stamp(drive: Driver) -> None:
    first, _, third = drive.submit(), drive.submit(), drive.submit()
    (work,) = drive.start()
    drive.finish(work, RETRY)
    drive.check()

    cancel_first(drive)
    drive.pass_time(RETRY.delay_ms + 1)
    drive.sweep()

    assert list(drive.members("s", "wait")) == [first, third]
    drive.check()
