"""Sequential: never two of a lane that it gave run at once, and the lane is free again on every way out of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.desk import Desk
from tests.support.drive import Driver
from tests.support.taker import Taker

LEASE_MS = 5_000
DEADLINE_MS = 20_000
HOUR_MS = 3_600_000


@pytest.fixture
def taker(drive: Driver) -> Taker:
    for service in ("s", "t"):
        drive.register(service, pull=True, max_attempts=3)
    return Taker(drive)


def next_one(taker: Taker, *lanes: str, **options: object) -> list[str]:
    return taker.take_ids(*(lanes or ("s:1",)), strategy="sequential", **options)


def complete(taker: Taker, request_id: str) -> None:
    assert taker.complete(request_id)


def complete_with_an_error(taker: Taker, request_id: str) -> None:
    assert taker.complete(request_id, is_good=False)


def cancel(taker: Taker, request_id: str) -> None:
    assert taker.drive.store.cancel("s", request_id) == "running"


def take_out_of_the_queue(taker: Taker, request_id: str) -> None:
    """As a PAI-EAS client may."""
    [index] = [int(at) for name, at in taker.drive.members("s", "input").items() if name == request_id]
    assert Desk(taker.drive, "input").store.remove("s", "input", [index]) == 1


def put_its_result(taker: Taker, request_id: str) -> None:
    """As a PAI-EAS worker does: an item in the sink that names it, and a commit."""
    desk = Desk(taker.drive, "input")
    [index] = [int(at) for name, at in taker.drive.members("s", "input").items() if name == request_id]
    Desk(taker.drive).put(b"answer", name=request_id)
    desk.commit("s", index)
    assert taker.drive.state(request_id) == "succeeded"


def let_it_expire(taker: Taker, request_id: str) -> None:
    taker.drive.pass_time(DEADLINE_MS)
    taker.drive.sweep()
    assert taker.drive.state(request_id) == "expired"


def complete_it_too_late(taker: Taker, request_id: str) -> None:
    taker.drive.pass_time(DEADLINE_MS)
    assert not taker.complete(request_id)


def lose_the_last_delivery(taker: Taker, request_id: str) -> None:
    """Its taker was killed."""
    taker.drive.pass_time(LEASE_MS)
    taker.drive.sweep()
    assert taker.drive.state(request_id) == "failed"


@pytest.mark.parametrize(
    "leave",
    [
        complete,
        complete_with_an_error,
        cancel,
        take_out_of_the_queue,
        put_its_result,
        let_it_expire,
        complete_it_too_late,
        lose_the_last_delivery,
    ],
)
def test_the_lane_is_busy_until_what_it_gave_has_ended(
    drive: Driver, taker: Taker, leave: Callable[[Taker, str], None]
) -> None:
    by_deadline = leave in (let_it_expire, complete_it_too_late)
    options: dict[str, Any] = {"deadline_in_ms": DEADLINE_MS, "own": [("answer_by", "1")]} if by_deadline else {}
    first = drive.submit(**options)
    second, third = drive.submit(), drive.submit()
    lease_ms = LEASE_MS if leave is lose_the_last_delivery else HOUR_MS

    assert next_one(taker, lease_ms=lease_ms, deliveries_most=1) == [first]
    assert next_one(taker) == []
    leave(taker, first)

    assert next_one(taker) == [second]
    assert next_one(taker) == []
    assert drive.state(third) == "queued"


def test_a_lost_delivery_frees_the_lane_and_is_given_again_at_its_place(drive: Driver, taker: Taker) -> None:
    first, second = drive.submit(), drive.submit()
    assert next_one(taker, lease_ms=LEASE_MS) == [first]
    drive.pass_time(LEASE_MS)
    assert next_one(taker) == [], "nobody has seen yet that it lapsed"

    drive.sweep()

    assert next_one(taker) == [first]
    assert next_one(taker) == []
    taker.complete(first)
    assert next_one(taker) == [second]


def test_what_came_back_waits_behind_something_better_and_one_runs(drive: Driver, taker: Taker) -> None:
    first = drive.submit()
    next_one(taker, lease_ms=LEASE_MS)
    drive.pass_time(LEASE_MS)
    drive.sweep()
    drive.register("s", pull=True)
    low, high = drive.submit(priority_class=99), drive.submit(priority_class=101)

    assert next_one(taker, "s:0", "s:1") == [high, first]
    assert next_one(taker, "s:0", "s:1") == []
    taker.complete(first)
    assert next_one(taker, "s:0", "s:1") == [low]


def test_the_lane_is_busy_while_another_strategy_redelivers_what_it_gave(drive: Driver, taker: Taker) -> None:
    first, second = drive.submit(), drive.submit()
    next_one(taker, lease_ms=LEASE_MS)
    drive.pass_time(LEASE_MS)
    drive.sweep()
    assert taker.take_ids("s:1", strategy="fifo", most=1) == [first]

    assert next_one(taker) == []
    taker.complete(first)
    assert next_one(taker) == [second]


@pytest.mark.parametrize("other", ["fifo", "round_robin", "active_passive"])
def test_other_strategies_neither_heed_it_nor_make_a_lane_busy(drive: Driver, taker: Taker, other: str) -> None:
    first, second, third = drive.submit(), drive.submit(), drive.submit()

    assert next_one(taker) == [first]
    assert taker.take_ids("s:1", strategy=other, most=1) == [second]
    taker.complete(first)

    assert next_one(taker) == [third]


def test_lanes_are_busy_each_by_itself_whoever_asks(drive: Driver, taker: Taker) -> None:
    high, normal, other = drive.submit(priority_class=102), drive.submit(), drive.submit("t")
    for service, priority_class in (("s", 101), ("s", 99), ("t", 100)):
        drive.submit(service, priority_class=priority_class)

    assert next_one(taker, "s:1") == [normal]
    assert next_one(Taker(drive, "another"), "t:1", "s:1", "s:0") == [other, high]
    assert next_one(taker, "s:0", "s:1", "t:1") == []


def test_it_gives_one_of_each_lane_in_their_order_and_no_more_than_asked_for(drive: Driver, taker: Taker) -> None:
    first, high, other = drive.submit(), drive.submit(priority_class=101), drive.submit("t")
    drive.submit()

    assert next_one(taker, "s:1", "s:1", "s:0", "t:1", most=2) == [first, high]
    assert next_one(taker, "s:1", "s:1", "s:0", "t:1", most=2) == [other]


def test_a_lane_does_not_become_free_by_time(drive: Driver, taker: Taker) -> None:
    drive.submit()
    drive.submit()
    next_one(taker, lease_ms=0)
    drive.pass_time(10 * HOUR_MS)
    drive.sweep()

    assert next_one(taker) == []


def test_what_is_late_does_not_make_a_lane_busy(drive: Driver, taker: Taker) -> None:
    drive.submit(deadline_in_ms=1_000)
    drive.pass_time(1_000)
    assert next_one(taker) == []
    later = drive.submit()

    assert next_one(taker) == [later]


def test_a_lane_stays_busy_while_its_taker_extends(drive: Driver, taker: Taker) -> None:
    first = drive.submit()
    drive.submit()
    next_one(taker, lease_ms=LEASE_MS)
    for _ in range(3):
        drive.pass_time(LEASE_MS - 1_000)
        assert taker.extend(first, lease_ms=LEASE_MS)
        drive.sweep()

        assert next_one(taker) == []


def test_a_pause_keeps_a_lane_busy(drive: Driver, taker: Taker) -> None:
    first, second = drive.submit(), drive.submit()
    next_one(taker)
    drive.store.pause("s", True)
    drive.store.pause("s", False)

    assert next_one(taker) == []
    taker.complete(first)
    assert next_one(taker) == [second]
