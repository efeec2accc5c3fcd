"""Takers against each other and against whatever else ends a request: threads leave a barrier together, each with a
connection of its own. See test_races.py."""

from __future__ import annotations

import itertools
import random
import time
from collections import defaultdict
from collections.abc import Iterator

import pytest

from eas_queue.store import keys
from eas_queue.store.shapes import fresh_id
from tests.store.take_model import STRATEGIES
from tests.store.test_races import THREADS, races
from tests.support.desk import Desk
from tests.support.drive import TERMINAL, Driver, race
from tests.support.server import RedisServer
from tests.support.taker import Taker

ROUNDS = 20
LANES = ("a:0", "a:1", "b:0", "b:1")
LEASE_MS = 5_000


@pytest.fixture(scope="module")
def connected(redis_server: RedisServer) -> Iterator[list[Taker]]:
    made = [Taker(Driver(redis_server.url), f"taker{i}") for i in range(THREADS)]
    yield made
    for taker in made:
        taker.drive.store.client.close()


@pytest.fixture
def takers(connected: list[Taker], drive: Driver) -> list[Taker]:
    """As many as there are threads, and services that they can take from."""
    for service in ("s", "a", "b"):
        drive.register(service, pull=True, max_attempts=3)
    return connected


def submit_many(drive: Driver, count: int) -> list[str]:
    """Into all of LANES."""
    return [drive.submit("ab"[i % 2], priority_class=(101, 100, 105, 99)[i // 2 % 4]) for i in range(count)]


def service_of(drive: Driver, request_id: str) -> str:
    return next(name for name, number in drive.numbers.items() if int(request_id[:4], 16) == number)


# --------------------------------------------------------------------------------------------------------- take
@races("take")
@pytest.mark.parametrize("strategy", ["fifo", "round_robin", "active_passive"])
def test_each_waiting_request_is_given_to_one_taker_and_none_is_left(
    drive: Driver, takers: list[Taker], strategy: str
) -> None:
    submitted = submit_many(drive, 150)

    def act(i: int) -> list[str]:
        lanes, got = random.Random(i).sample(LANES, k=4), []
        while found := takers[i].take_ids(*lanes, strategy=strategy, most=1 + i % 4):
            got += found
        return got

    given = [request_id for got in race(THREADS, act) for request_id in got]

    assert len(given) == len(set(given))
    assert set(given) == set(submitted)
    assert sum(takers[0].standing(lane).taken for lane in LANES) == len(submitted)


@races("take")
def test_sequential_gives_many_takers_one_of_a_lane_at_a_time_and_in_the_end_all(
    drive: Driver, takers: list[Taker]
) -> None:
    submitted = submit_many(drive, 80)
    until_s = time.monotonic() + 60
    done: list[str] = []

    def act(i: int) -> None:
        lanes = random.Random(i).sample(LANES, k=4)
        while len(done) < len(submitted) and time.monotonic() < until_s:
            for found in takers[i].take(*lanes, strategy="sequential", most=2):
                assert takers[i].complete(found.request_id, lanes[found.lane][0])
                done.append(found.request_id)

    race(8, act)

    assert sorted(done) == sorted(submitted)
    runs: dict[tuple[str, bool], list[tuple[int, ...]]] = defaultdict(list)
    for request_id in submitted:
        service = service_of(drive, request_id)
        record = drive.raw.hmget(keys.record_key(service, request_id), "class", "started_ms", "finished_ms")
        runs[service, int(record[0]) > 100].append(tuple(map(int, record[1:])))
    assert len(runs) == len(LANES)
    for times in runs.values():
        times.sort()
        assert all(ended <= begun for (_, ended), (begun, _) in itertools.pairwise(times)), "two of a lane ran at once"


@races("take")
def test_takers_that_meet_at_an_idle_sequential_lane_get_one_of_it(drive: Driver, takers: list[Taker]) -> None:
    for _ in range(ROUNDS):
        first, second = drive.submit(), drive.submit()

        given = race(8, lambda i: takers[i].take_ids("s:1", strategy="sequential"))

        assert sorted(given) == [[]] * 7 + [[first]]
        for request_id in (first, second):
            drive.store.cancel("s", request_id)


@races("take")
def test_takers_of_one_turn_get_lanes_in_turn(drive: Driver, takers: list[Taker]) -> None:
    for _ in range(8):
        submit_many(drive, 8)

        given = race(4, lambda i: takers[i].take(*LANES, strategy="round_robin", most=1))

        assert sorted(rows[0].lane for rows in given) == [0, 1, 2, 3]


@races("take")
def test_a_take_that_is_sent_twice_at_once_leases_once(drive: Driver, takers: list[Taker]) -> None:
    for _ in range(4):
        drive.submit()
    nonce = fresh_id()

    given = race(8, lambda i: takers[i].take_ids("s:1", most=2, nonce=nonce))

    assert len({tuple(found) for found in given}) == 1
    assert len(given[0]) == len(drive.members("s", "lease")) == 2


@races("take")
def test_take_and_cancel_never_lose_a_request(drive: Driver, takers: list[Taker]) -> None:
    for _ in range(ROUNDS):
        request_id = drive.submit()

        was, given = race(
            2,
            lambda i, request_id=request_id: drive.store.cancel("s", request_id) if i else takers[0].take_ids("s:1"),
        )[::-1]

        assert (was, given) in (("queued", []), ("running", [request_id]))
        assert drive.state(request_id) == "cancelled"
        assert not takers[0].complete(request_id)
        assert not takers[0].extend(request_id)


@races("take")
def test_take_and_a_late_complete_of_the_taker_before_end_it_once(drive: Driver, takers: list[Taker]) -> None:
    before, after = takers[:2]
    for _ in range(ROUNDS):
        request_id = drive.submit()
        before.take("s:1", lease_ms=LEASE_MS)
        drive.pass_time(LEASE_MS + 1)
        drive.sweep()

        given, taken = race(
            2,
            lambda i, request_id=request_id: before.complete(request_id) if i else after.take("s:1"),
        )

        assert taken, "whoever has it now: the first complete ends it"
        assert [(row.request_id, row.attempt) for row in given] in ([], [(request_id, 2)])
        assert not after.complete(request_id, is_good=False)
        assert drive.state(request_id) == "succeeded"


@races("take")
def test_a_deadline_that_passes_while_it_is_taken_has_one_outcome(drive: Driver, takers: list[Taker]) -> None:
    for _ in range(ROUNDS):
        request_id = drive.submit(deadline_in_ms=1000)
        drive.pass_time(1000)

        _, given = race(2, lambda i: takers[0].take_ids("s:1") if i else drive.sweep())

        assert given == []
        assert drive.state(request_id) == "expired"


@races("take")
def test_what_lapses_while_others_take_is_given_once_more(drive: Driver, takers: list[Taker]) -> None:
    for _ in range(ROUNDS):
        request_id = drive.submit()
        takers[0].take("s:1", lease_ms=LEASE_MS)
        drive.pass_time(LEASE_MS + 1)

        _, *given = race(6, lambda i: takers[i].take("s:1") if i else drive.sweep())

        given = [row for rows in [*given, takers[0].take("s:1")] for row in rows]
        assert [(row.request_id, row.attempt) for row in given] == [(request_id, 2)]
        takers[0].complete(request_id)


@races("take")
def test_pause_and_take_leave_the_request_somewhere(drive: Driver, takers: list[Taker]) -> None:
    for _ in range(ROUNDS):
        request_id = drive.submit()

        changed, given = race(2, lambda i: takers[0].take_ids("s:1") if i else drive.store.pause("s", True))

        assert changed is True
        assert takers[1].take("s:1") == []
        assert drive.state(request_id) == ("running" if given else "queued")
        drive.store.cancel("s", request_id)
        drive.store.pause("s", False)


@races("take")
def test_a_request_goes_to_a_taker_or_to_a_watcher(drive: Driver, takers: list[Taker]) -> None:
    desk = Desk(drive, "input")
    desk.join("s/a", window=100)
    for _ in range(ROUNDS):
        request_id = drive.submit()

        given, pulled = race(2, lambda i: desk.pull("s/a") if i else takers[0].take_ids("s:1"))

        assert (given == [request_id]) != ([row.item for row in pulled] == [request_id])
        assert takers[0].complete(request_id)


# ----------------------------------------------------------------------------------------------------- complete
@races("complete")
def test_one_of_many_completes_ends_it(drive: Driver, takers: list[Taker]) -> None:
    request_id = drive.submit()
    takers[0].take("s:1")

    answers = race(THREADS, lambda i: takers[i].complete(request_id, is_good=i % 2 == 0))

    assert sorted(answers) == [False] * (THREADS - 1) + [True]
    assert drive.state(request_id) == ("failed" if answers.index(True) % 2 else "succeeded")
    assert takers[0].standing("s:1").done == len(drive.members("s", "sink")) == 1


@races("complete")
def test_complete_and_cancel_have_one_winner(drive: Driver, takers: list[Taker]) -> None:
    for _ in range(ROUNDS):
        request_id = drive.submit()
        takers[0].take("s:1")

        taken, was = race(
            2,
            lambda i, request_id=request_id: (
                drive.store.cancel("s", request_id) if i else takers[0].complete(request_id)
            ),
        )

        assert (taken, was, drive.state(request_id)) in (
            (True, "succeeded", "succeeded"),
            (False, "running", "cancelled"),
        )


@races("complete")
def test_complete_and_the_lapse_of_the_last_delivery_have_one_winner(drive: Driver, takers: list[Taker]) -> None:
    for _ in range(ROUNDS):
        request_id = drive.submit()
        takers[0].take("s:1", lease_ms=LEASE_MS, deliveries_most=1)
        drive.pass_time(LEASE_MS + 1)

        swept, taken = race(2, lambda i, request_id=request_id: takers[0].complete(request_id) if i else drive.sweep())

        assert (swept.lapsed == 1) != taken
        assert drive.state(request_id) == ("succeeded" if taken else "failed")


@races("complete")
def test_a_complete_wins_over_a_lapse_that_is_not_the_end(drive: Driver, takers: list[Taker]) -> None:
    for _ in range(ROUNDS):
        request_id = drive.submit()
        takers[0].take("s:1", lease_ms=LEASE_MS, deliveries_most=2)
        drive.pass_time(LEASE_MS + 1)

        _, taken = race(2, lambda i, request_id=request_id: takers[0].complete(request_id) if i else drive.sweep())

        assert taken
        assert drive.state(request_id) == "succeeded"
        assert takers[1].take("s:1") == []


@races("complete")
def test_nobody_completes_what_had_to_be_answered_before(drive: Driver, takers: list[Taker]) -> None:
    for _ in range(ROUNDS):
        request_id = drive.submit(deadline_in_ms=1000, own=[("answer_by", "1")])
        takers[0].take("s:1", lease_ms=LEASE_MS)
        drive.pass_time(1000)

        _, taken = race(2, lambda i, request_id=request_id: takers[0].complete(request_id) if i else drive.sweep())

        assert not taken
        assert drive.state(request_id) == "expired"


# ------------------------------------------------------------------------------------------------------- extend
@races("extend")
def test_extend_and_sweep_of_a_lapsed_lease_agree(drive: Driver, takers: list[Taker]) -> None:
    for _ in range(ROUNDS):
        request_id = drive.submit()
        takers[0].take("s:1", lease_ms=LEASE_MS)
        drive.pass_time(LEASE_MS + 1)

        swept, held = race(2, lambda i, request_id=request_id: takers[0].extend(request_id) if i else drive.sweep())

        assert held == (swept.lapsed == 0)
        assert drive.state(request_id) == ("running" if held else "queued")
        takers[0].complete(request_id)


@races("extend")
def test_nothing_is_extended_that_is_completed_meanwhile(drive: Driver, takers: list[Taker]) -> None:
    for _ in range(ROUNDS):
        request_id = drive.submit()
        takers[0].take("s:1")

        _, taken = race(
            2,
            lambda i, request_id=request_id: takers[1].complete(request_id) if i else takers[0].extend(request_id),
        )

        assert taken
        assert drive.members("s", "lease") == {}


@races("extend")
def test_only_who_has_it_extends_what_has_gone_to_another(drive: Driver, takers: list[Taker]) -> None:
    before, after = takers[:2]
    for _ in range(ROUNDS):
        request_id = drive.submit()
        before.take("s:1", lease_ms=LEASE_MS)
        drive.pass_time(LEASE_MS + 1)
        drive.sweep()

        given, held = race(
            2,
            lambda i, request_id=request_id: (
                before.extend(request_id, taker=before.name) if i else after.take_ids("s:1")
            ),
        )

        assert (given, held) == ([request_id], False)
        assert after.extend(request_id, taker=after.name)
        after.complete(request_id)


# ---------------------------------------------------------------------------------------------------- enrolling
@races("enroll")
def test_of_many_endpoints_at_once_a_service_has_one(drive: Driver, takers: list[Taker]) -> None:
    drive.register("new", listed=False)

    answers = race(THREADS, lambda i: takers[i].drive.store.takes.enroll("new", f"/v1/{i}"))

    [(endpoint, is_pulled)] = set(answers)
    assert is_pulled
    assert takers[0].standing("new:1").endpoint == endpoint
    assert endpoint in {f"/v1/{i}" for i in range(THREADS)}
    drive.pulls.add("new")


@races("enroll")
def test_a_process_that_registers_meanwhile_takes_nothing_back(drive: Driver, takers: list[Taker]) -> None:
    for i in range(ROUNDS):
        name = f"new{i}"
        drive.register(name, listed=False)

        race(
            2,
            lambda i, name=name: (
                drive.register(name, listed=False) if i else takers[0].drive.store.takes.enroll(name, "/v1")
            ),
        )

        assert takers[0].standing(f"{name}:1").pull
        drive.pulls.add(name)


@races("enroll")
def test_what_waits_while_its_service_is_enrolled_runs_at_one_place(drive: Driver, takers: list[Taker]) -> None:
    for i in range(ROUNDS):
        name = f"new{i}"
        drive.register(name, listed=False)
        request_id = drive.submit(name)

        works, _ = race(2, lambda i, name=name: takers[0].drive.store.takes.enroll(name, "/v1") if i else drive.start())

        drive.pulls.add(name)
        given = takers[0].take_ids(f"{name}:1")
        assert (given == [request_id]) != ([work.request_id for work in works] == [request_id])
        for work in works:
            drive.finish(work)


@races("standing")
def test_a_lane_is_counted_before_or_after_a_take_and_not_between(drive: Driver, takers: list[Taker]) -> None:
    for n in range(1, ROUNDS + 1):
        drive.submit()
        drive.submit()

        found, given = race(2, lambda i: takers[0].take_ids("s:1", most=2) if i else takers[1].standing("s:1"))

        assert len(given) == 2
        assert (found.put, found.taken) in ((2 * n, 2 * n - 2), (2 * n, 2 * n))


# --------------------------------------------------------------------------------------------------- everything
@races("take")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_whatever_happens_at_once_each_request_ends_once(drive: Driver, takers: list[Taker], strategy: str) -> None:
    """Takers of one strategy that complete, cancel, forget, and extend, while requests come and leases lapse."""
    submitted: list[str] = submit_many(drive, 40)
    ends: list[tuple[str, str]] = []

    def act(i: int) -> None:
        luck = random.Random(i)
        me = takers[i]
        for _ in range(25):
            if i == 0:
                submitted.append(drive.submit("ab"[luck.randrange(2)], priority_class=luck.choice([99, 100, 101])))
            elif i == 1:
                drive.pass_time(luck.choice([100, LEASE_MS]))
                drive.sweep()
            else:
                lanes = luck.sample(LANES, k=3)
                options = {"lease_ms": LEASE_MS, "deliveries_most": luck.choice([1, 3, -1])}
                for found in me.take(*lanes, strategy=strategy, most=3, **options):
                    request_id, service = found.request_id, lanes[found.lane][0]
                    what = luck.choice(["complete", "complete", "cancel", "extend", "forget"])
                    if what == "complete" and me.complete(request_id, service):
                        ends.append((request_id, "succeeded"))
                    elif what == "cancel" and me.drive.store.cancel(service, request_id) in ("queued", "running"):
                        ends.append((request_id, "cancelled"))
                    elif what == "extend":
                        me.extend(request_id, service, lease_ms=LEASE_MS)

    race(8, act)

    for _ in range(len(submitted)):
        drive.pass_time(LEASE_MS + 1)
        drive.sweep()
        for found in takers[0].take(*LANES, strategy=strategy, most=100, lease_ms=LEASE_MS, deliveries_most=-1):
            assert takers[0].complete(found.request_id, LANES[found.lane][0])
            ends.append((found.request_id, "succeeded"))
    states = {request_id: drive.state(request_id, service_of(drive, request_id)) for request_id in submitted}
    assert set(states.values()) <= set(TERMINAL)
    assert len(dict(ends)) == len(ends), "it was ended twice"
    assert {request_id: state for request_id, state in states.items() if state != "failed"} == dict(ends)
    counted = [takers[0].standing(lane) for lane in LANES]
    assert sum(found.put for found in counted) == len(submitted)
    assert sum(found.done for found in counted) == len([s for s in states.values() if s in ("succeeded", "failed")])
