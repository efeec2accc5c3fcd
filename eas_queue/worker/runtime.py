"""Puts the worker's parts together for the pool that Celery was started with, in the process that executes requests."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from celery import Celery

from eas_queue.engine.engine import Engine
from eas_queue.engine.processes import about
from eas_queue.forward import Forwarder
from eas_queue.webhooks.deliverer import Deliverer
from eas_queue.worker import ending
from eas_queue.worker.board import RUNS, STOPS, STOPS_AT_ONCE, Board
from eas_queue.worker.housekeeping import Housekeeping
from eas_queue.worker.pump import Pump
from eas_queue.worker.reporter import Mode, Reporter
from eas_queue.worker.seats import Seats

INLINE_POOLS = frozenset({"prefork", "solo"})  # one request at a time, in the task itself


@dataclass(frozen=True)
class Limits:
    """What a worker needs from the settings."""

    lease_s: float
    sweep_s: float
    grace_s: float
    max_result_bytes: int
    progress_url: str
    events: Mode


class Runtime:
    """Made in the worker's main process before the pool starts; works in whichever process calls ``pump``."""

    def __init__(
        self,
        app: Celery,
        engine: Engine,
        limits: Limits,
        reload_if_asked: Callable[[], object],
        make_deliverer: Callable[[Callable[[], bool], Callable[[int], None]], Deliverer],
        *,
        forwards: bool,
        pool: str,
        concurrency: int,
        hostname: str,
    ) -> None:
        """*make_deliverer* is told how to ask whether the process stops, and whom to tell how busy it is.

        Not *forwards*: it is a worker that delivers webhooks only.
        """
        self._app, self._engine, self._limits = app, engine, limits
        self._make_deliverer, self._forwards = make_deliverer, forwards
        self._reload_if_asked = reload_if_asked
        self._seats = 1 if pool in INLINE_POOLS else concurrency
        self._hostname = hostname
        self.forks = pool == "prefork"
        self.board = Board()  # only the main process hears that the worker stops; its children read it there
        self._stop_is_bound = False
        self._lock = threading.Lock()
        self._pid = 0
        self._parts: tuple[Pump, Reporter, Deliverer] | None = None

    def begin_stop(self) -> None:
        """A warm shutdown has begun: running requests get grace_s, then go back to the queue. For signal handlers."""
        self.board.stops()
        if not self._stop_is_bound:
            self._stop_is_bound = True
            ending.bound_stop(lambda: self.board.taken, self._limits.grace_s)

    def pump(self) -> Pump:
        """The pump of this process; the first call in a process starts its housekeeping."""
        return self._here()[0]

    def deliverer(self) -> Deliverer:
        """Who delivers webhooks in this process."""
        return self._here()[2]

    def close(self) -> None:
        """The process ends: publish the last events."""
        if self._pid == os.getpid() and self._parts is not None:
            self._parts[1].stop()

    def _grace(self) -> float | None:
        return {RUNS: None, STOPS: self._limits.grace_s, STOPS_AT_ONCE: 0.0}[self.board.state]

    def _here(self) -> tuple[Pump, Reporter, Deliverer]:
        with self._lock:
            if self._parts is None or self._pid != os.getpid():
                reporter = Reporter(self._app, self._hostname, self._limits.events, lambda: self.board.announced)
                forwarder = Forwarder(
                    connections=self._seats,
                    max_result_bytes=self._limits.max_result_bytes,
                    progress_url=self._limits.progress_url,
                )
                self.board.write_taken(0)
                taken = _Taken(self.board)
                seats = Seats(self._seats, taken.seats_are)
                deliverer = self._make_deliverer(lambda: self.board.state != RUNS, taken.deliveries_are)
                pump = Pump(self._engine, forwarder, reporter, seats, lease_s=self._limits.lease_s)
                Housekeeping(
                    self._engine,
                    pump,
                    self._grace,
                    self._reload_if_asked,
                    lambda: self._about(pump, deliverer),
                    lease_s=self._limits.lease_s,
                    sweep_s=self._limits.sweep_s,
                ).start()
                self._parts, self._pid = (pump, reporter, deliverer), os.getpid()
            return self._parts

    def _about(self, pump: Pump, deliverer: Deliverer) -> str:
        if self._forwards:
            return about("worker", seats=pump.seats.capacity, busy=len(pump.attempts))
        return about("webhooks", seats=self._seats, busy=deliverer.busy)


class _Taken:
    """A stop waits for what is under way, requests and deliveries alike."""

    def __init__(self, board: Board) -> None:
        self._board, self._seats, self._deliveries = board, 0, 0

    def seats_are(self, count: int) -> None:
        self._seats = count
        self._board.write_taken(self._seats + self._deliveries)

    def deliveries_are(self, count: int) -> None:
        self._deliveries = count
        self._board.write_taken(self._seats + self._deliveries)
