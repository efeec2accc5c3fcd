"""Get, count and search: which items, in which form, and when the answer comes."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing

import pytest

from eas_queue.dialects.eas import frames_pb2
from eas_queue.store import keys
from tests.dialects.eas.conftest import MAX_WAIT_S, Lone
from tests.support.eas_client import PROTOBUF, REQUEST_ID, Queue, items_of
from tests.support.front import Front
from tests.support.installation import await_condition

Services = Callable[[str], str]
QueueOf = Callable[..., Queue]


class TestSelection:
    def test_without_parameters_the_head_is_read_and_deleted(self, each: Queue) -> None:
        each.puts(2)

        answer = each.call("GET")

        assert (answer.status, answer.body) == (200, b"0")
        assert each.indexes == [2]

    def test_from_an_index_on_that_one_included(self, each: Queue) -> None:
        each.puts(4)
        each.delete(3)

        assert [item.index for item in each.get(index_=2)] == [2]
        assert [item.index for item in each.get(index_=3)] == [4]
        assert each.get(index_=3) == []
        assert [item.index for item in each.get(index_=0)] == [1]

    @pytest.mark.parametrize("newest", ["-1", "18446744073709551615"])
    def test_the_newest(self, each: Queue, newest: str) -> None:
        each.puts(3)

        assert [item.index for item in each.get(index_=newest)] == [3]
        assert each.indexes == [1, 2]

    def test_so_many_in_the_order_of_their_indexes_whatever_their_priority(self, each: Queue) -> None:
        for i in range(5):
            each.put(b"x", f"_priority_={i % 2}")

        assert [item.index for item in each.get(length_=3)] == [1, 2, 3]
        assert [item.index for item in each.get(length_=10)] == [4, 5]

    def test_nothing_is_deleted_where_that_is_not_wanted(self, each: Queue) -> None:
        each.puts(1)

        assert [item.data for item in each.get(auto_delete_="false")] == [b"0"]
        assert [item.data for item in each.get(auto_delete_="true")] == [b"0"]
        assert each.get() == []

    def test_tags_are_all_to_be_equal(self, each: Queue) -> None:
        each.put(b"a", "x=1&y=2")
        each.put(b"b", "x=1")
        each.put(b"c", "x=11&y=2")

        assert [item.data for item in each.peek(x="1")] == [b"a", b"b"]
        assert [item.data for item in each.peek(x="1", y="2")] == [b"a"]
        assert each.peek(x="") == each.peek(z="1") == []
        assert [item.data for item in each.peek(x="1", index_=2)] == [b"b"]

    def test_the_request_id_is_a_tag_among_others(self, each: Queue) -> None:
        request_id = each.call("POST", "x=1", b"a").headers[REQUEST_ID]
        each.puts(1)

        assert [item.data for item in each.peek(requestId=request_id)] == [b"a"]
        assert [item.data for item in each.peek(requestId=request_id, x="1")] == [b"a"]
        assert each.peek(requestId=request_id, x="2") == each.peek(requestId=request_id, index_=2) == []

    def test_far_back_among_others_a_tag_is_found(self, sink: Queue) -> None:
        for i in range(700):  # more than one script looks at
            sink.put(b"", {"n": i})

        [item] = sink.get(n=699)

        assert item.index == 700

    def test_items_that_are_being_worked_on_are_not_hidden_and_give_their_slot_back(self, each: Queue) -> None:
        each.puts(2)
        with each.watching(window_=1) as watch:
            assert watch.next().index == 1
            assert [item.index for item in each.get()] == [1]

            assert watch.next().index == 2

    def test_operations_go_before_the_plain_get(self, each: Queue) -> None:
        each.puts(1)
        every = "_index_=1&_watch_=true&_count_=true&_search_=true&_attrs_=true"

        assert "stream.length" in each.call("GET", every).json
        assert "WaitCount" in each.call("GET", every.replace("_attrs_=true", "_attrs_=false")).json
        assert each.call("GET", "_index_=1&_watch_=true&_count_=true").body == b"1"
        assert each.indexes == [1]


FORMS: list[tuple[str, str, str]] = [
    # Accept ('-' none), _raw_ ('-' not given), what comes back
    ("-", "-", "raw"),
    ("*/*", "-", "raw"),
    ("text/html, */*; q=.2", "-", "raw"),
    ("application/json", "-", "json"),
    (PROTOBUF, "-", "protobuf"),
    ("-", "true", "raw"),
    ("application/json", "true", "raw"),
    (PROTOBUF, "1", "raw"),
    ("-", "false", "json"),
    ("*/*", "false", "json"),
    ("application/json", "false", "json"),
    (PROTOBUF, "false", "protobuf"),
    (f"{PROTOBUF}, application/json", "false", "protobuf"),
    ("application/*", "F", "json"),
]


class TestForm:
    @pytest.mark.parametrize(("accept", "raw", "form"), FORMS)
    def test_accept_and_raw_decide(self, sink: Queue, accept: str, raw: str, form: str) -> None:
        request_id = sink.call("POST", "a=b", b"\xffdata").headers[REQUEST_ID]
        query = {} if raw == "-" else {"_raw_": raw}

        answer = sink.call("GET", query, headers={} if accept == "-" else {"Accept": accept})

        kind = {"raw": "application/octet-stream", "json": "application/json", "protobuf": PROTOBUF}[form]
        assert (answer.status, answer.headers["Content-Type"]) == (200, kind)
        if form == "raw":
            assert (answer.body, answer.headers[REQUEST_ID]) == (b"\xffdata", request_id)
        else:
            [item] = items_of(answer)
            assert (item.index, item.data, item.tags["a"], item.tags["requestId"]) == (1, b"\xffdata", "b", request_id)

    @pytest.mark.parametrize(("accept", "raw", "form"), FORMS)
    def test_nothing_is_204_without_a_body_in_every_form(self, sink: Queue, accept: str, raw: str, form: str) -> None:
        query = {} if raw == "-" else {"_raw_": raw}

        answer = sink.call("GET", query, headers={} if accept == "-" else {"Accept": accept})

        assert (answer.status, answer.body, answer.headers["Content-Type"]) == (204, b"", None)

    def test_json_is_a_list_of_objects_as_the_go_codec_writes_them(self, sink: Queue) -> None:
        sink.put(b"\x00a")

        answer = sink.call("GET", "_raw_=false")

        [item] = json.loads(answer.body)
        assert list(item) == ["index", "tags", "data"]
        assert item["data"] == "AGE="
        assert answer.body.endswith(b"]\n")

    def test_protobuf_is_a_list_whose_field_is_called_index(self, sink: Queue) -> None:
        sink.puts(2)

        answer = sink.call("GET", "_raw_=false&_length_=2", headers={"Accept": PROTOBUF})

        assert [frame.data for frame in frames_pb2.DataFrameListProto.FromString(answer.body).index] == [b"0", b"1"]

    def test_several_raw_items_come_as_json_so_that_none_is_lost(self, sink: Queue) -> None:
        sink.puts(2)

        assert [item.data for item in items_of(sink.call("GET", "_length_=2&_raw_=true"))] == [b"0", b"1"]
        sink.puts(1)
        assert sink.call("GET", "_length_=2&_raw_=true").body == b"0"

    @pytest.mark.parametrize(
        ("sent", "data", "found"),
        [
            (None, b"text", "text/plain; charset=utf-8"),
            (None, b"\xff", "application/octet-stream"),
            ("application/x-www-form-urlencoded", b"text", "text/plain; charset=utf-8"),
            ("image/png", b"text", "image/png"),
        ],
    )
    def test_a_raw_item_has_the_type_that_its_sender_named(
        self, each: Queue, sent: str | None, data: bytes, found: str
    ) -> None:
        each.put(data, "", {} if sent is None else {"Content-Type": sent})

        assert each.call("GET").headers["Content-Type"] == found

    def test_an_accept_of_neither_codec_deletes_nothing(self, sink: Queue) -> None:
        sink.puts(1)

        answer = sink.call("GET", "_raw_=false", headers={"Accept": "application/x-flatbuffers"})

        assert answer.status == 400
        assert sink.indexes == [1]


class TestTimeout:
    @pytest.mark.parametrize(
        ("timeout", "least_s", "most_s"),
        [
            ("0", 0, 0.3),
            ("0s", 0, 0.3),
            ("300ms", 0.25, 0.6),
            ("0.5", 0.4, 0.8),
            ("0m0.2s", 0.17, 0.5),
            ("1s", 0.85, 1),
        ],
    )
    def test_an_answer_without_items_comes_a_little_before_the_time_is_up(
        self, sink: Queue, timeout: str, least_s: float, most_s: float
    ) -> None:
        sink.get()  # what is first needed is there
        since_s = time.monotonic()

        assert sink.get(timeout_=timeout) == []

        assert least_s <= time.monotonic() - since_s < most_s

    def test_it_is_bounded_by_what_the_operator_allows(self, sink: Queue) -> None:
        since_s = time.monotonic()

        assert sink.get(timeout_="1h") == []

        assert MAX_WAIT_S - 0.4 < time.monotonic() - since_s < MAX_WAIT_S

    @pytest.mark.parametrize("match", [{}, {"a": "b"}, {"requestId": "mine"}, {"index_": 2}])
    def test_an_item_that_comes_meanwhile_is_answered_at_once(self, each: Queue, match: Mapping[str, object]) -> None:
        each.puts(1)
        each.delete(1)
        timer = threading.Timer(0.3, lambda: each.put(b"late", "a=b&requestId=mine"))
        timer.start()
        since_s = time.monotonic()

        [item] = each.get(timeout_="3s", **match)

        assert item.data == b"late"
        assert 0.2 < time.monotonic() - since_s < 0.8
        timer.join()

    def test_one_that_does_not_match_is_not_answered(self, sink: Queue) -> None:
        timer = threading.Timer(0.1, lambda: sink.put(b"other", "a=c"))
        timer.start()

        assert sink.get(timeout_="500ms", a="b") == []

        timer.join()
        assert sink.length == 1

    def test_it_waits_for_as_many_as_were_asked_for(self, each: Queue) -> None:
        each.puts(1)
        timer = threading.Timer(0.3, lambda: each.puts(2))
        timer.start()
        since_s = time.monotonic()

        assert len(each.get(length_=3, timeout_="3s")) == 3

        assert 0.25 < time.monotonic() - since_s < 1
        timer.join()

    def test_when_the_time_is_up_what_is_there_is_answered(self, each: Queue) -> None:
        each.puts(2)

        assert len(each.get(length_=3, timeout_="300ms")) == 2
        assert each.length == 0

    def test_a_result_wakes_who_waits_for_it(self, fresh: Services, queue_of: QueueOf) -> None:
        queue = queue_of(fresh("push"))
        queue.put(b"{}", "requestId=mine&delay_s=0.3")
        since_s = time.monotonic()

        [item] = queue.sink.get(requestId="mine", timeout_="3s")

        assert item.data == b'{"ok": true}'
        assert time.monotonic() - since_s < 1.5

    def test_of_many_who_wait_for_an_item_one_has_it(self, sink: Queue) -> None:
        found: list[int] = []
        threads = [
            threading.Thread(target=lambda: found.extend(i.index for i in sink.get(timeout_="1s"))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()

        sink.puts(3)

        for thread in threads:
            thread.join()
        assert sorted(found) == [1, 2, 3]


class TestGone:
    def test_nothing_is_deleted_for_one_that_hung_up_while_it_waited(self, front: Front, sink: Queue) -> None:
        head = "\r\n".join(f"{name}: {value!s}" for name, value in sink.headers.items())
        with closing(socket.create_connection(("127.0.0.1", front.port))) as connection:
            connection.sendall(f"GET {sink.target('_timeout_=3s')} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
            channel = keys.note_channel(keys.queue_topic(sink.path.split("/")[3], "sink"))
            await_condition(lambda: dict(front._redis.pubsub_numsub(channel)).get(channel.encode()), what="it waits")

        sink.puts(1)

        assert not sink.call("GET", "_index_=2&_timeout_=300ms").body
        assert sink.indexes == [1]

    @pytest.mark.parametrize("query", ["", "_timeout_=3s"])
    def test_nothing_is_deleted_for_one_that_hung_up_before_it_was_served(self, lone: Lone, query: str) -> None:
        sink = lone.queue().sink
        sink.puts(1)

        with lone.frozen(), closing(socket.create_connection(("127.0.0.1", lone.port))) as connection:
            connection.sendall(
                f"GET {sink.target(query)} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: \r\n\r\n".encode()
            )

        assert sink.indexes == [1]
        assert sink.get(index_=2, timeout_="200ms") == []
        assert sink.indexes == [1]


class TestCount:
    def test_all_those_of_a_priority_and_those_with_tags(self, each: Queue) -> None:
        each.put(b"", "_priority_=2&a=b")
        each.put(b"", "_priority_=2")
        each.put(b"", "a=b")

        assert each.count() == each.count(priority_=0) == 3
        assert each.count(priority_=2) == 2
        assert each.count(priority_=1) == 0
        assert each.count(a="b") == 2
        assert each.count(a="b", priority_=2) == 1
        assert each.count(a="c") == 0

    def test_the_answer_is_digits(self, each: Queue) -> None:
        answer = each.call("GET", "_count_=true")

        assert (answer.status, answer.body) == (200, b"0")
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"

    def test_those_with_a_request_id(self, each: Queue) -> None:
        for name in ("a", "a", "b"):
            each.put(b"", {"requestId": name})

        assert each.count(requestId="a") == 2


class TestSearch:
    def test_how_many_come_before_and_who_asks(self, each: Queue) -> None:
        each.puts(3)

        assert each.search(3) == {"ConsumerId": "eas.alice", "IsPending": False, "WaitCount": 2}
        assert list(each.search(1).values()) == ["eas.alice", False, 0]

    def test_those_of_higher_priority_come_before(self, each: Queue) -> None:
        for priority in (0, 0, 1, 2, 1):
            each.put(b"", f"_priority_={priority}")

        assert [each.search(index)["WaitCount"] for index in range(1, 6)] == [3, 4, 1, 0, 2]

    def test_one_that_is_being_worked_on_names_who_does_and_does_not_count(self, each: Queue) -> None:
        each.puts(3)
        with each.as_("bob").watching(window_=1) as watch:
            watch.next()

            assert each.search(1) == {"ConsumerId": "eas.bob", "IsPending": True, "WaitCount": 0}
            assert each.search(3) == {"ConsumerId": "eas.alice", "IsPending": False, "WaitCount": 1}

    def test_a_group_without_consumers_is_told_of_any_other(self, each: Queue) -> None:
        each.puts(2)
        with each.as_("bob", "workers").watching(window_=1) as watch:
            watch.next()

            assert each.search(1) == {"ConsumerId": "workers.bob", "IsPending": True, "WaitCount": 0}
            with each.as_("carol", "others").watching(window_=0) as other:
                other.next()
                assert each.as_("dan", "others").search(1)["ConsumerId"] == "others.carol"

    def test_what_the_forwarder_works_on_is_pending(self, fresh: Services, queue_of: QueueOf) -> None:
        service = fresh("single")
        queue = queue_of(service)
        for _ in range(3):
            queue.put(b"{}", "hang=1")

        await_condition(lambda: queue.search(1)["IsPending"])

        assert queue.search(1) == {"ConsumerId": f"{service}.forwarder", "IsPending": True, "WaitCount": 0}
        assert queue.search(3) == {"ConsumerId": "eas.alice", "IsPending": False, "WaitCount": 1}
        queue.truncate(4)

    def test_what_is_not_there_is_404_with_the_words_that_clients_log(self, each: Queue) -> None:
        each.puts(1)
        each.delete(1)

        for index in (1, 2, 0):
            answer = each.call("GET", {"_search_": "true", "_index_": index})
            assert (answer.status, answer.body) == (404, b"no data in stream")
