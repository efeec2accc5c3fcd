"""Server-sent events, and what a target says while it works: seen as it happens, also by who comes back."""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import socket
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.support.front import ROLE_TOKENS, Front, assert_problem
from tests.support.installation import TOKEN, await_condition
from tests.support.own_target import Call, OwnTarget


class Event(NamedTuple):
    kind: str
    number: int
    data: Any


class Reader:
    """One open stream of events; `next` gives them as they come, comments left out."""

    def __init__(self, front: Front, path: str, last_event_id: str | None = None) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=10)
        headers = {"Authorization": f"Bearer {TOKEN}", "Accept": "text/event-stream"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        self.connection.request("GET", path, headers=headers)
        self.response = self.connection.getresponse()

    def next(self) -> Event | None:
        """The next event, None when the stream has ended."""
        fields: dict[str, str] = {}
        while line := self.response.readline().decode():
            name, _, value = line.rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif "data" in fields:
                return Event(fields["event"], int(fields["id"]), json.loads(fields["data"]))
        return None

    def rest(self) -> list[Event]:
        return list(iter(self.next, None))

    def until(self, word: str) -> Event:
        """The first status event with this word."""
        while (event := self.next()) is not None:
            if event.kind == "status" and event.data["status"] == word:
                return event
        raise AssertionError(f"the stream ended before {word}")

    def close(self) -> None:
        self.response.close()
        self.connection.close()


@contextlib.contextmanager
def reading(front: Front, request_id: str, service: str, last_event_id: str | None = None) -> Iterator[Reader]:
    reader = Reader(front, f"/api/predict/{service}/requests/{request_id}/events", last_event_id)
    try:
        yield reader
    finally:
        reader.close()


class Guided:
    """What the own target does, step by step as the test says."""

    def __init__(self) -> None:
        self.calls: queue.Queue[Call] = queue.Queue()
        self.end = threading.Event()

    def act(self, call: Call) -> tuple[int, bytes]:
        self.calls.put(call)
        self.end.wait(20)
        return 200, b'{"done": true}'


@pytest.fixture
def guided(own_target: OwnTarget) -> Iterator[Guided]:
    made = Guided()
    own_target.act = made.act
    yield made
    made.end.set()


# -------------------------------------------------------------------------------------------------------------- events


def test_a_stream_tells_each_status_and_ends_with_the_last(front: Front, guided: Guided) -> None:
    request_id = front.submit("own")
    guided.calls.get(timeout=5)

    with reading(front, request_id, "own") as reader:
        assert reader.response.headers["Content-Type"].startswith("text/event-stream")
        assert reader.response.headers["Cache-Control"] == "no-store"
        running = reader.next()
        guided.end.set()
        events = reader.rest()

    assert running is not None
    assert (running.kind, running.data["status"]) == ("status", "STARTED")
    assert events[-1].data == front.look(request_id, "own").json
    assert [event.data["status"] for event in events] == ["SUCCESS"]
    assert events[-1].number > running.number


def test_a_stream_of_a_request_that_has_ended_tells_how(front: Front) -> None:
    request_id = front.ended("demo").request_id

    with reading(front, request_id, "demo") as reader:
        events = reader.rest()

    assert [event.data["status"] for event in events] == ["SUCCESS"]


def test_positions_are_told_as_the_queue_moves(front: Front) -> None:
    with front.occupied("single") as first:
        ahead = [front.submit("single") for _ in range(2)]
        request_id = front.submit("single")
        with reading(front, request_id, "single") as reader:
            positions = []
            for cancelled in ahead:
                event = reader.next()
                assert event is not None
                positions.append(event.data["position"])
                front.delete(cancelled, "single")
            last = reader.next()
            assert last is not None
            positions.append(last.data["position"])
            front.delete(first, "single")
            assert reader.until("SUCCESS")

    assert positions == [2, 1, 0]


def test_who_comes_back_gets_what_is_new(front: Front, guided: Guided) -> None:
    request_id = front.submit("own")
    call = guided.calls.get(timeout=5)
    call.report(logs=[{"message": "first"}, {"message": "second"}])
    with reading(front, request_id, "own") as reader:
        seen = [reader.next() for _ in range(3)]
    assert [event.kind for event in seen if event] == ["log", "log", "status"]
    assert seen[2] is not None

    with reading(front, request_id, "own", str(seen[2].number)) as reader:
        current = reader.next()
        call.report(logs=[{"message": "third", "level": "ERROR"}])
        line, status = reader.next(), reader.next()
    assert current == seen[2]
    assert line is not None
    assert status is not None
    assert (line.kind, line.data["message"], line.data["level"]) == ("log", "third", "error")

    with reading(front, request_id, "own", str(line.number - 1)) as reader:
        repeated = reader.next()
    assert repeated == line, "a reader that broke off in between gets the rest"

    guided.end.set()
    end = front.await_status(request_id, "own", "SUCCESS")
    with reading(front, request_id, "own", str(status.number)) as reader:
        (last,) = reader.rest()
    assert last.data == end.json | {"logs": []}, "the lines came as events"
    with reading(front, request_id, "own", str(last.number)) as reader:
        assert reader.response.status == 204, "ends the retries of an EventSource"


@pytest.mark.parametrize("last", ["soon", "-1", "999999", "¹", "9" * 5000])
def test_a_last_event_id_that_is_none_of_ours_starts_anew(front: Front, last: str) -> None:
    request_id = front.ended("demo").request_id

    with reading(front, request_id, "demo", last.encode("latin-1", "replace").decode("latin-1")) as reader:
        assert [event.data["status"] for event in reader.rest()] == ["SUCCESS"]


def test_errors_come_before_the_stream(front: Front) -> None:
    answer = front.call("GET", "/api/predict/demo/requests/unknown/events")
    assert_problem(answer, 404, "request-not-found")
    url = f"/api/predict/demo/requests/{front.submit()}/events"
    assert_problem(front.call("GET", url, token=ROLE_TOKENS["submit"]), 403, "forbidden")


def test_readers_and_waiters_that_hang_up_leave_nothing_behind(front: Front) -> None:
    request_id = front.submit("demo?hang=1")

    head = f" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    sockets = []
    for path, extra in ((f"requests/{request_id}/events", ""), (f"requests/{request_id}", "Prefer: wait=300\r\n")):
        for _ in range(10):
            connection = socket.create_connection(("127.0.0.1", front.port), timeout=5)
            connection.sendall(f"GET /api/predict/demo/{path}{head}{extra}\r\n".encode())
            sockets.append(connection)
    for connection in sockets[:10]:
        received = b""
        while b"STARTED" not in received:
            received += connection.recv(65_536)  # the stream is under way

    for connection in sockets:
        connection.close()

    await_condition(lambda: front.subscribers(request_id) == 0, timeout_s=12, what="nobody is subscribed any more")
    front.delete(request_id)


# ------------------------------------------------------------------------------------------------------------ progress


def test_a_client_sees_line_1_before_the_target_sends_line_3(front: Front, guided: Guided) -> None:
    request_id = front.submit("own")
    call = guided.calls.get(timeout=5)
    with reading(front, request_id, "own") as reader:
        call.report(logs=[{"message": "line 1"}])
        event = reader.next()
        while event is not None and event.kind != "log":
            event = reader.next()
        assert event is not None
        assert event.data["message"] == "line 1"
        assert [line["message"] for line in front.look(request_id, "own").json["logs"]] == ["line 1"]
        call.report(logs=[{"message": "line 2"}])
        call.report(logs=[{"message": "line 3"}], progress={"step": 3, "of": 3})
        guided.end.set()
        events = reader.rest()

    assert [each.data["message"] for each in events if each.kind == "log"] == ["line 2", "line 3"]
    content = front.await_status(request_id, "own", "SUCCESS").json
    assert content["progress"] == {"step": 3, "of": 3}
    assert [(line["level"], line["message"]) for line in content["logs"]] == [
        ("info", f"line {number}") for number in (1, 2, 3)
    ]


def test_the_status_shows_the_latest_lines(front: Front, guided: Guided) -> None:
    request_id = front.submit("own")
    call = guided.calls.get(timeout=5)
    for start in (0, 100):
        assert call.report(logs=[{"message": str(start + i)} for i in range(100)]) == 204

    lines = front.look(request_id, "own").json["logs"]

    assert [line["message"] for line in lines] == [str(number) for number in range(100, 200)]


def test_progress_needs_the_token_of_the_running_attempt(front: Front, guided: Guided) -> None:
    request_id = front.submit("own")
    call = guided.calls.get(timeout=5)
    path, body = f"/api/progress/{request_id}", b'{"progress": {}}'
    assert call.headers["x-progress-url"] == f"http://127.0.0.1:{front.port}{path}"

    no_token = front.call("POST", path, body)
    wrong = front.call("POST", path, body, {"X-Progress-Token": "0" * 40}, token=None)
    guided.end.set()
    front.await_status(request_id, "own", "SUCCESS")
    late = front.call("POST", path, body, {"X-Progress-Token": call.headers["x-progress-token"]}, token=None)

    assert "X-Progress-Token" in assert_problem(no_token, 400, "invalid-request")["detail"]
    assert_problem(wrong, 403, "attempt-over")
    assert_problem(late, 403, "attempt-over")
    unknown = front.call("POST", "/api/progress/unknown", body, {"X-Progress-Token": "0" * 40}, token=None)
    assert_problem(unknown, 403, "attempt-over")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"progress": 5}',
        b'{"progress": {"loss": NaN}}',
        b'{"progress": {"loss": 1e999}}',
        b'{"progress": {"a": ' + b"[" * 40 + b"]" * 40 + b"}}",
        b'{"logs": {}}',
        b'{"logs": ["text"]}',
        b'{"logs": [{"level": "info"}]}',
        b'{"logs": [{"message": "m", "level": "two words"}]}',
        json.dumps({"logs": [{"message": "m"}] * 101}).encode(),
        json.dumps({"progress": {"x": "y" * 20_000}}).encode(),
        b"[" * 50_000,
    ],
)
def test_a_report_that_can_not_be_read_is_refused_and_changes_nothing(
    front: Front, guided: Guided, body: bytes
) -> None:
    request_id = front.submit("own")
    call = guided.calls.get(timeout=5)
    headers = {"X-Progress-Token": call.headers["x-progress-token"]}

    answer = front.call("POST", f"/api/progress/{request_id}", body, headers, token=None)

    assert_problem(answer, 400, "invalid-request")
    content = front.look(request_id, "own").json
    assert (content["progress"], content["logs"]) == (None, [])


def test_a_report_over_the_limit_is_refused(front: Front, guided: Guided) -> None:
    request_id = front.submit("own")
    call = guided.calls.get(timeout=5)
    headers = {"X-Progress-Token": call.headers["x-progress-token"]}
    body = json.dumps({"logs": [{"message": "m" * 10_000}] * 30}).encode()

    answers = [
        front.call("POST", f"/api/progress/{request_id}", sent, headers, token=None)
        for sent in (body, iter([body[:50_000], body[50_000:]]))
    ]

    for answer in answers:
        assert "100000 bytes" in assert_problem(answer, 413, "payload-too-large")["detail"]


def test_long_logs_are_cut_in_the_status(front: Front, guided: Guided) -> None:
    request_id = front.submit("own")
    call = guided.calls.get(timeout=5)
    for _ in range(10):
        assert call.report(logs=[{"message": "🐌" * 3_900}]) == 204

    answer = front.look(request_id, "own")

    assert 1 <= len(answer.json["logs"]) < 10
    assert len(answer.json["logs"][-1]["message"]) == 3_900


def test_odd_text_survives(front: Front, guided: Guided) -> None:
    request_id = front.submit("own")
    call = guided.calls.get(timeout=5)
    message = 'two\nlines, a  double blank, ünï©ode 🐌 and \\ "quotes"'
    assert call.report(logs=[{"message": message}, {"message": ""}, {"message": "\ud800 alone"}]) == 204

    with reading(front, request_id, "own") as reader:
        events = [reader.next() for _ in range(3)]

    assert [event.data["message"] for event in events if event] == [message, "", "? alone"]
