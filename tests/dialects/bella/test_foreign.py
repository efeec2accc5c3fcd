"""One engine: what was submitted to a queue by another protocol is worked on here, and the other way round."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.dialects.bella.conftest import ENDPOINT, Bella, request_id_of

DAY_MS = 86_400_000


class TestTask:
    def test_of_a_native_one(self, bella: Bella, queue: str) -> None:
        request_id = bella.front.submit(queue, b'{"k": "v"}', {"Content-Type": "application/json"})
        task = bella.take_one(f"{queue}:1")

        assert task == {
            "task_id": request_id,
            "queue": queue,
            "level": 1,
            "endpoint": ENDPOINT,
            "data": {"k": "v"},
            "ak": "",
            "status": "waiting",
            "batch_id": "",
            "trace_id": "",
            "start_time": task["start_time"],
            "running_time": 0,
            "expire_time": task["start_time"] + DAY_MS,
            "completed_time": 0,
            "callback_url": "",
            "response_mode": "callback",
        }
        assert bella.get(request_id) == {**task, "status": "queued"}

    @pytest.mark.parametrize(
        ("query", "level"), [("", 1), ("?_priority_=0", 1), ("?_priority_=1", 0), ("?_priority_=9", 0)]
    )
    def test_a_priority_above_normal_is_level_0(self, bella: Bella, queue: str, query: str, level: int) -> None:
        request_id = bella.front.submit(f"{queue}{query}")

        assert bella.taken_ids(f"{queue}:{1 - level}") == []
        task = bella.take_one(f"{queue}:{level}")
        assert (task["task_id"], task["level"]) == (request_id, level)
        assert ("batch_id" in task, "instance_id" in task) == (level == 1, level == 0)

    def test_low_priority_comes_after_normal(self, bella: Bella, aliased: str) -> None:
        low = _by_fal(bella, aliased, {"X-Fal-Queue-Priority": "low"})
        normal = _by_fal(bella, aliased)

        assert bella.taken_ids(f"{aliased}:1", size=2) == [normal, low]

    @pytest.mark.parametrize(
        ("path", "endpoint"),
        [("/v2/chat", "/v2/chat"), ("/a%2Fb?x=1&x=2", "/a%2Fb?x=1&x=2"), ("?x=%20y&_priority_=0", "?x=%20y")],
    )
    def test_subpath_and_query_stand_in_its_endpoint(self, bella: Bella, queue: str, path: str, endpoint: str) -> None:
        bella.front.submit(f"{queue}{path}")

        task = bella.take_one(f"{queue}:1")
        assert task["endpoint"] == ENDPOINT + endpoint
        assert bella.get(task["task_id"]) == {**task, "status": "queued"}

    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            (b"\x00\xff", "image/png"),
            (b"text", "text/plain; charset=utf-8"),
            (b"", "application/json"),
            (b"", ""),
            (b"[1, 2]", "application/json"),
            (b"null", "application/json"),
            (b'{"a": NaN}', "application/json"),
            (b'{"a": "\xff"}', "application/json"),
            (b'{"a": 1', "application/json"),
            (b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}", "application/json"),
        ],
    )
    def test_a_body_that_is_no_object_comes_as_bytes(self, bella: Bella, queue: str, body: bytes, kind: str) -> None:
        bella.front.submit(queue, body, {"Content-Type": kind} if kind else {})

        task = bella.take_one(f"{queue}:1")
        assert task["data"] == {"body_base64": base64.b64encode(body).decode(), "content_type": kind}
        assert bella.get(task["task_id"]) == {**task, "status": "queued"}

    def test_a_body_that_is_one_comes_as_it_was_written(self, bella: Bella, queue: str) -> None:
        body = b' {"a":18446744073709551616,"b" :1.10,"a":1}\n'
        bella.front.submit(queue, body, {"Content-Type": "application/json"})

        assert body.strip() in bella.post_take(f"{queue}:1").body

    def test_a_deadline_of_its_own_is_one_for_the_start(self, bella: Bella, queue: str) -> None:
        bella.front.submit(queue, b"{}", {"X-Deadline": "120.5"})

        task = bella.take_one(f"{queue}:1")
        assert task["expire_time"] == task["start_time"] + DAY_MS

    def test_places_go_by_time_whatever_the_protocol(self, bella: Bella, aliased: str) -> None:
        tasks = []
        for _ in range(2):
            tasks += [bella.put(aliased), bella.front.submit(aliased), _by_fal(bella, aliased), _by_eas(bella, aliased)]

        assert bella.taken_ids(f"{aliased}:1", size=10) == tasks


def _by_fal(bella: Bella, name: str, headers: dict[str, str] | None = None) -> str:
    sent = {"Content-Type": "application/json", **(headers or {})}
    return str(bella.front.call("POST", f"/fal/acme/{name}", b'{"a": 1}', sent).json["request_id"])


def _by_eas(bella: Bella, queue: str) -> str:
    answer = bella.front.call("POST", f"/api/predict/{queue}", b'{"a": 1}', {"X-EAS-QueueService-Priority": "0"})
    assert answer.status == 200, answer.body
    return answer.request_id


class TestResult:
    @pytest.mark.parametrize("code", [200, 422, 503])
    def test_of_a_native_one(self, bella: Bella, queue: str, code: int) -> None:
        request_id = bella.front.submit(queue)
        bella.complete(bella.take_one(f"{queue}:1")["task_id"], f'{{"status_code": {code}, "body":{{"b":1.0 }}}}')

        status = bella.front.look(request_id, queue).json
        assert (status["status"], status["attempts"]) == ("SUCCESS" if code == 200 else "FAILURE", 1)
        result = bella.front.result(request_id, queue)
        assert (result.status, result.body) == (code, b'{"b":1.0 }')
        assert result.headers["Content-Type"] == "application/json"

    def test_of_one_that_waits_for_it(self, bella: Bella, queue: str) -> None:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(bella.front.post, queue, b"{}", {"Prefer": "wait=9"})
            bella.complete(bella.take_one(f"{queue}:1")["task_id"], {"body": {"b": 2}})

        assert waiting.result().json["status"] == "SUCCESS"

    def test_of_fals(self, bella: Bella, aliased: str) -> None:
        request_id = _by_fal(bella, aliased)
        assert bella.take_one(f"{aliased}:1")["task_id"] == request_id
        path = f"/fal/acme/{aliased}/requests/{request_id}"
        assert bella.front.call("GET", f"{path}/status").json["status"] == "IN_PROGRESS"
        bella.complete(request_id, {"body": {"b": 2}})

        assert bella.front.call("GET", f"{path}/status").json["status"] == "COMPLETED"
        assert bella.front.call("GET", path).json == {"b": 2}

    def test_a_sink_gets_it(self, bella: Bella, queue: str) -> None:
        request_id = bella.front.submit(queue)
        bella.complete(bella.take_one(f"{queue}:1")["task_id"], {"body": {"b": 3}})

        found = bella.front.call("GET", f"/api/predict/{queue}/sink?requestId={request_id}&_raw_=true")
        assert (found.status, found.json) == (200, {"b": 3})

    def test_one_that_came_from_here_is_followed_there(self, bella: Bella, aliased: str) -> None:
        task_id = bella.put(aliased, {"a": 1})
        path = f"/fal/acme/{aliased}/requests/{request_id_of(task_id)}"
        assert bella.natively(aliased, task_id)["status"] == "PENDING"
        assert bella.front.call("GET", f"{path}/status").json["status"] == "IN_QUEUE"
        assert bella.taken_ids(f"{aliased}:1") == [task_id]
        assert bella.natively(aliased, task_id)["status"] == "STARTED"
        bella.complete(task_id, {"body": {"b": 1}})

        assert bella.natively(aliased, task_id)["status"] == "SUCCESS"
        assert bella.front.call("GET", path).json == {"b": 1}

    def test_and_cancelled_there(self, bella: Bella, queue: str) -> None:
        for held in (False, True):
            task_id = bella.held(queue) if held else bella.put(queue)
            assert bella.front.delete(request_id_of(task_id), queue).status in (200, 202)

            assert bella.get(task_id)["status"] == "cancelled"

    @pytest.mark.parametrize("is_held", [False, True])
    def test_an_item_put_into_the_sink_is_the_answer_here(self, bella: Bella, queue: str, is_held: bool) -> None:
        task_id = bella.held(queue) if is_held else bella.put(queue)
        path = f"/api/predict/{queue}/sink?requestId={request_id_of(task_id)}"
        put = bella.front.call("POST", path, b'{"b": 4}', {"Content-Type": "application/json"})
        assert put.status == 200, put.body

        task = bella.get(task_id)
        assert (task["status"], task["result"]["body"]) == ("succeeded", {"b": 4})
        assert bella.take(f"{queue}:1") == {}


@pytest.mark.usefixtures("worker")
class TestForwarding:
    def test_nobody_forwards_what_is_in_a_queue(self, bella: Bella, queue: str) -> None:
        task_id, request_id = bella.put(queue), bella.front.submit(queue)
        ended = bella.front.ended("demo")
        assert ended.json["status"] == "SUCCESS"

        assert sorted(bella.taken_ids(f"{queue}:1", size=9)) == sorted([task_id, request_id])

    def test_one_that_was_forwarded_is_known_here(self, bella: Bella) -> None:
        ended: dict[str, Any] = bella.front.ended("demo?echo=1", json.dumps({"k": 1}).encode()).json

        task = bella.get(ended["request_id"])
        assert (task["status"], task["queue"], task["data"]) == ("succeeded", "demo", {})
        assert task["completed_time"] >= task["start_time"]
