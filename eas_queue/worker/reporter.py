"""Tells Flower about every request, under its own id, as if each had been a Celery task of its own.

The messages on the broker are kicks, so Celery's own task events would show those. These are sent instead, in batches:
one publish carries up to 200 events, at most 0.2 s late. Nothing here can hold up work: a thread of its own publishes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from typing import Any

from celery import Celery

from eas_queue.store.kick import TASK_NAME
from eas_queue.store.shapes import Ended, Requeued
from eas_queue.worker.attempt import Attempt, Closed

log = logging.getLogger("eas_queue.worker")

FLUSH_S = 0.2
BATCH_MOST = 200
BACKLOG_MOST = 20_000  # events kept while the broker is away; beyond this the oldest are dropped


class Reporter:
    """Events of one process. Usable at once; connects with the first event."""

    def __init__(self, app: Celery, hostname: str) -> None:
        self._app = app
        self._hostname = hostname
        self._lock = threading.Lock()
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopping = False

    def started(self, attempt: Attempt) -> None:
        work = attempt.work
        received = _received(work.service, work.request_id, work.attempt)
        self._put(received, ("task-started", {"uuid": work.request_id, "timestamp": time.time()}))
        log.info("request_started request_id=%s service=%s attempt=%d", work.request_id, work.service, work.attempt)

    def ended(self, attempt: Attempt, end: Ended | Requeued | None) -> None:
        """*end* None: cancelled meanwhile, or another worker's by now."""
        work = attempt.work
        runtime_s = time.monotonic() - attempt.started_s
        event: dict[str, Any] = {"uuid": work.request_id, "timestamp": time.time(), "runtime": runtime_s}
        reason = ""
        if end is None:
            what = (attempt.closed or Closed.LOST).value
            if attempt.closed is Closed.CANCELLED:
                self._put(("task-revoked", event | {"terminated": True, "signum": None, "expired": False}))
        elif isinstance(end, Requeued):
            what, reason = "requeued", end.error
            self._put(("task-retried", event | {"exception": end.error, "traceback": ""}))
        elif end.state == "succeeded":
            what = f"succeeded status={end.status_code}"
            self._put(("task-succeeded", event | {"result": f"'{end.status_code}, {len(end.body)} bytes'"}))
        else:
            what, reason = f"failed status={end.status_code}", end.error
            self._put(("task-failed", event | {"exception": f"{end.error_type}({end.error!r})", "traceback": ""}))
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
        for service, request_id, state in ends:
            event: dict[str, Any] = {"uuid": request_id, "timestamp": time.time()}
            if state == "failed":
                end = "task-failed", event | {"exception": "WorkerLost()", "traceback": ""}
            else:
                end = "task-revoked", event | {"terminated": False, "signum": None, "expired": state == "expired"}
            self._put(_received(service, request_id, 0), end)

    def stop(self) -> None:
        """Publish what is left, for a second at most."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=1)

    def _put(self, *events: tuple[str, dict[str, Any]]) -> None:
        with self._lock:
            self._events.extend(events)
            del self._events[:-BACKLOG_MOST]
            if self._thread is None:
                self._thread = threading.Thread(target=self._publish_forever, name="reporter", daemon=True)
                self._thread.start()
        self._wake.set()

    def _publish_forever(self) -> None:
        while not self._stopping:
            try:
                with self._app.connection_for_write() as connection:
                    dispatcher = self._app.events.Dispatcher(
                        connection,
                        hostname=self._hostname,
                        buffer_group={"task"},
                        buffer_limit=BATCH_MOST,
                        buffer_while_offline=False,
                    )
                    while not self._stopping:
                        self._wake.wait()
                        self._wake.clear()
                        if not self._stopping:
                            time.sleep(FLUSH_S)
                        self._publish(dispatcher)
            except Exception as exc:  # noqa: BLE001  whatever kombu raises while the broker is away
                log.warning("events_not_published error=%s", exc)
                time.sleep(1)

    def _publish(self, dispatcher: Any) -> None:
        with self._lock:
            events, self._events = self._events, []
        for kind, fields in events:
            dispatcher.send(kind, **fields)
        dispatcher.flush()


def _received(service: str, request_id: str, attempt: int) -> tuple[str, dict[str, Any]]:
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
        "timestamp": time.time(),
    }
