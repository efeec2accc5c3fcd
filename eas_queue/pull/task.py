"""One task as a target sees it: what it brings, whether it is still ours, and what can be said of it meanwhile."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from eas_queue.pull import bodies
from eas_queue.pull.backoff import Backoff
from eas_queue.pull.client import Client, Taken
from eas_queue.pull.errors import Abandoned, Away, NotHeld

log = logging.getLogger("eas_queue.pull")

QUIET_S = 5.0  # a queue that was away is not told of progress for so long: the work should not stand still for it
EVENT_S = 60.0  # an event is tried again for so long


class Task:
    """Handed to a function as its second argument.

    *abandoned* is set when the task is not ours any more (cancelled, say): whoever looks at it may stop early, what it
    returns is thrown away. `progress`, `log` and `event` raise Abandoned then, which ends a function that reports.
    """

    def __init__(self, taken: Taken, client: Client) -> None:
        self.id, self.queue, self.level, self.endpoint = taken.task_id, taken.queue, taken.level, taken.endpoint
        self.data, self.content_type = bodies.received(taken.data)
        self.content: Mapping[str, Any] = taken.content  # all that the queue says of it
        self.attempt = 1 if taken.is_first else None  # None: not the first
        self.abandoned = threading.Event()
        self._client = client
        self._numbers = itertools.count()
        self._quiet_until_s = 0.0
        self._lock = threading.Lock()
        self._is_over = False
        self._hang_up: Callable[[], None] | None = None

    # ------------------------------------------------------------------------------------------------ for functions
    def progress(self, content: Mapping[str, Any]) -> None:
        """How far it is, for those who look at it meanwhile: any JSON object. The last one counts."""
        self._report(progress=dict(content))

    def log(self, message: str, level: str = "info") -> None:
        """A line for those who follow it."""
        self._report(logs=[{"message": message, "level": level}])

    def event(self, data: Any, name: str = "message") -> None:
        """A piece of a streamed answer, any JSON value: they arrive in this order.

        Waits while the queue is away, up to a minute; then raises Away. One whose answer is lost may arrive twice, with
        the same id.
        """
        event = {"eventId": str(next(self._numbers)), "eventName": name, "eventData": data}
        backoff, until_s = Backoff(), time.monotonic() + EVENT_S
        while True:
            try:
                return self._tell(events=[event])
            except Away as exc:
                if time.monotonic() > until_s:
                    raise
                self.abandoned.wait(backoff.pause_s(exc.retry_after_s))

    def _report(self, **content: Any) -> None:
        if time.monotonic() < self._quiet_until_s:
            return
        try:
            self._tell(**content)
        except Away as exc:
            self._quiet_until_s = time.monotonic() + QUIET_S
            log.warning("report_lost task_id=%s error=%r", self.id, str(exc))

    def _tell(self, **content: Any) -> None:
        if self.abandoned.is_set():
            raise Abandoned
        try:
            self._client.report(self.id, **content)
        except NotHeld:
            self.abandon()
            raise Abandoned from None

    # -------------------------------------------------------------------------------------------------- for the worker
    def finish(self) -> bool:
        """Whether the result counts: from now on nothing abandons it."""
        return self._end()

    def abandon(self) -> bool:
        """Give it up: whoever works on it is told, and a call's connection closed. False when it was over before."""
        if not self._end():
            return False
        self.abandoned.set()
        with self._lock:
            hang_up = self._hang_up
        if hang_up is not None:
            hang_up()
        return True

    def on_abandon(self, hang_up: Callable[[], None]) -> None:
        """*hang_up* is called, by any thread, when this is abandoned; at once if it was."""
        with self._lock:
            self._hang_up = hang_up
        if self.abandoned.is_set():
            hang_up()

    def _end(self) -> bool:
        with self._lock:
            was_over, self._is_over = self._is_over, True
            return not was_over
