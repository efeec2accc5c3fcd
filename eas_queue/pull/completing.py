"""What becomes of one task: called, and then completed, given back, or dropped because it is not ours any more."""

from __future__ import annotations

import logging
import time
from typing import Protocol

from eas_queue.pull import bodies
from eas_queue.pull.backoff import Backoff
from eas_queue.pull.client import Client
from eas_queue.pull.errors import Abandoned, Away, NoAnswer, NotHeld, Refused
from eas_queue.pull.leases import Leases
from eas_queue.pull.task import Task

log = logging.getLogger("eas_queue.pull")

KEEP_S = 900.0  # a result that the queue does not take is offered again for so long; it holds its slot meanwhile


class Target(Protocol):
    @property
    def name(self) -> str: ...

    def problem(self) -> str | None:
        """Why it can't be called now; None when it can."""

    def call(self, task: Task) -> tuple[int, bytes]:
        """Status code and body, JSON text. Raises NoAnswer, Abandoned."""


def work(task: Task, target: Target, client: Client, leases: Leases) -> bool:
    """To its end, never raising for what others do. False when the target has not answered."""
    began_s = time.monotonic()
    leases.hold(task)
    try:
        status_code, body = target.call(task)
    except Abandoned:
        pass
    except NoAnswer as exc:
        if task.abandon():
            log.warning("task_given_back task_id=%s reason=no_answer error=%r", task.id, str(exc))
            leases.let_go(task)
            return False
    else:
        task.close()
        if task.finish():
            elapsed_ms = round((time.monotonic() - began_s) * 1000)
            try:
                _complete(task, status_code, body, client, elapsed_ms)
            finally:
                leases.forget(task)
            return True
    leases.forget(task)
    log.info("task_abandoned task_id=%s elapsed_ms=%d", task.id, round((time.monotonic() - began_s) * 1000))
    return True


def _complete(task: Task, status_code: int, body: bytes, client: Client, elapsed_ms: int) -> None:
    """Until the queue has it. A result that it will never have becomes an error, of which somebody hears."""
    backoff, until_s = Backoff(), time.monotonic() + KEEP_S
    is_replaced = False
    while True:
        try:
            client.complete(task.id, bodies.completion(task.id, status_code, body))
        except NotHeld:
            log.info("task_abandoned task_id=%s elapsed_ms=%d", task.id, elapsed_ms)
            return
        except (Away, Refused) as exc:
            if isinstance(exc, Refused) and exc.status not in (401, 403):  # a token that was taken away may come back
                if is_replaced:
                    _lost(task, exc)
                    return
                log.warning("result_refused task_id=%s bytes=%d error=%r", task.id, len(body), str(exc))
                status_code, body = 500, bodies.of_error("ResultRefused", f"the queue refused the result: {exc}")
                is_replaced = True
                continue
            pause_s = backoff.pause_s(exc.retry_after_s if isinstance(exc, Away) else 0)
            if time.monotonic() + pause_s > until_s:
                _lost(task, exc)
                return
            log.warning("complete_failed task_id=%s again_in_s=%.1f error=%r", task.id, pause_s, str(exc))
            time.sleep(pause_s)
        else:
            log.info(
                "task_completed task_id=%s status_code=%d bytes=%d elapsed_ms=%d",
                task.id,
                status_code,
                len(body),
                elapsed_ms,
            )
            return


def _lost(task: Task, exc: Exception) -> None:
    log.error("result_lost task_id=%s error=%r", task.id, str(exc))
