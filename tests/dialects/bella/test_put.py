"""How tasks get in: callback, blocking and streaming puts, their times, and what a task looks like."""

from __future__ import annotations

import datetime
import json
import re
import socket
import struct
import time
from typing import Any

import pytest

from tests.dialects.bella.conftest import Bella, assert_refused, request_id_of
from tests.support.front import RATED_TOKEN
from tests.support.installation import TOKEN, await_condition

DAY_MS = 86_400_000
# what another parser and writer would change: numbers of any size and form, duplicates, escapes, blanks, order
AS_WRITTEN = (
    '{ "b":9007199254740993,"a":18446744073709551616 , "n":[-0,1.10,1E400,1e-400,0.1000000000000000055511151231257827],'
    '"b":2,"t":"\\u00e9\\/\\ud83d\\ude00 \u00e9 <\\u0000>", "l": "\\ud800", "": {"o":{},"e":[ ]}, "d": %s}'
    % ("7" * 5000)
)


class TestCallback:
    def test_the_answer_is_an_envelope_with_the_id(self, bella: Bella, queue: str) -> None:
        answer = bella.post_put(queue)

        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Cache-Control"] == "no-cache"
        assert list(answer.json) == ["code", "timestamp", "data"]
        assert answer.json["code"] == 200
        assert abs(answer.json["timestamp"] / 1000 - time.time()) < 60
        assert answer.json["data"].startswith("TASK-")

    @pytest.mark.parametrize(("mode", "letter"), [("callback", "C"), ("batch", "P")])
    def test_it_can_be_taken_at_once(self, bella: Bella, queue: str, mode: str, letter: str) -> None:
        task_id = bella.put(queue, {"k": "v"}, response_mode=mode)

        task = bella.take(f"{queue}:1")[f"{queue}:1"][0]
        assert task["task_id"] == task_id
        assert (task["data"], task["response_mode"]) == ({"k": "v"}, mode)
        assert task_id.split("-")[3] == letter

    def test_the_level_is_0_unless_1_is_said(self, bella: Bella, queue: str) -> None:
        low = bella.put(queue)
        high = str(bella.post_put(queue).json["data"])

        assert bella.taken_ids(f"{queue}:0", size=9) == [high]
        assert bella.taken_ids(f"{queue}:1", size=9) == [low]

    def test_a_key_is_the_same_task(self, bella: Bella, queue: str) -> None:
        content = {"queue": queue, "endpoint": "/v1/chat", "level": 1, "data": {"n": 1}}
        key = {"Idempotency-Key": f"key of {queue}"}
        first, second = (bella.call("POST", "put", content, key).json["data"] for _ in range(2))
        other = bella.call("POST", "put", {**content, "data": {"n": 2}}, key)

        assert first == second
        assert_refused(other, 422)
        for change in ({"endpoint": "/other"}, {"level": 0}, {"response_mode": "batch"}, {"trace_id": "t"}):
            assert_refused(bella.call("POST", "put", {**content, **change}, key), 422)
        assert bella.taken_ids(f"{queue}:1", size=9) == [first]

    def test_a_full_queue_is_429(self, bella: Bella) -> None:
        tasks = [bella.put("narrow"), bella.put("narrow", level=0)]
        answer = bella.post_put("narrow")
        for task_id in tasks:
            bella.cancel(task_id)

        assert_refused(answer, 429)
        assert answer.json["message"] == "Queue full"
        assert int(answer.headers["Retry-After"]) >= 1

    def test_who_puts_too_fast_is_429(self, bella: Bella, queue: str) -> None:
        answers = [bella.post_put(queue, token=RATED_TOKEN) for _ in range(2)]

        assert answers[0].status == 200
        assert_refused(answers[1], 429)
        assert answers[1].json["message"] != "Queue full"


class TestNames:
    @pytest.mark.parametrize("name", ["nobody", "demo", "pulled:1", "a.b", "\u00e9", "x" * 129, "-x", "a b", "a/b"])
    def test_what_is_no_queue_is_refused(self, bella: Bella, name: str) -> None:
        before = bella.front.services()

        assert_refused(bella.post_put(name), 400)
        assert bella.front.services() == before

    def test_it_is_named(self, bella: Bella) -> None:
        assert bella.post_put("nobody").json["message"].startswith("Queue not registered: nobody")


class TestTask:
    def test_of_level_1(self, bella: Bella, queue: str) -> None:
        before_ms = time.time_ns() // 1_000_000
        task_id = bella.put(queue, {"k": "v"})
        task = bella.take(f"{queue}:1")[f"{queue}:1"][0]

        assert before_ms - 5 <= task["start_time"] <= time.time_ns() // 1_000_000 + 5
        assert task == {
            "task_id": task_id,
            "queue": queue,
            "level": 1,
            "endpoint": "/v1/chat",
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

    def test_of_level_0(self, bella: Bella, queue: str) -> None:
        task_id = bella.put(queue, level=0)
        task = bella.take(f"{queue}:0")[f"{queue}:0"][0]

        assert re.fullmatch(r"[^:\s]+:\d+", task.pop("instance_id"))
        assert task.pop("start_time") + DAY_MS == task.pop("expire_time")
        assert task == {
            "task_id": task_id,
            "queue": queue,
            "level": 0,
            "endpoint": "/v1/chat",
            "data": {},
            "ak": "",
            "status": "waiting",
            "running_time": 0,
            "completed_time": 0,
            "callback_url": "",
            "response_mode": "callback",
        }

    @pytest.mark.parametrize("level", [0, 1])
    def test_a_trace_goes_with_it(self, bella: Bella, queue: str, level: int) -> None:
        bella.put(queue, level=level, trace_id="order \u00e9/17")

        assert bella.take(f"{queue}:{level}")[f"{queue}:{level}"][0]["trace_id"] == "order \u00e9/17"

    @pytest.mark.parametrize("level", [0, 1])
    def test_its_id_tells_service_level_mode_time_and_request(self, bella: Bella, queue: str, level: int) -> None:
        task_id = bella.put(queue, level=level)

        word, number, its_level, mode, at, *rest = task_id.split("-")
        assert (word, its_level, mode) == ("TASK", str(level), "C")
        assert int(number) == int(rest[0], 16)
        assert re.fullmatch(r"[0-9a-f]{4}-[0-9a-f]{28}", "-".join(rest))
        told = datetime.datetime.strptime(at, "%y%m%d%H%M%S").replace(tzinfo=datetime.UTC)
        assert int(told.timestamp()) == bella.get(task_id)["start_time"] // 1000
        assert bella.natively(queue, task_id)["status"] == "PENDING"

    def test_it_answers_to_both_of_its_ids(self, bella: Bella, queue: str) -> None:
        task_id = bella.put(queue)

        assert bella.get(request_id_of(task_id)) == bella.get(task_id)
        assert bella.get(task_id)["task_id"] == task_id

    def test_its_data_stay_as_they_were_written(self, bella: Bella, queue: str) -> None:
        body = f'{{"queue": "{queue}", "level": 1, "data":{AS_WRITTEN} , "endpoint": "/v1/chat"}}'.encode()
        answer = bella.call("POST", "put", body)
        assert answer.status == 200, answer.body

        taken = bella.post_take(f"{queue}:1")
        assert AS_WRITTEN.encode() in taken.body
        assert AS_WRITTEN.encode() in bella.call("GET", answer.json["data"]).body

    def test_of_data_given_twice_the_last_count(self, bella: Bella, queue: str) -> None:
        members = f'"queue": "{queue}", "level": 1, "endpoint": "/v1/chat"'
        body = f'{{"data": {{"which": 1}}, {members}, "data": {{"which": 2}}, "nested": {{"data": {{"which": 3}}}}}}'
        assert bella.call("POST", "put", body).status == 200

        assert bella.take_one(f"{queue}:1")["data"] == {"which": 2}

    def test_large_ones_come_whole(self, bella: Bella, queue: str) -> None:
        data = {"text": "\u00e9\n" * 8_000}
        bella.put(queue, data)

        assert bella.take_one(f"{queue}:1")["data"] == data

    @pytest.mark.parametrize("endpoint", ["/v1/x?y=1&z=\u00e9", "x", "https://h/p", '"\\\n'])
    def test_its_endpoint_is_any_text(self, bella: Bella, queue: str, endpoint: str) -> None:
        bella.put(queue, endpoint=endpoint)

        assert bella.take_one(f"{queue}:1")["endpoint"] == endpoint


class TestTimes:
    @pytest.mark.parametrize("mode", ["callback", "batch"])
    @pytest.mark.parametrize("timeout", [1, 3600, 86_400 * 30])
    def test_its_client_says_until_when(self, bella: Bella, queue: str, mode: str, timeout: int) -> None:
        task = bella.get(bella.put(queue, timeout=timeout, response_mode=mode))

        assert task["expire_time"] == task["start_time"] + timeout * 1000

    @pytest.mark.parametrize(("members", "seconds"), [({}, 10), ({"timeout": 7}, 7), ({"timeout": 9999}, 10)])
    def test_nobody_waits_longer_than_may_be_waited(
        self, bella: Bella, queue: str, members: dict[str, Any], seconds: int
    ) -> None:
        with bella.blocking(queue, **members):
            task = bella.take_one(f"{queue}:0")
            bella.complete(task["task_id"])

        assert task["expire_time"] == task["start_time"] + seconds * 1000

    def test_a_time_that_is_over_ends_it_whether_it_waits_or_runs(self, bella: Bella, queue: str, other: str) -> None:
        waiting, later = bella.put(queue, timeout=1), bella.put(queue, {"n": 2})
        taken = bella.put(other, timeout=1)
        assert bella.taken_ids(f"{other}:1", process_timeout=60, process_max_retries=-1) == [taken]

        for task_id in (waiting, taken):
            task = bella.await_status(task_id, "timeout")
            assert "result" not in task
            assert task["completed_time"] == task["running_time"] == 0
        assert bella.taken_ids(f"{queue}:1", f"{other}:1", size=9) == [later]
        assert bella.complete(taken, {"body": {"late": 1}}).json == taken
        assert bella.get(taken)["status"] == "timeout" and "result" not in bella.get(taken)
        assert bella.natively(queue, waiting)["status"] == "EXPIRED"


class TestBlocking:
    def test_the_answer_is_what_was_completed(self, bella: Bella, queue: str) -> None:
        with bella.blocking(queue, {"k": "v"}) as putting:
            task = bella.take_one(f"{queue}:0")
            body = f'{{"status_code": 201, "request_id": "x", "body":{AS_WRITTEN}}}'
            assert bella.complete(task["task_id"], body).json == task["task_id"]

        answer = putting.result()
        assert (answer.status, answer.body) == (201, AS_WRITTEN.encode())
        assert answer.headers["Content-Type"] == "application/json"
        assert (task["level"], task["response_mode"], task["data"]) == (0, "blocking", {"k": "v"})
        assert task["task_id"].split("-")[2:4] == ["0", "B"]

    @pytest.mark.parametrize("code", [200, 204, 304, 400, 429, 500, 503, 599])
    def test_any_status_is_an_answer(self, bella: Bella, queue: str, code: int) -> None:
        with bella.blocking(queue) as putting:
            bella.complete(bella.take_one(f"{queue}:0")["task_id"], {"status_code": code, "body": [1]})

        answer = putting.result()
        assert answer.status == code
        assert answer.body == (b"" if code in (204, 304) else b"[1]")
        assert "Retry-After" not in answer.headers

    @pytest.mark.parametrize(
        ("written", "body"),
        [
            ("{}", b"{}"),
            ('{"body": null}', b"null"),
            ('{"body":1}', b"1"),
            ('{"body": "t"}', b'"t"'),
            ('{"body":[ ]}', b"[ ]"),
        ],
    )
    def test_any_json_is_a_body_and_none_an_object(self, bella: Bella, queue: str, written: str, body: bytes) -> None:
        with bella.blocking(queue) as putting:
            bella.complete(bella.take_one(f"{queue}:0")["task_id"], written)

        assert (putting.result().status, putting.result().body) == (200, body)

    def test_bytes_are_decoded(self, bella: Bella, queue: str) -> None:
        with bella.blocking(queue) as putting:
            body = {"body_base64": "AP9oZWxsbw==", "content_type": "image/png"}
            bella.complete(bella.take_one(f"{queue}:0")["task_id"], {"body": body})

        assert putting.result().body == b"\x00\xffhello"
        assert putting.result().headers["Content-Type"] == "image/png"

    def test_level_1_is_level_0(self, bella: Bella, queue: str) -> None:
        with bella.blocking(queue, level=1) as putting:
            bella.complete(bella.take_one(f"{queue}:0")["task_id"])

        assert putting.result().status == 200

    def test_who_runs_out_of_time_gets_408_and_it_is_cancelled(self, strict: Bella) -> None:
        # which is more than the server allows
        with strict.blocking("pulled", timeout=600) as one, strict.blocking("pulled", timeout=600) as another:
            task_id = strict.take_one("pulled:0")["task_id"]

        for putting in (one, another):
            assert (putting.result().status, putting.result().body) == (408, b"")
        assert strict.get(task_id)["status"] in ("cancelled", "timeout")
        assert strict.complete(task_id).json == task_id
        assert "result" not in strict.get(task_id)
        assert strict.taken_ids("pulled:0") == []  # nor is the other one taken afterwards

    def test_who_hangs_up_has_it_cancelled(self, bella: Bella, queue: str) -> None:
        with bella.streaming(queue, response_mode="blocking"), bella.streaming(queue):
            tasks = [bella.take_one(f"{queue}:0")["task_id"] for _ in range(2)]

        for task_id in tasks:
            bella.await_status(task_id, "cancelled")

    def test_one_that_is_cancelled_meanwhile_is_409(self, bella: Bella, queue: str) -> None:
        with bella.blocking(queue) as putting:
            bella.cancel(bella.take_one(f"{queue}:0")["task_id"])

        assert_refused(putting.result(), 409)

    def test_one_whose_deliveries_are_used_up_is_408(self, bella: Bella, queue: str) -> None:
        with bella.blocking(queue) as putting:
            task_id = bella.take_one(f"{queue}:0", process_timeout=1)["task_id"]

        assert (putting.result().status, putting.result().body) == (408, b"")
        assert bella.get(task_id)["status"] == "timeout"

    def test_refusals_come_at_once(self, bella: Bella) -> None:
        for mode in ("blocking", "streaming"):
            assert_refused(bella.post_put("nobody", response_mode=mode), 400, "Queue not registered: nobody")


class TestStreaming:
    def test_events_come_as_they_are_told_and_the_end_closes(self, bella: Bella, queue: str) -> None:
        with bella.streaming(queue, {"k": "v"}) as stream:
            task = bella.take_one(f"{queue}:0")
            events = iter(stream)
            for number in range(3):
                event = {"eventId": str(number), "eventName": "delta", "eventData": {"n": number}}
                assert bella.progress(task["task_id"], events=[event]).json == task["task_id"]
                found = next(events)
                assert (found["id"], found["event"], json.loads(found["data"])) == (str(number), "delta", {"n": number})
            bella.complete(task["task_id"], {"body": {"never": "sent"}})

            assert list(events) == []
            assert stream.head.status == 200
            assert (stream.head.headers["Content-Type"] or "").startswith("text/event-stream")
        assert task["response_mode"] == "streaming" and task["task_id"].split("-")[2:4] == ["0", "S"]

    def test_many_at_once_keep_their_order_and_come_once(self, bella: Bella, queue: str) -> None:
        with bella.streaming(queue) as stream:
            task_id = bella.take_one(f"{queue}:0")["task_id"]
            for start in range(0, 50, 10):
                events = [{"eventId": f"{i}", "eventName": "n", "eventData": i} for i in range(start, start + 10)]
                assert bella.progress(task_id, events=events).status == 200
            bella.complete(task_id)

            assert [event["id"] for event in stream] == [str(number) for number in range(50)]

    @pytest.mark.parametrize(
        ("data", "lines"),
        [
            ("text", "text"),
            ("[DONE]", "[DONE]"),
            ("data: told", "told"),
            ("data:told", "told"),
            ("two\nlines", "two\nlines"),
            ("two\r\nlines\rthree", "two\nlines\nthree"),
            ("a line\n", "a line\n"),
            ("a\u2028b\x0bc\x85d", "a\u2028b\x0bc\x85d"),
            (" a b ", " a b "),
            ("", ""),
            ("event: x\n\nid: 9", "event: x\n\nid: 9"),
            ("\u00e9", "\u00e9"),
        ],
    )
    def test_text_is_sent_as_it_is_line_by_line(self, bella: Bella, queue: str, data: str, lines: str) -> None:
        with bella.streaming(queue) as stream:
            task_id = bella.take_one(f"{queue}:0")["task_id"]
            answer = bella.progress(task_id, events=[{"eventId": "1", "eventName": "n", "eventData": data}])
            assert answer.status == 200, answer.body
            bella.complete(task_id)
            [event] = list(stream)

        assert (event["id"], event["event"], event["data"]) == ("1", "n", lines)

    def test_one_whose_client_resets_at_once_is_cancelled(self, bella: Bella, queue: str) -> None:
        body = json.dumps({"queue": queue, "endpoint": "/x", "data": {}, "response_mode": "streaming"}).encode()
        fields = ("Host: x", f"Authorization: Bearer {TOKEN}", f"Content-Length: {len(body)}")
        head = "\r\n".join(("POST /v1/queue/put HTTP/1.1", *fields, "", ""))
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", bella.port)) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall(head.encode() + body)
        await_condition(lambda: bella.stats(f"{queue}:0")["total_put_cnt"] == 5, what="all were put")

        def is_empty() -> bool:
            found = bella.front.call("GET", f"/api/services/{queue}").json
            return bool(found["depth"] == found["running"] == 0)

        await_condition(is_empty, timeout_s=10, what="none waits for the rest of its time")

    def test_no_log_line_is_an_event(self, bella: Bella, queue: str) -> None:
        with bella.streaming(queue) as stream:
            task_id = bella.take_one(f"{queue}:0")["task_id"]
            bella.progress(task_id, logs=[{"message": "hello", "level": "event"}])
            bella.progress(task_id, events=[{"eventData": "one"}])
            lines = bella.natively(queue, task_id)["logs"]
            bella.complete(task_id)

            assert [event["data"] for event in stream] == ["one"]
            assert [(line["level"], line["message"]) for line in lines] == [("event", "hello")]

    def test_half_a_character_ends_no_stream(self, bella: Bella, queue: str) -> None:
        with bella.streaming(queue) as stream:
            task_id = bella.take_one(f"{queue}:0")["task_id"]
            for half in ("\ud83d", "\ude00"):
                assert bella.progress(task_id, events=[{"eventData": half}]).status == 200
            bella.complete(task_id)

            assert [event["data"] for event in stream] == ["?", "?"]

    def test_a_log_line_pushes_no_event_out(self, bella: Bella, queue: str) -> None:
        with bella.streaming(queue) as stream:
            task_id = bella.take_one(f"{queue}:0")["task_id"]
            for start in range(0, 600, 100):
                bella.progress(task_id, events=[{"eventData": str(start + i)} for i in range(100)])
            bella.progress(task_id, logs=[{"message": "a line"}])
            bella.complete(task_id)

            assert [event["data"] for event in stream] == [str(i) for i in range(600)]

    def test_what_came_before_the_stream_was_read_is_there(self, bella: Bella, queue: str) -> None:
        with bella.streaming(queue) as stream:
            task_id = bella.take_one(f"{queue}:0")["task_id"]
            bella.progress(task_id, eventId="1", eventName="n", eventData={"a": 1})
            bella.complete(task_id)

            assert [json.loads(event["data"]) for event in stream] == [{"a": 1}]

    def test_one_completed_without_a_word_is_empty(self, bella: Bella, queue: str) -> None:
        with bella.streaming(queue) as stream:
            bella.complete(bella.take_one(f"{queue}:0")["task_id"])

            assert (list(stream), stream.head.status) == ([], 200)

    def test_a_time_that_is_over_ends_it(self, strict: Bella) -> None:
        with strict.streaming("pulled") as stream:
            task_id = strict.take_one("pulled:0")["task_id"]

            assert list(stream) == []
        assert strict.get(task_id)["status"] in ("cancelled", "timeout")

    def test_a_cancel_ends_it(self, bella: Bella, queue: str) -> None:
        with bella.streaming(queue) as stream:
            bella.cancel(bella.take_one(f"{queue}:0")["task_id"])

            assert list(stream) == []
