"""Takes against a plain model of their rules: the same is done to both, step by step, and must come out alike.

Which requests a take gives and in which order, what becomes of each of them, and the counts of every lane. For each
strategy there are histories in which most takes are its own. ``PROPERTY_EXAMPLES`` sets how many are tried.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from eas_queue.store import keys
from eas_queue.store.shapes import fresh_id
from eas_queue.store.takes import Lane, NotPulled
from tests.store.take_model import ALIVE, ANY, DAY_MS, STRATEGIES, Model, Request, Row, Service
from tests.store.test_properties import EXAMPLES, SHRINK
from tests.support.drive import Driver
from tests.support.server import RedisServer
from tests.support.taker import ALL, Taker

SERVICES = ("a", "b", "c")
HOLDS = "c"  # where a full sink does
CLASSES = [99, 100, 100, 100, 101, 101, 102, 105]
LANES = [(service, is_high) for service in SERVICES for is_high in (True, False)]
TAKERS = ["", "one", "two"]

# The clock is set to a whole second before each step, and the model's to a moment when the step is over. What they are
# compared with lies half a second off, so that the milliseconds which a step lasts decide nothing.
STEP_MS = 250
LEASES_MS = [2_500, 2_500, 2_500, 7_500, 60_500]
DEADLINES_MS = [0, 0, 0, 0, 3_500, 40_500]
AGES_MS = [0, 0, 0, 0, 500, 1_500, 4_500]

Step = tuple[str, dict[str, Any]]  # a method of Both, its arguments


def step(name: str, **drawn: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    return st.tuples(st.just(name), st.fixed_dictionaries(drawn))


def take(**more: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    at_most = st.sampled_from([ALL, ALL, ALL, ALL, 0, 1, 2])
    return step(
        "take",
        lanes=st.lists(st.tuples(st.sampled_from(LANES), at_most), min_size=1, max_size=7),
        most=st.sampled_from([0, 1, 2, 3, 10, 10]),
        lease_ms=st.sampled_from([0, *LEASES_MS]),
        deliveries_most=st.sampled_from([ANY, ANY, 1, 2, 4]),
        min_age_ms=st.sampled_from(AGES_MS),
        taker=st.sampled_from(TAKERS),
        is_sent_twice=st.booleans(),
        **more,
    )


WHICH = st.integers(0, 1000)  # among those that run, and those that were
MOSTLY_RUNNING = st.sampled_from([True, True, True, False])
SUBMIT = step(
    "submit",
    service=st.sampled_from(SERVICES),
    classes=st.lists(st.sampled_from(CLASSES), min_size=1, max_size=4),
    deadline_in_ms=st.sampled_from(DEADLINES_MS),
    answer_by=st.booleans(),
    attempts_most=st.sampled_from([0, 0, 0, 0, 1, 5]),
)
COMPLETE = step("complete", which=WHICH, is_running=MOSTLY_RUNNING, is_good=st.booleans())
EXTEND = step(
    "extend", which=WHICH, is_running=MOSTLY_RUNNING, lease_ms=st.sampled_from(LEASES_MS), taker=st.sampled_from(TAKERS)
)
CANCEL = step("cancel", which=WHICH, is_running=MOSTLY_RUNNING)
PAUSE = step("pause", service=st.sampled_from(SERVICES), paused=st.sampled_from([False, False, True]))
READ_SINK = step("read_sink")
TAKE_AGAIN = step("take_again", which=WHICH)
PASS_TIME = step("pass_time", ms=st.sampled_from([1_000, 3_000]))
SWEEP = step("sweep", ms=st.sampled_from([0, 1_000, *[3_000] * 8, 8_000, 61_000, DAY_MS + 1_000]))


def history(strategy: str) -> st.SearchStrategy[list[Step]]:
    own, other = take(strategy=st.just(strategy)), take(strategy=st.sampled_from(STRATEGIES))
    kinds = [SUBMIT] * 5 + [own] * 6 + [other, COMPLETE, COMPLETE, EXTEND, EXTEND, CANCEL, PAUSE, READ_SINK, TAKE_AGAIN]
    kinds += [PASS_TIME] * 2 + [SWEEP] * 3
    # one_of would take equal ones for one
    one = st.integers(0, len(kinds) - 1).flatmap(lambda kind: kinds[kind])
    return st.lists(one, min_size=40, max_size=80)


class Both:
    """The store and the model. A killed taker is one that does nothing more."""

    def __init__(self, url: str, attempts: tuple[int, ...], room: int | None) -> None:
        self.drive = Driver(url)
        self.drive.raw.flushall()
        self.drive.raw.script_flush()
        self.taker = Taker(self.drive)
        self.model = Model()
        self.calls: list[tuple[dict[str, Any], list[str]]] = []  # takes that gave something, what
        self.now_ms = 1_800_000_000_000
        self.set_time()
        for name, max_attempts in zip(SERVICES, attempts, strict=True):
            hold = {"hold": True, "max_sink_length": room} if name == HOLDS and room else {}
            self.drive.register(name, pull=True, max_attempts=max_attempts, **hold)
            self.model.services[name] = Service(max_attempts, sink_room=room if hold else None)

    def set_time(self) -> int:
        """Returns the model's."""
        self.drive.set_time(self.now_ms)
        return self.now_ms + STEP_MS

    # --------------------------------------------------------------------------------------------------- clients
    def submit(
        self, service: str, classes: list[int], deadline_in_ms: int, answer_by: bool, attempts_most: int
    ) -> None:
        """Several at once have the same time of submit, or nearly."""
        self.set_time()
        answer_by = answer_by and deadline_in_ms > 0
        own = [("answer_by", "1")] * answer_by + [("attempts_most", str(attempts_most))] * (attempts_most > 0)
        for priority_class in classes:
            request_id, reply = self.drive.submit_reply(
                service, priority_class=priority_class, deadline_in_ms=deadline_in_ms, own=own
            )
            index, submitted_ms = int(reply[1]), int(reply[3])
            deadline_ms = submitted_ms + deadline_in_ms if deadline_in_ms else 0
            where = request_id, service, priority_class, index
            self.model.submit(Request(*where, submitted_ms, deadline_ms, answer_by, attempts_most))

    def cancel(self, which: int, is_running: bool) -> None:
        request = self.one(which, is_running)
        self.set_time()
        if request and not self.is_overdue(request):
            assert self.drive.store.cancel(request.service, request.request_id) == request.state
            self.model.cancel(request.request_id)

    def pause(self, service: str, paused: bool) -> None:
        self.drive.store.pause(service, paused)
        self.model.services[service].is_paused = paused

    def read_sink(self) -> None:
        if self.model.services[HOLDS].in_sink:
            self.drive.raw.zpopmin(keys.service_key(HOLDS, "sink"))
            self.model.services[HOLDS].in_sink -= 1

    # ---------------------------------------------------------------------------------------------------- takers
    def take(self, lanes: list[tuple[tuple[str, bool], int]], is_sent_twice: bool, **asked: Any) -> None:
        asked["turn"] = f"{asked['taker']} {[lane for lane, _ in lanes]}"
        asked["lanes"] = [Lane(*lane, at_most) for lane, at_most in lanes]
        now_ms = self.set_time()
        call = asked | {"nonce": fresh_id()}
        found = self.drive.store.takes.take(**call)
        expected = self.model.take(now_ms=now_ms, **asked)
        assert [Row(row.lane, row.request_id, row.attempt) for row in found] == expected
        for row in found:
            request = self.model.requests[row.request_id]
            assert (row.submitted_ms, row.deadline_ms) == (request.submitted_ms, request.deadline_ms)
            assert abs(row.lease_ends_ms - request.lease_end_ms) <= STEP_MS
        if found:
            if is_sent_twice:
                assert self.drive.store.takes.take(**call) == found
            self.calls.append((call, [row.request_id for row in found]))

    def take_again(self, which: int) -> None:
        """A copy of a call comes late, after whatever has happened since: it leases nothing."""
        if self.calls:
            call, given_then = self.calls[which % len(self.calls)]
            again = [row.request_id for row in self.drive.store.takes.take(**call)]
            assert again == [one for one in given_then if one in again]
            assert all(self.model.requests[request_id].state == "running" for request_id in again)

    def complete(self, which: int, is_running: bool, is_good: bool) -> None:
        """By whoever has it, had it, or never had it."""
        request = self.one(which, is_running)
        if request and not self.is_overdue(request):
            now_ms = self.set_time()
            taken = self.taker.complete(request.request_id, request.service, is_good=is_good)
            assert taken == self.model.complete(request.request_id, now_ms, is_good=is_good)

    def extend(self, which: int, is_running: bool, lease_ms: int, taker: str) -> None:
        if request := self.one(which, is_running):
            now_ms = self.set_time()
            held = self.taker.extend(request.request_id, request.service, lease_ms=lease_ms, taker=taker)
            assert held == self.model.extend(request.request_id, now_ms, lease_ms=lease_ms, taker=taker)

    # ------------------------------------------------------------------------------------------------------- time
    def pass_time(self, ms: int) -> None:
        """Nobody sweeps yet."""
        self.now_ms += ms

    def sweep(self, ms: int) -> None:
        self.now_ms += ms
        now_ms = self.set_time()
        assert self.drive.sweep().was_our_turn
        self.model.sweep(now_ms)

    # ------------------------------------------------------------------------------------------------------- looks
    def one(self, which: int, is_running: bool) -> Request | None:
        found = self.running() if is_running else list(self.model.requests.values())
        return found[which % len(found)] if found else None

    def running(self) -> list[Request]:
        return [request for request in self.model.requests.values() if request.state == "running"]

    def is_overdue(self, request: Request) -> bool:
        """It waits past its deadline: a take that has come across it has ended it, and else the next sweep does."""
        return request.state == "queued" and request.is_late(self.now_ms + STEP_MS)

    def compare(self) -> None:
        """After each step."""
        requests = self.model.requests.values()
        with self.drive.raw.pipeline(transaction=False) as pipe:
            for request in requests:
                pipe.hmget(keys.record_key(request.service, request.request_id), "state", "attempt")
            found = pipe.execute()
        for request, (state, attempt) in zip(requests, found, strict=True):
            assert int(attempt or 0) == request.attempt
            assert state.decode() == request.state or (state == b"expired" and self.is_overdue(request))
        for lane in LANES:
            given_so = [one for one in self.running() if one.lane == lane and one.by_sequential]
            assert len(given_so) <= 1, "sequential gave two of a lane that run at once"

    def check(self) -> None:
        """At last."""
        self.drive.check()
        self.drive.check_keys()
        for service in SERVICES:
            assert not self.drive.members(service, "ghost"), "nothing of a taker's needs closing"
        for lane in LANES:
            found = self.drive.store.takes.standing(lane[0], is_high=lane[1])
            assert found is not None
            counted = found.put, found.taken, found.done
            assert counted == (self.model.put[lane], self.model.taken[lane], self.model.answered[lane])

    def drain(self, strategy: str) -> None:
        """Nothing is paused or full, and takers go on: each request ends."""
        for service in SERVICES:
            self.pause(service, False)
        asked = {"most": 10, "lease_ms": 2_500, "deliveries_most": ANY, "min_age_ms": 0, "taker": ""}
        for _ in range(10 + len(self.model.requests)):
            if all(request.state not in ALIVE for request in self.model.requests.values()):
                return
            while self.model.services[HOLDS].in_sink:
                self.read_sink()
            self.take([(lane, ALL) for lane in LANES], is_sent_twice=False, strategy=strategy, **asked)
            while self.running():
                self.complete(0, is_running=True, is_good=True)
            self.sweep(1_000)
        raise AssertionError("it does not drain")


@pytest.mark.parametrize("name", ["pushed", "unknown"])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_take_that_names_no_lane_is_told_which_and_gets_nothing(drive: Driver, name: str, position: int) -> None:
    drive.register("pushed")
    drive.register(pull=True)
    drive.submit()
    lanes = ["s:1", "s:0"]
    lanes.insert(position, f"{name}:1")

    with pytest.raises(NotPulled) as refused:
        Taker(drive).take(*lanes)

    assert refused.value.lane == position
    assert drive.members("s", "lease") == {}


def run_histories(url: str, strategy: str, count: int, *, always_same: bool = False) -> None:
    """Raises what the first history raises that does not come out as in the model."""

    options: dict[str, Any] = {"derandomize": True, "database": None} if always_same else {}

    @settings(
        max_examples=count,
        deadline=None,
        phases=[Phase.generate] if always_same else [Phase.reuse, Phase.generate] + [Phase.shrink] * SHRINK,
        **options,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        report_multiple_bugs=False,
    )
    @given(
        attempts=st.tuples(*(st.sampled_from([1, 3, 3]) for _ in SERVICES)),
        room=st.sampled_from([None, 2, 5]),
        steps=history(strategy),
    )
    def try_one(attempts: tuple[int, ...], room: int | None, steps: list[Step]) -> None:
        both = Both(url, attempts, room)
        try:
            for name, arguments in steps:
                getattr(both, name)(**arguments)
                both.compare()
            both.drain(strategy)
            both.compare()
            both.check()
        finally:
            both.drive.store.client.close()

    try_one()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_takes_come_out_as_in_the_model(server: RedisServer, strategy: str) -> None:
    run_histories(server.url, strategy, EXAMPLES * 2 // 5)
