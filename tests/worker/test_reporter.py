"""Events of requests, with a receiver like Flower's, in each mode of WORKER_EVENTS."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from eas_queue.engine import ids
from eas_queue.engine.service import Service
from eas_queue.store.shapes import Leased
from eas_queue.worker.attempt import Attempt
from eas_queue.worker.listeners import count_listeners
from eas_queue.worker.reporter import KNOWN_S, Mode, Reporter
from tests.support.drive import FAILED, RETRY, SUCCEEDED
from tests.support.installation import await_condition
from tests.support.server import RedisServer

Events = list[dict[str, Any]]
MODES: list[Mode] = ["auto", "all"]


@pytest.fixture
def app(server: RedisServer) -> Iterator[Celery]:
    with Celery(broker=server.url, set_as_current=False) as made:
        yield made


@contextlib.contextmanager
def listening(app: Celery) -> Iterator[Events]:
    """The events that a receiver gets meanwhile. It asks no worker for them, as not every listener does."""
    events: Events = []
    ready, ended = threading.Event(), threading.Event()

    def run() -> None:
        with app.connection() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": events.append})
            with receiver.consumer_context(wakeup=False) as (found, _, _):
                while not ended.is_set():
                    with contextlib.suppress(TimeoutError):
                        found.drain_events(timeout=0.05)
                    ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(10)
    try:
        yield events
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def reporting(app: Celery, mode: Mode, announced: list[int] | None = None) -> Iterator[Reporter]:
    made = Reporter(app, "w1@test", mode, lambda: len(announced or []))
    try:
        yield made
    finally:
        made.stop()


def attempt() -> Attempt:
    work = Leased("s", ids.new_id(1), "token", 1, b"{}", b"", 0, 0, 0)
    return Attempt(Service(name="s", result_ttl_s=60), work, lease_until_s=time.monotonic() + 30)


def of(events: Events, made: Attempt) -> list[str]:
    """What was told of this request, in order."""
    return [event["type"].removeprefix("task-") for event in events if event.get("uuid") == made.work.request_id]


def wait(seconds: float) -> None:
    until = time.monotonic() + seconds
    await_condition(lambda: time.monotonic() > until)


@pytest.mark.parametrize("mode", MODES)
def test_who_listens_from_the_start_hears_of_every_request(app: Celery, mode: Mode) -> None:
    with listening(app) as events, reporting(app, mode) as reporter:
        for end in (SUCCEEDED, FAILED, RETRY):
            one = attempt()
            reporter.started(one)
            reporter.ended(one, end)
            kind = {SUCCEEDED: "succeeded", FAILED: "failed", RETRY: "retried"}[end]
            expected = ["received", "started", kind]
            await_condition(functools.partial(lambda one, expected: of(events, one) == expected, one, expected))


def test_with_events_off_nobody_is_told_and_nothing_is_built(app: Celery) -> None:
    with listening(app) as events, reporting(app, "off") as reporter:
        one = attempt()
        reporter.started(one)
        reporter.ended(one, SUCCEEDED)
        reporter.ended_unseen([("s", one.work.request_id, "failed")])
        wait(0.5)

        assert events == []
        assert reporter._thread is None, "it has not even connected"


def test_while_nobody_listens_nothing_is_built_or_sent_but_one_question_a_second(
    app: Celery, server: RedisServer
) -> None:
    with reporting(app, "auto") as reporter, server.client() as raw:
        reporter.started(attempt())
        await_condition(reporter._is_quiet)
        before: Any = raw.info("commandstats")
        until = time.monotonic() + 2.5 * KNOWN_S
        while time.monotonic() < until:
            one = attempt()
            reporter.started(one)
            reporter.ended(one, SUCCEEDED)
            time.sleep(0.001)
        after: Any = raw.info("commandstats")

        asked = after["cmdstat_publish"]["calls"] - before["cmdstat_publish"]["calls"]
        assert 2 <= asked <= 3
        assert reporter._events == []


def test_who_comes_later_hears_of_what_starts_and_ends_from_then_on_by_name(app: Celery) -> None:
    with reporting(app, "auto") as reporter:
        running = attempt()
        reporter.started(running)
        await_condition(reporter._is_quiet)
        with listening(app) as events:
            wait(KNOWN_S)
            reporter.ended(running, SUCCEEDED)
            await_condition(lambda: of(events, running) == ["received", "started", "succeeded"])
            begin, end = events[1]["timestamp"], events[2]["timestamp"]
            assert end - begin == pytest.approx(events[2]["runtime"], abs=0.01), "it did not start only now"
        wait(KNOWN_S)
        unseen = attempt()
        reporter.started(unseen)
        await_condition(reporter._is_quiet)
        with listening(app) as events:
            wait(KNOWN_S)
            reporter.ended(unseen, SUCCEEDED)
            await_condition(lambda: of(events, unseen) == ["received", "started", "succeeded"])


def test_who_announces_itself_is_heard_at_once(app: Celery) -> None:
    announced: list[int] = []
    with reporting(app, "auto", announced) as reporter:
        reporter.started(attempt())
        await_condition(reporter._is_quiet)
        with listening(app) as events:
            announced.append(1)
            one = attempt()
            reporter.started(one)
            await_condition(lambda: of(events, one) == ["received", "started"], timeout_s=KNOWN_S / 2)


def test_what_happens_in_the_last_moment_is_published_at_the_stop(app: Celery) -> None:
    with listening(app) as events:
        with reporting(app, "auto") as reporter:
            one = attempt()
            reporter.started(one)
            reporter.ended(one, SUCCEEDED)
        await_condition(lambda: of(events, one) == ["received", "started", "succeeded"])


def test_the_question_who_listens_counts_receivers_of_task_events_only(app: Celery) -> None:
    with app.connection_for_write() as connection:
        channel = connection.default_channel

        assert count_listeners(channel, "celeryev") == 0
        with listening(app) as events:
            assert count_listeners(channel, "celeryev") == 1
            wait(0.2)
            assert events == [], "and tells them nothing"
        assert count_listeners(channel, "celeryev") == 0
