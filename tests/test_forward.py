"""The HTTP client towards targets, against raw sockets that do what ordinary servers don't."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from eas_queue.engine.retry import Answer, NoAnswer
from eas_queue.engine.service import Service
from eas_queue.forward import Forwarder
from eas_queue.store.shapes import Leased
from eas_queue.worker.attempt import Attempt, Closed

Serve = Callable[[Callable[[socket.socket], None]], str]
META = b'{"path":"","query":"","headers":[]}'


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve one connection with the given function; the URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads = []

    def start(handle: Callable[[socket.socket], None]) -> str:
        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                handle(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        threads.append(thread)
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"

    yield start
    listener.close()
    for thread in threads:
        thread.join(5)


def attempt_at(url: str, *, body: bytes = b"{}", timeout_s: float = 30) -> Attempt:
    service = Service(name="s", result_ttl_s=60, target_url=url, timeout_s=timeout_s)
    work = Leased("s", "0001", "1.0.n", 1, META, body, 0, 0, 0)
    return Attempt(service, work, lease_until_s=float("inf"))


def send(attempt: Attempt) -> Answer | NoAnswer | Closed:
    forwarder = Forwarder(connections=4, max_result_bytes=10**6, progress_url="http://web:5000/progress/")
    with contextlib.closing(forwarder):
        return forwarder.send(attempt)


def read_request(connection: socket.socket) -> None:
    """Head and body: a connection closed with unread bytes is reset."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65_536)
    head, _, body = data.partition(b"\r\n\r\n")
    left = int(head.lower().partition(b"content-length: ")[2].split()[0]) - len(body)
    while left > 0:
        left -= len(connection.recv(1_000_000))


@pytest.mark.parametrize("why", [Closed.CANCELLED, Closed.LOST, Closed.DRAINING, Closed.TIMEOUT])
def test_an_answer_that_ends_with_its_connection_is_not_taken_for_whole_when_we_closed_it(
    serve: Serve, why: Closed
) -> None:
    sent = threading.Event()

    def half(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nhalf of")
        sent.set()
        connection.recv(1)  # until the other side closes

    attempt = attempt_at(serve(half))
    got: list[Answer | NoAnswer | Closed] = []
    thread = threading.Thread(target=lambda: got.append(send(attempt)))
    thread.start()
    assert sent.wait(5)

    attempt.close(why)
    thread.join(5)

    if why is Closed.TIMEOUT:
        assert isinstance(got[0], NoAnswer)
        assert got[0].status_code == 504
    else:
        assert got == [why]


def test_an_answer_that_ends_with_its_connection_is_whole_when_the_target_closed_it(serve: Serve) -> None:
    def whole(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it")

    got = send(attempt_at(serve(whole)))

    assert isinstance(got, Answer)
    assert got.body == b"all of it"


def test_a_target_may_be_slower_to_read_a_body_than_to_connect(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eas_queue.forward.CONNECT_TIMEOUT_S", 0.3)
    connected, go_on = threading.Event(), threading.Event()

    def slow(connection: socket.socket) -> None:
        connected.set()
        go_on.wait(10)
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    attempt = attempt_at(serve(slow), body=b"x" * 8_000_000)
    got: list[Answer | NoAnswer | Closed] = []
    thread = threading.Thread(target=lambda: got.append(send(attempt)))
    thread.start()
    assert connected.wait(5)
    thread.join(1)  # longer than the connect timeout: were it to bound the sending, the call would have failed
    assert thread.is_alive()
    go_on.set()
    thread.join(10)

    assert isinstance(got[0], Answer), got


def test_a_call_closed_before_it_connects_is_never_made(serve: Serve) -> None:
    attempt = attempt_at("http://127.0.0.1:9/")
    attempt.close(Closed.CANCELLED)

    assert send(attempt) is Closed.CANCELLED
    assert not attempt.was_sent
