"""Keeps what runs ours: one thread renews the leases of all tasks of this process."""

from __future__ import annotations

import logging
import threading
import time

from eas_queue.pull.backoff import Backoff
from eas_queue.pull.client import Client
from eas_queue.pull.errors import Away, NotHeld, Refused
from eas_queue.pull.task import Task

log = logging.getLogger("eas_queue.pull")

PARTS = 3  # a lease is renewed when so much of it has gone: two tries may fail
LET_GO_S = 1  # the shortest lease there is: the queue has the task back a moment later


class Leases:
    """Of tasks that were taken with *process_timeout_s*."""

    def __init__(self, client: Client, process_timeout_s: int) -> None:
        self._client, self._process_timeout_s = client, process_timeout_s
        self._due_s: dict[Task, float] = {}
        self._changed = threading.Condition()
        self._renewing: Task | None = None
        threading.Thread(target=self._run, name="renews leases", daemon=True).start()

    def hold(self, task: Task) -> None:
        with self._changed:
            self._due_s[task] = time.monotonic() + self._process_timeout_s / PARTS
            self._changed.notify_all()

    def forget(self, task: Task) -> None:
        """Returns when it is not being renewed either."""
        with self._changed:
            self._due_s.pop(task, None)
            self._changed.wait_for(lambda: self._renewing is not task)

    def let_go(self, task: Task) -> None:
        """Give it back: it is delivered again, to whoever asks, after a second instead of its whole lease."""
        self.forget(task)
        try:
            self._client.renew(task.id, LET_GO_S)
        except (Away, Refused, NotHeld) as exc:
            log.info("lapses task_id=%s in_s=%d error=%r", task.id, self._process_timeout_s, str(exc))

    def _run(self) -> None:
        backoff = Backoff()
        while True:
            task = self._next()
            pause_s = 0.0
            try:
                self._renew(task)
                backoff = Backoff()
            except Away as exc:
                pause_s = min(backoff.pause_s(exc.retry_after_s), self._process_timeout_s / PARTS)
                log.warning("renew_failed task_id=%s again_in_s=%.1f error=%r", task.id, pause_s, str(exc))
            except Exception:  # all other leases depend on this thread
                pause_s = backoff.pause_s()
                log.exception("renew_failed task_id=%s", task.id)
            finally:
                with self._changed:
                    self._renewing = None
                    self._changed.notify_all()
            time.sleep(pause_s)

    def _next(self) -> Task:
        """The task whose renewal is due first, once it is."""
        with self._changed:
            while True:
                task = min(self._due_s, key=self._due_s.__getitem__, default=None)
                left_s = None if task is None else self._due_s[task] - time.monotonic()
                if task is not None and left_s is not None and left_s <= 0:
                    self._renewing = task
                    return task
                self._changed.wait(left_s)

    def _renew(self, task: Task) -> None:
        began_s = time.monotonic()
        try:
            self._client.renew(task.id, self._process_timeout_s, answer_s=max(1.0, self._process_timeout_s / PARTS))
        except NotHeld:
            task.abandon()
            with self._changed:
                self._due_s.pop(task, None)
            return
        except Refused as exc:  # a token that was taken away may come back
            raise Away(str(exc)) from exc
        with self._changed:
            if task in self._due_s:
                self._due_s[task] = began_s + self._process_timeout_s / PARTS
