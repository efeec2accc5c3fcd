"""What a target gets of a task, and what becomes of its answer."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.pull.conftest import FUNCTIONS, MAX_RESULT_BYTES, Place
from tests.support.installation import await_condition
from tests.support.own_target import Call, OwnTarget

Files = Callable[..., dict[str, str]]
SIXTEEN_MB = 16 * 2**20


@pytest.fixture
def calls(target: OwnTarget) -> list[Call]:
    """What *target* was called with, in order; it answers what it got."""
    found: list[Call] = []

    def act(call: Call) -> tuple[int, bytes, dict[str, str]]:
        found.append(call)
        status = int(call.headers.get("x-wanted-status", "200"))
        return status, call.body, {"Content-Type": call.headers["content-type"]}

    target.act = act
    return found


# ------------------------------------------------------------------------------------------------------------- URLs
def test_a_url_gets_the_endpoint_the_data_and_the_id(place: Place, target: OwnTarget, calls: list[Call]) -> None:
    queue = place.queue()
    task_id = place.put(queue, {"k": [1, "é"]}, "/v1/chat/completions?stream=no way&b=%20")

    place.worker(queue, "--call", f"{target.url}/base/")

    assert place.result(task_id) == {"status_code": 200, "body": {"k": [1, "é"]}}
    (call,) = calls
    assert call.path == "/base/v1/chat/completions?stream=no%20way&b=%20"
    assert json.loads(call.body) == {"k": [1, "é"]}
    assert call.headers["content-type"] == "application/json"
    assert call.headers["x-request-id"] == task_id
    assert call.headers["x-request-attempt"] == "1"


@pytest.mark.parametrize("endpoint", ["http://elsewhere.invalid/x", "//elsewhere.invalid/x", "x", "///x"])
def test_an_endpoint_names_a_path_and_never_another_host(
    place: Place, target: OwnTarget, calls: list[Call], endpoint: str
) -> None:
    queue = place.queue()
    task_id = place.put(queue, {}, endpoint)

    place.worker(queue, "--call", target.url)

    assert place.result(task_id)["status_code"] == 200
    assert calls[0].path == "/x"
    assert calls[0].headers["host"] == target.url.removeprefix("http://")


@pytest.mark.parametrize("endpoint", ["/../admin", "/x/%2e%2e/admin", "/..;/admin", "/a/..\\admin", "/%252e%252e/a"])
def test_no_endpoint_leaves_the_paths_of_its_target(
    place: Place, target: OwnTarget, calls: list[Call], endpoint: str
) -> None:
    queue = place.queue()
    task_id = place.put(queue, {}, endpoint)

    place.worker(queue, "--call", f"{target.url}/base")

    assert place.result(task_id)["status_code"] == 400
    assert calls == []


def test_any_status_is_the_result(place: Place, target: OwnTarget) -> None:
    queue = place.queue()
    target.act = lambda call: (int(call.path.rpartition("/")[2]), b'{"detail": "so it is"}')
    task_ids = {status: place.put(queue, {}, f"/{status}") for status in (201, 302, 404, 500)}

    place.worker(queue, "--call", target.url, "--slots", 4)

    for status, task_id in task_ids.items():
        assert place.result(task_id) == {"status_code": status, "body": {"detail": "so it is"}}
        assert place.status(task_id) == ("succeeded" if status < 400 else "failed")


def test_bytes_travel_both_ways_as_they_are(place: Place, target: OwnTarget, calls: list[Call]) -> None:
    """Submitted and read natively, as by a client that knows nothing of takes."""
    queue = place.queue()
    body = bytes(range(256))
    request_id = place.front.submit(f"{queue}/sub/path?a=1", body, {"Content-Type": "image/png"})

    place.worker(queue, "--call", target.url)
    place.front.await_status(request_id, queue, "SUCCESS")
    answer = place.front.result(request_id, queue)

    assert (calls[0].path, calls[0].body) == ("/v1/work/sub/path?a=1", body)
    assert calls[0].headers["content-type"] == "image/png"
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["Content-Type"] == "image/png"


def test_a_json_answer_reaches_the_client_as_it_was_written(place: Place, target: OwnTarget) -> None:
    queue = place.queue()
    written = b'{"b": 1.50,  "a": [1e3, "\\u00e9"]}'
    target.act = lambda call: (200, written)
    request_id = place.front.submit(queue, b"{}", {"Content-Type": "application/json"})

    place.worker(queue, "--call", target.url)
    place.front.await_status(request_id, queue, "SUCCESS")

    assert place.front.result(request_id, queue).body == written


def test_sixteen_megabytes_come_back_whole(place: Place, target: OwnTarget) -> None:
    queue = place.queue()
    body = hashlib.sha256(b"seed").digest() * (SIXTEEN_MB // 32)
    target.act = lambda call: (200, body, {"Content-Type": "application/octet-stream"})
    request_id = place.front.submit(queue, b"{}", {"Content-Type": "application/json"})

    place.worker(queue, "--call", target.url)
    place.front.await_status(request_id, queue, "SUCCESS")

    assert place.front.result(request_id, queue).body == body


def test_a_result_that_the_queue_refuses_ends_with_its_reason(place: Place) -> None:
    queue = place.queue()
    task_id = place.put(queue, {"bytes": MAX_RESULT_BYTES + 256})

    worker = place.worker(queue, "--function", f"{FUNCTIONS}:large")

    result = place.result(task_id)
    assert result["status_code"] == 500
    assert result["body"]["error"]["type"] == "ResultRefused"
    worker.await_event("result_refused", task_id=task_id)


# -------------------------------------------------------------------------------------------------------- functions
def test_a_function_gets_json_or_bytes_and_the_task_if_it_wants_it(place: Place) -> None:
    queue = place.queue()
    of_json = place.put(queue, {"a": 1})
    of_bytes = place.front.submit(queue, b"\x00\x01", {"Content-Type": "image/gif"})

    place.worker(queue, "--function", f"{FUNCTIONS}:described")

    assert place.result(of_json)["body"] == {
        "type": "dict",
        "content_type": "application/json",
        "attempt": 1,
        "id": of_json,
    }
    place.front.await_status(of_bytes, queue, "SUCCESS")
    assert place.front.result(of_bytes, queue).json == {
        "type": "bytes",
        "content_type": "image/gif",
        "attempt": 1,
        "id": of_bytes,
    }


def test_a_second_argument_with_a_default_is_left_alone(place: Place) -> None:
    queue = place.queue()
    task_id = place.put(queue, {})

    place.worker(queue, "--function", f"{FUNCTIONS}:optional")

    assert place.result(task_id) == {"status_code": 200, "body": 2}


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"value": 7}, {"type": "ValueError", "message": "can't use 7"}),
        ({"exits": True}, {"type": "SystemExit", "message": "enough"}),
    ],
)
def test_what_a_function_raises_is_the_answer(place: Place, data: Any, error: dict[str, str]) -> None:
    queue = place.queue()
    task_id = place.put(queue, data)

    worker = place.worker(queue, "--function", f"{FUNCTIONS}:failing")

    assert place.result(task_id) == {"status_code": 500, "body": {"error": error}}
    assert place.status(task_id) == "failed"
    worker.await_event("task_completed", task_id=task_id, status_code=500)


def test_what_is_no_json_is_an_error_too(place: Place) -> None:
    queue = place.queue()
    task_ids = {of: place.put(queue, {"of": of}) for of in ("nan", "set", "coded")}

    place.worker(queue, "--function", f"{FUNCTIONS}:odd")

    assert place.result(task_ids["nan"])["body"]["error"]["type"] == "ValueError"
    assert place.result(task_ids["set"])["body"]["error"]["type"] == "TypeError"
    coded = place.result(task_ids["coded"])["body"]
    assert json.loads(base64.b64decode(coded["body_base64"])) == {"body_base64": "AA==", "content_type": "image/png"}


def test_progress_and_logs_are_seen_while_it_works(place: Place, files: Files) -> None:
    queue = place.queue()
    go = files("go")
    request_id = place.front.submit(queue, json.dumps({"words": []} | go), {"Content-Type": "application/json"})

    place.worker(queue, "--function", f"{FUNCTIONS}:told")
    await_condition(lambda: place.front.look(request_id, queue).json.get("progress") == {"step": 1})
    assert place.front.look(request_id, queue).json["status"] == "STARTED"
    open(go["go"], "w").close()

    place.front.await_status(request_id, queue, "SUCCESS")
    events = place.front.call("GET", f"/api/predict/{queue}/requests/{request_id}/events").body.decode()
    assert '"halfway"' in events and '"warn"' in events
    assert place.front.result(request_id, queue).json == "all said"


def test_events_are_streamed_in_order(place: Place, files: Files) -> None:
    queue = place.queue()
    go = files("go")
    open(go["go"], "w").close()
    words = [f"word {number}" for number in range(20)]
    place.worker(queue, "--function", f"{FUNCTIONS}:told")

    asked = {"queue": queue, "endpoint": "/v1/x", "data": {"words": words} | go, "response_mode": "streaming"}
    answer = place.front.call("POST", "/v1/queue/put", json.dumps(asked), {"Content-Type": "application/json"})

    assert answer.headers["Content-Type"].startswith("text/event-stream")
    fields = [
        dict(line.split(":", 1) for line in event.splitlines() if not line.startswith(":"))
        for event in answer.body.decode().split("\n\n")
    ]
    events = [event for event in fields if event]
    assert [event["id"].strip() for event in events] == [str(number) for number in range(21)]
    assert [json.loads(event["data"])["word"] for event in events[:-1]] == words
    assert (events[-1]["event"].strip(), events[-1]["data"].strip()) == ("end", "last")


@pytest.mark.parametrize(
    ("of", "status_code", "body"),
    [
        ("line", 200, "said"),
        ("end", 500, {"error": {"type": "ValueError", "message": "after all that"}}),
        ("event", 500, None),
    ],
)
def test_what_the_queue_refuses_takes_nothing_else_with_it(place: Place, of: str, status_code: int, body: Any) -> None:
    """Lines before and behind arrive, before an error too; a stream without one of its events is no success."""
    queue = place.queue()
    task_id = place.put(queue, {"of": of})

    worker = place.worker(queue, "--function", f"{FUNCTIONS}:says_wrong")

    result = place.result(task_id)
    assert result["status_code"] == status_code
    assert result["body"] == body if body else result["body"]["error"]["type"] in ("EventsLost", "Refused")
    request_id = place.request_id(task_id)
    events = place.front.call("GET", f"/api/predict/{queue}/requests/{request_id}/events").body.decode()
    assert [word for word in ("first", "second", "third") if f'"{word}"' in events] == ["first", "third"]
    assert place.front.look(request_id, queue).json["progress"] == {"step": 3}
    assert len(worker.events("report_lost", task_id=task_id)) == (2 if of == "event" else 1)
