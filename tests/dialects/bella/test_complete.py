"""How tasks end: complete, cancel, and the callbacks that tell of it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.dialects.bella.conftest import UNKNOWN_ID, UNKNOWN_TASK, Bella, assert_refused, request_id_of
from tests.dialects.bella.test_put import AS_WRITTEN
from tests.support.installation import await_condition
from tests.support.receiver import Delivery, Receiver


class TestComplete:
    def test_the_answer_is_the_id_in_quotes(self, bella: Bella, queue: str) -> None:
        task_id = bella.held(queue)
        answer = bella.complete(task_id, {"status_code": 200, "request_id": task_id, "body": {"a": 1}})

        assert (answer.status, answer.body.strip()) == (200, f'"{task_id}"'.encode())
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Cache-Control"] == "no-cache"

    def test_the_task_tells_of_it(self, bella: Bella, queue: str) -> None:
        task_id = bella.held(queue)
        assert bella.get(task_id)["status"] == "queued" and "result" not in bella.get(task_id)
        content = {"status_code": 200, "request_id": task_id, "body": {"a": 1}, "more": [1]}
        bella.complete(task_id, content)

        task = bella.get(task_id)
        assert (task["status"], task["result"]) == ("succeeded", content)
        assert task["running_time"] == task["completed_time"] - task["start_time"] >= 0
        assert (task["level"], task["batch_id"], task["trace_id"], task["ak"]) == (1, "", "", "")

    @pytest.mark.parametrize(
        ("content", "status"),
        [
            ({}, "succeeded"),
            ({"status_code": 399}, "succeeded"),
            ({"status_code": 400}, "failed"),
            ({"status_code": 599}, "failed"),
            ({"status_code": "408"}, "failed"),
            ({"status_code": "200"}, "succeeded"),
            ({"status_code": None}, "succeeded"),
        ],
    )
    def test_a_code_tells_success_from_failure(
        self, bella: Bella, queue: str, content: dict[str, Any], status: str
    ) -> None:
        task_id = bella.held(queue)
        bella.complete(task_id, content)

        assert (bella.get(task_id)["status"], bella.get(task_id)["result"]) == (status, content)

    def test_a_result_stays_as_it_was_written(self, bella: Bella, queue: str) -> None:
        task_id = bella.held(queue)
        written = f'{{"x" : 1.50,"body":{AS_WRITTEN} ,"status_code":200}}'
        assert bella.complete(task_id, written).status == 200

        assert f'"result": {written}'.encode() in bella.call("GET", task_id).body
        assert bella.front.result(request_id_of(task_id), queue).body == AS_WRITTEN.encode()

    def test_of_a_body_given_twice_the_last_counts(self, bella: Bella, queue: str) -> None:
        task_id = bella.held(queue)
        bella.complete(
            task_id, '{"body": {"n": 1}, "x": {"body": 2}, "status_code": 500, "body": [3], "status_code": 201}'
        )

        result = bella.front.result(request_id_of(task_id), queue)
        assert (result.status, result.body) == (201, b"[3]")

    def test_the_first_end_counts(self, bella: Bella, queue: str) -> None:
        task_id = bella.held(queue)
        bella.complete(task_id, {"body": {"n": 1}})
        again = bella.complete(task_id, {"status_code": 500, "body": {"n": 2}})

        assert (again.status, again.json) == (200, task_id)
        assert (bella.get(task_id)["status"], bella.get(task_id)["result"]) == ("succeeded", {"body": {"n": 1}})

    def test_of_many_at_once_one_counts(self, bella: Bella, queue: str) -> None:
        task_id = bella.held(queue)
        contents = [{"status_code": 210 + number, "body": {"n": number}} for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda content: bella.complete(task_id, content), contents))

        assert {(answer.status, answer.json) for answer in answers} == {(200, task_id)}
        result = bella.front.result(request_id_of(task_id), queue)
        assert bella.get(task_id)["result"] == {"status_code": result.status, "body": result.json}
        assert bella.stats(f"{queue}:1")["total_completed_cnt"] == 1

    def test_one_that_waits_may_be_completed_by_anyone(self, bella: Bella, queue: str) -> None:
        task_id = bella.put(queue)
        assert bella.complete(request_id_of(task_id), {"body": {"n": 1}}).status == 200

        assert bella.get(task_id)["status"] == "succeeded"
        assert bella.take(f"{queue}:1") == {}

    @pytest.mark.parametrize("task_id", [UNKNOWN_ID, UNKNOWN_TASK])
    def test_an_unknown_one_is_no_mistake(self, bella: Bella, task_id: str) -> None:
        for call in (bella.complete, bella.cancel):
            answer = call(task_id)

            assert answer.status == (200 if call == bella.complete else 202)
            assert answer.json == task_id

    def test_one_of_a_service_that_forwards_is_refused(self, bella: Bella) -> None:
        assert bella.front.call("POST", "/api/services/demo/pause").status == 200  # a worker may be there
        try:
            request_id = bella.front.submit("demo")

            assert_refused(bella.complete(request_id), 400)
            assert bella.front.look(request_id).json["status"] == "PENDING"
            assert bella.cancel(request_id).status == 202
            assert bella.get(request_id)["status"] == "cancelled"
        finally:
            bella.front.call("POST", "/api/services/demo/resume")

    def test_a_map_that_is_too_large_is_413_whatever_it_is_made_of(self, strict: Bella) -> None:
        task_id = strict.held("pulled")
        for large in ({"body": "x" * 3000}, {"body": {}, "more": "x" * 69_000}, {"more": '"' * 34_000}):
            assert_refused(strict.complete(task_id, large), 413)
        assert strict.get(task_id)["status"] == "queued"
        assert strict.complete(task_id, {"body": {}, "more": "x" * 1000}).status == 200

    def test_bytes_are_an_answer_elsewhere(self, bella: Bella, queue: str) -> None:
        task_id = bella.held(queue)
        content = {"body": {"body_base64": "AP9oZWxsbw==", "content_type": "image/png"}}
        bella.complete(task_id, content)

        result = bella.front.result(request_id_of(task_id), queue)
        assert (result.body, result.headers["Content-Type"]) == (b"\x00\xffhello", "image/png")
        assert bella.get(task_id)["result"] == content

    def test_their_type_may_be_missing(self, bella: Bella, queue: str) -> None:
        task_id = bella.held(queue)
        bella.complete(task_id, {"body": {"body_base64": "aGVsbG8="}})

        assert bella.front.result(request_id_of(task_id), queue).body == b"hello"
        assert bella.get(task_id)["result"] == {"body": {"body_base64": "aGVsbG8="}}


class TestCancel:
    def test_one_that_waits_is_never_handed_out(self, bella: Bella, queue: str) -> None:
        task_id, kept = bella.put(queue), bella.put(queue)
        answer = bella.cancel(task_id)

        assert (answer.status, answer.body.strip()) == (202, f'"{task_id}"'.encode())
        assert answer.headers["Content-Type"] == "application/json"
        assert bella.get(task_id)["status"] == "cancelled"
        assert bella.taken_ids(f"{queue}:1", size=9) == [kept]
        assert bella.natively(queue, task_id)["status"] == "REVOKED"

    def test_of_one_that_is_taken_the_complete_is_without_effect(self, bella: Bella, queue: str) -> None:
        task_id = bella.held(queue)
        assert bella.cancel(task_id).status == 202
        assert bella.complete(task_id, {"body": {"n": 1}}).json == task_id

        task = bella.get(task_id)
        assert task["status"] == "cancelled" and "result" not in task
        assert bella.take(f"{queue}:1", wait=0.1) == {}

    def test_one_that_has_ended_stays_what_it_is(self, bella: Bella, queue: str) -> None:
        task_id = bella.held(queue)
        bella.complete(task_id)

        assert (bella.cancel(task_id).status, bella.cancel(task_id).json) == (202, task_id)
        assert bella.get(task_id)["status"] == "succeeded"

    @pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"null", b'{"a": 1}'])
    def test_no_body_is_read(self, bella: Bella, queue: str, body: bytes) -> None:
        task_id = bella.put(queue)

        assert bella.call("POST", f"{task_id}/cancel", body).json == task_id
        assert bella.get(task_id)["status"] == "cancelled"


class TestUnknown:
    @pytest.mark.parametrize("task_id", [UNKNOWN_ID, UNKNOWN_TASK])
    def test_it_is_404(self, bella: Bella, task_id: str) -> None:
        assert_refused(bella.call("GET", task_id), 404)


class TestCallbacks:
    def test_the_map_is_told_as_it_was_written(self, bella: Bella, queue: str, receiver: Receiver) -> None:
        url = f"{receiver.url}/done?order=17"
        task_id = bella.put(queue, callback_url=url)
        assert bella.take_one(f"{queue}:1")["callback_url"] == url
        written = f'{{"status_code":500 , "body":{AS_WRITTEN}}}'
        bella.complete(task_id, written)

        delivery = _delivered(receiver, "/done?order=17")
        assert delivery.body == written.encode()
        assert delivery.headers["content-type"].startswith("application/json")

    def test_one_that_fails_is_told_again(self, bella: Bella, queue: str, receiver: Receiver) -> None:
        receiver.act = lambda delivery: 503 if len(receiver.deliveries) == 1 else 200
        task_id = bella.held_with_callback(queue, f"{receiver.url}/again")
        bella.complete(task_id, {"body": {"n": 1}})

        await_condition(lambda: len(receiver.deliveries) == 2)
        assert [json.loads(delivery.body) for delivery in receiver.deliveries] == [{"body": {"n": 1}}] * 2

    def test_used_up_deliveries_are_told_but_neither_a_cancel_nor_a_time_that_is_over(
        self, bella: Bella, queue: str, other: str, receiver: Receiver
    ) -> None:
        expiring = bella.put(other, callback_url=f"{receiver.url}/expired", timeout=1)
        cancelled = bella.put(other, callback_url=f"{receiver.url}/cancelled")
        bella.cancel(cancelled)
        lapsing = bella.held_with_callback(queue, f"{receiver.url}/late", process_timeout=1)
        bella.await_status(expiring, "timeout")

        delivery = _delivered(receiver, "/late")
        assert json.loads(delivery.body) == {"status_code": 408, "request_id": lapsing}
        assert [each.path for each in receiver.deliveries] == ["/late"]
        counts = [bella.front.call("GET", f"/api/services/{name}/webhooks").json["count"] for name in (queue, other)]
        assert counts == [1, 0]

    def test_without_a_secret_there_are_none(self, strict: Bella) -> None:
        assert_refused(strict.post_put("pulled", callback_url="https://example.com/"), 400)
        assert strict.taken_ids("pulled:0") == []


def _delivered(receiver: Receiver, path: str) -> Delivery:
    found: list[Delivery] = await_condition(
        lambda: [delivery for delivery in list(receiver.deliveries) if delivery.path == path], what=f"{path} is told"
    )
    return found[0]
