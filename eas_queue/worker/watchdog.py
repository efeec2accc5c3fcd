"""Restarts a worker that makes no progress though it could.

Celery's best known defect on Redis is a worker that has lost its broker connection without noticing: the process lives,
answers signals, and takes nothing. What shows it: messages wait in a list that this worker consumes, it has room, it
has received nothing for a while, and Redis answers on another connection. All of that at every look; a worker full of
long calls, an idle one, and one whose Redis is away are left alone.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis
from celery import signals
from celery.worker import state

from eas_queue.store import keys
from eas_queue.store.client import Client
from eas_queue.worker.board import RUNS, STOPS_AT_ONCE, Board
from eas_queue.worker.ending import end_now, start_native

log = logging.getLogger("eas_queue.worker")

TICK_S = 0.5
STALLED_S = (
    10.0  # longer than Celery needs to drop a half-open connection itself, see health_check_interval in tasks.py
)
RECONNECTS_S = 45.0  # instead, while Celery knows that it is not connected: it tries again every few seconds
FROZEN_S = 3.0  # between two looks: this process or its computer slept, so nothing is known of the time between
KILL_AFTER_S = 5.0
HUB_HANGS_S = 30


@dataclass(frozen=True)
class Look:
    """What was seen at one moment."""

    waiting: int  # messages in the broker lists that this worker consumes
    free: int  # requests it could take
    received: int  # messages it has received since its start
    connected: bool  # as far as Celery knows


class Stall:
    """Says from a series of looks whether the worker is stalled, and since when."""

    def __init__(self, stalled_s: float, reconnects_s: float = RECONNECTS_S) -> None:
        self._stalled_s, self._reconnects_s = stalled_s, max(reconnects_s, stalled_s)
        self._since_s: float | None = None
        self._known_s: float | None = None
        self._last_s = 0.0
        self._received = -1

    def lasts(self, now: float, look: Look | None) -> float | None:
        """For how long it has been stalled, once that is too long. *look* None: Redis did not answer."""
        frozen, self._last_s = now - self._last_s > FROZEN_S, now
        if look is None or frozen or look.received != self._received or look.waiting == 0 or look.free <= 0:
            self._since_s = self._known_s = None
            if look is not None:
                self._received = look.received
            return None
        if self._since_s is None:
            self._since_s = now
        if not look.connected:
            self._known_s = now
        # A connection that Celery has only just made counts from then: it has not had its chance yet.
        begin = self._since_s if self._known_s is None or not look.connected else self._known_s
        is_long = now - begin >= (self._stalled_s if look.connected else self._reconnects_s)
        return now - self._since_s if is_long else None


class Watchdog:
    """A thread of the worker's main process, with a Redis connection that no child uses."""

    def __init__(self, url: str, consumer: Any, board: Board, *, stalled_s: float) -> None:
        self._client = Client(url)
        self._consumer = consumer
        self._board = board
        self._stall = Stall(stalled_s)
        self._received = 0

    def start(self) -> None:
        signals.task_received.connect(self._count, weak=False)
        # Under gevent a greenlet: redis-py's sockets and logging's locks are gevent's there. So the hub is watched too.
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()
        if "gevent" in type(self._consumer.pool).__module__:
            watch_hub()

    def _count(self, **_: Any) -> None:
        self._received += 1

    def _run(self) -> None:
        while self._board.state == RUNS:
            time.sleep(TICK_S)
            try:
                look = self._look()
                lasts_s = self._stall.lasts(time.monotonic(), look)
                if look is not None and lasts_s is not None and self._board.state == RUNS:
                    restart(self._board, look, lasts_s)
            except Exception:
                log.exception("watchdog_failed")

    def _look(self) -> Look | None:
        consumed = self._consumer.app.amqp.queues.consume_from  # `control cancel_consumer` takes a queue out of it
        names = [name for name in (keys.QUEUE_NORMAL, keys.QUEUE_HIGH, keys.QUEUE_HOOKS) if name in consumed]
        try:
            waiting = sum(self._length(name) for name in names)
        except (redis.RedisError, OSError):
            return None
        connection = self._consumer.connection
        # Celery's own rule for taking messages, see worker_disable_prefetch; and what it can't know, our seats: one
        # message fills many.
        most = getattr(self._consumer.controller, "max_concurrency", None) or self._consumer.pool.num_processes
        free = most - max(len(state.reserved_requests), self._board.taken)
        return Look(waiting, free, self._received, connection is not None and connection.connected)

    def _length(self, name: str) -> int:
        length: Any = self._client.redis.llen(name)
        return int(length)


def restart(board: Board, look: Look, lasts_s: float) -> None:
    """End this worker for its supervisor to start it anew; running requests go back to the queue first."""
    log.error(
        "worker_stalled waiting=%d free=%d seconds=%d connected=%s: the broker lists have messages, this worker has "
        "room and receives none, and Redis answers on another connection. It ends, to be started again: "
        "SIGTERM now, SIGKILL in %d s",
        look.waiting,
        look.free,
        lasts_s,
        look.connected,
        KILL_AFTER_S,
    )

    def kill(sleep: Callable[[float], None]) -> None:
        sleep(KILL_AFTER_S)
        end_now(1, "worker_stalled: it did not end on SIGTERM, so it is killed")

    start_native(kill)
    board.stops(STOPS_AT_ONCE)
    atexit.register(_exit_as_failed)
    os.kill(os.getpid(), signal.SIGTERM)


def _exit_as_failed() -> None:
    """Celery would leave 0 behind, and some supervisors start only what has failed."""
    sys.stdout.flush()
    os._exit(1)


def watch_hub(hangs_s: float = HUB_HANGS_S) -> None:
    """End this process when no greenlet has run for *hangs_s*: nothing that is a greenlet itself could notice."""
    beats = 0

    def beat() -> None:
        nonlocal beats
        while True:
            time.sleep(hangs_s / 30)
            beats += 1

    def watch(sleep: Callable[[float], None]) -> None:
        seen, unchanged = 0, 0
        while unchanged < 30:  # looks, not a clock: a frozen process does not look either
            sleep(hangs_s / 30)
            unchanged = unchanged + 1 if seen == beats else 0
            seen = beats
        end_now(
            1, f"worker_hangs: no greenlet has run for {hangs_s:g} s; its leases lapse, and it is to be started anew"
        )

    threading.Thread(target=beat, name="hub-beat", daemon=True).start()
    start_native(watch)
