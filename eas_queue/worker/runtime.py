"""Puts the worker's parts together for the pool that Celery was started with, in the process that executes requests."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from celery import Celery

from eas_queue.engine.engine import Engine
from eas_queue.forward import Forwarder
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
        *,
        pool: str,
        concurrency: int,
        hostname: str,
    ) -> None:
        self._app, self._engine, self._limits = app, engine, limits
        self._reload_if_asked = reload_if_asked
        self._seats = 1 if pool in INLINE_POOLS else concurrency
        self._hostname = hostname
        self.forks = pool == "prefork"
        self.board = Board()  # only the main process hears that the worker stops; its children read it there
        self._stop_is_bound = False
        self._lock = threading.Lock()
        self._pid = 0
        self._parts: tuple[Pump, Reporter] | None = None

    def begin_stop(self) -> None:
        """A warm shutdown has begun: running requests get grace_s, then go back to the queue. For signal handlers."""
        self.board.stops()
        if not self._stop_is_bound:
            self._stop_is_bound = True
            ending.bound_stop(lambda: self.board.taken, self._limits.grace_s)

    def pump(self) -> Pump:
        """The pump of this process; the first call in a process starts its housekeeping."""
        return self._here()[0]

    def close(self) -> None:
        """The process ends: publish the last events."""
        if self._pid == os.getpid() and self._parts is not None:
            self._parts[1].stop()

    def _grace(self) -> float | None:
        return {RUNS: None, STOPS: self._limits.grace_s, STOPS_AT_ONCE: 0.0}[self.board.state]

    def _here(self) -> tuple[Pump, Reporter]:
        with self._lock:
            if self._parts is None or self._pid != os.getpid():
                reporter = Reporter(self._app, self._hostname, self._limits.events, lambda: self.board.announced)
                forwarder = Forwarder(
                    connections=self._seats,
                    max_result_bytes=self._limits.max_result_bytes,
                    progress_url=self._limits.progress_url,
                )
                self.board.write_taken(0)
                seats = Seats(self._seats, self.board.write_taken)
                pump = Pump(self._engine, forwarder, reporter, seats, lease_s=self._limits.lease_s)
                Housekeeping(
                    self._engine,
                    pump,
                    self._grace,
                    self._reload_if_asked,
                    lease_s=self._limits.lease_s,
                    sweep_s=self._limits.sweep_s,
                ).start()
                self._parts, self._pid = (pump, reporter), os.getpid()
            return self._parts
