"""The scriptable target keeps its promises: each test speaks real HTTP to a real process."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import pathlib
import re
import resource
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from .target import CallRecord
from .target_client import Target

Leave = Callable[[socket.socket], None]

SEEN_WITHIN_S = 0.2  # how soon the log must show that a peer closed
CLOCK_STEP_S = 0.01  # the log's times are wall-clock times, and virtual machines step theirs back a little


@pytest.fixture(scope="module")
def process() -> Iterator[Target]:
    with Target() as target:
        yield target


@pytest.fixture
def target(process: Target) -> Iterator[Target]:
    process.clear()
    yield process
    process.wait_for(lambda _: process.stats()["running"] == 0)  # no call leaks into the next test


def post(target: Target, path_and_query: str, **arguments: Any) -> requests.Response:
    response: requests.Response = requests.request(
        "POST",
        target.url + path_and_query,
        timeout=10,
        allow_redirects=False,
        **arguments,
    )
    return response


@contextlib.contextmanager
def raw_connection(target: Target) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", target.port), timeout=10) as connection:
        yield connection


def raw_post(path_and_query: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"POST {path_and_query} HTTP/1.1", "Host: target", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def receive_until(connection: socket.socket, end: bytes) -> bytes:
    received = b""
    while not received.endswith(end):
        data = connection.recv(65536)
        if not data:
            raise AssertionError(f"closed before {end!r} came: {received!r}")
        received += data
    return received


def receive_all(connection: socket.socket) -> bytes:
    received = b""
    while data := connection.recv(65536):
        received += data
    return received


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def has_ended(calls: list[CallRecord]) -> bool:
    return len(calls) == 1 and calls[0]["outcome"] is not None


def has_started(calls: list[CallRecord]) -> bool:
    return len(calls) == 1


# Answers


def test_plain_post_is_answered_with_ok(target: Target) -> None:
    response = post(target, "/any/path", data=b"hello")

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.content == b'{"ok": true}'


def test_unknown_parameters_are_ignored(target: Target) -> None:
    response = post(target, "/?colour=blue&delay=x")

    assert response.content == b'{"ok": true}'


@pytest.mark.parametrize(
    "query",
    ["delay_s=soon", "delay_s=-1", "delay_s=nan", "status=99", "close=later", "echo=yes", "redirect=a%0d%0ab"],
)
def test_a_parameter_with_an_impossible_value_is_answered_with_400_that_names_it(target: Target, query: str) -> None:
    response = post(target, f"/?{query}", data=b"some body")

    assert response.status_code == 400
    assert response.text.startswith(query.partition("=")[0])
    assert target.calls()[0]["status"] == 400


@pytest.mark.parametrize("status", [200, 201, 204, 304, 404, 429, 500, 503, 599])
def test_status_is_the_one_asked_for_and_the_connection_stays_usable(target: Target, status: int) -> None:
    with requests.Session() as session:
        response = session.post(f"{target.url}/?status={status}", timeout=10)
        following = session.post(f"{target.url}/", timeout=10)

    assert response.status_code == status
    assert following.content == b'{"ok": true}'


def test_body_bytes_content_type_and_retry_after_shape_the_answer(target: Target) -> None:
    response = post(target, "/?status=429&body_bytes=7&content_type=text/csv%3b+charset=utf-8&retry_after=12")

    assert response.status_code == 429
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert response.headers["Retry-After"] == "12"
    assert response.content == b"xxxxxxx"


@pytest.mark.parametrize("body_bytes", [0, 1, 262_144, 262_145, 10_000_000])
def test_a_body_of_any_size_arrives_whole(target: Target, body_bytes: int) -> None:
    response = post(target, f"/?body_bytes={body_bytes}")

    assert response.content == b"x" * body_bytes
    target.wait_for(lambda calls: calls[0]["outcome"] == "answered")


def test_echo_returns_the_request_as_it_was_received(target: Target) -> None:
    body = bytes(range(256))
    with raw_connection(target) as connection:
        connection.sendall(raw_post("/a%20b/%7e?x=%2f&echo=1", "X-TwIce: 1", "x-twice:  two ", body=body))
        answer = receive_until(connection, b"}")

    echoed = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert echoed == {
        "method": "POST",
        "path": "/a%20b/%7e",
        "query": "x=%2f&echo=1",
        "headers": [["Host", "target"], ["Content-Length", "256"], ["X-TwIce", "1"], ["x-twice", "two"]],
        "body": base64.b64encode(body).decode(),
    }


def test_echo_returns_a_large_body(target: Target) -> None:
    body = os.urandom(3_000_000)

    response = post(target, "/?echo=1", data=body)

    assert base64.b64decode(response.json()["body"]) == body
    assert target.calls()[0]["body_bytes"] == len(body)


def test_redirect_points_to_the_url_and_is_302_unless_a_status_is_given(target: Target) -> None:
    plain = post(target, "/?redirect=http://127.0.0.1:1/x%3fy%3d1")
    permanent = post(target, "/?redirect=/elsewhere&status=308")

    assert (plain.status_code, plain.headers["Location"]) == (302, "http://127.0.0.1:1/x?y=1")
    assert (permanent.status_code, permanent.headers["Location"]) == (308, "/elsewhere")


def test_delay_holds_back_every_byte_of_the_answer(target: Target) -> None:
    began = time.monotonic()

    response = post(target, "/?delay_s=0.3&status=201")

    assert response.status_code == 201
    assert 0.3 <= time.monotonic() - began < 1.0
    call = target.calls()[0]
    assert call["ended_at"] is not None
    assert 0.3 - CLOCK_STEP_S <= call["ended_at"] - call["started_at"] < 1.0


def test_the_first_attempts_of_each_request_id_fail_and_later_ones_play_the_rest(target: Target) -> None:
    path = "/?fail_first=2&status=201&body_bytes=3"

    first = [post(target, path, headers={"X-Request-Id": "one"}) for _ in range(4)]
    other = post(target, path, headers={"X-Request-Id": "other"})

    assert [response.status_code for response in first] == [503, 503, 201, 201]
    assert first[0].content == b'{"ok": false}'
    assert first[2].content == b"xxx"
    assert other.status_code == 503


def test_failing_attempts_use_the_given_status_and_keep_retry_after(target: Target) -> None:
    response = post(target, "/?fail_first=1&fail_status=429&retry_after=3", headers={"X-Request-Id": "one"})

    assert (response.status_code, response.headers["Retry-After"]) == (429, "3")


def test_drips_come_one_by_one_after_headers_sent_at_once(target: Target) -> None:
    began = time.monotonic()
    with requests.post(
        f"{target.url}/?drip_s=0.1&drips=3&content_type=text/x-drip", stream=True, timeout=10
    ) as response:
        headers_after_s = time.monotonic() - began
        lines = [(line, time.monotonic() - began) for line in response.iter_lines(chunk_size=1)]

    assert headers_after_s < 0.1
    assert response.headers["Content-Type"] == "text/x-drip"
    assert [line for line, _ in lines] == [b"drip 1", b"drip 2", b"drip 3"]
    assert all(after_s >= 0.1 * number for number, (_, after_s) in enumerate(lines, start=1))


# Breakage by the target


@pytest.mark.parametrize("prefix", ["", "delay_s=0.05&"])
def test_close_early_ends_the_connection_without_a_byte(target: Target, prefix: str) -> None:
    with raw_connection(target) as connection:
        connection.sendall(raw_post(f"/?{prefix}close=early", body=b"body"))
        received = receive_all(connection)

    assert received == b""
    assert [(call["outcome"], call["status"]) for call in target.calls()] == [("closed_by_us", None)]


@pytest.mark.parametrize("prefix", ["", "delay_s=0.05&"])
def test_close_reset_ends_the_connection_by_rst(target: Target, prefix: str) -> None:
    with raw_connection(target) as connection:
        connection.sendall(raw_post(f"/?{prefix}close=reset", body=b"body"))
        with pytest.raises(ConnectionResetError):
            receive_all(connection)

    assert [(call["outcome"], call["status"]) for call in target.calls()] == [("closed_by_us", None)]


def test_close_midway_sends_100_of_1000_announced_bytes(target: Target) -> None:
    with raw_connection(target) as connection:
        connection.sendall(raw_post("/?close=midway"))
        received = receive_all(connection)

    head, _, body = received.partition(b"\r\n\r\n")
    assert b"Content-Length: 1000" in head
    assert body == b"x" * 100
    assert [(call["outcome"], call["status"]) for call in target.calls()] == [("closed_by_us", 200)]


def test_broken_sends_bytes_that_are_not_http(target: Target) -> None:
    with raw_connection(target) as connection:
        connection.sendall(raw_post("/?broken=1"))
        received = receive_all(connection)

    assert received
    assert not received.startswith(b"HTTP/")
    assert [(call["outcome"], call["status"]) for call in target.calls()] == [("answered", None)]


# Breakage by the peer


@pytest.mark.parametrize("query", ["delay_s=60", "hang=1", "delay_s=60&drip_s=1", "delay_s=60&close=early"])
@pytest.mark.parametrize("leave", [socket.socket.close, reset])
def test_a_peer_that_leaves_before_the_headers_is_logged_at_once(target: Target, query: str, leave: Leave) -> None:
    with raw_connection(target) as connection:
        connection.sendall(raw_post(f"/?{query}", body=b"body"))
        target.wait_for(lambda calls: has_started(calls) and calls[0]["body_bytes"] == 4)

        left_at = time.time()
        leave(connection)

    [call] = target.wait_for(has_ended)
    assert call["outcome"] == "closed_before_headers"
    assert call["status"] is None
    assert call["ended_at"] is not None
    assert -CLOCK_STEP_S <= call["ended_at"] - left_at < SEEN_WITHIN_S


@pytest.mark.parametrize("leave", [socket.socket.close, reset])
def test_a_peer_that_leaves_between_drips_is_logged_at_once(target: Target, leave: Leave) -> None:
    with raw_connection(target) as connection:
        connection.sendall(raw_post("/?drip_s=60&drips=2"))
        receive_until(connection, b"\r\n\r\n")

        left_at = time.time()
        leave(connection)

    [call] = target.wait_for(has_ended)
    assert call["outcome"] == "closed_mid_body"
    assert call["status"] == 200
    assert call["ended_at"] is not None
    assert -CLOCK_STEP_S <= call["ended_at"] - left_at < SEEN_WITHIN_S


def test_a_peer_that_leaves_while_it_still_sends_its_body_is_logged_at_once(target: Target) -> None:
    with raw_connection(target) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\npart")
        target.wait_for(lambda calls: has_started(calls) and calls[0]["body_bytes"] == 4)

        left_at = time.time()
        connection.close()

    [call] = target.wait_for(has_ended)
    assert call["outcome"] == "closed_before_headers"
    assert call["ended_at"] is not None
    assert -CLOCK_STEP_S <= call["ended_at"] - left_at < SEEN_WITHIN_S


def test_a_peer_that_leaves_without_reading_a_large_answer_is_logged_at_once(target: Target) -> None:
    with raw_connection(target) as connection:
        connection.sendall(raw_post("/?body_bytes=100000000"))
        assert connection.recv(10) == b"HTTP/1.1 2"
        [running] = target.calls()

        left_at = time.time()
        connection.close()

    [call] = target.wait_for(has_ended)
    assert running["outcome"] is None
    assert call["outcome"] == "closed_mid_body"
    assert call["ended_at"] is not None
    assert -CLOCK_STEP_S <= call["ended_at"] - left_at < SEEN_WITHIN_S


def test_a_peer_that_leaves_behind_pipelined_bytes_is_logged_at_once(target: Target) -> None:
    with raw_connection(target) as connection:
        connection.sendall(raw_post("/?hang=1") + raw_post("/never-read"))
        target.wait_for(has_started)

        left_at = time.time()
        connection.close()

    [call] = target.wait_for(has_ended)
    assert call["outcome"] == "closed_before_headers"
    assert call["ended_at"] is not None
    assert -CLOCK_STEP_S <= call["ended_at"] - left_at < SEEN_WITHIN_S


# HTTP/1.1


def test_one_connection_serves_many_requests(target: Target) -> None:
    with raw_connection(target) as connection:
        for _ in range(3):
            connection.sendall(raw_post("/", body=b"body"))
            assert receive_until(connection, b"}").startswith(b"HTTP/1.1 200 OK\r\n")

    assert target.stats()["answered"] == 3


def test_requests_pipelined_into_a_delay_are_answered_in_order(target: Target) -> None:
    with raw_connection(target) as connection:
        connection.sendall(raw_post("/?delay_s=0.1&status=201", body=b"first"))
        target.wait_for(has_started)
        connection.sendall(raw_post("/?status=202", body=b"second"))
        connection.sendall(raw_post("/?status=203", "Connection: close"))
        received = receive_all(connection)

    assert re.findall(rb"HTTP/1.1 (\d+) ", received) == [b"201", b"202", b"203"]
    assert [call["body_bytes"] for call in target.calls()] == [5, 6, 0]


def test_a_request_that_arrives_byte_by_byte_is_understood(target: Target) -> None:
    with raw_connection(target) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in raw_post("/slow?echo=1", body=b"body"):
            connection.sendall(bytes([byte]))
        answer = receive_until(connection, b"}")

    assert json.loads(answer.partition(b"\r\n\r\n")[2])["body"] == base64.b64encode(b"body").decode()


def test_a_chunked_request_body_is_put_together(target: Target) -> None:
    response = post(target, "/?echo=1", data=iter([b"one ", b"two ", b"x" * 300_000]))

    assert base64.b64decode(response.json()["body"]) == b"one two " + b"x" * 300_000
    assert target.calls()[0]["body_bytes"] == 300_008


def test_chunk_extensions_and_trailers_are_skipped(target: Target) -> None:
    head = b"POST /?echo=1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    with raw_connection(target) as connection:
        connection.sendall(head + b"4;name=value\r\nbody\r\n0\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\n")
        answer = receive_all(connection)

    assert json.loads(answer.partition(b"\r\n\r\n")[2])["body"] == base64.b64encode(b"body").decode()


def test_a_client_that_expects_100_continue_gets_it_before_it_sends_the_body(target: Target) -> None:
    with raw_connection(target) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        interim = receive_until(connection, b"\r\n\r\n")
        connection.sendall(b"body")
        answer = receive_until(connection, b"}")

    assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("request_bytes", [b"POST / HTTP/1.0\r\n\r\n", b"POST / HTTP/1.1\r\nConnection: close\r\n\r\n"])
def test_the_connection_closes_when_the_client_wants_it_so(target: Target, request_bytes: bytes) -> None:
    with raw_connection(target) as connection:
        connection.sendall(request_bytes)
        received = receive_all(connection)

    assert b"\r\nConnection: close\r\n" in received
    assert received.endswith(b'{"ok": true}')


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"POST / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_bytes_that_are_not_http_are_answered_with_400(target: Target, request_bytes: bytes) -> None:
    with raw_connection(target) as connection:
        connection.sendall(request_bytes)
        received = receive_all(connection)

    assert received.startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_methods_other_than_post_are_refused_and_not_logged(target: Target) -> None:
    response = requests.put(f"{target.url}/x", data=b"body", timeout=10)

    assert response.status_code == 405
    assert target.calls() == []


def test_healthz_says_ok(target: Target) -> None:
    response = requests.get(f"{target.url}/healthz", timeout=10)

    assert (response.status_code, response.content) == (200, b"ok")


# The log


def test_a_finished_call_is_logged_with_all_its_facts(target: Target) -> None:
    before = time.time()
    post(target, "/a%20b?status=418&x=%2F", data=b"12345", headers={"X-Request-Id": "one", "X-Request-Attempt": "3"})
    after = time.time()

    [call] = target.calls()
    assert call["ended_at"] is not None
    assert before - CLOCK_STEP_S <= call["started_at"] <= call["ended_at"] + CLOCK_STEP_S <= after + 2 * CLOCK_STEP_S
    assert call == {
        "n": call["n"],
        "request_id": "one",
        "attempt": 3,
        "path": "/a%20b",
        "query": "status=418&x=%2F",
        "started_at": call["started_at"],
        "ended_at": call["ended_at"],
        "outcome": "answered",
        "status": 418,
        "body_bytes": 5,
        "running": 1,
        "progress_token": None,
        "peer_port": call["peer_port"],
    }
    assert call["peer_port"] > 0


@pytest.mark.parametrize("headers", [{}, {"X-Request-Attempt": "second"}])
def test_a_call_without_id_or_attempt_number_logs_null_for_them(target: Target, headers: dict[str, str]) -> None:
    post(target, "/", headers=headers)

    assert [(call["request_id"], call["attempt"]) for call in target.calls()] == [(None, None)]


def test_a_running_call_is_logged_before_its_body_arrives(target: Target) -> None:
    with raw_connection(target) as connection:
        connection.sendall(b"POST /early HTTP/1.1\r\nContent-Length: 100\r\n\r\n")

        [call] = target.wait_for(has_started)
        stats = target.stats()

    assert (call["path"], call["ended_at"], call["outcome"], call["status"]) == ("/early", None, None, None)
    assert (stats["total"], stats["running"]) == (1, 1)


def test_calls_are_filtered_by_request_id_and_by_number(target: Target) -> None:
    for request_id in ("a&b=c+d", "two", "a&b=c+d"):
        post(target, "/", headers={"X-Request-Id": request_id})

    first, second, third = target.calls()
    assert [call["n"] for call in (second, third)] == [first["n"] + 1, first["n"] + 2]
    assert target.calls(request_id="a&b=c+d") == [first, third]
    assert target.calls(since=first["n"]) == [second, third]
    assert target.calls(since=first["n"], request_id="two") == [second]
    assert target.calls(since=third["n"]) == []
    assert target.calls(since=0) == [first, second, third]


def test_stats_count_answered_and_closed_calls(target: Target) -> None:
    post(target, "/")
    post(target, "/?status=500")
    with pytest.raises(requests.ConnectionError):
        post(target, "/?close=early")

    assert target.stats() == {"total": 3, "running": 0, "max_running": 1, "answered": 2, "closed": 1}


def test_clear_forgets_calls_maxima_and_attempts_but_not_what_runs(target: Target) -> None:
    with raw_connection(target) as one, raw_connection(target) as two:
        two.sendall(raw_post("/?hang=1"))
        one.sendall(raw_post("/?hang=1"))
        target.wait_for(lambda calls: len(calls) == 2)
        post(target, "/?fail_first=1", headers={"X-Request-Id": "one"})
        last_n = target.calls()[-1]["n"]

        target.clear()
        cleared = target.stats()
        again = post(target, "/?fail_first=1", headers={"X-Request-Id": "one"})

    target.wait_for(lambda _: target.stats()["running"] == 0)
    assert cleared == {"total": 0, "running": 2, "max_running": 2, "answered": 0, "closed": 0}
    assert again.status_code == 503
    assert [(call["n"], call["running"]) for call in target.calls()] == [(last_n + 1, 3)]
    assert target.stats() == {"total": 1, "running": 0, "max_running": 3, "answered": 1, "closed": 0}


def test_the_log_file_gets_each_finished_call_as_a_line(tmp_path: pathlib.Path) -> None:
    log_path = tmp_path / "calls.jsonl"
    with Target(log_path) as target:
        post(target, "/one")
        with raw_connection(target) as connection:
            connection.sendall(raw_post("/two?hang=1"))
            target.wait_for(lambda calls: len(calls) == 2)
            lines_while_the_second_runs = log_path.read_text().splitlines()
        calls = target.wait_for(lambda calls: all(call["outcome"] for call in calls))
        lines = log_path.read_text().splitlines()

    assert [json.loads(line)["path"] for line in lines_while_the_second_runs] == ["/one"]
    assert [json.loads(line) for line in lines] == calls


# Load and process


def test_500_delayed_calls_run_at_once(target: Target) -> None:
    async def call_all() -> list[bytes]:
        # Everyone connects before anyone calls, so that only the calls share the second.
        connections = [await asyncio.open_connection("127.0.0.1", target.port) for _ in range(500)]

        async def call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
            writer.write(raw_post("/?delay_s=1", "Connection: close"))
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            return answer

        return await asyncio.gather(*(call(*connection) for connection in connections))

    began = time.monotonic()
    answers = asyncio.run(call_all())
    elapsed_s = time.monotonic() - began

    assert all(answer.endswith(b'{"ok": true}') for answer in answers)
    assert target.stats() == {"total": 500, "running": 0, "max_running": 500, "answered": 500, "closed": 0}
    assert 1 <= elapsed_s < 3


def test_the_target_may_open_as_many_files_as_the_hard_limit_allows(target: Target) -> None:
    soft, hard = resource.prlimit(target.pid, resource.RLIMIT_NOFILE)

    assert soft == hard


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_target_at_once_though_calls_hang(signum: signal.Signals) -> None:
    with Target() as target, raw_connection(target) as connection:
        connection.sendall(raw_post("/?hang=1"))
        target.wait_for(has_started)

        began = time.monotonic()
        os.kill(target.pid, signum)
        received = receive_all(connection)  # returns when the process is gone

    assert received == b""
    assert time.monotonic() - began < 1.0


def test_a_stopped_target_is_gone_and_stop_may_be_repeated() -> None:
    target = Target().start()

    target.stop()
    target.stop()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", target.port), timeout=1)
    with pytest.raises(RuntimeError, match="not running"):
        _ = target.pid


def test_wait_for_returns_the_calls_that_satisfy_it(target: Target) -> None:
    post(target, "/", headers={"X-Request-Id": "one"})
    post(target, "/", headers={"X-Request-Id": "two"})

    calls = target.wait_for(lambda calls: len(calls) == 1, request_id="two")

    assert [call["request_id"] for call in calls] == ["two"]


def test_wait_for_shows_the_calls_when_it_gives_up(target: Target) -> None:
    post(target, "/seen", headers={"X-Request-Id": "one"})

    with pytest.raises(AssertionError, match=r'within 0\.1 s; the calls:\n.*"path": "/seen"'):
        target.wait_for(lambda calls: len(calls) == 2, timeout_s=0.1)
