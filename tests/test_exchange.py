"""How answers are read: as http.client reads the ordinary ones, never a wrong one, never more than has a bound."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eas_queue import exchange
from eas_queue.engine.retry import NoAnswer
from eas_queue.exchange import Broken, Reply, Unreachable
from tests.support.raw_target import OK, RawTarget, answering, attempt_at, send

H = b"HTTP/1.1 200 OK\r\n"
CHUNKED = H + b"Transfer-Encoding: chunked\r\n\r\n"
ORDINARY = {
    "a length": OK,
    "no length": H + b"A: b\r\n\r\nuntil it closes",
    "close": H + b"Connection: close\r\nContent-Length: 2\r\n\r\nok",
    "length 0": H + b"Content-Length: 0\r\n\r\n",
    "chunks": CHUNKED + b"2\r\nok\r\nA\r\n0123456789\r\n0\r\n\r\n",
    "chunk extensions": CHUNKED + b'2;a=b;c="d;e"\r\nok\r\n0;last\r\n\r\n',
    "blanks after chunk sizes": CHUNKED + b"2 \r\nok\r\n0 \r\n\r\n",
    "trailers": CHUNKED + b"2\r\nok\r\n0\r\nX-Late: 1\r\nX-Later: 2\r\n\r\n",
    "no chunk": CHUNKED + b"0\r\n\r\n",
    "204": b"HTTP/1.1 204 No Content\r\nA: b\r\n\r\n",
    "304 with a length": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    "100": b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    "100 in HTTP/1.0": b"HTTP/1.0 100 Continue\r\n\r\n" + OK,
    "103": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\nA: b\r\n\r\n" + OK,
    "100, no length": b"HTTP/1.1 100 Continue\r\n\r\n" + H + b"\r\nuntil it closes",
    "upgrade offered": H + b"Upgrade: h2\r\nConnection: Upgrade, Keep-Alive\r\nContent-Length: 2\r\n\r\nok",
    "LF only": b"HTTP/1.1 200 OK\nContent-Length: 2\nA: b\n\nok",
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
    "odd blanks": H + b"A:b\r\nB:   c\r\nC:\td\r\nD:\r\nContent-Length:2\r\n\r\nok",
    "not ASCII": b"HTTP/1.1 200 \xc3\xa9\xff\r\nA: \xe9\x01\r\nContent-Length: 2\r\n\r\nok",
    "repeated headers": H + b"Set-Cookie: a\r\nset-cookie: b\r\nContent-Length: 2\r\n\r\nok",
    "identity": H + b"Transfer-Encoding: identity\r\n\r\nuntil it closes",
    "HTTP/1.0": b"HTTP/1.0 500 No\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.0 that stays": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
}
BROKEN = {
    "101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n" + OK,
    "101 and no protocol": b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + OK,
    "two ways to tell the length": H + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "the same, turned": H + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "two lengths": H + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    "one length twice": H + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "negative length": H + b"Content-Length: -2\r\n\r\nok",
    "huge length": H + b"Content-Length: 99999999999999999999\r\n\r\nok",
    "cut in the first line": b"HTTP/1.1 200 O",
    "cut in the head": H + b"Content-Length: 2\r\n",
    "cut in the body": H + b"Content-Length: 3\r\n\r\nok",
    "cut in the body after 100": b"HTTP/1.1 100 Continue\r\n\r\n" + H + b"Content-Length: 3\r\n\r\nok",
    "nothing after 100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "cut in a chunk": CHUNKED + b"5\r\nok",
    "cut before a chunk": CHUNKED,
    "cut before the last chunk": CHUNKED + b"2\r\nok\r\n",
    "chunk size that is none": CHUNKED + b"x\r\nok\r\n0\r\n\r\n",
    "chunk size without a bound": CHUNKED + b"fffffffffffffffff\r\nok",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
}


@contextlib.contextmanager
def sent(raw: bytes) -> Iterator[socket.socket]:
    """A socket that *raw* comes from, and then the end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(5)
        ours.settimeout(5)
        theirs.sendall(raw)
        theirs.shutdown(socket.SHUT_WR)
        yield ours


def read(raw: bytes, bytes_most: int = 10**6) -> Reply:
    with sent(raw) as sock:
        return exchange._Connection(sock).read(bytes_most)


def read_by_http_client(raw: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
    with sent(raw) as sock, contextlib.closing(http.client.HTTPResponse(sock, method="POST")) as response:
        response.begin()
        while response.status < 200:  # it gives 103 away for the answer
            response.headers = response.msg = None  # type: ignore[assignment]
            response.begin()
        return response.status, response.getheaders(), response.read()


@pytest.mark.parametrize("raw", ORDINARY.values(), ids=ORDINARY)
def test_an_ordinary_answer_is_what_http_client_takes_it_for(raw: bytes) -> None:
    status_code, headers, body = read_by_http_client(raw)

    assert read(raw) == Reply(status_code, tuple(headers), body, is_whole=True)


@pytest.mark.parametrize("raw", [*ORDINARY.values(), *BROKEN.values()], ids=[*ORDINARY, *BROKEN])
def test_it_does_not_matter_in_which_pieces_an_answer_comes(raw: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def outcome() -> Reply | type[Exception]:
        try:
            return read(raw)
        except Broken as exc:
            return type(exc)

    at_once = outcome()
    for size in range(1, len(raw)):  # the first piece ends at each byte once
        monkeypatch.setattr(exchange, "READ_BYTES", size)
        assert outcome() == at_once, size


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN)
def test_what_is_no_whole_answer_is_broken_and_not_wrong(raw: bytes) -> None:
    with pytest.raises(Broken) as caught:
        read(raw)
    assert str(caught.value)


def test_an_end_before_any_byte_is_no_answer_at_all() -> None:
    with pytest.raises(Unreachable, match="closed the connection without an answer"):
        read(b"")


@pytest.mark.parametrize("surplus", [b"X", b"H", b"HTTP/1.1 500 No\r\n\r\n", OK, b"\0" * 100_000])
@pytest.mark.parametrize("first", [OK, CHUNKED + b"2\r\nok\r\n0\r\n\r\n", ORDINARY["close"], ORDINARY["204"]])
def test_bytes_after_an_answer_neither_harm_it_nor_are_the_next_one(first: bytes, surplus: bytes) -> None:
    with answering(first + surplus, OK) as target, contextlib.closing(exchange.Connections(4)) as connections:
        origin = exchange.Origin("http", "127.0.0.1", target.port)
        head = b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
        for _ in range(2):
            reply = connections.exchange(attempt_at(target.url), origin, head, b"", connect_s=5, bytes_most=10**6)
            assert reply.body == (b"" if first == ORDINARY["204"] else b"ok")
            assert reply.status_code == (204 if first == ORDINARY["204"] else 200)

    assert target.connections == 2


@pytest.mark.parametrize(
    ("begin", "again"),
    [
        (H, b"A: b\r\n"),
        (H + b"A: ", b"b" * 100),
        (b"HTTP/1.1 200 ", b"O" * 100),
        (b"", b"\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
        (CHUNKED + b"2\r\nok\r\n0\r\n", b"A: b\r\n"),
        (CHUNKED + b"2\r\nok\r\n0\r\nA: ", b"b" * 100),
        (CHUNKED + b"2;", b"a=b;" * 100),
    ],
    ids=["headers", "one header", "reason", "blank lines", "interim answers", "trailers", "one trailer", "extensions"],
)
def test_what_comes_without_end_is_broken_soon_and_takes_no_memory(begin: bytes, again: bytes) -> None:
    def endless(connection: socket.socket) -> None:
        target.read_request(connection)
        connection.sendall(begin)
        while True:
            connection.sendall(again * 100)

    with RawTarget(endless) as target:
        tracemalloc.start()
        try:
            got = send(attempt_at(target.url))
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert isinstance(got, NoAnswer)
    assert got.error_type == "TargetBroken"
    assert not got.final
    assert peak_bytes < 15_000_000


def test_a_head_of_a_reasonable_size_is_taken() -> None:
    headers = tuple((f"X-{number}", "v" * 1000) for number in range(64))
    raw = H + b"".join(f"{name}: {value}\r\n".encode() for name, value in headers) + b"\r\nok"

    assert read(raw) == Reply(200, headers, b"ok", is_whole=True)


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (H + b"Content-Length: 1000000000000\r\n\r\n", b"x" * 1000),
        (H + b"\r\n", b"x" * 1000),
        (CHUNKED + b"fffffffffffffff\r\n", b"x" * 1000),
        (CHUNKED, b"1;a=b\r\nx\r\n" * 100),
    ],
    ids=["length", "no length", "giant chunk", "tiny chunks"],
)
def test_an_answer_over_the_limit_is_read_no_further(head: bytes, piece: bytes) -> None:
    written = 0

    def much(connection: socket.socket) -> None:
        nonlocal written
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        target.read_request(connection)
        connection.sendall(head)
        while True:
            connection.sendall(piece)
            written += len(piece)

    with RawTarget(much) as target:
        got = send(attempt_at(target.url), max_result_bytes=100_000)

    assert isinstance(got, NoAnswer)
    assert got.error_type == "ResultTooLarge"
    assert got.final
    assert written < 20_000_000  # most of it in the system's buffers


def test_a_body_in_chunks_of_one_byte_takes_not_much_more_memory_than_its_size() -> None:
    raw = CHUNKED + b"2\r\nxy\r\n" * 20_000 + b"0\r\n\r\n"
    with sent_by_thread(raw) as sock:
        tracemalloc.start()
        try:
            reply = exchange._Connection(sock).read(10**6)
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert reply.body == b"xy" * 20_000
    assert peak_bytes < 1_000_000


def test_an_idle_connection_holds_nothing_of_its_last_answer() -> None:
    raw = H + b"Content-Length: 1000000\r\n\r\n" + b"x" * 1_000_000
    with sent_by_thread(raw) as sock:
        tracemalloc.start()
        try:
            connection = exchange._Connection(sock)
            assert len(connection.read(10**6).body) == 1_000_000
            left_bytes = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

    assert connection.may_stay
    assert left_bytes < 100_000


@contextlib.contextmanager
def sent_by_thread(raw: bytes) -> Iterator[socket.socket]:
    """As sent, for more than the system's buffers hold."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        thread = threading.Thread(target=theirs.sendall, args=(raw,))
        thread.start()
        yield ours
        thread.join(5)


PIECES = st.sampled_from(
    [
        *ORDINARY.values(),
        *BROKEN.values(),
        H,
        CHUNKED,
        b"\r\n",
        b"\n",
        b"\r",
        b"0",
        b"2\r\nok",
        b"Content-Length: ",
        b":",
    ]
)


@settings(
    max_examples=600, deadline=2000, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(st.lists(st.one_of(PIECES, st.binary(max_size=40)), max_size=6).map(b"".join), st.integers(0, 200))
def test_whatever_comes_it_ends_as_an_answer_or_as_none(raw: bytes, bytes_most: int) -> None:
    try:
        reply = read(raw, bytes_most)
    except (Broken, Unreachable):
        pass
    else:
        assert reply.is_whole or len(reply.body) > bytes_most
        assert not any(character in text for header in reply.headers for text in header for character in "\r\n")
