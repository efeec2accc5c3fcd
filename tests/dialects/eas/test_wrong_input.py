"""What clients should not send: each is refused in a few words, or taken as it was meant; nothing is lost by it."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from tests.support.eas_client import BINARY, PING, REQUEST_ID, Queue, Watch
from tests.support.front import Answer, Front
from tests.support.installation import await_condition

Services = Callable[[str], str]
QueueOf = Callable[..., Queue]
JUNK = ["x", "-1", "1.5", "", " 1", "1e3", "0x1", "١", "9" * 30, "'", "\n"]
CONTINUATION, TEXT = 0, 1


@pytest.fixture
def witnessed(sink: Queue) -> Iterator[Queue]:
    """A sink with two items; afterwards they are there, and somebody who watches them goes on doing so."""
    sink.puts(2)
    with sink.as_("witness", "witnesses").watching(window_=1) as watch:
        yield sink
        assert sink.indexes == [1, 2]
        assert watch.next().index == 1
        sink.as_("witness", "witnesses").commit(1)
        assert watch.next().index == 2


def assert_refused(answer: Answer, status: int = 400) -> None:
    assert answer.status == status, (answer.status, answer.body)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.body.endswith(b"\n")
    assert answer.body.count(b"\n") == 1
    assert 10 < len(answer.body) < 400
    assert "Retry-After" not in answer.headers


class TestValues:
    @pytest.mark.parametrize("value", [value for value in JUNK if value != "-1"])
    def test_an_index_of_a_get(self, witnessed: Queue, value: str) -> None:
        assert_refused(witnessed.call("GET", {"_index_": value}))

    @pytest.mark.parametrize("value", [2**53, 2**63, 2**64 - 2])
    def test_a_huge_index_is_behind_the_end(self, witnessed: Queue, value: int) -> None:
        assert witnessed.get(index_=value) == []
        assert witnessed.call("GET", {"_search_": "true", "_index_": value}).status == 404
        witnessed.delete(value)
        witnessed.commit(value)

    @pytest.mark.parametrize("value", JUNK)
    @pytest.mark.parametrize("operation", ["GET _search_=true", "DELETE ", "DELETE _trunc_=true", "PUT "])
    def test_an_index_of_an_operation(self, witnessed: Queue, operation: str, value: str) -> None:
        method, _, query = operation.partition(" ")
        if value == " 1" and operation in ("DELETE ", "PUT "):
            return  # a list may have blanks
        operation_itself = dict([query.split("=")]) if query else {}
        assert_refused(witnessed.call(method, operation_itself | {"_index_": value}))

    @pytest.mark.parametrize("value", ["1,x", "x,1", "1;2", "-1,1", "1,-1", ",", " , "])
    def test_a_list_that_is_none(self, witnessed: Queue, value: str) -> None:
        assert_refused(witnessed.call("DELETE", {"_indexes_": value}))
        assert_refused(witnessed.call("PUT", {"_indexes_": value}))

    @pytest.mark.parametrize("method", ["DELETE", "PUT"])
    def test_none_at_all(self, witnessed: Queue, method: str) -> None:
        assert_refused(witnessed.call(method))

    @pytest.mark.parametrize("value", [*JUNK, "0"])
    def test_a_length(self, witnessed: Queue, value: str) -> None:
        assert_refused(witnessed.call("GET", {"_length_": value}))

    def test_a_huge_length_is_all(self, sink: Queue) -> None:
        sink.puts(2)

        assert len(sink.get(length_=10**15)) == 2

    @pytest.mark.parametrize(
        "value", ["x", "-1s", "5 s", "5d", "1h-1m", "s", ".", "1..5s", "٣s", "inf", "nan", "9" * 30]
    )
    def test_a_duration(self, witnessed: Queue, value: str) -> None:
        assert_refused(witnessed.call("GET", {"_timeout_": value}))

    @pytest.mark.parametrize("value", ["yes", "", "tRuE", "2", "-1", " true"])
    @pytest.mark.parametrize(
        "name",
        ["_auto_delete_", "_raw_", "_attrs_", "_search_", "_count_", "_watch_", "_trunc_", "_negative_", "_eos_"],
    )
    def test_a_boolean(self, witnessed: Queue, name: str, value: str) -> None:
        method = {"_trunc_": "DELETE", "_negative_": "PUT", "_eos_": "POST"}.get(name, "GET")

        assert_refused(witnessed.call(method, {"_index_": 1, name: value}))

    @pytest.mark.parametrize("value", ["1", "t", "T", "TRUE", "true", "True"])
    def test_all_that_go_takes_for_true_is_true(self, witnessed: Queue, value: str) -> None:
        assert "meta.name" in witnessed.call("GET", {"_attrs_": value}).json

    @pytest.mark.parametrize("value", ["0", "f", "F", "FALSE", "false", "False"])
    def test_all_that_go_takes_for_false_is_false(self, witnessed: Queue, value: str) -> None:
        assert len(witnessed.get(auto_delete_=value, length_=2)) == 2

    @pytest.mark.parametrize(
        "query",
        ["_window_=x", "_window_=-1", "_index_=x", "_index_only_=x", "_auto_commit_=x", "_index_=-2", "_window_=1.5"],
    )
    def test_a_parameter_of_a_watch(self, witnessed: Queue, query: str) -> None:
        watch = Watch(witnessed, f"_watch_=true&{query}")

        assert (watch.status, watch.body.count(b"\n")) == (400, 1)

    def test_the_rear_header(self, witnessed: Queue) -> None:
        for method in ("GET", "POST", "PUT", "DELETE"):
            assert_refused(witnessed.call(method, "_index_=1", headers={"X-EAS-QueueService-Access-Rear": "maybe"}))

    @pytest.mark.parametrize("accept", ["text/html", "application/x-flatbuffers", "application/json;q=0"])
    def test_an_accept_of_nothing_that_there_is(self, witnessed: Queue, accept: str) -> None:
        assert_refused(witnessed.call("GET", "_raw_=false", headers={"Accept": accept}))

    @pytest.mark.parametrize("method", ["PATCH", "OPTIONS", "TRACE"])
    def test_another_method(self, witnessed: Queue, method: str) -> None:
        assert witnessed.call(method).status in (200, 405)

    @pytest.mark.parametrize("query", ["", "_attrs_=true", "_watch_=true", "_timeout_=1s"])
    def test_head_reads_nothing(self, witnessed: Queue, query: str) -> None:
        answer = witnessed.call("HEAD", query)

        assert (answer.status, answer.body) == (400, b"")

    @pytest.mark.parametrize("name", ["a\0b", "\0", "x" * 1001])
    def test_a_request_id(self, witnessed: Queue, name: str) -> None:
        input_ = Queue(witnessed.port, witnessed.path.removesuffix("/sink"))
        for queue in (witnessed, input_):
            assert_refused(queue.call("POST", {"requestId": name}, b"x"))
        if "\0" in name:
            for query in ({}, {"_count_": "true"}, {"_watch_": "true"}):
                assert_refused(witnessed.call("GET", {"requestId": name, **query}))
        assert input_.length == 0

    @pytest.mark.parametrize("query", ["a=%00", "%00=a", "a=%1b"])
    def test_a_control_character_in_a_tag(self, witnessed: Queue, query: str) -> None:
        assert_refused(witnessed.call("POST", query, b"x"))

    def test_bytes_that_are_no_utf_8_in_a_tag(self, sink: Queue) -> None:
        sink.put(b"x", "a=%ff")

        [item] = sink.peek()
        assert item.tags["a"] == "\ufffd"

    @pytest.mark.parametrize("path", ["/../other", "/%2e%2e/other", "/a%00b"])
    def test_a_sub_path_that_would_leave_the_service(self, input_: Queue, path: str) -> None:
        assert_refused(input_.call("POST", "", b"x", path=path))

        assert input_.length == 0


class TestSizes:
    def test_tags_of_64_kb_in_the_query_are_too_many(self, witnessed: Queue) -> None:
        query = "&".join(f"k{i}={'v' * 1000}" for i in range(64))

        for method in ("POST", "GET"):
            answer = witnessed.call(method, query)
            assert answer.status == 414
            assert len(answer.body) < 400

    def test_tags_of_64_kb_in_headers_are_kept(self, sink: Queue) -> None:
        headers = {f"X-Tag-{i}": "v" * 7000 for i in range(10)}

        sink.put(b"x", "", headers)

        with sink.watching() as watch:
            found = watch.next().tags
        assert {name: found[f"Header:{name}"] for name in headers} == headers

    @pytest.mark.parametrize("headers", [{"X-Tag": "v" * 9000}, {f"X-{i}": "v" for i in range(120)}])
    def test_a_header_too_long_or_too_many(self, witnessed: Queue, headers: dict[str, str]) -> None:
        answer = witnessed.call("POST", "", b"x", headers)

        assert answer.status in (400, 431)
        assert len(answer.body) < 400

    def test_a_thousand_indexes_in_one_call(self, sink: Queue) -> None:
        sink.puts(5)
        with sink.watching() as watch:
            watch.take(5)
            sink.commit(*range(1, 1001))
        assert sink.length == 0
        sink.delete(*range(1, 1001))

    @pytest.mark.parametrize("method", ["DELETE", "PUT"])
    def test_ten_thousand_indexes_in_one_call_are_too_many_for_a_url(self, witnessed: Queue, method: str) -> None:
        query = {"_indexes_": ",".join(map(str, range(1, 10_001)))}

        answer = witnessed.call(method, query)

        assert answer.status == 414
        assert len(answer.body) < 400


class TestNames:
    @pytest.mark.parametrize(
        ("user", "group"),
        [
            ("张三", "组"),
            ("a/b", "c/d"),
            ("100%", "%41"),
            ("a b", "c d"),
            ("{a}", "{b}"),
            ("a.b", "c.d"),
            ("a:b", "*"),
            ("é".encode("latin-1"), "e"),
            ("x" * 200, "y" * 200),
        ],
    )
    def test_strange_ones_work(self, each: Queue, user: str | bytes, group: str) -> None:
        other = each.as_(user, group)
        shown = user if isinstance(user, str) else user.decode("latin-1")
        each.puts(2)
        with other.watching(window_=1) as watch:
            watch.next()
            assert each.consumer(f"{group}.{shown}")["Pending"] == "1"
            assert other.search(1) == {"ConsumerId": f"{group}.{shown}", "IsPending": True, "WaitCount": 0}
            other.commit(1)
            assert watch.next().index == 2
        await_condition(lambda: each.consumer(f"{group}.{shown}")["Status"] != "Running")

    @pytest.mark.parametrize("name", ["x" * 201, "x" * 300, "\u200b", "a\u0085b"])
    def test_too_long_or_unprintable_ones_are_refused(self, witnessed: Queue, name: str) -> None:
        for queue in (witnessed.as_(name, "g"), witnessed.as_("u", name)):
            watch = queue.watch()
            assert (watch.status, watch.body.count(b"\n")) == (400, 1)

    def test_a_dot_does_not_make_two_consumers_one(self, sink: Queue) -> None:
        with sink.as_("c", "a.b").watching(), sink.as_("b.c", "a").watching():
            assert sink.attributes["consumers.stats.total"] == "2"


class TestConnections:
    @pytest.mark.parametrize("opcode", [TEXT, BINARY, CONTINUATION])
    def test_a_frame_with_data_ends_the_connection_that_it_came_on(self, witnessed: Queue, opcode: int) -> None:
        with witnessed.watching() as watch:
            watch.take(2)
            watch.send(opcode, b"hello")

            assert watch.close_code() in (1002, 1008)
            assert watch.is_closed()

    @pytest.mark.parametrize("kind", ["unmasked", "fragmented", "long ping", "reserved"])
    def test_a_broken_frame_does_too(self, witnessed: Queue, kind: str) -> None:
        with witnessed.watching() as watch:
            watch.take(2)
            if kind == "unmasked":
                watch.send(PING, b"x", mask=False)
            elif kind == "fragmented":
                watch.send(PING, b"x", fin=False)
            elif kind == "reserved":
                watch.send(0x0B, b"x")
            else:
                watch.socket.sendall(bytes([0x80 | PING, 0x80 | 126]) + struct.pack(">H", 200) + b"\0" * 204)

            assert watch.close_code() in (1002, 1008)

    def test_half_a_request_keeps_nobody_waiting(self, front: Front, witnessed: Queue) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                connection = stack.enter_context(socket.create_connection(("127.0.0.1", front.port)))
                connection.sendall(b"POST /api/predict/demo/sink HTTP/1.1\r\nHost: x\r\nContent-Le")
            assert len(witnessed.peek()) == 2

    def test_half_a_body_is_no_item(self, front: Front, witnessed: Queue) -> None:
        head = f"POST {witnessed.path} HTTP/1.1\r\nHost: x\r\nAuthorization: {witnessed.headers['Authorization']!s}\r\n"

        answer = front.raw(f"{head}Content-Length: 100\r\n\r\nhalf".encode())

        assert answer.startswith(b"HTTP/1.1 400") or answer == b""

    def test_a_watch_whose_client_is_cut_off_is_noticed(self, sink: Queue) -> None:
        watch = sink.watch()
        watch.socket.shutdown(socket.SHUT_WR)

        await_condition(lambda: sink.consumer("eas.alice")["Status"] != "Running")
        watch.close()


def test_nobody_is_told_what_is_inside(front: Front, input_: Queue) -> None:
    """Whatever a request is like, no answer is a 500."""
    seen: dict[int, int] = {}
    for method in ("GET", "POST", "PUT", "DELETE", "HEAD"):
        for query in (
            "_index_=%ff",
            "_indexes_=%e5",
            "%ff=%fe&_watch_=1&_window_=0&_tags_=1",
            "_search_=1",
            "&&&",
            "=",
            "%",
        ):
            for headers in ({}, {"Content-Type": "multipart/form-data"}, {REQUEST_ID: "\x80"}):
                answer = input_.call(method, query.replace("_watch_=1", "_watch_=x"), b"", headers)
                seen[answer.status] = seen.get(answer.status, 0) + 1

    assert not [status for status in seen if status >= 500], seen
