"""One attempt to deliver, to receivers that do what receivers do: answer, redirect, hang, drip, hang up."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from eas_queue.webhooks.sender import Outcome, Sender
from tests.support import tls
from tests.support.raw_target import RawTarget, answering
from tests.support.server import free_port

HEADERS = {"X-Signed": "yes"}
BODY = b'{"type": "request.succeeded"}'
TIMEOUT_S = 0.4


def sender(**changes: object) -> Sender:
    return Sender(**{"timeout_s": TIMEOUT_S, "allow_private": True} | changes)  # type: ignore[arg-type]


def answer(status: str, more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n{more}\r\nok".encode()


def told(status: str, more: str = "") -> Outcome:
    with answering(answer(status, more)) as target:
        return sender(timeout_s=5).post(target.url, HEADERS, BODY)


@contextlib.contextmanager
def timed(most_s: float) -> Iterator[None]:
    began_s = time.monotonic()
    yield
    assert time.monotonic() - began_s < most_s


def test_a_delivery_is_a_post_with_its_headers_and_body() -> None:
    bodies = []

    def handle(connection: socket.socket) -> None:
        bodies.append(target.read_request(connection))
        connection.sendall(answer("204 No Content"))

    with RawTarget(handle) as target:
        assert sender().post(f"{target.url}a/b?c=%20d#e", HEADERS, BODY) == Outcome(204)

    head = target.heads[0].decode().split("\r\n")
    assert head[0] == "POST /a/b?c=%20d HTTP/1.1"
    assert f"Host: 127.0.0.1:{target.port}" in head
    assert {"X-Signed: yes", "Content-Type: application/json", f"Content-Length: {len(BODY)}"} <= set(head)
    assert bodies == [BODY]


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "202", "299 Whatever"])
def test_any_2xx_is_a_success(status: str) -> None:
    assert told(status) == Outcome(int(status[:3]))


@pytest.mark.parametrize("status", ["400 Bad", "401 No", "404 Nowhere", "429 Later", "500 Oops", "503 Away"])
def test_any_other_answer_is_a_failed_attempt(status: str) -> None:
    found = told(status)

    assert found == Outcome(int(status[:3]), f"the receiver answered {status[:3]}")


def test_410_is_final() -> None:
    found = told("410 Gone")

    assert (found.status, found.is_final) == (410, True)


def test_a_redirect_is_not_followed() -> None:
    with answering(answer("200 OK")) as elsewhere:
        found = told("307 There", f"Location: {elsewhere.url}\r\n")

        assert found == Outcome(307, "the receiver answered 307: redirects are not followed")
        assert elsewhere.connections == 0


def test_interim_answers_are_passed_over() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"

    with answering(b"HTTP/1.1 100 Continue\r\n\r\n" + hints + answer("200 OK")) as target:
        assert sender().post(target.url, HEADERS, BODY) == Outcome(200)


def test_the_body_of_the_answer_is_not_waited_for() -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n") as target, timed(0.3):
        assert sender(timeout_s=5).post(target.url, HEADERS, BODY) == Outcome(200)


def test_a_port_that_nobody_listens_on_is_a_failed_attempt() -> None:
    found = sender().post(f"http://127.0.0.1:{free_port()}/", HEADERS, BODY)

    assert found == Outcome(None, "the connection failed: Connection refused")


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1", b"SSH-2.0-none\r\n", b"\x00\x01\n", b"HTTP/1.1 999 x\r\n\r\n"])
def test_what_is_no_answer_is_a_failed_attempt(sent: bytes) -> None:
    def handle(connection: socket.socket) -> None:
        target.read_request(connection)
        connection.sendall(sent)

    with RawTarget(handle) as target:
        found = sender(timeout_s=5).post(target.url, HEADERS, BODY)

    assert found.status is None
    assert found.error


def silent(connection: socket.socket) -> None:
    while connection.recv(65_536):
        pass


def drips(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200")
    while True:
        connection.sendall(b" ")
        time.sleep(0.02)


def drips_interim(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        time.sleep(0.02)


def reads_slowly(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for _ in range(30):
        connection.recv(4096)
        time.sleep(0.02)


@pytest.mark.parametrize("act", [silent, drips, drips_interim, reads_slowly])
def test_a_receiver_that_takes_its_time_gets_the_time_out_and_no_more(act: object) -> None:
    with RawTarget(act) as target, timed(TIMEOUT_S + 0.5):  # type: ignore[arg-type]
        found = sender().post(target.url, HEADERS, b"x" * 16_000_000)

    assert found == Outcome(None, f"no answer within {TIMEOUT_S} s")


def test_an_answer_before_all_was_read_counts() -> None:
    def handle(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(answer("413 Too Large", "Connection: close\r\n"))
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65_536):
            pass

    with RawTarget(handle) as target:
        assert sender(timeout_s=5).post(target.url, HEADERS, b"x" * 1_000_000).status == 413


def test_a_private_address_is_not_connected_to() -> None:
    with answering(answer("200 OK")) as target:
        for host in ("127.0.0.1", "localhost", "127.1"):
            found = sender(allow_private=False).post(f"http://{host}:{target.port}/", HEADERS, BODY)

            assert found == Outcome(None, f"{host} has no public address, and others are not sent to")
        assert target.connections == 0


def test_a_name_is_looked_up_once_and_what_was_checked_is_connected_to() -> None:
    """A resolver that answers otherwise the second time, as in an attack by rebinding."""
    asked: list[str] = []

    def look_up(host: str, *_: object, **__: object) -> list[object]:
        asked.append(host)
        return [(socket.AF_INET, 1, 6, "", ("127.0.0.1" if len(asked) == 1 else "127.0.0.2", 0))]

    with answering(answer("200 OK")) as target:
        found = sender(look_up=look_up).post(f"http://changing.example:{target.port}/", HEADERS, BODY)

        assert found == Outcome(200)
        assert asked == ["changing.example"]
        assert f"Host: changing.example:{target.port}".encode() in target.heads[0]


def test_the_next_address_is_tried() -> None:
    def look_up(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, 1, 6, "", (address, 0)) for address in ("127.0.0.9", "127.0.0.1")]

    with answering(answer("200 OK")) as target:
        assert sender(look_up=look_up).post(f"http://two.example:{target.port}/", HEADERS, BODY) == Outcome(200)


def test_a_line_break_in_a_header_is_never_sent() -> None:
    with answering(answer("200 OK")) as target, pytest.raises(ValueError, match="control character"):
        sender().post(target.url, {"X-Id": "a\r\nX-Other: b"}, BODY)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    return tls.made(tmp_path_factory.mktemp("tls"), names="DNS:hooks.example")


class TestTls:
    def look_up(self, *_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, 1, 6, "", ("127.0.0.1", 0))]

    def test_the_certificate_must_be_of_the_name(self, certificate: tuple[Path, ssl.SSLContext]) -> None:
        by = sender(timeout_s=5, ca_file=str(certificate[0]), look_up=self.look_up)

        with answering(answer("200 OK"), tls=certificate[1]) as target:
            good = by.post(f"https://hooks.example:{target.port}/", HEADERS, BODY)
            bad = by.post(f"https://other.example:{target.port}/", HEADERS, BODY)

        assert good == Outcome(200)
        assert bad.status is None
        assert "certificate" in bad.error
        assert len(target.heads) == 1

    def test_a_certificate_that_nobody_vouches_for_is_refused(self, certificate: tuple[Path, ssl.SSLContext]) -> None:
        with answering(answer("200 OK"), tls=certificate[1]) as target:
            found = sender(timeout_s=5, look_up=self.look_up).post(
                f"https://hooks.example:{target.port}/", HEADERS, BODY
            )

        assert "its certificate is not accepted" in found.error
        assert target.heads == []

    def test_a_handshake_that_drips_gets_the_time_out_and_no_more(self) -> None:
        with RawTarget(drips_record) as target, timed(TIMEOUT_S + 0.5):
            found = sender().post(f"https://127.0.0.1:{target.port}/", HEADERS, BODY)

        assert found == Outcome(None, f"no answer within {TIMEOUT_S} s")


def drips_record(connection: socket.socket) -> None:
    """A TLS record of 16,000 bytes that never comes whole."""
    connection.sendall(b"\x16\x03\x03\x3e\x80")
    while True:
        connection.sendall(b"\x00")
        time.sleep(0.02)


def test_under_gevent_a_handshake_that_drips_is_cut_off_too() -> None:
    code = (
        "from tests.webhooks.test_sender import *\n"
        "with RawTarget(drips_record) as target, timed(TIMEOUT_S + 1):\n"
        "    print(sender().post(f'https://127.0.0.1:{target.port}/', HEADERS, BODY).error)"
    )
    patched = f"from gevent import monkey; monkey.patch_all()\n{code}"

    done = subprocess.run([sys.executable, "-c", patched], capture_output=True, text=True, timeout=60)

    assert done.stdout.strip() == f"no answer within {TIMEOUT_S} s", done.stderr
