"""A followed request: each line once, though lines come while one looks; heartbeats; an end when it must end."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

import pytest

from eas_queue.engine import following
from eas_queue.engine.engine import Engine
from eas_queue.engine.following import Change, follow
from eas_queue.engine.request import LogLine, Request, Submission
from tests.support.drive import SUCCEEDED, Driver
from tests.support.server import RedisServer


@pytest.fixture
def drive(server: RedisServer) -> Driver:
    return Driver(server.url)


def begin(engine: Engine, request_id: str, *, after: int = -1) -> Generator[Change | None]:
    return follow(engine, engine.look("s", request_id), after=after, is_gone=lambda: False)


def test_a_line_that_comes_between_the_look_and_its_lines_is_told_once(
    engine: Engine, drive: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id = engine.submit("s", Submission(b"")).request_id
    (work,) = drive.start()
    drive.progress(work, "", ("info", "first"))
    logs = engine.logs

    def late(request: Request, **limits: Any) -> list[LogLine]:
        monkeypatch.setattr(engine, "logs", logs)
        drive.progress(work, "", ("info", "second"))
        return logs(request, **limits)

    monkeypatch.setattr(engine, "logs", late)
    changes = begin(engine, request_id)
    first, second = next(changes), next(changes)
    drive.finish(work, SUCCEEDED)
    rest = list(changes)

    told = [line.message for change in (first, second, *rest) if change for line in change.lines]
    assert told == ["first", "second"]
    assert rest[-1] is not None
    assert rest[-1].request.state == "succeeded"


def test_silence_is_told_and_a_stop_ends_it(engine: Engine, drive: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "HEARTBEAT_S", 0.05)
    request_id = engine.submit("s", Submission(b"")).request_id
    changes = begin(engine, request_id)
    assert next(changes) is not None
    assert [next(changes), next(changes)] == [None, None]

    engine.waits.stop()

    assert [change for change in changes if change is not None] == []
    assert engine.waits.count() == 0


def test_a_reader_that_comes_back_gets_the_status_as_it_is_and_then_news(engine: Engine, drive: Driver) -> None:
    request_id = engine.submit("s", Submission(b"")).request_id
    (work,) = drive.start()
    version = engine.look("s", request_id).version
    changes = begin(engine, request_id, after=version)
    first = next(changes)
    assert first is not None
    assert first.request.state == "running"

    drive.finish(work, SUCCEEDED)

    assert [change.request.state for change in changes if change] == ["succeeded"]


def test_a_stream_that_begins_while_the_process_stops_ends_at_once(engine: Engine) -> None:
    request_id = engine.submit("s", Submission(b"")).request_id
    engine.waits.stop()

    changes = list(begin(engine, request_id))

    assert [change.request.state for change in changes if change] == ["queued"]
    assert None not in changes


def test_lines_are_read_when_there_are_new_ones_only(
    engine: Engine, drive: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id = engine.submit("s", Submission(b"")).request_id
    (work,) = drive.start()
    drive.progress(work, "", ("info", "line"))
    reads = []
    logs = engine.logs

    def counted(request: Request, **limits: Any) -> list[LogLine]:
        reads.append(limits)
        return logs(request, **limits)

    monkeypatch.setattr(engine, "logs", counted)
    changes = begin(engine, request_id)
    next(changes)
    for step in range(5):
        drive.progress(work, json.dumps({"step": step}))
        change = next(changes)
        assert change is not None
        assert (change.request.progress, change.lines) == ({"step": step}, ())

    assert len(reads) == 1


def test_a_request_that_leaves_while_it_is_followed_ends_the_stream(engine: Engine, drive: Driver) -> None:
    request_id = engine.submit("s", Submission(b"")).request_id
    first = engine.look("s", request_id)
    drive.raw.flushall()

    assert list(follow(engine, first, after=-1, is_gone=lambda: False)) == []
