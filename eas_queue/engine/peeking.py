"""One question for all who wait: it finds what a note was lost for, and places, of which there are no notes.

A place is another one when some request has come, started or gone. Whether that is so for a service is one small script
(`moves`), asked ten times a second; the places themselves (`peek`) are asked for only where it is so, for a few
requests at a time. While the next answer is on its way those are told, so that who is to hear of an end does not wait
behind all the others; and a move is not told to all at once. Nobody is told of two places within POSITIONS_S, and each
is told where it is by then.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from eas_queue.store.errors import StoreError
from eas_queue.store.store import Store

if TYPE_CHECKING:
    from eas_queue.engine.waiting import QueueWaiter, Waiter

log = logging.getLogger("eas_queue.web")

POSITIONS_S = 0.5  # positions change at most twice a second for those who follow them
CHECK_S = 5.0  # until all who wait, and their clients, are checked again
MOVES_S = 0.1  # until services are asked again whether anything has moved
MOVES_EACH_S = 0.0002  # and for each of them: a thousand are asked three times a second
POSITIONS_LATE_S = 0.05  # so much of a delay is made up for at the next one
TURN_S = 0.01  # at least, from one turn to the next: those who are due within it are told together
SPREAD_S = 0.25  # a move is told to all in about so much time, which leaves some for everybody else
AWAY_S = 0.5  # Redis does not answer: not so often then
MOVES_MOST = 500  # services in one script
PEEK_MOST = 20  # requests in one script, and who are told before somebody else has a turn
CHECK_MOST = 200  # requests in one script of the check, which wakes hardly anybody
PULSE_MOST = 500  # queues in one script

T = TypeVar("T")


class Followers:
    """Who in this process follow requests of one service."""

    def __init__(self) -> None:
        self.waiters: set[Waiter] = set()
        self.stamp = b""  # of the service, when it was asked last
        self.is_behind = True  # the places of some may be those of an earlier one: they are not listed yet
        self.behind: deque[Waiter] = deque()  # the others of these, by when they may be told


class Peeks:
    """What the thread that asks does. *everybody*: who waits for requests, and who for queues; *followed*: followers by
    their service; *tidy* is called at each turn."""

    def __init__(
        self,
        store: Store,
        *,
        everybody: Callable[[], tuple[list[Waiter], list[QueueWaiter]]],
        followed: Callable[[], dict[str, Followers]],
        tidy: Callable[[], None],
    ) -> None:
        self._store = store
        self._everybody, self._followed, self._tidy = everybody, followed, tidy
        self._ask_at_s = 0.0
        self._check_at_s = 0.0

    def run(self) -> None:
        """For ever."""
        self._check_at_s = time.monotonic() + CHECK_S
        left_s = MOVES_S
        while True:
            time.sleep(left_s)
            left_s = AWAY_S
            try:
                self._tidy()
                left_s = self._turn()
            except StoreError:
                pass  # the listener has woken them all
            except Exception:
                log.exception("peek_failed")

    def _turn(self) -> float:
        """Seconds until the next one."""
        began_s = time.monotonic()
        if time.monotonic() >= self._check_at_s:
            self._check_at_s = time.monotonic() + CHECK_S
            self._check()
        followed = self._followed()
        if time.monotonic() >= self._ask_at_s:
            self._ask(followed)
            self._ask_at_s = time.monotonic() + MOVES_S + MOVES_EACH_S * len(followed)
        next_s = min(self._ask_at_s, self._check_at_s)
        for service, followers in followed.items():
            if followers.is_behind or followers.behind:
                next_s = min(next_s, self._catch_up(service, followers))
        return max(0.001, max(began_s + TURN_S, next_s) - time.monotonic())

    def _ask(self, followed: dict[str, Followers]) -> None:
        for services in _some(list(followed), MOVES_MOST):
            for service, stamp in zip(services, self._store.moves(services), strict=True):
                followers = followed[service]
                if followers.stamp != stamp:
                    followers.stamp, followers.is_behind = stamp, True

    def _catch_up(self, service: str, followers: Followers) -> float:
        """Look for those who may have another place and may be told so now; when the next of them may."""
        stamp, behind = followers.stamp, followers.behind
        if followers.is_behind:
            followers.is_behind = False  # first: who looks by himself meanwhile says it again
            listed = [waiter for waiter in list(followers.waiters) if waiter.stamp != stamp and waiter.wants_positions]
            behind.clear()
            behind.extend(sorted(listed, key=lambda waiter: waiter.due_s))
        now_s = time.monotonic()
        due: list[Waiter] = []
        most = max(PEEK_MOST, round(len(behind) * TURN_S / SPREAD_S))
        while behind and behind[0].due_s <= now_s and len(due) < most:
            due.append(behind.popleft())
        try:
            self._peek(service, due, stamp, PEEK_MOST)
        except Exception:
            followers.is_behind = True
            raise
        return behind[0].due_s if behind else math.inf

    def _check(self) -> None:
        waiters, queue_waiters = self._everybody()
        for waiter in (*waiters, *queue_waiters):
            waiter.check_client()
        for some in _some(queue_waiters, PULSE_MOST):
            lasts = self._store.queues.pulse((waiter.service, waiter.queue) for waiter in some)
            for queue_waiter, last in zip(some, lasts, strict=True):
                queue_waiter.compare_last(last)
        by_service: dict[str, list[Waiter]] = {}
        for waiter in waiters:
            by_service.setdefault(waiter.service, []).append(waiter)
        followed = self._followed()
        for service, mine in by_service.items():
            followers = followed.get(service, Followers())
            followers.is_behind = True  # they are told now, those that may be, and not at their turn
            self._peek(service, mine, followers.stamp, CHECK_MOST)

    def _peek(self, service: str, waiters: Sequence[Waiter], stamp: bytes, most: int) -> None:
        for some in _some(waiters, most):
            looks = [waiter.looks for waiter in some]
            found = self._store.peek(service, [waiter.request_id for waiter in some])
            for waiter, looks_before, (version, place) in zip(some, looks, found, strict=True):
                if waiter.looks == looks_before:  # else it may know more than this answer
                    waiter.compare(version, place, stamp)
                    if waiter.looks != looks_before:  # it has looked in between, in a thread of its own
                        waiter.wake()


def _some(values: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    return (values[i : i + most] for i in range(0, len(values), most))
