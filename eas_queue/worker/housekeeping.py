"""The one thread beside the work, in each process that executes requests: it renews leases, closes what is cancelled,
too slow or no longer ours, and takes its turn at the sweep.

A thread, not a Celery timer: those don't tick in every pool. Under gevent it is a greenlet.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable

import redis

from eas_queue.engine.engine import Engine
from eas_queue.engine.errors import EngineError
from eas_queue.engine.processes import process_name
from eas_queue.store import errors as store_errors
from eas_queue.store import keys
from eas_queue.worker.attempt import Closed
from eas_queue.worker.pump import Pump

log = logging.getLogger("eas_queue.worker")

TICK_S = 0.25
RENEW_MOST = 500  # leases in one script
REPORT_MOST = 500  # ends reported to Flower after one sweep


class Housekeeping:
    """Runs until the process ends. *grace* is None until a stop has begun, then what running requests get, seconds;
    *reload_if_asked* takes new settings over when the main process was told to; *say*: what this process is."""

    def __init__(
        self,
        engine: Engine,
        pump: Pump,
        grace: Callable[[], float | None],
        reload_if_asked: Callable[[], object],
        say: Callable[[], str],
        *,
        lease_s: float,
        sweep_s: float,
    ) -> None:
        self._engine = engine
        self._store = engine.store
        self._pump = pump
        self._grace = grace
        self._reload_if_asked = reload_if_asked
        self._say = say
        self._lease_s = lease_s
        self._sweep_s = sweep_s
        self._margin_s = min(3.0, lease_s / 5)  # a call that was not renewed is closed this long before its lease ends
        self._renewed_s = self._swept_s = 0.0
        self._stopping_since_s: float | None = None
        self._away = False

    def start(self) -> None:
        threading.Thread(target=self._run, name="housekeeping", daemon=True).start()

    def _run(self) -> None:
        while True:
            subscriber = self._store.client.subscriber()
            try:
                subscriber.subscribe(keys.CANCEL_CHANNEL)
                self._renewed_s = 0.0  # cancels may have been missed: ask at once
                while True:
                    self._tick()
                    message = subscriber.get_message(timeout=TICK_S)
                    while message is not None:
                        if message["type"] == "message":
                            self._pump.cancel(message["data"].decode().rpartition(" ")[2])
                        message = subscriber.get_message(timeout=0)
            except (redis.RedisError, OSError):
                with contextlib.suppress(Exception):
                    self._tick()
                time.sleep(TICK_S)
            except Exception:
                log.exception("housekeeping_failed")
                time.sleep(TICK_S)
            finally:
                with contextlib.suppress(Exception):
                    subscriber.close()

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._renewed_s >= self._lease_s / 3:
            self._renew(now)
        for attempt in list(self._pump.attempts.values()):
            if now >= attempt.lease_until_s - self._margin_s:
                attempt.close(Closed.LOST)
            elif now >= attempt.deadline_s:
                attempt.close(Closed.TIMEOUT)
        self._reload_if_asked()
        if now - self._swept_s >= self._sweep_s:
            self._swept_s = now
            self._sweep()
        grace_s = self._grace()
        if grace_s is not None:
            self._stop(now, grace_s)

    def _renew(self, now: float) -> None:
        attempts = list(self._pump.attempts.values())
        try:
            for i in range(0, len(attempts), RENEW_MOST):
                chunk = attempts[i : i + RENEW_MOST]
                asked_at = time.monotonic()
                leases = ((a.work.service, a.work.request_id, a.work.token) for a in chunk)
                lost = {token for _, token in self._store.renew(leases, lease_ms=round(self._lease_s * 1000))}
                for attempt in chunk:
                    if attempt.work.token in lost:
                        attempt.close(Closed.LOST)
                    else:
                        attempt.lease_until_s = asked_at + self._lease_s
            self._renewed_s = now
        except store_errors.StoreError as exc:
            self._renewed_s = now - self._lease_s / 3 + 1  # again in a second
            log.warning("renew_failed leases=%d error=%s", len(attempts), exc.in_full)

    def _sweep(self) -> None:
        try:
            self._engine.register_listed()
            swept = self._store.sweep(
                every_ms=round(self._sweep_s * 1000),
                process=process_name(),
                about=self._say(),
                report_most=REPORT_MOST,
            )
        except (store_errors.StoreError, EngineError) as exc:
            if not self._away:
                log.warning("redis_away error=%s", exc.in_full)
            self._away = True
            return
        if self._away:
            log.warning("redis_back")
        self._away = False
        self._pump.reporter.ended_unseen(swept.unreported)
        if swept.lapsed or swept.expired:
            log.info("swept lapsed=%d expired=%d", swept.lapsed, swept.expired)
        if swept.more_is_due:
            self._swept_s = 0.0  # with the next tick

    def _stop(self, now: float, grace_s: float) -> None:
        if self._stopping_since_s is None:
            self._stopping_since_s = now
            self._pump.drain()
        elif now - self._stopping_since_s >= grace_s:
            self._pump.hand_back()
