"""Takes against a plain model of their rules: the same is done to both, step by step, and must come out alike.

Which requests a take gives and in which order, what becomes of each of them, and the counts of every lane. For each
strategy there are histories in which most takes are its own. ``PROPERTY_EXAMPLES`` sets how many are tried.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from eas_queue.store import keys
from eas_queue.store.shapes import fresh_id
from eas_queue.store.takes import Lane, NotPulled
from tests.store.take_model import ALIVE, ANY, STRATEGIES, Model, Refused, Request, Row, Service
from tests.store.test_properties import EXAMPLES, SHRINK
from tests.support.drive import Driver
from tests.support.server import RedisServer
from tests.support.taker import ALL, Taker

SERVICES = ("a", "b", "c")
HOLDS = "c"  # where a full sink does
NO_LANES = ("pushed", "unknown")
CLASSES = [99, 100, 100, 100, 101, 101, 102, 105]
LANES = [(service, is_high) for service in SERVICES for is_high in (True, False)]

# The clock is set to a whole second before each step, and the model's to a moment when the step is over. What they are
# compared with lies half a second off, so that the milliseconds which a step lasts decide nothing.
STEP_MS = 250
LEASES_MS = [0, 2_500, 7_500, 60_500]
DEADLINES_MS = [0, 0, 0, 3_500, 40_500]
AGES_MS = [0, 0, 0, 500, 1_500, 4_500]
STEPS_MS = [1_000, 1_000, 3_000, 8_000, 61_000]

limited = st.tuples(st.sampled_from(LANES), st.sampled_from([ALL, ALL, ALL, 0, 1, 2]))


class Histories(RuleBasedStateMachine):
    url = ""
    strategy = ""

    def __init__(self) -> None:
        super().__init__()
        self.drive = Driver(self.url)
        self.drive.raw.flushall()
        self.drive.raw.script_flush()
        self.taker = Taker(self.drive)
        self.model = Model()
        self.calls: list[tuple[dict[str, Any], list[str]]] = []
        self.now_ms = 1_800_000_000_000
        self.steps = 0
        self.set_time()

    def set_time(self) -> int:
        """Returns the model's."""
        self.drive.set_time(self.now_ms)
        return self.now_ms + STEP_MS

    @initialize(
        attempts=st.tuples(*(st.sampled_from([1, 3, 3]) for _ in SERVICES)),
        room=st.sampled_from([None, 3, 8]),
    )
    def services(self, attempts: tuple[int, ...], room: int | None) -> None:
        for name, max_attempts in zip(SERVICES, attempts, strict=True):
            hold = {"hold": True, "max_sink_length": room} if name == HOLDS and room else {}
            self.drive.register(name, pull=True, max_attempts=max_attempts, **hold)
            self.model.services[name] = Service(max_attempts, sink_room=room if hold else None)
        self.drive.register("pushed")

    # --------------------------------------------------------------------------------------------------- clients
    @rule(
        service=st.sampled_from(SERVICES),
        classes=st.lists(st.sampled_from(CLASSES), min_size=1, max_size=4),
        deadline_in_ms=st.sampled_from(DEADLINES_MS),
        answer_by=st.booleans(),
    )
    def submit(self, service: str, classes: list[int], deadline_in_ms: int, answer_by: bool) -> None:
        """Several at once have the same time of submit, or nearly."""
        self.set_time()
        own = [("answer_by", "1")] * bool(answer_by and deadline_in_ms)
        for priority_class in classes:
            request_id, reply = self.drive.submit_reply(
                service, priority_class=priority_class, deadline_in_ms=deadline_in_ms, own=own
            )
            index, submitted_ms = int(reply[1]), int(reply[3])
            deadline_ms = submitted_ms + deadline_in_ms if deadline_in_ms else 0
            self.model.submit(Request(request_id, service, priority_class, index, submitted_ms, deadline_ms, bool(own)))

    @precondition(lambda self: self.model.requests)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        request = self._any(data)
        self.set_time()
        was = self.drive.store.cancel(request.service, request.request_id)
        assert was == request.state or self._is_overdue(request)
        if was in ALIVE:
            self.model.cancel(request.request_id)

    @rule(service=st.sampled_from(SERVICES), paused=st.booleans())
    def pause(self, service: str, paused: bool) -> None:
        self.drive.store.pause(service, paused)
        self.model.services[service].is_paused = paused

    @precondition(lambda self: self.model.services[HOLDS].in_sink)
    @rule()
    def sink_is_read(self) -> None:
        self.drive.raw.zpopmin(keys.service_key(HOLDS, "sink"))
        self.model.services[HOLDS].in_sink -= 1

    # ---------------------------------------------------------------------------------------------------- takers
    @rule(
        lanes=st.lists(limited, min_size=1, max_size=6),
        is_own=st.sampled_from([True, True, True, False]),
        other=st.sampled_from(STRATEGIES),
        most=st.sampled_from([0, 1, 1, 2, 3, 10]),
        lease_ms=st.sampled_from(LEASES_MS),
        deliveries_most=st.sampled_from([ANY, 1, 2, 4]),
        min_age_ms=st.sampled_from(AGES_MS),
        taker=st.sampled_from(["", "one", "two"]),
        twice=st.booleans(),
    )
    def take(
        self,
        lanes: list[tuple[tuple[str, bool], int]],
        is_own: bool,
        other: str,
        most: int,
        twice: bool,
        **asked: Any,
    ) -> None:
        asked |= {"strategy": self.strategy if is_own else other, "most": most}
        names = [lane for lane, _ in lanes]
        asked["turn"] = f"{asked['taker']} {names}"
        asked["lanes"] = [Lane(*lane, at_most) for lane, at_most in lanes]
        before = {request_id: request.attempt for request_id, request in self.model.requests.items()}
        now_ms = self.set_time()
        call = asked | {"nonce": fresh_id()}
        found = self.drive.store.takes.take(**call)
        expected = self.model.take(now_ms=now_ms, **asked)
        assert [Row(row.lane, row.request_id, row.attempt > 1) for row in found] == expected
        for row in found:
            request = self.model.requests[row.request_id]
            assert row.attempt == before[row.request_id] + 1 == request.attempt
            assert (row.submitted_ms, row.deadline_ms) == (request.submitted_ms, request.deadline_ms)
            assert abs(row.lease_ends_ms - request.lease_end_ms) <= STEP_MS
        if twice and found:
            assert self.drive.store.takes.take(**call) == found
        self.calls.append((call, [row.request_id for row in found]))

    @precondition(lambda self: any(given for _, given in self.calls))
    @rule(data=st.data())
    def take_again(self, data: st.DataObject) -> None:
        """A copy of a call comes late, after whatever has happened since: it leases nothing."""
        call, given = data.draw(st.sampled_from([pair for pair in self.calls if pair[1]][-3:]))
        again = self.drive.store.takes.take(**call)
        assert {row.request_id for row in again} <= set(given)
        assert all(self.model.requests[row.request_id].state == "running" for row in again)

    @rule(lanes=st.lists(limited, max_size=3), wrong=st.sampled_from(NO_LANES), data=st.data())
    def take_from_what_is_no_lane(
        self, lanes: list[tuple[tuple[str, bool], int]], wrong: str, data: st.DataObject
    ) -> None:
        position = data.draw(st.integers(0, len(lanes)))
        asked = [Lane(*lane, at_most) for lane, at_most in lanes]
        asked.insert(position, Lane(wrong, False, ALL))
        options: dict[str, Any] = {"lease_ms": 2_500, "deliveries_most": ANY, "min_age_ms": 0, "taker": "", "turn": ""}
        with pytest.raises(Refused) as expected:
            self.model.take(asked, self.strategy, 10, self.now_ms, **options)
        with pytest.raises(NotPulled) as found:
            self.drive.store.takes.take(asked, self.strategy, 10, **options)
        assert (found.value.lane,) == expected.value.args == (position,)

    @precondition(lambda self: self.model.requests)
    @rule(data=st.data(), is_good=st.booleans())
    def complete(self, data: st.DataObject, is_good: bool) -> None:
        """By whoever has it, had it, or never had it."""
        request = self._any(data)
        if self._is_overdue(request):
            return  # as good as ended, or ended
        self.complete_one(request, is_good=is_good)

    @precondition(lambda self: self._running())
    @rule(data=st.data())
    def complete_what_runs(self, data: st.DataObject) -> None:
        self.complete_one(data.draw(st.sampled_from(self._running())))

    def complete_one(self, request: Request, *, is_good: bool = True) -> None:
        now_ms = self.set_time()
        taken = self.taker.complete(request.request_id, request.service, is_good=is_good)
        assert taken == self.model.complete(request.request_id, now_ms, is_good=is_good)

    @precondition(lambda self: self.model.requests)
    @rule(data=st.data(), lease_ms=st.sampled_from(LEASES_MS[1:]), taker=st.sampled_from(["", "one", "two"]))
    def extend(self, data: st.DataObject, lease_ms: int, taker: str) -> None:
        request = self._any(data)
        now_ms = self.set_time()
        held = self.taker.extend(request.request_id, request.service, lease_ms=lease_ms, taker=taker)
        assert held == self.model.extend(request.request_id, now_ms, lease_ms=lease_ms, taker=taker)

    # ------------------------------------------------------------------------------------------------------- time
    @rule(ms=st.sampled_from(STEPS_MS))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms

    @rule(ms=st.sampled_from([0, 0, *STEPS_MS]))
    def sweep(self, ms: int) -> None:
        self.now_ms += ms
        now_ms = self.set_time()
        assert self.drive.sweep().was_our_turn
        self.model.sweep(now_ms)

    # ----------------------------------------------------------------------------------------------- always true
    def _any(self, data: st.DataObject) -> Request:
        return data.draw(st.sampled_from(list(self.model.requests.values())))

    def _running(self) -> list[Request]:
        return [request for request in self.model.requests.values() if request.state == "running"]

    def _is_overdue(self, request: Request) -> bool:
        """It waits past its deadline: a take that has come across it has ended it, and else the next sweep does."""
        return request.state == "queued" and request.is_late(self.now_ms + STEP_MS)

    @invariant()
    def states_are_alike(self) -> None:
        if not self.model.services:
            return
        with self.drive.raw.pipeline(transaction=False) as pipe:
            for request in self.model.requests.values():
                pipe.hmget(keys.record_key(request.service, request.request_id), "state", "attempt")
            found = pipe.execute()
        for request, (state, attempt) in zip(self.model.requests.values(), found, strict=True):
            assert int(attempt or 0) == request.attempt
            assert state.decode() == request.state or (state == b"expired" and self._is_overdue(request))
        for lane in LANES:
            given = [one for one in self._running() if one.lane == lane and one.by_sequential]
            assert len(given) <= 1, "sequential gave two of a lane that run at once"
        self.steps += 1
        if self.steps % 10 == 0:
            self.check()

    def check(self) -> None:
        self.drive.check()
        for service in SERVICES:
            assert not self.drive.members(service, "ghost"), "nothing of a taker's needs closing"
        for lane in LANES:
            found = self.drive.store.takes.standing(lane[0], is_high=lane[1])
            assert found is not None
            counted = found.put, found.taken, found.done
            assert counted == (self.model.put[lane], self.model.taken[lane], self.model.answered[lane])

    def teardown(self) -> None:
        """Nothing is paused or full, and takers go on: each request ends."""
        if not self.model.services:
            return
        for service in SERVICES:
            self.pause(service, False)
        lanes = [(lane, ALL) for lane in LANES]
        for _ in range(10 + 3 * len(self.model.requests)):
            while self.model.services[HOLDS].in_sink:
                self.sink_is_read()
            self.take(lanes, True, "", 10, False, lease_ms=2_500, deliveries_most=ANY, min_age_ms=0, taker="")
            for request in self._running():
                self.complete_one(request)
            self.sweep(1_000)
            if all(request.state not in ALIVE for request in self.model.requests.values()):
                break
        else:
            raise AssertionError("it does not drain")
        self.states_are_alike()
        self.check()
        self.drive.check_keys()
        self.drive.store.client.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_takes_come_out_as_in_the_model(server: RedisServer, strategy: str) -> None:
    Histories.url, Histories.strategy = server.url, strategy
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            phases=[Phase.reuse, Phase.generate] + [Phase.shrink] * SHRINK,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
