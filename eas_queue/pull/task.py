"""One task as a target sees it: what it brings, whether it is still ours, and what can be said of it meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from eas_queue.pull import bodies
from eas_queue.pull.client import Client, Taken
from eas_queue.pull.reporting import Reporter


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
        self._events = 0
        self._reporter = Reporter(taken.task_id, client, self.abandoned, self.abandon)
        self._lock = threading.Lock()
        self._is_over = False
        self._hang_up: Callable[[], None] | None = None

    # ------------------------------------------------------------------------------------------------ for functions
    def progress(self, content: Mapping[str, Any]) -> None:
        """How far it is, for those who look at it meanwhile: any JSON object. The last one counts."""
        self._reporter.say("progress", dict(content))

    def log(self, message: str, level: str = "info") -> None:
        """A line for those who follow it."""
        self._reporter.say("logs", {"message": message, "level": level})

    def event(self, data: Any, name: str = "message") -> None:
        """A piece of a streamed answer, any JSON value: they arrive in this order.

        While the queue is away they gather; after a minute of that they are lost, and the next one raises Away. One
        whose answer is lost may arrive twice, with the same id.
        """
        with self._lock:
            number, self._events = self._events, self._events + 1
        self._reporter.say("events", {"eventId": str(number), "eventName": name, "eventData": data})

    def flush(self) -> None:
        """Returns when all of that has arrived. Not needed at the end: the result comes after it anyway."""
        self._reporter.flush()

    # -------------------------------------------------------------------------------------------------- for the worker
    def finish(self) -> bool:
        """Whether the result counts: from now on nothing abandons it."""
        return self._end()

    def abandon(self) -> bool:
        """Give it up: whoever works on it is told, and a call's connection closed. False when it was over before."""
        if not self._end():
            return False
        self.abandoned.set()
        self._reporter.close()
        with self._lock:
            hang_up = self._hang_up
        if hang_up is not None:
            hang_up()
        return True

    def close(self) -> None:
        """Nothing more is said of it."""
        self._reporter.close()

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
