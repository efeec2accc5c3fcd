"""Put: what comes back, what an item is known by, and what the inference server and the sink get of it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable

import pytest

from tests.support.eas_client import REQUEST_ID, Queue, items_of
from tests.support.front import MAX_PAYLOAD_BYTES, Front
from tests.support.installation import await_condition

QueueOf = Callable[..., Queue]
Services = Callable[[str], str]


@pytest.fixture
def pushed(fresh: Services, queue_of: QueueOf) -> Queue:
    """The input of a service whose requests are forwarded to the target."""
    return queue_of(fresh("push"))


class TestAnswer:
    def test_it_is_the_index_in_bare_digits_with_the_request_id_in_a_header(self, each: Queue) -> None:
        answers = [each.call("POST", "", b"x") for _ in range(3)]

        assert [answer.body for answer in answers] == [b"1", b"2", b"3"]
        assert {answer.headers["Content-Type"] for answer in answers} == {"text/plain; charset=utf-8"}
        assert len({uuid.UUID(answer.headers[REQUEST_ID]) for answer in answers}) == 3

    def test_the_data_may_be_anything_chunked_and_empty_too(self, each: Queue) -> None:
        data = [b"", bytes(range(256)), "张".encode(), b"0" * 70_000]

        for some in data:
            each.put(some)
        chunked = each.call("POST", "", iter([b"in ", b"chunks"]))

        assert chunked.body == b"5"
        assert [item.data for item in each.peek()] == [*data, b"in chunks"]

    def test_each_queue_counts_for_itself_and_gives_no_index_twice(self, input_: Queue) -> None:
        queues = [input_, input_.sink, input_.rear, input_.sink.rear]
        for queue in queues:
            queue.puts(2)
            queue.truncate(3)

        assert [queue.put() for queue in queues] == [3] * 4
        assert [queue.indexes for queue in queues] == [[3]] * 4

    def test_nothing_asks_clients_to_come_again_later(self, input_: Queue) -> None:
        assert "Retry-After" not in input_.call("POST", "", b"x").headers


class TestFull:
    def test_an_input_that_is_full_refuses(self, fresh: Services, queue_of: QueueOf) -> None:
        queue = queue_of(fresh("small"))
        queue.puts(2)
        assert queue.attributes["meta.state"] == "Full"

        answer = queue.call("POST", "", b"x")

        assert answer.status == 429
        assert "max_queue_length is 2" in answer.body.decode()
        assert "Retry-After" not in answer.headers
        assert queue.indexes == [1, 2]

    def test_of_a_full_sink_the_oldest_leave(self, fresh: Services, queue_of: QueueOf) -> None:
        sink = queue_of(fresh("small")).sink

        sink.puts(3)

        assert sink.indexes == [2, 3]

    def test_a_full_sink_that_holds_refuses(self, fresh: Services, queue_of: QueueOf) -> None:
        sink = queue_of(fresh("holding")).sink
        sink.put()

        answer = sink.call("POST", "", b"x")

        assert answer.status == 429
        assert "Retry-After" not in answer.headers
        assert sink.indexes == [1]

    def test_a_full_sink_that_holds_keeps_its_service_from_starting_more(
        self, fresh: Services, queue_of: QueueOf
    ) -> None:
        queue = queue_of(fresh("held"))
        for _ in range(2):
            queue.put()

        [first] = queue.sink.get(timeout_="3s", auto_delete_="false")
        assert queue.length == 1
        queue.sink.commit(first.index)  # nobody holds it
        assert queue.length == 1
        queue.sink.delete(first.index)

        [second] = queue.sink.get(timeout_="3s")
        assert second.index == 2

    @pytest.mark.parametrize("chunked", [False, True])
    def test_more_bytes_than_the_attributes_allow_are_refused(self, each: Queue, chunked: bool) -> None:
        most = int(each.attributes["meta.maxPayloadBytes"])
        body = b"x" * (most + 1)

        answer = each.call("POST", "", iter([body]) if chunked else body)

        assert answer.status == 413
        assert (
            answer.body
            == f"the body is larger than {MAX_PAYLOAD_BYTES} bytes (MAX_PAYLOAD_BYTES): nothing was stored\n".encode()
        )
        assert "Retry-After" not in answer.headers
        assert each.length == 0
        each.put(body[:-1])


class TestRequestId:
    def test_one_that_is_made_is_in_header_and_tags(self, each: Queue) -> None:
        answer = each.call("POST", "", b"x")

        [item] = each.peek()
        assert item.tags["requestId"] == answer.headers[REQUEST_ID]

    def test_a_parameter_goes_before_a_header_and_both_before_a_made_one(self, each: Queue) -> None:
        both = each.call("POST", "requestId=mine", b"x", {REQUEST_ID: "its"})
        header = each.call("POST", "", b"x", {REQUEST_ID: "its"})

        assert [both.headers[REQUEST_ID], header.headers[REQUEST_ID]] == ["mine", "its"]
        assert [item.tags["requestId"] for item in each.peek()] == ["mine", "its"]

    def test_it_need_not_be_the_only_one_and_the_lowest_index_is_found_first(self, each: Queue) -> None:
        for data in (b"a", b"b", b"c"):
            each.put(data, "requestId=twin" if data != b"b" else "requestId=twin2")

        assert [item.data for item in each.get(requestId="twin")] == [b"a"]
        assert [item.data for item in each.get(requestId="twin")] == [b"c"]
        assert each.get(requestId="twin") == []

    def test_any_text_will_do(self, each: Queue) -> None:
        names = ["a b/c%&=+", "张三", "{x}:y", "x" * 1000]
        for name in names:
            each.put(name.encode(), {"requestId": name})

        assert [each.get(requestId=name)[0].data.decode() for name in names] == names

    def test_a_name_in_the_header_may_be_utf_8(self, each: Queue) -> None:
        each.put(b"x", "", {REQUEST_ID: "张三"})

        [item] = each.get(requestId="张三")
        assert item.tags["requestId"] == "张三"


class TestTags:
    def test_every_parameter_without_an_underscore_is_one(self, each: Queue) -> None:
        each.put(b"x", "task_id=txt2img_0&a=b%26c&_x_=1&_priority_=0&e=&k%20k=%E5%BC%A0")

        [item] = each.peek()
        own = {key: value for key, value in item.tags.items() if key[0] in "aektx" and not key.startswith("ts@")}
        assert own == {"task_id": "txt2img_0", "a": "b&c", "e": "", "k k": "张"}
        assert not [key for key in item.tags if key.startswith("_")]

    def test_of_a_repeated_one_the_last_holds_and_one_without_a_name_is_ignored(self, each: Queue) -> None:
        each.put(b"x", "a=1&a=2&=nobody")

        [item] = each.get(a="2")
        assert item.tags["a"] == "2"
        assert "" not in item.tags

    @pytest.mark.parametrize(
        ("data", "kind"), [("text é".encode(), "text/plain; charset=utf-8"), (b"\xff\xfe", "application/octet-stream")]
    )
    def test_a_content_type_that_is_not_named_is_found_out(self, each: Queue, data: bytes, kind: str) -> None:
        each.put(data)

        [item] = each.peek()
        assert item.tags["Header:Content-Type"] == kind

    def test_headers_of_the_item_are_tags_and_those_of_its_sender_are_not(self, each: Queue) -> None:
        withheld = {
            "Cookie": "a=b", "Accept": "*/*", "Accept-Language": "en", "User-Agent": "Go-http-client/1.1",
            "X-EAS-QueueService-Priority": "0", "Connection": "X-Hop, close", "X-Hop": "1", "Proxy-Authorization": "x",
            "Via": "1.1 x", "X-Forwarded-For": "10.0.0.1", "X-Api-Key": "k", "Origin": "http://x", "TE": "trailers",
        }  # fmt: skip

        each.put(b"x", "", withheld | {"Content-Type": "application/x-npy", "X-Custom": "yes"})

        [item] = each.peek()
        found = {key: value for key, value in item.tags.items() if key.startswith("Header:")}
        assert found == {"Header:Content-Type": "application/x-npy", "Header:X-Custom": "yes"}

    @pytest.mark.parametrize("queue", ["input_", "rear", "sink", "sink_rear"])
    def test_the_time_of_the_put_in_milliseconds_is_one(self, request: pytest.FixtureRequest, queue: str) -> None:
        target: Queue = request.getfixturevalue(queue)
        before_ms = int(time.time() * 1000)

        target.put()

        [item] = target.peek()
        name, other = ("ts@sink", "ts@source") if "sink" in queue else ("ts@source", "ts@sink")
        assert before_ms - 100 <= int(item.tags[name]) <= time.time() * 1000 + 100
        assert other not in item.tags


class TestPriority:
    @pytest.mark.parametrize(
        ("query", "header", "found"),
        [
            ("", None, 0),
            ("_priority_=3", None, 3),
            ("", "4", 4),
            ("_priority_=3", "4", 4),
            ("_priority_=5", "4", 5),
            ("_priority_=0", "", 0),
            ("_priority_=99999999999999999999", None, 2**31 - 1),
            ("_priority_=1&_priority_=2", None, 2),
        ],
    )
    def test_the_higher_one_of_parameter_and_header_holds(
        self, each: Queue, query: str, header: str | None, found: int
    ) -> None:
        each.put(b"x", query, {} if header is None else {"X-EAS-QueueService-Priority": header})

        assert each.count(priority_=found) == 1
        assert each.count(priority_=found or 1) == (1 if found else 0)

    @pytest.mark.parametrize("value", ["-1", "1.5", "high", "٣"])
    def test_what_is_no_priority_is_refused(self, each: Queue, value: str) -> None:
        by_parameter = each.call("POST", {"_priority_": value}, b"x")
        by_header = each.call("POST", "", b"x", {"X-EAS-QueueService-Priority": value})

        assert (by_parameter.status, by_header.status) == (400, 400)
        assert each.length == 0


class TestForwarding:
    """What the forwarder does: it stands for the inference service that EAS has behind a queue."""

    def test_the_result_carries_all_tags_of_its_request(self, pushed: Queue) -> None:
        answer = pushed.call("POST", "task_id=7&requestId=mine", b"{}", {"X-Custom": "yes"})
        source_ms = time.time() * 1000

        [result] = pushed.sink.get(requestId="mine", timeout_="3s")

        assert answer.status == 200
        assert result.data == b'{"ok": true}'
        assert result.index == 1
        assert {key: result.tags[key] for key in ("task_id", "requestId", "Header:X-Custom")} == {
            "task_id": "7",
            "requestId": "mine",
            "Header:X-Custom": "yes",
        }
        assert abs(int(result.tags["ts@source"]) - source_ms) < 2000
        assert int(result.tags["ts@source"]) <= int(result.tags["ts@sink"])
        assert "lastCode" not in result.tags
        assert pushed.length == pushed.sink.length == 0

    def test_a_code_other_than_200_is_told(self, pushed: Queue) -> None:
        pushed.put(b"{}", "status=418")
        pushed.put(b"{}", "status=201")

        first, second = pushed.sink.get(length_=2, timeout_="3s")

        assert sorted([first.tags["lastCode"], second.tags["lastCode"]]) == ["201", "418"]

    def test_the_target_gets_path_query_and_headers_but_nothing_of_the_queue(self, pushed: Queue) -> None:
        headers = {"Content-Type": "application/x-npy", "X-Custom": "yes", "Accept": "image/png"}
        answer = pushed.call(
            "POST", "echo=1&task_id=a%2Fb&_priority_=1&requestId=r", b"\x93NUMPY", headers, path="/v1/api%2Fx"
        )

        [result] = pushed.sink.get(timeout_="3s")
        found = json.loads(result.data)

        assert answer.status == 200
        assert found["method"] == "POST"
        assert found["path"].endswith("/v1/api%2Fx")
        assert found["query"] == "echo=1&task_id=a%2Fb&requestId=r"
        sent = {name.lower(): value for name, value in found["headers"]}
        assert {name: sent[name] for name in ("content-type", "x-custom", "accept")} == {
            name.lower(): value for name, value in headers.items()
        }
        assert not [name for name in sent if name.startswith("x-eas-") or name == "authorization"]
        assert "path" not in result.tags

    def test_sub_paths_but_the_sink_are_the_input_for_all_methods(self, input_: Queue) -> None:
        assert input_.call("POST", "", b"x", path="/sinks").body == b"1"
        assert input_.call("POST", "", b"x", path="/a/sink").body == b"2"
        assert input_.call("POST", "", b"x", path="/sink/a").body == b"1"

        assert input_.call("GET", "_attrs_=true", path="/x").json == {**input_.attributes}
        assert input_.call("GET", "_attrs_=true", path="/sink/x").json["meta.name"].endswith("/sink")
        [item] = items_of(input_.call("GET", "_index_=1&_raw_=false", path="/x"))
        assert item.index == 1
        assert input_.call("DELETE", "_index_=2", path="/x/y").body == b"OK"
        assert input_.call("PUT", "_indexes_=2", path="/x/").body == b"OK"
        assert input_.length == 0

    def test_a_result_is_in_the_sink_before_its_request_leaves_the_input(self, pushed: Queue) -> None:
        pushed.put(b"{}", "delay_s=0.2")

        def seen() -> tuple[int, int]:
            in_input = pushed.length  # first: what leaves it is in the sink by then
            return in_input, pushed.sink.length

        found = [seen()]
        while found[-1][0]:
            found.append(seen())

        assert found[0] == (1, 0)
        assert found[-1] == (0, 1)

    def test_an_answer_without_a_body_is_a_result_too(self, pushed: Queue) -> None:
        pushed.put(b"{}", "body_bytes=0")

        [result] = pushed.sink.get(timeout_="3s")

        assert result.data == b""

    def test_every_request_has_exactly_one_result(self, pushed: Queue) -> None:
        sent = {pushed.call("POST", "", b"{}").headers[REQUEST_ID] for _ in range(30)}

        results = pushed.sink.get(length_=30, timeout_="3s")

        assert sorted(item.tags["requestId"] for item in results) == sorted(sent)
        await_condition(lambda: pushed.length == 0)
        assert pushed.sink.length == 0

    def test_the_status_of_a_request_is_told_natively_too(self, front: Front, pushed: Queue) -> None:
        service = pushed.path.rpartition("/")[2]
        answer = pushed.call("POST", "requestId=mine", b"{}")
        [result] = pushed.sink.get(timeout_="3s")
        assert (answer.headers[REQUEST_ID], result.tags["requestId"]) == ("mine", "mine")

        answer = pushed.call("POST", "", b"{}")

        status = front.await_status(answer.headers[REQUEST_ID], service, "SUCCESS")
        assert status.json["result"]["body"] == {"ok": True}


class TestEnd:
    @pytest.mark.parametrize("force", ["", "&_force_=true"])
    def test_an_end_is_acknowledged_and_ends_nothing(self, each: Queue, force: str) -> None:
        each.put()

        answer = each.call("POST", f"_eos_=true{force}")

        assert (answer.status, answer.body) == (200, b"OK")
        assert each.put() == 2
        assert each.attributes["meta.state"] == "Normal"
