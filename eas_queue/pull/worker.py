"""The life of a worker: takes what it has room for until a signal says stop, then lets what runs finish."""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
import time
from dataclasses import dataclass
from types import FrameType

from eas_queue.pull import completing
from eas_queue.pull.backoff import Backoff
from eas_queue.pull.client import Client
from eas_queue.pull.completing import Target
from eas_queue.pull.errors import Away, NotHeld, Refused
from eas_queue.pull.leases import Leases
from eas_queue.pull.running import Running
from eas_queue.pull.task import Task

log = logging.getLogger("eas_queue.pull")

ROUND_S = 1.0  # an empty take that was answered sooner is followed by a pause: of a queue that does not wait
PROBE_S = 1.0  # a target that has answered so shortly ago is not asked again whether it is there
_SPARE_S = 1.0  # beyond the time that a take may wait
_TURN_S = 0.5
_NO_MORE = 0  # beside signals: the taker has ended


@dataclass(frozen=True)
class Plan:
    """What to take and how, as the command line says."""

    names: tuple[str, ...]
    strategy: str
    slots: int
    process_timeout_s: int
    retries: int
    wait_s: float
    drain_timeout_s: float


class Worker:
    """Use once, in the main thread, which hears the signals from the moment that this is made."""

    def __init__(self, client: Client, target: Target, plan: Plan) -> None:
        self._client, self._target, self._plan = client, target, plan
        self._leases = Leases(client, plan.process_timeout_s)
        self._running = Running(plan.slots)
        self._stopping = threading.Event()
        self._target_seen_s = 0.0
        self._failure: Exception | None = None  # why nothing can be taken any more
        # SimpleQueue: the only thing here that a signal handler may touch, whatever it has interrupted
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._signalled = False
        self._taker = threading.Thread(target=self._take_on, name="takes", daemon=True)
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._on_signal)

    def run(self) -> None:
        """Until SIGTERM or SIGINT. Raises Refused when the queue will not give us tasks, once what runs has ended."""
        self._taker.start()
        heard = self._signals.get()
        if heard != _NO_MORE:
            log.info("stopping signal=%s running=%d", signal.Signals(heard).name, len(self._running))
        self._stopping.set()
        if self._failure is not None:
            log.error("stopping error=%r running=%d", str(self._failure), len(self._running))
        self._drain()
        log.info("stopped running=0")
        if self._failure is not None:
            raise self._failure

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self._signalled:  # the second one; not logged by the logger, whose lock we may have interrupted
            os.write(2, b"stopped at once: what was running will be delivered again\n")
            os._exit(128 + signum)
        self._signalled = True
        self._signals.put(signum)

    def _drain(self) -> None:
        """What runs may finish. Of a take that is on its way nothing is lost: what it brings is worked on as well."""
        until_s = time.monotonic() + self._plan.drain_timeout_s
        self._taker.join(max(self._plan.drain_timeout_s, self._plan.wait_s + _SPARE_S))
        self._running.await_end(max(0.0, until_s - time.monotonic()))
        left = self._running.all()
        if not left and not self._taker.is_alive():
            return
        for task in left:
            if task.abandon():
                log.warning("task_given_back task_id=%s reason=drain_timeout", task.id)
                self._leases.let_go(task)
            elif not task.abandoned.is_set():
                log.error("result_lost task_id=%s reason=drain_timeout", task.id)
        log.info("stopped running=%d", len(self._running))
        logging.shutdown()
        sys.stdout.flush()
        os._exit(2 if self._failure else 0)  # threads of functions that go on would keep us

    # ------------------------------------------------------------------------------------------------------- taking
    def _take_on(self) -> None:
        try:
            self._take_until_stopped()
        except Exception as exc:  # noqa: BLE001  raised again by run, in the main thread
            self._failure = exc
        finally:
            self._signals.put(_NO_MORE)

    def _take_until_stopped(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            free = self._running.await_room(_TURN_S)
            if not free or not self._is_target_there() or self._stopping.is_set():
                continue
            began_s = time.monotonic()
            try:
                found = self._take(free)
                backoff = Backoff()
            except Away as exc:
                pause_s = backoff.pause_s(exc.retry_after_s)
                log.warning("take_failed again_in_s=%.1f error=%r", pause_s, str(exc))
                self._stopping.wait(pause_s)
                continue
            except (Refused, NotHeld) as exc:
                self._failure = exc if isinstance(exc, Refused) else Refused(409, "")
                return
            if not found:
                self._stopping.wait(max(0.0, began_s + ROUND_S - time.monotonic()))

    def _take(self, free: int) -> int:
        plan = self._plan
        found = self._client.take(
            plan.names,
            free,
            strategy=plan.strategy,
            process_timeout_s=plan.process_timeout_s,
            retries=plan.retries,
            wait_s=plan.wait_s,
        )
        for taken in found:
            task = Task(taken, self._client)
            if not self._running.add(task):
                log.info("task_kept task_id=%s", task.id)
                continue
            log.info("task_taken task_id=%s queue=%s:%d endpoint=%r", task.id, task.queue, task.level, task.endpoint)
            threading.Thread(target=self._work, args=(task,), name=task.id, daemon=True).start()
        return len(found)

    def _work(self, task: Task) -> None:
        try:
            if completing.work(task, self._target, self._client, self._leases):
                self._target_seen_s = time.monotonic()
            else:
                self._target_seen_s = 0.0
        except Exception:
            log.exception("task_failed task_id=%s", task.id)  # ours, not the target's; its lease lapses
            self._leases.forget(task)
        finally:
            self._running.remove(task)

    def _is_target_there(self) -> bool:
        """Nothing is taken that could not be called: waits for the target, or until we stop."""
        if time.monotonic() - self._target_seen_s < PROBE_S:
            return True
        backoff, is_said = Backoff(), False
        while (problem := self._target.problem()) is not None:
            if not is_said:
                log.warning("target_away target=%s error=%r", self._target.name, problem)
                is_said = True
            if self._stopping.wait(backoff.pause_s()):
                return False
        if is_said:
            log.info("target_back target=%s", self._target.name)
        self._target_seen_s = time.monotonic()
        return True
