"""The status stream: what comes when, and how it ends."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest

from eas_queue.dialects.fal import stream
from eas_queue.dialects.fal.schema import Links
from eas_queue.engine import following
from eas_queue.engine.engine import Engine
from eas_queue.engine.request import Submission
from tests.dialects.fal.conftest import Fal
from tests.support.drive import SUCCEEDED, Driver
from tests.support.installation import TOKEN
from tests.support.own_target import Call, OwnTarget
from tests.support.server import RedisServer

UNKNOWN = "00000000-0000-8000-8000-000000000000"


def brief(content: dict[str, Any]) -> tuple[str, int | None]:
    return content["status"], content.get("queue_position")


def test_the_third_on_one_slot_sees_its_way_to_the_end(fal: Fal, single: str) -> None:
    ids = [fal.submit(f"{single}?hang=1") for _ in range(2)]
    fal.await_word(single, ids[0], "IN_PROGRESS")
    third = fal.submit(f"{single}?delay_s=0.1")
    seen = []
    with fal.stream(single, third) as events:
        for content in events:
            seen.append(brief(content))
            if content["status"] == "IN_QUEUE":
                fal.cancel(single, ids.pop(0))

    assert seen == [("IN_QUEUE", 1), ("IN_QUEUE", 0), ("IN_PROGRESS", None), ("COMPLETED", None)]


def test_the_head_is_what_the_client_looks_for(fal: Fal) -> None:
    request_id, _ = fal.ended("acme/demo")

    with fal.stream("acme/demo", request_id) as events:
        contents = list(events)

    assert events.status == 200
    assert events.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert events.headers["cache-control"] == "no-cache"
    assert events.headers["x-fal-request-id"] == request_id
    assert contents == [fal.status("acme/demo", request_id, "?logs=1").json]


@pytest.mark.parametrize("query", ["?logs=1", "?logs=0"])
def test_lines_come_once_each_and_in_order_or_not_at_all(fal: Fal, own_target: OwnTarget, query: str) -> None:
    steps = [threading.Event() for _ in range(3)]

    def act(call: Call) -> tuple[int, bytes]:
        for number, step in enumerate(steps):
            assert step.wait(10)
            call.report(logs=[{"message": f"{number}-{i} ü"} for i in range(3)], progress={"step": number})
        return 200, b"{}"

    own_target.act = act
    request_id = fal.submit("acme/own")
    fal.await_word("acme/own", request_id, "IN_PROGRESS")
    lines: list[str] = []
    words: list[str] = []
    with fal.stream("acme/own", request_id, query) as events:
        for content in events:
            words.append(content["status"])
            lines += [line["message"] for line in content["logs"] or []]
            if query == "?logs=0":
                assert content["logs"] is None
                for step in steps:
                    step.set()
            elif content["status"] == "IN_PROGRESS":
                for step in steps[: len(lines) // 3 + 1]:
                    step.set()

    if query == "?logs=1":
        assert lines == [f"{number}-{i} ü" for number in range(3) for i in range(3)]
    else:
        assert (words, lines) == (["IN_PROGRESS", "COMPLETED"], [])


def test_who_comes_later_sees_the_lines_so_far(fal: Fal, own_target: OwnTarget) -> None:
    def act(call: Call) -> tuple[int, bytes]:
        call.report(logs=[{"message": "one"}, {"message": "two"}])
        return 200, b"{}"

    own_target.act = act
    request_id, _ = fal.ended("acme/own")

    with fal.stream("acme/own", request_id) as events:
        [content] = events

    assert [line["message"] for line in content["logs"]] == ["one", "two"]


def test_a_retry_is_seen(fal: Fal, own_target: OwnTarget) -> None:
    go_on = threading.Event()

    def act(call: Call) -> tuple[int, bytes]:
        go_on.wait(10)
        return (503, b"{}") if call.headers["x-request-attempt"] == "1" else (200, b"{}")

    own_target.act = act
    request_id = fal.submit("acme/own")
    fal.await_word("acme/own", request_id, "IN_PROGRESS")
    with fal.stream("acme/own", request_id) as events:
        words = []
        for content in events:
            words.append(content["status"])
            go_on.set()

    assert words[0] == "IN_PROGRESS" and words[-1] == "COMPLETED"


def test_a_cancel_ends_it(fal: Fal, single: str) -> None:
    with fal.occupied(single):
        request_id = fal.submit(single)
        with fal.stream(single, request_id) as events:
            seen = []
            for content in events:
                seen.append(content)
                if content["status"] == "IN_QUEUE":
                    since_s = time.monotonic()
                    fal.cancel(single, request_id)

    assert time.monotonic() - since_s < 2
    assert (seen[-1]["status"], seen[-1]["error_type"]) == ("COMPLETED", "client_cancelled")


@pytest.mark.parametrize(
    ("path", "token", "status"),
    [
        (f"/fal/acme/demo/requests/{UNKNOWN}/status/stream", TOKEN, 404),
        (f"/fal/acme/none/requests/{UNKNOWN}/status/stream", TOKEN, 404),
        (f"/fal/acme/demo/requests/{UNKNOWN}/status/stream", "wrong", 401),
    ],
)
def test_a_refusal_comes_before_the_stream_and_as_json(fal: Fal, path: str, token: str, status: int) -> None:
    answer = fal.call("GET", path, token=token)

    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/json"


def events_of(engine: Engine, request_id: str) -> Iterator[str]:
    links = Links.of("http://q/fal", "acme/s", request_id)
    found = stream.response(engine, engine.look("s", request_id), links, with_logs=True, is_gone=lambda: False)
    return iter(cast(Iterator[str], found.response))


def test_a_silent_stream_has_comments_and_a_stop_of_the_web_ends_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "HEARTBEAT_S", 0.05)
    events = events_of(engine, engine.submit("s", Submission(b"")).request_id)
    assert next(events).startswith('data: {"status": "IN_QUEUE"')
    assert [next(events), next(events)] == [": ping\n\n", ": ping\n\n"]

    engine.waits.stop()

    assert [event for event in events if event != ": ping\n\n"] == []


def test_progress_is_no_news_but_keeps_nobody_silent(
    engine: Engine, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.0)
    request_id = engine.submit("s", Submission(b"")).request_id
    drive = Driver(server.url)
    [work] = drive.start()
    events = events_of(engine, request_id)
    assert next(events).startswith('data: {"status": "IN_PROGRESS"')

    drive.progress(work, '{"step": 1}')
    assert next(events) == ": ping\n\n"
    drive.progress(work, "", ("info", "a line"))
    assert json.loads(next(events)[6:])["logs"][0]["message"] == "a line"

    drive.finish(work, SUCCEEDED)
    assert [json.loads(event[6:])["status"] for event in events] == ["COMPLETED"]


def test_it_is_ascii_whatever_the_target_logs(fal: Fal, own_target: OwnTarget) -> None:
    own_target.act = lambda call: (call.report(logs=[{"message": "\u20ac \U0001f600\n\r\u2028x"}]), (200, b"{}"))[1]
    request_id, _ = fal.ended("acme/own")

    with fal.stream("acme/own", request_id) as events:  # which asserts ASCII
        [content] = events

    assert content["logs"][0]["message"] == "\u20ac \U0001f600\n\r\u2028x"
