"""What clients should not send: each is refused in the envelope, or taken as it was meant; nothing of it is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.dialects.bella.conftest import UNKNOWN_ID, Bella, assert_refused, request_id_of
from tests.support.front import MAX_PAYLOAD_BYTES
from tests.support.installation import TOKEN

AN_EVENT = {"eventId": "1", "eventName": "n", "eventData": {}}
LOOKS_LIKE_A_NUMBER = ["1", "", True, [], {}, 1.5]
NO_OBJECT = {
    "none": b"",
    "blanks": b" \n",
    "text": b"size=1",
    "cut": b'{"queues": ["a:1"], "size": 1',
    "more": b"{} {}",
    "trailing comma": b'{"size": 1,}',
    "single quotes": b"{'size': 1}",
    "comment": b'{"size": 1 /* one */}',
    "list": b"[]",
    "null": b"null",
    "number": b"1",
    "string": b'"{}"',
    "true": b"true",
    "not UTF-8": b'{"a": "\xff"}',
    "half a character": b'{"a": "\xc3"}',
    "a surrogate's bytes": b'{"a": "\xed\xa0\x80"}',
    "overlong": b'{"a": "\xc0\xaf"}',
    "UTF-16": '{"size": 1}'.encode("utf-16"),
    "UTF-32": '{"size": 1}'.encode("utf-32-le"),
    "a control character": b'{"a": "\x01"}',
    "NUL": b'{"a": 1}\x00',
    "bad escape": b'{"a": "\\x41"}',
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": Infinity}',
    "minus infinity": b'{"a": -Infinity}',
    "leading zero": b'{"a": 01}',
    "plus": b'{"a": +1}',
    "hexadecimal": b'{"a": 0x10}',
    "deep lists": b'{"a": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "deep and cut": b'{"a": ' + b"[" * 20_000,
}


@pytest.fixture(scope="module")
def held(bella: Bella) -> Iterator[str]:
    """A task that is taken, and stays so whatever is asked of it."""
    assert bella.register("held").status == 200
    task_id = bella.held("held")
    yield task_id
    assert bella.get(task_id)["status"] == "queued"


def url(path: str, task_id: str) -> str:
    return path.format(id=task_id)


class TestBodies:
    @pytest.mark.parametrize("path", ["register", "put", "take", "{id}/complete", "{id}/renew", "{id}/progress"])
    @pytest.mark.parametrize("name", NO_OBJECT)
    def test_what_is_no_json_object_is_refused(self, bella: Bella, held: str, path: str, name: str) -> None:
        assert_refused(bella.call("POST", url(path, held), NO_OBJECT[name]), 400)

    @pytest.mark.parametrize("path", ["register", "put", "take", "{id}/complete", "{id}/renew", "{id}/progress"])
    def test_too_much_is_413(self, bella: Bella, held: str, path: str) -> None:
        body = b'{"a": "' + b"x" * 2 * MAX_PAYLOAD_BYTES + b'"}'

        assert_refused(bella.call("POST", url(path, held), body), 413)
        assert_refused(bella.front.call("POST", f"/v1/queue/{url(path, held)}", iter([body[:9], body[9:]])), 413)

    def test_one_that_breaks_off_is_none(self, bella: Bella) -> None:
        head = f"POST /v1/queue/take HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 99\r\n\r\n"

        answer = bella.front.raw(head.encode() + b'{"queues": [')

        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b'"code"' in answer

    def test_one_in_chunks_is_one(self, bella: Bella, queue: str) -> None:
        pieces = [b'{"queues": ["', queue.encode(), b':1"], "si', b'ze": 1}']

        assert bella.front.call("POST", "/v1/queue/take", iter(pieces)).json == {}

    @pytest.mark.parametrize(
        "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x"]
    )
    def test_its_type_is_not_looked_at(self, bella: Bella, queue: str, kind: str) -> None:
        body = json.dumps({"queues": [f"{queue}:1"], "size": 1})

        assert bella.call("POST", "take", body, {"Content-Type": kind}).json == {}

    def test_unknown_members_are_ignored(self, bella: Bella, queue: str) -> None:
        more = {"custom_id": "c", "ak": 1, "priority": [1], "": {}, "task_id": "x", "\u00e9": None, "Size": 7}
        task_id = bella.put(queue, **more)

        task = bella.take_one(f"{queue}:1", **more)
        assert task["task_id"] == task_id and task["ak"] == ""
        assert bella.call("POST", f"{task_id}/renew", {"process_timeout": 60, **more}).status == 200
        assert bella.call("POST", "register", {"queue": queue, "endpoint": "/v1/work", **more}).status == 200

    def test_of_a_member_that_stands_twice_the_last_counts(self, bella: Bella, queue: str) -> None:
        bella.put(queue)

        body = f'{{"queues": ["nobody:1"], "size": -1, "size": 0, "queues": ["{queue}:1"], "size": 1}}'
        assert list(bella.call("POST", "take", body).json) == [f"{queue}:1"]

    def test_nested_as_deep_as_people_do_is_fine(self, bella: Bella, queue: str) -> None:
        data: dict[str, Any] = {}
        for _ in range(25):
            data = {"a": [data]}
        task_id = bella.put(queue, data)

        assert bella.take_one(f"{queue}:1")["data"] == data
        bella.complete(task_id, {"body": data})
        assert bella.get(task_id)["result"] == {"body": data}


class TestRegister:
    @pytest.mark.parametrize("member", ["queue", "endpoint"])
    @pytest.mark.parametrize("value", [None, 1, True, [], {}, ["a"], "", "missing"])
    def test_both_are_texts(self, bella: Bella, member: str, value: Any) -> None:
        content = {"queue": "never-made", "endpoint": "/v1/work", member: value}
        if value == "missing":
            del content[member]

        assert_refused(bella.call("POST", "register", content), 400)
        assert bella.call("GET", "never-made/metadata").status == 404


class TestPut:
    @pytest.mark.parametrize("member", ["queue", "endpoint", "data"])
    def test_what_is_required_is_not_left_out(self, bella: Bella, queue: str, member: str) -> None:
        content = {"queue": queue, "endpoint": "/v1/chat", "data": {}}
        del content[member]

        assert_refused(bella.call("POST", "put", content), 400)

    @pytest.mark.parametrize(
        ("member", "values"),
        [
            ("queue", [None, 1, True, [], {}, ""]),
            ("endpoint", [None, 1, True, [], {}, ""]),
            ("data", [None, 1, True, [], "", "{}", [{}]]),
            ("level", [*LOOKS_LIKE_A_NUMBER, 2, -1, 9, 2**63, 10**40]),
            ("response_mode", ["", "CALLBACK", "sync", 1, True, [], {}]),
            (
                "callback_url",
                [1, True, [], {}, "x", "ftp://h/", "http://", "http://u:p@h/", "http://h/\ud800", "http://h/ x"],
            ),
            ("callback_url", ["http://h/" + "x" * 3000, "javascript:alert(1)", "//h/", "file:///etc/passwd"]),
            ("timeout", [*LOOKS_LIKE_A_NUMBER, -1, 10**40]),
            ("trace_id", [1, True, [], {}, "x" * 257, "\ud800"]),
        ],
    )
    def test_a_value_that_means_nothing_is_refused(
        self, bella: Bella, queue: str, member: str, values: list[Any]
    ) -> None:
        for value in values:
            answer = bella.call("POST", "put", {"queue": queue, "endpoint": "/v1/chat", "data": {}, member: value})

            assert answer.status == 400, (value, answer.body)
            assert_refused(answer, 400)
        assert bella.take(f"{queue}:0", f"{queue}:1", size=9) == {}

    @pytest.mark.parametrize("level", [2, -1, 7])
    def test_a_level_that_is_none_is_named(self, bella: Bella, queue: str, level: int) -> None:
        assert_refused(bella.post_put(queue, level=level), 400, f"Unknown queue level: {level}")

    @pytest.mark.parametrize("member", ["response_mode", "callback_url", "timeout", "trace_id"])
    def test_null_is_not_sent(self, bella: Bella, queue: str, member: str) -> None:
        task = bella.get(bella.put(queue, **{member: None}))

        assert (task["response_mode"], task["callback_url"], task["trace_id"]) == ("callback", "", "")
        assert task["expire_time"] == task["start_time"] + 86_400_000

    def test_null_as_level_is_1_and_0_as_timeout_none(self, bella: Bella, queue: str) -> None:
        task = bella.get(bella.put(queue, level=None, timeout=0))

        assert task["level"] == 1
        assert task["expire_time"] == task["start_time"] + 86_400_000

    @pytest.mark.parametrize("trace_id", ["\u0000", "a\r\nX: 1", "x" * 256])
    def test_odd_text_is_text(self, bella: Bella, queue: str, trace_id: str) -> None:
        bella.put(queue, trace_id=trace_id)

        assert bella.take_one(f"{queue}:1")["trace_id"] == trace_id


class TestTake:
    @pytest.mark.parametrize("member", ["queues", "size"])
    def test_what_is_required_is_not_left_out(self, bella: Bella, queue: str, member: str) -> None:
        content = {"queues": [f"{queue}:1"], "size": 1}
        del content[member]

        assert_refused(bella.call("POST", "take", content), 400)

    @pytest.mark.parametrize(
        ("member", "values"),
        [
            (
                "queues",
                [None, 1, True, "", "{queue}:1", {}, [], [None], [1], [[]], [{}], [["{queue}:1"]], ["{queue}:1", 1]],
            ),
            ("size", [None, *LOOKS_LIKE_A_NUMBER, -1, -(2**63)]),
            ("strategy", [None, "", "FIFO", "lifo", "round-robin", 1, True, [], {}]),
            ("process_timeout", [*LOOKS_LIKE_A_NUMBER, -1, 10**12]),
            ("process_max_retries", [*LOOKS_LIKE_A_NUMBER, -2]),
            ("min_age_seconds", [*LOOKS_LIKE_A_NUMBER, -1]),
            ("wait", [*LOOKS_LIKE_A_NUMBER[:-1], -1]),
            ("worker", [1, True, "w1", []]),
            (
                "worker",
                [
                    {"id": 1},
                    {"id": True},
                    {"id": []},
                    {"id": {}},
                    {"id": ""},
                    {"id": "a b"},
                    {"id": "\u00e9"},
                    {"id": "x" * 129},
                ],
            ),
            ("worker", [{"capacities": value} for value in (1, "x", [1], True)]),
            ("worker", [{"capacities": {"{queue}:1": value}} for value in (*LOOKS_LIKE_A_NUMBER, -1, None)]),
        ],
    )
    def test_a_value_that_means_nothing_is_refused(
        self, bella: Bella, queue: str, member: str, values: list[Any]
    ) -> None:
        task_id = bella.put(queue)
        for value in values:
            meant = json.loads(json.dumps(value).replace("{queue}", queue))
            answer = bella.call("POST", "take", {"queues": [f"{queue}:1"], "size": 1, member: meant})

            assert answer.status == 400, (value, answer.body)
            assert_refused(answer, 400)
        assert bella.get(task_id)["status"] == "waiting"

    @pytest.mark.parametrize(
        "name",
        [
            "",
            ":",
            ":1",
            "{queue}",
            "{queue}:",
            "{queue}:x",
            "{queue}:1:1",
            "{queue}:1.0",
            "{queue}:+1",
            "{queue}: 1",
            "{queue}:1 ",
            "{queue}:1\n",
            "{queue}:\uff11",
            "{queue}:\u00b9",
            "{queue}:0x1",
            "{queue}:null",
            "{queue}:9223372036854775808",
            "{queue}:" + "1" * 5000,
            "\ud800:1",
            "*:1",
            " {queue}:1",
        ],
    )
    def test_a_name_that_is_none_is_refused(self, bella: Bella, queue: str, name: str) -> None:
        task_id = bella.put(queue)
        for names in ([name], [f"{queue}:1", name], [name, f"{queue}:1"]):
            filled = [each.replace("{queue}", queue) for each in names]
            assert_refused(bella.post_take(*filled, size=9), 400)

        assert bella.get(task_id)["status"] == "waiting"

    @pytest.mark.parametrize("level", ["2", "-1", "10"])
    def test_a_level_that_is_none_is_named(self, bella: Bella, queue: str, level: str) -> None:
        assert_refused(bella.post_take(f"{queue}:{level}"), 400, f"Unknown queue level: {level}")

    def test_fifty_names_at_most(self, bella: Bella, queue: str) -> None:
        task_id = bella.put(queue)

        assert_refused(bella.post_take(*[f"{queue}:1"] * 51), 400)
        assert bella.taken_ids(*[f"{queue}:1"] * 50) == [task_id]

    @pytest.mark.parametrize(
        "members",
        [
            {
                "process_timeout": None,
                "process_max_retries": None,
                "min_age_seconds": None,
                "wait": None,
                "worker": None,
            },
            {"process_timeout": 10**7, "process_max_retries": 10**40, "min_age_seconds": 0.0},
            {"worker": {}},
            {"worker": {"id": None, "capacities": None}},
            {"worker": {"id": "h/1:2", "capacities": {"nobody:0": 10**40}, "more": 1}},
            {"endpoint": 7},
        ],
    )
    def test_odd_ones_that_mean_something_are_taken(self, bella: Bella, queue: str, members: dict[str, Any]) -> None:
        task_id = bella.put(queue)

        assert bella.taken_ids(f"{queue}:1", **members) == [task_id]


class TestComplete:
    @pytest.mark.parametrize(
        "code", ["x", "", "2e2", "200.0", "\uff12\uff10\uff10", 0, -1, 99, 199, 600, 2**63, 200.5, True, [], {}]
    )
    def test_a_code_that_is_none_is_500(self, bella: Bella, queue: str, code: Any) -> None:
        task_id = bella.held(queue)
        assert bella.complete(task_id, {"status_code": code, "body": {"a": 1}}).status == 200

        task, result = bella.get(task_id), bella.front.result(request_id_of(task_id), queue)
        assert (task["status"], task["result"]) == ("failed", {"status_code": code, "body": {"a": 1}})
        assert (result.status, result.json) == (500, {"a": 1})

    @pytest.mark.parametrize(
        "body",
        [
            {"body_base64": "%%%", "content_type": "text/plain"},
            {"body_base64": "aGVsbG8", "content_type": "text/plain"},
            {"body_base64": 1, "content_type": "text/plain"},
            {"body_base64": "aGVsbG8=", "content_type": "text/plain", "more": 1},
            {"body_base64": "aGVsbG8=", "content_type": "text/plain\r\nX-Evil: 1"},
            {"body_base64": "aGVsbG8=", "content_type": 1},
            {"content_type": "text/plain"},
        ],
    )
    def test_bytes_that_are_none_are_json(self, bella: Bella, queue: str, body: dict[str, Any]) -> None:
        task_id = bella.held(queue)
        assert bella.complete(task_id, {"body": body}).status == 200

        result = bella.front.result(request_id_of(task_id), queue)
        assert (result.status, result.json) == (200, body)
        assert result.headers["Content-Type"] == "application/json" and "X-Evil" not in result.headers

    @pytest.mark.parametrize("kind", ["\u20ac", "text/plain; charset=\u00e9", "", "x" * 3000, "\t"])
    def test_an_odd_type_of_bytes_does_no_harm(self, bella: Bella, queue: str, kind: str) -> None:
        task_id = bella.held(queue)
        content = {"body": {"body_base64": "aGVsbG8=", "content_type": kind}}
        assert bella.complete(task_id, content).status == 200

        assert bella.get(task_id)["result"] == content
        assert bella.front.result(request_id_of(task_id), queue).status == 200


class TestRenew:
    @pytest.mark.parametrize("value", [None, *LOOKS_LIKE_A_NUMBER, -1, 0])
    def test_its_time_is_a_number_of_seconds(self, bella: Bella, held: str, value: Any) -> None:
        assert_refused(bella.renew(held, value), 400)
        assert_refused(bella.call("POST", f"{held}/renew", {}), 400)

    @pytest.mark.parametrize("worker", [1, "w1", [], {"id": 1}, {"id": []}])
    def test_its_worker_is_one(self, bella: Bella, held: str, worker: Any) -> None:
        assert_refused(bella.renew(held, worker=worker), 400)
        assert_refused(bella.progress(held, progress={}, worker=worker), 400)


class TestProgress:
    @pytest.mark.parametrize(
        "content",
        [
            {},
            {"worker": {"id": "w1"}},
            {"more": 1},
            {"progress": 1},
            {"progress": []},
            {"progress": "x"},
            {"progress": {"x": "y" * 20_000}},
            {"logs": {}},
            {"logs": "x"},
            {"logs": [1]},
            {"logs": [{}]},
            {"logs": [{"message": 1}]},
            {"logs": [{"message": "m", "level": 1}]},
            {"logs": [{"message": "m", "level": "a b"}]},
            {"logs": [{"message": "m"}] * 101},
            {"events": {}},
            {"events": "x"},
            {"events": [1]},
            {"events": [{}]},
            {"events": [{"eventId": "1", "eventName": "n"}]},
            {"events": [{**AN_EVENT, "eventId": "1\nevent: forged"}]},
            {"events": [{**AN_EVENT, "eventId": "1\rid: 2"}]},
            {"events": [{**AN_EVENT, "eventName": "n\r\n\r\ndata: forged"}]},
            {"events": [{**AN_EVENT, "eventName": []}]},
            {"events": [AN_EVENT] * 101},
            {"events": [{**AN_EVENT, "eventId": {}}]},
            {"eventId": "1"},
            {**AN_EVENT, "eventName": "n\nx"},
        ],
    )
    def test_a_report_that_says_nothing_is_refused(self, bella: Bella, held: str, content: dict[str, Any]) -> None:
        assert_refused(bella.progress(held, **content), 400)

    def test_of_several_parts_all_or_none_are_told(self, bella: Bella, held: str) -> None:
        assert_refused(bella.progress(held, progress={"step": 9}, events=[{}]), 400)

        assert bella.natively("held", held)["progress"] is None


class TestPaths:
    @pytest.mark.parametrize("path", ["/", "/a/b", "/a/b/c", "//take", "/take/", "/pulled/stats/x", "/%2e%2e/take"])
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_one_that_is_none_is_404(self, bella: Bella, method: str, path: str) -> None:
        answer = bella.front.call(method, f"/v1/queue{path}", "{}")

        assert answer.status in (404, 405)
        assert_refused(answer, answer.status)

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("DELETE", "put"),
            ("PUT", "put"),
            ("PATCH", "take"),
            ("DELETE", "register"),
            ("POST", "eventbus"),
            ("POST", UNKNOWN_ID),
            ("DELETE", UNKNOWN_ID),
            ("GET", f"{UNKNOWN_ID}/complete"),
            ("PUT", f"{UNKNOWN_ID}/cancel"),
            ("DELETE", f"{UNKNOWN_ID}/renew"),
            ("GET", f"{UNKNOWN_ID}/progress"),
            ("POST", "pulled/metadata"),
            ("DELETE", "pulled:1/stats"),
        ],
    )
    def test_another_method_is_405(self, bella: Bella, method: str, path: str) -> None:
        answer = bella.call(method, path)

        assert_refused(answer, 405)
        assert answer.headers["Allow"]

    @pytest.mark.parametrize("path", ["eventbus", "pulled/metadata", "pulled:1/stats"])
    def test_head_is_get_without_the_body(self, bella: Bella, path: str) -> None:
        answer = bella.call("HEAD", path)

        assert (answer.status, answer.body) == (200, b"")

    @pytest.mark.parametrize(
        "task_id",
        [
            "put",
            "take",
            "pulled:1",
            "TASK",
            "TASK-",
            "TASK-1-1-C-261127000000-0000",
            "TASK-x-1-C-261127000000-0000-0000000080008000000000000000",
            "TASK-1-1-C-261127000000-0001-000000800080000000000000000g",
            "TASK-1-1-C-261127000000-0001-" + "0" * 28 + "-x",
            "task-1-1-C-261127000000-0001-0000000080008000000000000000",
            "TASK-" + "1" * 5000 + "-1-C-261127000000-0001-0000000080008000000000000000",
            "TASK-1-1-C-261127032204-0007-000042",
            "BATCH-1-1-261127032204-0007-000042",
            "00000000-0000-0000-0000-000000000000",
            "TASK-1-2-C-261127000000-0001-0000000080008000000000000000",
            "TASK-1-1-X-261127000000-0001-0000000080008000000000000000",
            "0001aaaabbbb8ccc9dddeeeeeeeeeeee",
            "0001AAAA-BBBB-8CCC-9DDD-EEEEEEEEEEEE",
            "a%0D%0AX-Evil:%201",
            "%E2%82%AC",
            "%FF",
            "%00",
            "{}",
            "*",
            "-1",
        ],
    )
    def test_an_id_that_is_none_is_refused(self, bella: Bella, task_id: str) -> None:
        answers = [bella.call("GET", task_id), bella.renew(task_id), bella.progress(task_id, progress={})]
        answers += [bella.complete(task_id), bella.cancel(task_id)]

        for answer in answers:
            assert_refused(answer, 400)
            assert "X-Evil" not in answer.headers
