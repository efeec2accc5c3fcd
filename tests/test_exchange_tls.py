"""Exchanges over TLS, with certificates that the tests make."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from eas_queue.engine.retry import Answer, NoAnswer
from eas_queue.forward import Forwarder
from eas_queue.worker.attempt import Closed
from tests.support import tls
from tests.support.raw_target import OK, RawTarget, Sending, answering, attempt_at, forwarder, send

LARGE = b"x" * 20_000_000


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    return tls.made(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def context(certificate: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A target's, whose certificate is trusted."""
    monkeypatch.setattr("eas_queue.exchange.DEFAULT_CA_BUNDLE_PATH", str(certificate[0]))
    return certificate[1]


@pytest.fixture
def by() -> Iterator[Forwarder]:
    with contextlib.closing(forwarder()) as made:
        yield made


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_connection_over_tls_is_used_again(by: Forwarder, context: ssl.SSLContext, host: str) -> None:
    with answering(OK, tls=context) as target:
        for _ in range(3):
            got = by.send(attempt_at(f"https://{host}:{target.port}/"))
            assert isinstance(got, Answer), got
            assert got.body == b"ok"
        assert target.connections == 1
        by.close()


def test_large_bodies_and_answers_come_whole_over_tls(by: Forwarder, context: ssl.SSLContext) -> None:
    body = bytes(range(256)) * 3_000

    def echo(connection: socket.socket) -> None:
        while True:
            taken = target.read_request(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(taken), taken))

    with RawTarget(echo, tls=context) as target:
        for _ in range(2):
            got = by.send(attempt_at(target.url, body=body))
            assert isinstance(got, Answer)
            assert got.body == body
        by.close()


def test_a_certificate_that_nobody_vouches_for_is_refused_and_nothing_sent(
    certificate: tuple[Path, ssl.SSLContext],
) -> None:
    with answering(OK, tls=certificate[1]) as target:
        got = send(attempt_at(target.url))
    assert isinstance(got, NoAnswer)
    assert got.error_type == "TargetUnreachable"
    assert "certificate verify failed: self-signed certificate" in got.detail
    assert target.heads == []


def test_a_certificate_of_another_host_is_refused_and_nothing_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, context = tls.made(tmp_path, names="DNS:other.example")
    monkeypatch.setattr("eas_queue.exchange.DEFAULT_CA_BUNDLE_PATH", str(bundle))
    with answering(OK, tls=context) as target:
        got = send(attempt_at(f"https://localhost:{target.port}/"))
    assert isinstance(got, NoAnswer)
    assert got.error_type == "TargetUnreachable"
    assert "certificate is not valid for 'localhost'" in got.detail
    assert target.heads == []


def test_a_target_that_speaks_no_tls_is_unreachable(context: ssl.SSLContext) -> None:
    def plain(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with RawTarget(plain) as target:
        got = send(attempt_at(target.url.replace("http:", "https:")))
    assert isinstance(got, NoAnswer)
    assert got.error_type == "TargetUnreachable"
    assert "SSL" in got.detail


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\n\r\nhalf"], ids=["waiting", "mid-body"])
def test_an_attempt_closed_while_it_reads_tls_ends_at_once(
    by: Forwarder, context: ssl.SSLContext, begin: bytes
) -> None:
    reached, over = threading.Event(), threading.Event()

    def handle(connection: socket.socket) -> None:
        target.read_request(connection)
        connection.sendall(begin)
        reached.set()
        over.wait(10)

    with RawTarget(handle, tls=context) as target:
        attempt = attempt_at(target.url)
        sending = Sending(by, attempt)
        assert reached.wait(10)
        attempt.close(Closed.CANCELLED)
        assert sending.got() is Closed.CANCELLED
        over.set()


def test_nothing_goes_out_in_the_clear_when_an_attempt_is_closed_while_it_sends(
    by: Forwarder, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a closed attempt does to its socket leaves the encryption in place for a thread that is about to send."""
    reached, over = threading.Event(), threading.Event()
    sockets: list[ssl.SSLSocket] = []

    def handle(connection: socket.socket) -> None:
        connection.recv(1000)
        reached.set()
        over.wait(10)

    with RawTarget(handle, tls=context) as target:
        attempt = attempt_at(target.url, body=LARGE)
        opened = attempt.opened

        def noted(sock: socket.socket | None) -> None:
            if isinstance(sock, ssl.SSLSocket):
                sockets.append(sock)
            opened(sock)

        monkeypatch.setattr(attempt, "opened", noted)
        sending = Sending(by, attempt)
        assert reached.wait(10)
        attempt.close(Closed.CANCELLED)
        assert sockets[0].fileno() == -1 or sockets[0].version() is not None
        assert sending.got() is Closed.CANCELLED
        over.set()


def test_an_early_answer_over_tls_is_delivered(by: Forwarder, context: ssl.SSLContext) -> None:
    def handle(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")

    with RawTarget(handle, tls=context) as target:
        got = by.send(attempt_at(target.url, body=LARGE))
    assert isinstance(got, Answer), got
    assert (got.status_code, got.body) == (413, b"big")


def test_the_certificates_are_read_once(
    by: Forwarder, context: ssl.SSLContext, certificate: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    close = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    with answering(close, tls=context) as target:
        assert isinstance(by.send(attempt_at(target.url)), Answer)
        monkeypatch.setattr("eas_queue.exchange.DEFAULT_CA_BUNDLE_PATH", "/nowhere")
        assert isinstance(by.send(attempt_at(target.url)), Answer)
        assert target.connections == 2
