"""Position and logs as fal's JavaScript client sees them while requests wait and run."""

from __future__ import annotations

import itertools
from typing import Any

from tests.support.fal_js import Call, FalJs
from tests.support.fal_place import Place, Stage


def places(call: Call) -> list[tuple[str, int | None]]:
    """State and position, each as often as it changed."""
    said = [(update["status"], update.get("queue_position")) for update in call.updates]
    return [place for place, _ in itertools.groupby(said)]


def lines(updates: list[dict[str, Any]]) -> list[str]:
    return [entry["message"] for update in updates for entry in update["logs"] or []]


def test_the_third_of_three_sees_the_others_go(fal: FalJs, stage: Stage, app: str) -> None:
    names = [f"{app}-{number}" for number in range(3)]
    ids = [fal.submit(app, input={"hold": names[0]})["request_id"]]
    stage.await_call(names[0])
    ids += [fal.submit(app, input={"hold": name})["request_id"] for name in names[1:]]
    streams = [fal.stream(app, request_id) for request_id in ids]
    second, third = streams[1:]

    third.until(lambda update: update.get("queue_position") == 1)
    second.until(lambda update: update.get("queue_position") == 0)
    stage.release(names[0])
    third.until(lambda update: update.get("queue_position") == 0)
    second.until(lambda update: update["status"] == "IN_PROGRESS")
    stage.release(names[1])
    third.until(lambda update: update["status"] == "IN_PROGRESS")
    stage.release(names[2])
    ends = [stream.result()["done"] for stream in streams]

    assert [end["request_id"] for end in ends] == ids
    assert places(third) == [("IN_QUEUE", 1), ("IN_QUEUE", 0), ("IN_PROGRESS", None), ("COMPLETED", None)]
    assert places(second) == [("IN_QUEUE", 0), ("IN_PROGRESS", None), ("COMPLETED", None)]
    assert places(streams[0]) == [("IN_PROGRESS", None), ("COMPLETED", None)]


def test_a_stream_has_each_log_line_once_and_in_order(fal: FalJs, stage: Stage, app: str) -> None:
    """Lines of several bytes a character: the client decodes each piece of the stream by itself."""
    request_id = fal.submit(app, input={"hold": app})["request_id"]
    running = stage.await_call(app)
    said = [f"{number}: {'日本語 🧀' * 30}" for number in range(120)]
    groups = [said[start : start + 20] for start in range(0, len(said), 20)]

    running.report(logs=[{"message": line} for line in groups[0]])
    first = fal.stream(app, request_id, logs=True)
    first.until(lambda update: update["status"] == "IN_PROGRESS" and update["logs"])
    for group in groups[1:3]:
        running.report(logs=[{"message": line} for line in group])
    late = fal.stream(app, request_id, logs=True)
    late.until(lambda update: update["logs"])
    for group in groups[3:]:
        running.report(logs=[{"message": line} for line in group])
    stage.release(app)
    for stream in (first, late):
        stream.result()

    assert lines(first.updates) == said
    assert lines(late.updates) == said
    assert lines([fal.status(app, request_id, logs=True)]) == said


def test_logs_that_come_with_progress_and_in_small_pieces(plain: FalJs, stage: Stage, app: str) -> None:
    call = plain.begin("subscribe", app, input={"hold": app}, mode="streaming", logs=True)
    running = stage.await_call(app)
    said = [f"step {number}" for number in range(40)]
    for number, line in enumerate(said):
        assert running.report(progress={"step": number}, logs=[{"message": line, "level": "DEBUG"}]) < 300
    stage.release(app)
    call.result()

    assert lines(call.updates[-1:]) == said
    seen = [lines([update]) for update in call.updates]
    assert all(longer[: len(shorter)] == shorter for shorter, longer in itertools.pairwise(seen))


def test_thirty_subscribers_at_once_get_their_own_answers(plain: FalJs, stage: Stage, app: str) -> None:
    calls = [
        plain.begin(
            "subscribe",
            app,
            input={"answer": {"body": {"number": number}}},
            mode="streaming" if number % 2 else "polling",
            pollInterval=50,
        )
        for number in range(30)
    ]

    results = [call.result() for call in calls]

    assert [result["data"] for result in results] == [{"number": number} for number in range(30)]
    assert [result["requestId"] for result in results] == [call.request_id() for call in calls]
    assert all(call.updates[-1]["status"] == "COMPLETED" for call in calls)


def test_a_subscribe_that_polls_outlives_the_web(plain: FalJs, stage: Stage, the_place: Place, app: str) -> None:
    call = plain.begin("subscribe", app, input={"hold": app}, pollInterval=20)
    stage.await_call(app)
    call.until(lambda update: update["status"] == "IN_PROGRESS")

    web = next(process for process in reversed(the_place.installation.processes) if process.name == "web")
    web.kill()
    the_place.web()
    stage.release(app)

    assert call.result()["requestId"] == call.request_id()
    assert [word for word, _ in places(call)][-2:] == ["IN_PROGRESS", "COMPLETED"]
