"""What a put brings: a callback to a real receiver, an answer that was waited for, a stream of events."""

from __future__ import annotations

import base64
import http.client
import json
import re
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.bella_sdk import ENDPOINT, Bella, bella
from tests.support.installation import TOKEN, await_condition
from tests.support.receiver import Delivery, Receiver, accepts

SETTINGS: dict[str, Any] = {
    "webhook_secret": f"whsec_{base64.b64encode(bytes(32)).decode()}",
    "webhook_allow_private": "true",
    "webhook_timeout_s": 1,
    "webhook_retry_delays_s": "0.1,0.2",
}


@pytest.fixture(scope="module")
def place() -> Iterator[Bella]:
    with bella(webhooks=True, **SETTINGS) as made:
        yield made


@pytest.fixture(scope="module")
def shared_receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def receiver(shared_receiver: Receiver) -> Iterator[Receiver]:
    yield shared_receiver
    shared_receiver.act = accepts


@pytest.fixture
def queue(place: Bella) -> str:
    return place.register()


def await_deliveries(receiver: Receiver, path: str, count: int = 1) -> list[Delivery]:
    def there() -> list[Delivery] | None:
        found = [delivery for delivery in list(receiver.deliveries) if delivery.path == path]
        return found if len(found) >= count else None

    found: list[Delivery] = await_condition(there, what=f"{count} callbacks at {path}")
    return found


def new_path() -> str:
    return f"/callback/{uuid.uuid4().hex}?key=1&more="


# ---------------------------------------------------------------------------------------------------------- callback


def test_a_put_is_answered_with_the_id_in_an_envelope(place: Bella, queue: str) -> None:
    before_ms = time.time() * 1000

    answer = place.told("POST", "put", {"endpoint": ENDPOINT, "queue": queue, "data": {"a": 1}})

    assert list(answer) == ["code", "timestamp", "data"]
    assert (answer["code"], type(answer["timestamp"])) == (200, int)
    assert before_ms - 1 <= answer["timestamp"] <= time.time() * 1000 + 1
    assert re.fullmatch(r"TASK-\d+-0-C-\d{12}-[0-9a-f]{4}-[0-9a-f]{28}", answer["data"])
    assert place.take_one(f"{queue}:0")["task_id"] == answer["data"]


@pytest.mark.parametrize("level", [0, 1])
def test_the_callback_is_the_complete_body_byte_for_byte(
    place: Bella, queue: str, receiver: Receiver, level: int
) -> None:
    path = new_path()
    task_id = place.put(queue, callback_url=receiver.url + path, level=level)
    task = place.take_one(f"{queue}:{level}")
    written = (
        f'{{ "body" : {{"b": 1.0, "a": "\\u00fc"}},\n"status_code":200, "request_id":"{task_id}", "more": [1e2] }}'
    )

    answer = place.call("POST", f"{task_id}/complete", body=written.encode())

    assert task["callback_url"] == receiver.url + path
    assert (answer.status, answer.json) == (200, task_id)
    [delivery] = await_deliveries(receiver, path)
    assert delivery.body == written.encode()
    assert delivery.headers["content-type"].startswith("application/json")
    assert "authorization" not in delivery.headers
    assert b'"result":' + written.encode() in place.call("GET", task_id).body.replace(b'"result": ', b'"result":')


def test_a_callback_that_fails_is_tried_again(place: Bella, queue: str, receiver: Receiver) -> None:
    path, answers = new_path(), [503, 0, 204]
    receiver.act = lambda delivery: answers.pop(0) if delivery.path == path else 204
    task_id = place.put(queue, callback_url=receiver.url + path)
    place.take(f"{queue}:1")

    place.complete(task_id, {"n": 1})

    deliveries = await_deliveries(receiver, path, 3)
    assert {json.dumps(json.loads(delivery.body)) for delivery in deliveries} == {
        json.dumps({"status_code": 200, "request_id": task_id, "body": {"n": 1}})
    }


def test_a_failure_calls_back_and_what_is_over_before_an_answer_mostly_does_not(
    place: Bella, queue: str, receiver: Receiver
) -> None:
    failed, cancelled, expired, used_up = paths = [new_path() for _ in range(4)]
    timeouts = {expired: {"timeout": 1}}
    ids = {path: place.put(queue, callback_url=receiver.url + path, **timeouts.get(path, {})) for path in paths}
    place.told("POST", f"{ids[cancelled]}/cancel", status=202)
    place.take_one(f"{queue}:1")
    place.complete(ids[failed], {"error": "out of memory"}, status_code=500)
    await_condition(lambda: place.task(ids[expired])["status"] == "timeout", timeout_s=5, what="one expires")
    place.take_one(f"{queue}:1", process_timeout=1)

    [delivery] = await_deliveries(receiver, used_up)

    gone = {"status_code": 408, "request_id": ids[used_up]}
    assert json.loads(delivery.body) == gone
    assert [place.task(ids[path])["status"] for path in paths] == ["failed", "cancelled", "timeout", "timeout"]
    assert place.task(ids[used_up])["result"] == gone
    [delivery] = await_deliveries(receiver, failed)
    assert json.loads(delivery.body)["body"] == {"error": "out of memory"}
    assert not [each for each in receiver.deliveries if each.path in (cancelled, expired)]


# ---------------------------------------------------------------------------------------------------------- blocking


@pytest.mark.parametrize("status_code", [200, 201, 422, 500])
def test_a_blocking_put_is_answered_with_status_and_body_unwrapped(place: Bella, queue: str, status_code: int) -> None:
    waiting = place.begin_put(queue, "blocking", {"model": "m"}, timeout=20)
    task = place.await_task(f"{queue}:0")
    written = '{"choices" : [1.0, "\\u00fc"]}'
    content = f'{{"status_code": {status_code}, "request_id": "{task["task_id"]}", "body": {written}}}'

    assert place.call("POST", f"{task['task_id']}/complete", body=content.encode()).json == task["task_id"]

    answer = waiting.result(timeout=10)
    assert (answer.status, answer.body.decode()) == (status_code, written)
    assert answer.headers["Content-Type"].startswith("application/json")
    assert (task["response_mode"], task["data"]) == ("blocking", {"model": "m"})
    assert place.task(task["task_id"])["status"] == ("succeeded" if status_code < 400 else "failed")


def test_a_complete_without_status_and_body_answers_200_and_an_empty_object(place: Bella, queue: str) -> None:
    waiting = place.begin_put(queue, "blocking", timeout=20)
    task_id = place.await_task(f"{queue}:0")["task_id"]

    assert place.told("POST", f"{task_id}/complete", {"request_id": task_id}) == task_id

    answer = waiting.result(timeout=10)
    assert (answer.status, answer.json) == (200, {})
    assert place.task(task_id)["result"] == {"request_id": task_id}


def test_a_put_that_waits_too_long_is_408_without_a_body_and_its_task_is_over(place: Bella, queue: str) -> None:
    taken = place.begin_put(queue, "blocking", {"n": 1}, timeout=1)
    task_id = place.await_task(f"{queue}:0")["task_id"]
    untaken = place.begin_put(queue, "blocking", {"n": 2}, timeout=1)

    answers = [each.result(timeout=10) for each in (taken, untaken)]

    assert [(answer.status, answer.body) for answer in answers] == [(408, b""), (408, b"")]
    assert place.task(task_id)["status"] in ("cancelled", "timeout")
    assert place.take(f"{queue}:0") == {}
    place.complete(task_id, {"late": True})
    assert "result" not in place.task(task_id)


# --------------------------------------------------------------------------------------------------------- streaming


def events(response: http.client.HTTPResponse) -> Iterator[dict[str, str]]:
    """Each server-sent event as its fields, as they come; comments are none."""
    found: dict[str, str] = {}
    for line in response:
        name, _, value = line.decode().rstrip("\r\n").partition(":")
        if name:
            found[name] = found[name] + "\n" + value.removeprefix(" ") if name in found else value.removeprefix(" ")
        elif found and not value:
            yield found
            found = {}


def streaming(queue: str, **fields: Any) -> dict[str, Any]:
    content = {"endpoint": ENDPOINT, "queue": queue, "response_mode": "streaming", "data": {"stream": True}}
    return content | {"timeout": 20} | fields


def test_events_come_as_they_are_told_and_the_end_closes_the_stream(place: Bella, queue: str) -> None:
    with place.opened("POST", "put", streaming(queue)) as response:
        task_id = place.await_task(f"{queue}:0", process_timeout=60)["task_id"]
        seen = events(response)
        place.tell(task_id, "0", {"choices": [{"delta": "Kn\u00f6pfe"}]})
        first = next(seen)
        place.tell(task_id, "1", {"choices": []}, name="other")
        second = next(seen)
        assert place.task(task_id)["status"] == "queued"
        more = {"eventId": "2", "eventName": "message", "eventData": "[DONE]"}
        place.told("POST", f"{task_id}/progress", {"events": [more, more | {"eventId": "3", "eventData": "data: x"}]})
        place.complete(task_id, {"never": "sent"})
        rest = list(seen)

    assert response.status == 200
    assert response.headers["Content-Type"].partition(";")[0] == "text/event-stream"
    assert (first["id"], first["event"]) == ("0", "message")
    assert json.loads(first["data"]) == {"choices": [{"delta": "Kn\u00f6pfe"}]}
    assert (second["id"], second["event"], json.loads(second["data"])) == ("1", "other", {"choices": []})
    assert [(event["id"], event["event"], event["data"].strip()) for event in rest] == [
        ("2", "message", "[DONE]"),
        ("3", "message", "x"),
    ]
    assert place.task(task_id)["status"] == "succeeded"


def test_a_stream_that_is_completed_at_once_has_no_event(place: Bella, queue: str) -> None:
    waiting = place.begin_put(queue, "streaming", timeout=20)
    task_id = place.await_task(f"{queue}:0")["task_id"]

    place.complete(task_id)

    answer = waiting.result(timeout=10)
    assert answer.status == 200
    assert b"data:" not in answer.body


def test_a_stream_ends_with_its_deadline(place: Bella, queue: str) -> None:
    with place.opened("POST", "put", streaming(queue, timeout=1)) as response:
        task_id = place.await_task(f"{queue}:0")["task_id"]
        place.tell(task_id, "0", {"n": 1})
        assert [event["id"] for event in events(response)] == ["0"]

    assert place.await_status(task_id, place.task(task_id)["status"])["status"] in ("cancelled", "timeout")
    assert place.call("POST", f"{task_id}/progress", {"progress": {}}).status == 409


def test_a_put_whose_client_leaves_is_cancelled(place: Bella) -> None:
    """The web looks every few seconds: all at once."""
    connections, ids = [], []
    for mode in ("blocking", "streaming"):
        queue = place.register()
        connection = http.client.HTTPConnection("127.0.0.1", place.installation.port, timeout=10)
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/queue/put", json.dumps(streaming(queue, response_mode=mode)), headers)
        connections.append(connection)
        ids.append(place.await_task(f"{queue}:0", process_timeout=60)["task_id"])

    for connection in connections:
        connection.close()

    for task_id in ids:
        place.await_status(task_id, "cancelled", timeout_s=12)
        place.complete(task_id, {"late": True})
        assert place.task(task_id)["status"] == "cancelled"
