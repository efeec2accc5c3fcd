"""Every call of fal's JavaScript client that concerns the queue, in each of the ways that send it to another host."""

from __future__ import annotations

import base64
import json
import re
import uuid
from typing import Any

import pytest

from tests.support.fal_js import FalError, FalJs
from tests.support.fal_place import Place, Stage, occupied
from tests.support.installation import TOKEN, await_condition

IMAGE = {"images": [{"url": "data:image/png;base64,", "width": 8, "height": 8}], "seed": 7, "prompt": "ein Käse 🧀"}


def words(updates: list[dict[str, Any]]) -> list[str]:
    """The states, each as often as it was entered."""
    said = [update["status"] for update in updates]
    return [word for before, word in zip([None, *said], said, strict=False) if word != before]


def messages(update: dict[str, Any]) -> list[str]:
    return [entry["message"] for entry in update.get("logs") or []]


def urls_of(content: dict[str, Any]) -> list[str]:
    return [content[name] for name in ("response_url", "status_url", "cancel_url")]


# ------------------------------------------------------------------------------------------------------- subscribe
@pytest.mark.parametrize("mode", ["polling", "streaming"])
def test_subscribe_tells_of_the_way_through_the_queue_and_gives_the_answer(
    fal: FalJs, stage: Stage, app: str, mode: str
) -> None:
    asked = {"hold": app, "answer": {"body": IMAGE}}
    with occupied(fal, stage, app):
        call = fal.begin("subscribe", app, input=asked, mode=mode, logs=True, pollInterval=20)
        waiting = call.until(lambda update: update["status"] == "IN_QUEUE")
    running = stage.await_call(app)
    running.report(logs=[{"message": "half way"}])
    call.until(lambda update: messages(update) == ["half way"])
    stage.release(app)
    result = call.result()

    assert result == {"data": IMAGE, "requestId": call.request_id()}
    assert waiting["queue_position"] == 0
    assert waiting["request_id"] == result["requestId"]
    assert words(call.updates) == ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
    assert messages(call.updates[-1]) == ["half way"]
    assert call.updates[-1]["metrics"]["inference_time"] > 0
    assert "error" not in call.updates[-1]


@pytest.mark.parametrize("mode", ["polling", "streaming"])
def test_a_subscribe_that_times_out_cancels_its_request(
    plain: FalJs, stage: Stage, the_place: Place, app: str, mode: str
) -> None:
    call = plain.begin("subscribe", app, input={"hold": app}, mode=mode, timeout=300, pollInterval=20)
    request_id = call.request_id()
    stage.await_call(app)

    with pytest.raises(FalError) as raised:
        call.result()

    ended = plain.ended(app, request_id)
    assert ended["error_type"] == "client_cancelled"
    assert ended["request_id"] == request_id
    if mode == "polling":
        assert "timed out" in raised.value.message
    else:  # the client throws it where nobody can catch it, and goes on to ask for the result
        assert "timed out" in plain.runner.uncaught.get(timeout=5)
        assert raised.value.status in (400, 499)


# ---------------------------------------------------------------------------------------------------------- submit
def test_submit_answers_at_once_with_urls_that_work(fal: FalJs, stage: Stage, the_place: Place, app: str) -> None:
    with occupied(fal, stage, app):
        submitted = fal.submit(app, input={"answer": {"body": IMAGE}})

        assert submitted["status"] == "IN_QUEUE"
        assert submitted["queue_position"] == 0
        url = f"{fal.base}/fal/{app}/requests/{submitted['request_id']}"
        assert urls_of(submitted) == [url, f"{url}/status", f"{url}/cancel"]
        assert the_place.get(submitted["status_url"]).json()["status"] == "IN_QUEUE"
    assert urls_of(fal.ended(app, submitted["request_id"])) == urls_of(submitted)
    assert the_place.get(submitted["response_url"]).json() == IMAGE


def test_what_a_submit_says_about_the_request_reaches_the_target(fal: FalJs, app: str) -> None:
    submitted = fal.submit(
        f"{app}/image-to-image",
        input={"prompt": "a cat"},
        hint="lora-7",
        startTimeout=30,
        headers={"X-Studio": "eleven"},
        storageSettings={"expiresIn": "1h"},
    )
    fal.ended(app, submitted["request_id"])
    seen = fal.result(app, submitted["request_id"])["data"]

    assert seen["path"].endswith("/image-to-image")
    assert json.loads(seen["body"]) == {"prompt": "a cat"}
    assert seen["headers"]["x-fal-runner-hint"] == "lora-7"
    assert seen["headers"]["x-studio"] == "eleven"
    assert json.loads(seen["headers"]["x-fal-object-lifecycle-preference"]) == {"expiration_duration_seconds": 3600}
    assert seen["headers"]["x-fal-request-id"] == submitted["request_id"]
    assert TOKEN not in str(seen["headers"])


def test_low_priority_waits_for_normal(fal: FalJs, stage: Stage, app: str) -> None:
    with occupied(fal, stage, app):
        low = fal.submit(app, input={}, priority="low")["request_id"]
        normal = fal.submit(app, input={"hold": app})["request_id"]

        assert fal.status(app, normal)["queue_position"] == 0
        assert fal.status(app, low)["queue_position"] == 1
    stage.await_call(app)
    assert fal.status(app, low)["status"] == "IN_QUEUE"
    stage.release(app)
    assert "error" not in fal.ended(app, low)


@pytest.mark.parametrize("call", ["submit", "run"])
@pytest.mark.parametrize("options", [{}, {"input": {}}], ids=("none", "empty"))
def test_no_input_and_an_empty_one_reach_the_target_as_an_empty_object(
    fal: FalJs, app: str, call: str, options: dict[str, Any]
) -> None:
    """Without an input the client sends no body, though it says that it is JSON."""
    if call == "run":
        seen = fal.begin("run", app, **options).result()["data"]
    else:
        request_id = fal.submit(app, **options)["request_id"]
        fal.ended(app, request_id)
        seen = fal.result(app, request_id)["data"]

    assert seen["body"] == "{}"
    assert seen["headers"]["content-type"].startswith("application/json")


@pytest.mark.parametrize(
    ("submitted_as", "looked_up_as"),
    [
        ("workflows/ann/{}", "workflows/ann/{}"),
        ("comfy/ann/{}/upscale", "comfy/ann/{}"),
        ("1714827-{}", "1714827-{}"),
        ("1714827-{}", "1714827/{}"),
    ],
)
def test_ids_with_a_namespace_and_ids_of_the_old_kind(
    plain: FalJs, app: str, submitted_as: str, looked_up_as: str
) -> None:
    alias = app.partition("/")[2]
    request_id = plain.submit(submitted_as.format(alias), input={"answer": {"body": IMAGE}})["request_id"]
    endpoint = looked_up_as.format(alias)

    assert plain.ended(endpoint, request_id)["request_id"] == request_id
    assert plain.result(endpoint, request_id) == {"data": IMAGE, "requestId": request_id}


def test_an_alias_of_the_services_file_is_an_endpoint(plain: FalJs) -> None:
    result = plain.begin("subscribe", "studio/painter/fast", input={"prompt": "a cat"}, pollInterval=20).result()

    assert re.search(r"/painter/fast$", result["data"]["path"])


# --------------------------------------------------------------------------------------- status, streamStatus, result
def test_status_has_logs_only_where_they_are_asked_for(fal: FalJs, stage: Stage, app: str) -> None:
    with occupied(fal, stage, app):
        request_id = fal.submit(app, input={"hold": app, "answer": {"body": IMAGE}})["request_id"]
        assert fal.status(app, request_id, logs=True)["logs"] == []
        assert fal.status(app, request_id)["logs"] is None
    running = stage.await_call(app)
    running.report(logs=[{"message": "grüße", "level": "WARN"}])

    during = await_condition(
        lambda: (found := fal.status(app, request_id, logs=True))["logs"] and found, what="the log line is there"
    )
    assert during["status"] == "IN_PROGRESS"
    assert fal.status(app, request_id)["logs"] is None
    (entry,) = during["logs"]
    assert entry["message"] == "grüße"
    assert entry["level"] == "WARN"
    assert entry["source"] == "USER"
    assert re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d", entry["timestamp"])

    stage.release(app)
    done = fal.ended(app, request_id)
    after = fal.status(app, request_id, logs=True)
    assert after["status"] == "COMPLETED"
    assert after["logs"] == [entry]
    assert after["metrics"] == done["metrics"]
    assert fal.status(app, request_id)["logs"] is None


def test_stream_status_can_be_iterated_and_ends_with_the_last_status(fal: FalJs, stage: Stage, app: str) -> None:
    request_id = fal.submit(app, input={"hold": app, "answer": {"body": IMAGE}})["request_id"]
    running = stage.await_call(app)
    call = fal.stream(app, request_id)
    call.until(lambda update: update["status"] == "IN_PROGRESS")
    running.report(progress={"step": 1}, logs=[{"message": "not asked for"}])
    stage.release(app)
    end = call.result()

    assert end == {"done": call.updates[-1], "requestId": request_id}
    assert [update["status"] for update in call.updates] == ["IN_PROGRESS", "COMPLETED"], "each change once"
    assert all(update["logs"] is None for update in call.updates)
    assert fal.stream(app, request_id).result()["done"]["status"] == "COMPLETED", "a late look ends at once"


def test_result_can_be_asked_for_again(fal: FalJs, app: str) -> None:
    request_id = fal.submit(app, input={"answer": {"body": IMAGE}})["request_id"]
    fal.ended(app, request_id)

    assert fal.result(app, request_id) == {"data": IMAGE, "requestId": request_id}
    assert fal.result(app, request_id) == {"data": IMAGE, "requestId": request_id}
    assert fal.result(f"{app}/any/path", request_id)["data"] == IMAGE, "the client leaves the path out"


@pytest.mark.parametrize("call", ["submit", "run"])
@pytest.mark.parametrize(
    ("content_type", "sent"),
    [
        ("text/html", "<p>Käse</p>".encode()),
        ("application/octet-stream", b"\x00\x01\xfe\xff"),
        ("text/plain; charset=utf-8", "größer".encode()),
    ],
)
def test_answers_that_are_no_json_arrive_as_they_are(
    fal: FalJs, app: str, call: str, content_type: str, sent: bytes
) -> None:
    asked = {"answer": {"text": sent.decode("latin-1"), "type": content_type}}
    if call == "run":
        data = fal.begin("run", app, input=asked).result()["data"]
    else:
        request_id = fal.submit(app, input=asked)["request_id"]
        fal.ended(app, request_id)
        data = fal.result(app, request_id)["data"]

    assert isinstance(data, dict) == (content_type == "application/octet-stream")
    assert (base64.b64decode(data["base64"]) if isinstance(data, dict) else data.encode()) == sent


# --------------------------------------------------------------------------------------------------------- cancel
def test_a_request_that_waits_is_cancelled_and_never_sent(fal: FalJs, stage: Stage, app: str) -> None:
    with occupied(fal, stage, app):
        request_id = fal.submit(app, input={"hold": app})["request_id"]
        fal.cancel(app, request_id)
        done = fal.ended(app, request_id)

    assert done["error"] == "Request was cancelled"
    assert done["error_type"] == "client_cancelled"
    assert fal.begin("run", app, input={}).result()["data"]["path"], "the slot has gone past it"
    assert not stage.has_seen(app)


def test_a_request_that_runs_is_cancelled_and_frees_its_slot(fal: FalJs, stage: Stage, app: str) -> None:
    request_id = fal.submit(app, input={"hold": app})["request_id"]
    stage.await_call(app)
    fal.cancel(app, request_id)

    assert fal.ended(app, request_id)["error_type"] == "client_cancelled"
    assert fal.begin("run", app, input={}).result()["data"]["path"], "though the target still works on the other"


# ------------------------------------------------------------------------------------------------------------- run
def test_run_waits_for_the_answer(fal: FalJs, stage: Stage, app: str) -> None:
    call = fal.begin("run", f"{app}/upscale", input={"hold": app})
    running = stage.await_call(app)
    stage.release(app)
    result = call.result()

    assert result["requestId"] == running.headers["x-fal-request-id"]
    assert result["data"]["path"].endswith("/upscale")


def test_the_events_of_a_target_that_streams_arrive(fal: FalJs, app: str) -> None:
    """All of them at its end: the queue keeps whole answers."""
    events = [{"partial": True, "text": "Kä"}, {"partial": False, "text": "Käse 🧀"}]
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    call = fal.begin("stream", app, input={"answer": {"text": text, "type": "text/event-stream"}})
    end = call.result()

    assert call.updates == events
    assert end["done"] == events[-1]
    assert uuid.UUID(end["requestId"])


def test_a_run_that_is_aborted_is_cancelled(plain: FalJs, stage: Stage, app: str) -> None:
    call = plain.begin("run", app, input={"hold": app})
    request_id = stage.await_call(app).headers["x-fal-request-id"]
    call.abort()

    with pytest.raises(FalError, match="AbortError"):
        call.result()
    done = plain.ended(app, request_id)
    assert done["error_type"] == "client_cancelled"
