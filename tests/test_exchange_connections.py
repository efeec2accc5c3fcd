"""Connections to targets: used again, never in two hands, given up when a target is, none left behind."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from eas_queue import exchange
from eas_queue.engine.retry import Answer, NoAnswer
from eas_queue.forward import Forwarder
from tests.support.raw_target import OK, RawTarget, Sending, answering, attempt_at, forwarder, send

H = b"HTTP/1.1 200 OK\r\n"
LARGE = b"x" * 20_000_000


@pytest.fixture
def by() -> Iterator[Forwarder]:
    with contextlib.closing(forwarder()) as made:
        yield made


def reset(connection: socket.socket) -> None:
    """Let its close be a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_the_next_request_uses_the_same_connection(by: Forwarder) -> None:
    with answering(OK) as target:
        for _ in range(3):
            assert isinstance(by.send(attempt_at(target.url)), Answer)
        assert target.connections == 1
        by.close()


@pytest.mark.parametrize(
    "answer",
    [
        H + b"Connection: close\r\nContent-Length: 2\r\n\r\nok",
        H + b"Connection: keep-alive, close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
)
def test_a_connection_that_the_target_will_close_is_not_used_again(by: Forwarder, answer: bytes) -> None:
    with answering(answer) as target:
        for _ in range(2):
            assert isinstance(by.send(attempt_at(target.url)), Answer)
        assert target.connections == 2


def test_two_requests_at_once_get_two_connections_and_both_stay(by: Forwarder) -> None:
    both = threading.Barrier(3)

    def handle(connection: socket.socket) -> None:
        while True:
            body = target.read_request(connection)
            both.wait(10)
            connection.sendall(H + b"Content-Length: 1\r\n\r\n" + body)

    with RawTarget(handle) as target:
        for _ in range(2):
            sendings = [Sending(by, attempt_at(target.url, body=body)) for body in (b"1", b"2")]
            both.wait(10)
            got = [sending.got() for sending in sendings]
            assert [answer.body for answer in got if isinstance(answer, Answer)] == [b"1", b"2"]
        assert target.connections == 2
        by.close()


def test_many_threads_never_get_each_others_answers(by: Forwarder) -> None:
    def handle(connection: socket.socket) -> None:
        while True:
            connection.sendall(H + b"Content-Length: 6\r\n\r\n" + target.read_request(connection))

    wrong: list[object] = []

    def ask(number: int) -> None:
        for call in range(50):
            body = b"%02d%04d" % (number, call)
            got = by.send(attempt_at(target.url, body=body))
            if not isinstance(got, Answer) or got.body != body:
                wrong.append(got)

    with RawTarget(handle) as target:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        by.close()
    assert wrong == []


@pytest.mark.parametrize("last", [b"", b"HTTP/1.1 408 Request Timeout\r\n\r\n", b"\r\n"], ids=["end", "408", "line"])
def test_an_idle_connection_with_news_is_not_used(by: Forwarder, last: bytes) -> None:
    go_on, told = threading.Event(), threading.Event()

    def handle(connection: socket.socket) -> None:
        target.read_request(connection)
        connection.sendall(OK)
        assert go_on.wait(10)
        go_on.clear()
        if last:
            connection.sendall(last)
        else:
            connection.shutdown(socket.SHUT_WR)
        told.set()
        assert connection.recv(1) == b"", "a second request came"

    with RawTarget(handle) as target:
        for expected in (1, 2):
            assert isinstance(by.send(attempt_at(target.url)), Answer)
            assert target.connections == expected
            go_on.set()
            assert told.wait(10)
            told.clear()
        by.close()


@pytest.mark.parametrize(
    ("begin", "error_type"), [(b"", "TargetUnreachable"), (H + b"Content-Length: 9\r\n\r\nhalf", "TargetBroken")]
)
def test_a_reset_is_told_with_the_systems_reason(begin: bytes, error_type: str) -> None:
    def handle(connection: socket.socket) -> None:
        target.read_request(connection)
        connection.sendall(begin)
        reset(connection)

    with RawTarget(handle) as target:
        got = send(attempt_at(target.url))
    assert isinstance(got, NoAnswer)
    assert got.error_type == error_type
    assert "Connection reset by peer" in got.detail


def test_a_refused_connection_is_told_with_the_systems_reason() -> None:
    with answering(OK) as target:
        pass
    got = send(attempt_at(target.url))
    assert isinstance(got, NoAnswer)
    assert got.error_type == "TargetUnreachable"
    assert "Connection refused" in got.detail


def test_a_target_may_answer_before_it_has_read_a_large_body_and_close(by: Forwarder) -> None:
    def handle(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")

    with RawTarget(handle) as target:
        for expected in (1, 2):
            got = by.send(attempt_at(target.url, body=LARGE))
            assert isinstance(got, Answer), got
            assert (got.status_code, got.body) == (413, b"big")
            assert target.connections == expected


@pytest.mark.parametrize("body", [b"{}", LARGE], ids=["waiting", "sending"])
def test_a_target_that_does_nothing_is_given_up_after_the_timeout(body: bytes) -> None:
    over = threading.Event()

    def handle(connection: socket.socket) -> None:
        over.wait(10)

    with RawTarget(handle) as target:
        got = send(attempt_at(target.url, body=body, timeout_s=0.3))
        over.set()
    assert isinstance(got, NoAnswer)
    assert (got.status_code, got.error_type) == (504, "TargetTimeout")


def test_a_target_that_stops_midway_is_given_up_after_the_timeout() -> None:
    def handle(connection: socket.socket) -> None:
        target.read_request(connection)
        connection.sendall(H + b"Content-Length: 9\r\n\r\nhalf")
        connection.recv(1)

    with RawTarget(handle) as target:
        got = send(attempt_at(target.url, timeout_s=0.3))
    assert isinstance(got, NoAnswer)
    assert got.error_type == "TargetTimeout"


def fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_thousand_exchanges_leave_nothing_open_and_no_garbage(by: Forwarder) -> None:
    close = H + b"Connection: close\r\nContent-Length: 2\r\n\r\nok"
    answers = [OK, close, b"no answer\r\n\r\n", H + b"Content-Length: 2\r\n\r\nok and more", H + b"A: b\r\n\r\n"]

    def handle(connection: socket.socket) -> None:
        for answer in answers:
            target.read_request(connection)
            connection.sendall(answer)

    with RawTarget(handle) as target:
        by.send(attempt_at(target.url))
        by.close()
        gc.collect()
        before = fds()
        objects = sum(isinstance(found, exchange._Connection) for found in gc.get_objects())
        gc.disable()
        try:
            for _ in range(1000):
                by.send(attempt_at(target.url))
            left = sum(isinstance(found, exchange._Connection) for found in gc.get_objects())
        finally:
            gc.enable()
        by.close()
    assert left - objects <= 1  # the idle one; nothing waits for the garbage collector
    assert fds() <= before
    assert gc.garbage == []


@pytest.mark.parametrize("keep", [1, 3])
def test_no_more_idle_connections_are_kept_than_asked_for(keep: int) -> None:
    connections = exchange.Connections(keep)
    origins = [exchange.Origin("http", "a", number) for number in range(exchange.ORIGINS_KEPT + 1)]
    pairs = [socket.socketpair() for _ in range(5 + len(origins))]
    for (ours, _), origin in zip(pairs, [origins[0]] * 5 + origins, strict=True):
        connections._keep(origin, exchange._Connection(ours))

    is_open = [ours.fileno() != -1 for ours, _ in pairs]
    for _, theirs in pairs:
        theirs.close()
    connections.close()

    assert is_open[:6] == [False] * 6  # its origin is the oldest of too many
    assert all(is_open[6:])
    assert all(ours.fileno() == -1 for ours, _ in pairs)


def test_under_gevent_connections_are_used_again_and_closed_from_outside() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gevent.monkey", "--module", "tests.support.exchange_under_gevent"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["reused", "cancelled", "late", "tls"], done.stderr
