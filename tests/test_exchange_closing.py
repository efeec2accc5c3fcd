"""An attempt can be closed from another thread in each phase of its exchange, and hits no other attempt."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eas_queue.engine.retry import Answer
from eas_queue.forward import Forwarder
from eas_queue.worker.attempt import Attempt, Closed
from tests.support.raw_target import OK, RawTarget, Sending, answering, attempt_at, forwarder

H = b"HTTP/1.1 200 OK\r\n"
LARGE = b"x" * 20_000_000


@pytest.fixture
def by() -> Iterator[Forwarder]:
    with contextlib.closing(forwarder()) as made:
        yield made


def sending_a_body(target: RawTarget, connection: socket.socket) -> None:
    connection.recv(1000)


def waiting(target: RawTarget, connection: socket.socket) -> None:
    target.read_request(connection)


def in_the_head(target: RawTarget, connection: socket.socket) -> None:
    target.read_request(connection)
    connection.sendall(H + b"Content-")


def in_the_body(target: RawTarget, connection: socket.socket) -> None:
    target.read_request(connection)
    connection.sendall(H + b"Content-Length: 9\r\n\r\nhalf")


@pytest.mark.parametrize("phase", [sending_a_body, waiting, in_the_head, in_the_body])
def test_an_attempt_closed_from_outside_ends_at_once(
    by: Forwarder, phase: Callable[[RawTarget, socket.socket], None]
) -> None:
    reached, over = threading.Event(), threading.Event()

    def handle(connection: socket.socket) -> None:
        phase(target, connection)
        reached.set()
        over.wait(10)

    with RawTarget(handle) as target:
        attempt = attempt_at(target.url, body=LARGE)
        sending = Sending(by, attempt)
        assert reached.wait(10)
        attempt.close(Closed.CANCELLED)
        assert sending.got() is Closed.CANCELLED
        over.set()
        assert attempt.was_sent


def connecting(port: int) -> int:
    """How many connections to *port* the system tries to make."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(fields[2].endswith(f":{port:04X}") and fields[3] == "02" for fields in map(str.split, lines))


def test_an_attempt_closed_while_it_connects_is_never_sent(by: Forwarder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eas_queue.forward.CONNECT_TIMEOUT_S", 1.0)
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        while True:  # the system answers nobody once its queue is full
            filling = stack.enter_context(socket.socket())
            filling.settimeout(0.2)
            try:
                filling.connect(listener.getsockname())
            except TimeoutError:
                break
        port = listener.getsockname()[1]
        tried = connecting(port)
        attempt = attempt_at(f"http://127.0.0.1:{port}/")
        sending = Sending(by, attempt)
        while connecting(port) == tried:
            assert sending.is_alive()
        attempt.close(Closed.CANCELLED)
        assert sending.got() is Closed.CANCELLED
        assert not attempt.was_sent


class ClosedAtItsEnd(Attempt):
    """Closed after the answer was read, before the connection is given back."""

    def released(self) -> bool:
        self.close(Closed.CANCELLED)
        return super().released()


def test_an_answer_that_was_whole_before_the_close_counts(by: Forwarder) -> None:
    with answering(OK) as target:
        plain = attempt_at(target.url)
        attempt = ClosedAtItsEnd(plain.service, plain.work, lease_until_s=plain.lease_until_s)
        got = by.send(attempt)
        assert isinstance(got, Answer)
        assert got.body == b"ok"
        assert isinstance(by.send(plain), Answer)  # on a connection of its own: that one was shut down
        assert target.connections == 2
        by.close()


def test_a_late_close_does_not_hit_the_next_attempt_on_the_connection(by: Forwarder) -> None:
    second, go_on = threading.Event(), threading.Event()

    def handle(connection: socket.socket) -> None:
        target.read_request(connection)
        connection.sendall(OK)
        target.read_request(connection)
        second.set()
        assert go_on.wait(10)
        connection.sendall(OK)

    with RawTarget(handle) as target:
        first = attempt_at(target.url)
        assert isinstance(by.send(first), Answer)
        sending = Sending(by, attempt_at(target.url))
        assert second.wait(10)
        first.close(Closed.TIMEOUT)
        go_on.set()
        assert isinstance(sending.got(), Answer)
