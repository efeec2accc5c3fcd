"""What a Celery task does with a kick: fill the free seats with the best work there is, and keep them full for a while.

A seat works on one request; ending it and leasing the next is one script, so a busy seat never goes through the broker.
Prefork children have one seat and work in the task itself; greenlet and thread pools have one seat per pool slot. The
task lasts until the seats it filled are free, so that Celery's own warm shutdown waits for them.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid

from eas_queue.engine import retry
from eas_queue.engine.engine import Engine
from eas_queue.engine.errors import EngineError
from eas_queue.engine.retry import NoAnswer
from eas_queue.engine.service import Service
from eas_queue.forward import Forwarder
from eas_queue.store import errors as store_errors
from eas_queue.store.shapes import Ended, Leased, Requeued
from eas_queue.store.store import fresh_id
from eas_queue.worker.attempt import Attempt, Closed
from eas_queue.worker.reporter import Reporter
from eas_queue.worker.seats import Seats

log = logging.getLogger("eas_queue.worker")

HOT_S = 10.0  # a task takes new work for this long; then a fresh kick takes over
START_MOST = 200  # one claim; keeps the script in the low milliseconds
EXTRA_MOST = 7  # free seats that an ending attempt fills besides its own
FINISH_RETRY_S = 0.2
CANCELLED_EARLY_MOST = 1000  # a cancel can arrive between the claim and its reply


class _Family:
    """The seats that one task has filled."""

    def __init__(self) -> None:
        self.hot_until_s = time.monotonic() + HOT_S
        self._members = 0
        self._changed = threading.Condition()

    def joins(self) -> None:
        with self._changed:
            self._members += 1

    def leaves(self) -> None:
        with self._changed:
            self._members -= 1
            self._changed.notify_all()

    def wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._members == 0)


class Pump:
    """The working half of one process. Not to be shared across a fork."""

    def __init__(
        self, engine: Engine, forwarder: Forwarder, reporter: Reporter, seats: Seats, *, lease_s: float
    ) -> None:
        self.seats = seats
        self.attempts: dict[str, Attempt] = {}  # by lease token; the housekeeping renews and closes them
        self.draining = False
        self._cancelled_early: dict[str, None] = {}
        self._engine = engine
        self._store = engine.store
        self._forwarder = forwarder
        self.reporter = reporter
        self._lease_s = lease_s
        self._lease_ms = round(lease_s * 1000)
        self._process = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"

    def run(self, kick_id: str) -> None:
        """Serve one kick; returns when the seats it filled are free again."""
        seats = [] if self.draining else self.seats.take_or_wait()
        if not seats:
            return
        family = _Family()
        mine: tuple[int, Leased] | None = None
        try:
            while seats and not self.draining:
                seats += self.seats.take(START_MOST - len(seats))
                asked_at = time.monotonic()
                found = self._store.start(kick_id, len(seats), caller=self._caller(seats[0]), lease_ms=self._lease_ms)
                full, kick_id = len(found) == len(seats), ""
                for work in found:
                    self._register(work, asked_at)
                for work in found:
                    if mine is None:
                        mine = seats.pop(), work
                    else:
                        self._spawn(family, seats.pop(), work)
                self.seats.give(seats)
                seats = self.seats.take(1) if full else []
        except store_errors.StoreError as exc:
            log.warning("start_failed error=%s", exc.in_full)  # the sweep will kick again
        finally:
            self.seats.give(seats)
        if mine is not None:
            family.joins()
            self._work(family, *mine)
        family.wait()

    def cancel(self, token: str) -> None:
        """Close the call that holds this lease; if it is not known yet, it will be as soon as it is."""
        self._cancelled_early[token] = None
        if len(self._cancelled_early) > CANCELLED_EARLY_MOST:
            self._cancelled_early.pop(next(iter(self._cancelled_early)))
        attempt = self.attempts.get(token)
        if attempt is not None:
            attempt.close(Closed.CANCELLED)

    def drain(self) -> None:
        """Take no new work."""
        self.draining = True
        self.seats.stop()

    def hand_back(self) -> None:
        """Close what still runs; each request goes back to the queue without counting the attempt."""
        for attempt in list(self.attempts.values()):
            attempt.close(Closed.DRAINING)

    # ------------------------------------------------------------------------------------------------- one seat
    def _caller(self, seat: int) -> str:
        return f"{self._process}.{seat}"

    def _register(self, work: Leased, asked_at: float) -> None:
        try:
            service = self._engine.services.get(work.service)
        except EngineError:  # the web that accepted it has another services file
            service = Service(name=work.service, result_ttl_s=0)
        attempt = Attempt(service, work, lease_until_s=asked_at + self._lease_s)
        self.attempts[work.token] = attempt
        if work.token in self._cancelled_early:
            attempt.close(Closed.CANCELLED)

    def _spawn(self, family: _Family, seat: int, work: Leased) -> None:
        family.joins()
        try:
            threading.Thread(target=self._work, args=(family, seat, work), name=f"seat-{seat}", daemon=True).start()
        except RuntimeError:  # no more threads to be had; nobody renews the lease, so the request goes back
            log.exception("seat_not_started seat=%d request_id=%s", seat, work.request_id)
            self.attempts.pop(work.token, None)
            self.seats.give([seat])
            family.leaves()

    def _work(self, family: _Family, seat: int, first: Leased) -> None:
        work: Leased | None = first
        extra: list[int] = []
        try:
            while work is not None:
                attempt = self.attempts[work.token]
                end = self._attempt(attempt)
                hot = not self.draining and not self._hands_over(family)
                extra = self.seats.take(EXTRA_MOST) if hot else []
                found = self._finish(attempt, end, len(extra) + 1 if hot else 0, seat)
                work = found.pop(0) if found else None
                for more in found:
                    self._spawn(family, extra.pop(), more)
                self.seats.give(extra)
                extra = []
        except Exception:  # a defect of ours: the leases bring the requests back
            log.exception("seat_failed seat=%d", seat)
        finally:
            if work is not None:
                self.attempts.pop(work.token, None)
            self.seats.give([seat, *extra])
            family.leaves()

    def _hands_over(self, family: _Family) -> bool:
        """After HOT_S a task ends, if another is there to go on: in this process, or, with one seat, on the broker."""
        return time.monotonic() > family.hot_until_s and (self.seats.capacity == 1 or self.seats.somebody_waits)

    def _attempt(self, attempt: Attempt) -> Ended | Requeued | None:
        """Make the attempt and say what follows; None when the request is no longer ours to decide."""
        self.reporter.started(attempt)
        if not attempt.service.target_url:
            detail = f"this worker's settings name no target for service {attempt.service.name!r}"
            return retry.after_attempt(attempt.service, attempt.work, NoAnswer(502, "ServiceNotConfigured", detail))
        try:
            got = self._forwarder.send(attempt)
        except Exception as exc:
            log.exception("forward_failed request_id=%s", attempt.work.request_id)
            got = NoAnswer(502, "ForwardFailed", f"the forwarder failed: {exc!r}")
        if got is Closed.CANCELLED:
            return None
        if got is Closed.DRAINING:
            if not attempt.was_sent or retry.attempts_most(attempt.service, attempt.work) > 1:
                return Requeued(False, 0, "HandedBack", "its worker was stopped; it goes on with another one")
            got = NoAnswer(502, "WorkerStopped", "its worker was stopped during the call")  # sent at most once
        if isinstance(got, Closed):
            # Most likely somebody else's by now, and the fence will say so; if it is not, the attempt was made.
            got = NoAnswer(502, "WorkerLost", "its worker could not renew the lease and closed the call")
        return retry.after_attempt(attempt.service, attempt.work, got)

    def _finish(self, attempt: Attempt, end: Ended | Requeued | None, most: int, seat: int) -> list[Leased]:
        """Write the end and lease the next work, however long Redis is away: only the fence may refuse a result."""
        work, nonce = attempt.work, fresh_id()
        give_up_s = time.monotonic() + 2 * self._lease_s
        while True:
            asked_at = time.monotonic()
            try:
                taken, found = self._store.finish(
                    work, end, most, caller=self._caller(seat), nonce=nonce, lease_ms=self._lease_ms
                )
                break
            except store_errors.StoreError:
                if asked_at > give_up_s:
                    log.exception("result_lost request_id=%s", work.request_id)
                    taken, found = False, []
                    break
                time.sleep(FINISH_RETRY_S)
        for more in found:
            self._register(more, asked_at)
        self.attempts.pop(work.token, None)
        self.reporter.ended(attempt, end if taken else None)
        return found
