"""Tells Flower about every request, under its own id, as if each had been a Celery task of its own.

The messages on the broker are kicks, so Celery's own task events would show those. These are sent instead, in batches:
one publish carries up to 200 events, at most 0.2 s late. Nothing here can hold up work: a thread of its own publishes.

While nobody listens no event is even built. Redis does not tell who has subscribed to a pattern, but PUBLISH answers
how many have received: an empty batch, which every listener takes for nothing, asks that once a second while requests
start or end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal

from celery import Celery

from eas_queue.store.kick import TASK_NAME
from eas_queue.store.shapes import Ended, Leased, Requeued
from eas_queue.worker.attempt import Attempt, Closed
from eas_queue.worker.listeners import count_listeners

log = logging.getLogger("eas_queue.worker")

FLUSH_S = 0.2
BATCH_MOST = 200
KNOWN_S = 1.0  # how long "nobody listens" is believed
BACKLOG_MOST = 20_000  # events kept while the broker is away; beyond this the oldest are dropped


Mode = Literal["auto", "all", "off"]


class Reporter:
    """Events of one process. Usable at once; connects with the first event.

    *announced* gives another number whenever a listener has announced itself to this worker.
    """

    def __init__(
        self, app: Celery, hostname: str, mode: Mode = "all", announced: Callable[[], int] = lambda: 0
    ) -> None:
        self._app = app
        self._hostname = hostname
        self._mode = mode
        self._announced = announced
        self._is_heard = mode == "all"
        self._known_until_s = 0.0
        self._known_announced = -1
        self._hearing = 0  # another number whenever events were dropped that an attempt takes for told
        self._lock = threading.Lock()
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopping = False

    def started(self, attempt: Attempt) -> None:
        work = attempt.work
        if not self._is_quiet():
            attempt.reported_in = self._hearing
            self._put(*_begin(work, time.time()))
        log.info("request_started request_id=%s service=%s attempt=%d", work.request_id, work.service, work.attempt)

    def ended(self, attempt: Attempt, end: Ended | Requeued | None) -> None:
        """*end* None: cancelled meanwhile, or another worker's by now."""
        work = attempt.work
        runtime_s = time.monotonic() - attempt.started_s
        if not self._is_quiet():
            self._put_end(attempt, end, runtime_s)
        reason = ""
        if end is None:
            what = (attempt.closed or Closed.LOST).value
        elif isinstance(end, Requeued):
            what, reason = "requeued", end.error
        elif end.state == "succeeded":
            what = f"succeeded status={end.status_code}"
        else:
            what, reason = f"failed status={end.status_code}", end.error
        log.info(
            "request_%s request_id=%s service=%s attempt=%d elapsed_ms=%d%s",
            what,
            work.request_id,
            work.service,
            work.attempt,
            runtime_s * 1000,
            f" reason={reason!r}" if reason else "",
        )

    def ended_unseen(self, ends: Iterable[tuple[str, str, str]]) -> None:
        """Requests that ended while no worker held them: (service, request id, state)."""
        if self._is_quiet():
            return
        for service, request_id, state in ends:
            event: dict[str, Any] = {"uuid": request_id, "timestamp": time.time()}
            if state == "failed":
                end = "task-failed", event | {"exception": "WorkerLost()", "traceback": ""}
            elif state == "succeeded":  # a consumer's work, of which no worker knows how long it took
                end = "task-succeeded", event | {"result": "'committed by a consumer'", "runtime": 0.0}
            else:
                end = "task-revoked", event | {"terminated": False, "signum": None, "expired": state == "expired"}
            self._put(_received(service, request_id, 0, time.time()), end)

    def stop(self) -> None:
        """Publish what is left, for a second at most."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=1)

    def _is_quiet(self) -> bool:
        """Whether an event would be of no use. While that is not known, events are kept until it is."""
        if self._mode == "auto":
            return (
                not self._is_heard
                and time.monotonic() < self._known_until_s
                and self._announced() == self._known_announced
            )
        return self._mode == "off"

    def _put_end(self, attempt: Attempt, end: Ended | Requeued | None, runtime_s: float) -> None:
        work, now = attempt.work, time.time()
        fields: dict[str, Any]
        event: dict[str, Any] = {"uuid": work.request_id, "timestamp": now, "runtime": runtime_s}
        if end is None:
            if attempt.closed is not Closed.CANCELLED:
                return
            kind, fields = "task-revoked", {"terminated": True, "signum": None, "expired": False}
        elif isinstance(end, Requeued):
            kind, fields = "task-retried", {"exception": end.error, "traceback": ""}
        elif end.state == "succeeded":
            kind, fields = "task-succeeded", {"result": f"'{end.status_code}, {len(end.body)} bytes'"}
        else:
            kind, fields = "task-failed", {"exception": f"{end.error_type}({end.error!r})", "traceback": ""}
        # Whoever listens now may not have heard of its begin, and would show it without a name.
        begin = () if attempt.reported_in == self._hearing else _begin(work, now - runtime_s)
        self._put(*begin, (kind, event | fields))

    def _put(self, *events: tuple[str, dict[str, Any]]) -> None:
        with self._lock:
            self._events.extend(events)
            del self._events[:-BACKLOG_MOST]
            if self._thread is None:
                self._thread = threading.Thread(target=self._publish_forever, name="reporter", daemon=True)
                self._thread.start()
        self._wake.set()

    def _publish_forever(self) -> None:
        while True:
            try:
                with self._app.connection_for_write() as connection:
                    dispatcher = self._app.events.Dispatcher(
                        connection,
                        hostname=self._hostname,
                        buffer_group={"task"},
                        buffer_limit=BATCH_MOST,
                        buffer_while_offline=False,
                    )
                    while True:
                        self._wake.wait()
                        self._wake.clear()
                        if self._mode != "auto" or self._ask_who_listens(connection.default_channel):
                            if not self._stopping:
                                time.sleep(FLUSH_S)
                            self._publish(dispatcher)
                        if self._stopping and not self._events:
                            return
            except Exception as exc:  # noqa: BLE001  whatever kombu raises while the broker is away
                log.warning("events_not_published error=%s", exc)
                if self._stopping:
                    return
                time.sleep(1)
                self._wake.set()

    def _ask_who_listens(self, channel: Any) -> bool:
        """Whether events are to be published; if not, those kept are dropped."""
        announced = self._announced()
        if time.monotonic() < self._known_until_s and announced == self._known_announced:
            return self._is_heard
        is_heard = count_listeners(channel, self._app.conf.event_exchange) > 0
        with self._lock:
            if not is_heard:
                self._events.clear()
                self._hearing += 1
            self._is_heard, self._known_announced = is_heard, announced
            self._known_until_s = time.monotonic() + KNOWN_S
        return is_heard

    def _publish(self, dispatcher: Any) -> None:
        with self._lock:
            events, self._events = self._events, []
        for kind, fields in events:
            dispatcher.send(kind, **fields)
        dispatcher.flush()


def _begin(work: Leased, timestamp: float) -> tuple[tuple[str, dict[str, Any]], ...]:
    return (
        _received(work.service, work.request_id, work.attempt, timestamp),
        ("task-started", {"uuid": work.request_id, "timestamp": timestamp}),
    )


def _received(service: str, request_id: str, attempt: int, timestamp: float) -> tuple[str, dict[str, Any]]:
    """The event that names a task; Flower knows the others only by its id."""
    return "task-received", {
        "uuid": request_id,
        "name": TASK_NAME,
        "args": f"({service!r},)",
        "kwargs": f"{{'attempt': {attempt}}}",
        "root_id": request_id,
        "parent_id": None,
        "retries": max(attempt - 1, 0),
        "eta": None,
        "expires": None,
        "timestamp": timestamp,
    }
