"""What takes have to do, in plain Python: lanes as sorted lists, no leases but a moment, no server.

The tests of takes do the same to this and to the store, and compare. All times are integer milliseconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

NORMAL = 100
ALIVE = ("queued", "running")
STRATEGIES = ("fifo", "round_robin", "active_passive", "sequential")
DAY_MS = 86_400_000  # what need not be answered by a moment and was taken without a time is its taker's for so long
ANY = -1  # number of deliveries

Lane = tuple[str, bool]  # service, whether it is the half above normal priority


class Row(NamedTuple):
    """*lane*: position of its lane where the take names it first."""

    lane: int
    request_id: str
    attempt: int


@dataclass
class Service:
    max_attempts: int
    is_paused: bool = False
    sink_room: int | None = None  # a sink that holds its service has room for so many
    in_sink: int = 0


@dataclass
class Request:
    request_id: str
    service: str
    priority_class: int
    index: int
    submitted_ms: int
    deadline_ms: int  # 0: none. It ends the waiting, and with answer_by a run as well
    answer_by: bool = False
    attempts_most: int = 0  # as its submit said; 0: as its service says
    state: str = "queued"
    attempt: int = 0
    lease_end_ms: int = 0
    deliveries_most: int = ANY
    taker: str = ""
    by_sequential: bool = False

    @property
    def lane(self) -> Lane:
        return self.service, self.priority_class > NORMAL

    def is_late(self, now_ms: int) -> bool:
        return 0 < self.deadline_ms <= now_ms


@dataclass
class Model:
    services: dict[str, Service] = field(default_factory=dict)
    requests: dict[str, Request] = field(default_factory=dict)
    turns: dict[str, int] = field(default_factory=dict)  # cursor -> position of the lane that gave the last one
    last_sequential: dict[Lane, str] = field(default_factory=dict)
    put: Counter[Lane] = field(default_factory=Counter)
    taken: Counter[Lane] = field(default_factory=Counter)
    answered: Counter[Lane] = field(default_factory=Counter)

    def submit(self, request: Request) -> None:
        self.requests[request.request_id] = request
        self.put[request.lane] += 1

    # ------------------------------------------------------------------------------------------------------ takes
    def take(
        self,
        lanes: Sequence[tuple[str, bool, int]],
        strategy: str,
        most: int,
        now_ms: int,
        *,
        lease_ms: int,
        deliveries_most: int,
        min_age_ms: int,
        taker: str,
        turn: str,
    ) -> list[Row]:
        rows: list[Row] = []
        first: dict[Lane, int] = {}
        left: dict[Lane, int] = {}
        for position, (name, is_high, at_most) in enumerate(lanes):
            first.setdefault((name, is_high), position)
            left.setdefault((name, is_high), at_most)

        def head(position: int) -> Request | None:
            lane = lanes[position][:2]
            is_open = len(rows) < most and left[lane] > 0 and self._gives(lane[0])
            found = [one for one in self.waiting(lane, now_ms) if one.submitted_ms <= now_ms - min_age_ms]
            return found[0] if is_open and found else None

        for position, request in self._ordered(strategy, len(lanes), head, turn):
            lane = request.lane
            left[lane] -= 1
            request.state, request.attempt, request.taker = "running", request.attempt + 1, taker
            rows.append(Row(first[lane], request.request_id, request.attempt))
            request.lease_end_ms = self._lease_end(request, lease_ms, now_ms)
            request.deliveries_most = self._deliveries_most(request, deliveries_most if lease_ms else None)
            request.by_sequential = strategy == "sequential"
            self.taken[lane] += 1
            if strategy == "sequential":
                self.last_sequential[lane] = request.request_id
            if strategy == "round_robin":
                self.turns[turn] = position
        return rows

    def _ordered(
        self, strategy: str, count: int, head: Callable[[int], Request | None], turn: str
    ) -> Iterator[tuple[int, Request]]:
        """(position, request), one at a time: what it yields has left its lane when it goes on."""
        positions = range(count)
        if strategy == "fifo":  # the earliest of all heads; of equal ones that of the lane named first
            while found := [(p, one) for p in positions if (one := head(p))]:
                yield min(found, key=lambda pair: (pair[1].submitted_ms, pair[0]))
        elif strategy == "active_passive":
            for p in positions:
                while one := head(p):
                    yield p, one
        elif strategy == "round_robin":  # one of each, beginning behind the lane that gave the last one
            start = self.turns.get(turn, -1) + 1
            misses, p = 0, start % count
            while misses < count:
                if one := head(p):
                    yield p, one
                    misses = 0
                else:
                    misses += 1
                p = (p + 1) % count
        elif strategy == "sequential":
            for p in positions:
                if (one := head(p)) and not self.is_busy(one.lane):
                    yield p, one

    def is_busy(self, lane: Lane) -> bool:
        """For sequential: what it gave last of this lane is somebody's."""
        last = self.last_sequential.get(lane)
        return last is not None and self.requests[last].state == "running"

    def _gives(self, name: str) -> bool:
        service = self.services[name]
        running = sum(one.service == name and one.state == "running" for one in self.requests.values())
        is_full = service.sink_room is not None and service.in_sink + running >= service.sink_room
        return not service.is_paused and not is_full

    def waiting(self, lane: Lane, now_ms: int) -> list[Request]:
        """Best first: higher class, then as they came. Those past their deadline are not there."""
        found = [one for one in self.requests.values() if one.lane == lane and one.state == "queued"]
        alive = [one for one in found if not one.is_late(now_ms)]
        return sorted(alive, key=lambda one: (-one.priority_class, one.index))

    def _lease_end(self, request: Request, lease_ms: int, now_ms: int) -> int:
        asked = [now_ms + lease_ms] if lease_ms else []
        must = [request.deadline_ms] if request.answer_by else []
        return min(asked + must, default=now_ms + DAY_MS)

    def _deliveries_most(self, request: Request, asked: int | None) -> int:
        """What the service or the submit wants sent once is, whatever a take says."""
        most = self.services[request.service].max_attempts
        if most > 1 and request.attempts_most:
            most = request.attempts_most
        return most if asked is None or most == 1 else asked

    # ------------------------------------------------------------------------------------------------------- ends
    def complete(self, request_id: str, now_ms: int, *, is_good: bool) -> bool:
        """Whoever sends it: the first one ends the request, be it that its taker has lost it."""
        request = self.requests[request_id]
        if request.state not in ALIVE:
            return False
        if request.answer_by and request.is_late(now_ms):
            self._end(request, "expired")
            return False
        self._end(request, "succeeded" if is_good else "failed")
        return True

    def cancel(self, request_id: str) -> None:
        request = self.requests[request_id]
        if request.state in ALIVE:
            self._end(request, "cancelled")

    def extend(self, request_id: str, now_ms: int, *, lease_ms: int, taker: str) -> bool:
        """Until a sweep has seen that the lease lapsed."""
        request = self.requests[request_id]
        if request.state != "running" or taker not in ("", request.taker):
            return False
        if request.answer_by and request.is_late(now_ms):
            return False
        request.lease_end_ms = self._lease_end(request, lease_ms, now_ms)
        return True

    def sweep(self, now_ms: int) -> None:
        for request in self.requests.values():
            if request.state == "running" and request.lease_end_ms <= now_ms:
                if request.answer_by and request.is_late(now_ms):
                    self._end(request, "expired")
                elif request.attempt >= request.deliveries_most != ANY:
                    self._end(request, "failed")
                else:
                    request.state = "queued"
            if request.state == "queued" and request.is_late(now_ms):
                self._end(request, "expired")

    def _end(self, request: Request, state: str) -> None:
        request.state = state
        if state in ("succeeded", "failed"):
            self.services[request.service].in_sink += 1
            self.answered[request.lane] += 1
