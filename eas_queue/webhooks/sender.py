"""One attempt to deliver: a POST on a connection of its own, bounded as a whole however slowly the receiver reads or
answers. It follows no redirect, reads no proxy or netrc settings, and of the answer only the status.

A library would bound each read, not their sum, and look names up itself; so head and status line are handled here, and
the time that is left is set before every read and write.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from eas_queue.engine.receivers import Receiver, receiver
from eas_queue.webhooks.addresses import LookUp, NoAddress, addresses_of, connect

PIECE_BYTES = 65_536
HEAD_MOST = 65_536  # of an answer, interim ones included
GONE = 410  # the receiver wants no more of this
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\r\n]*)?\r?\n")
_HEAD_END = re.compile(rb"\r?\n\r?\n")


@dataclass(frozen=True, slots=True)
class Outcome:
    """*error* '': the receiver has it. *is_final*: it never wants it."""

    status: int | None
    error: str = ""
    is_final: bool = False


class Sender:
    """Safe to share between threads. Keeps no connections: receivers are many, and each is told seldom."""

    def __init__(
        self,
        *,
        timeout_s: float,
        allow_private: bool,
        ca_file: str = DEFAULT_CA_BUNDLE_PATH,
        look_up: LookUp = socket.getaddrinfo,
    ) -> None:
        self._timeout_s, self._allow_private = timeout_s, allow_private
        self._ca_file, self._look_up = ca_file, look_up
        self._context: ssl.SSLContext | None = None

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Never raises for what a receiver or a network does."""
        until_s = time.monotonic() + self._timeout_s
        where = receiver(url)
        try:
            found = addresses_of(where, allow_private=self._allow_private, until_s=until_s, look_up=self._look_up)
            with self._connection(where, connect(found, where.port, until_s), until_s) as connection:
                with contextlib.suppress(ConnectionError):  # it may answer without having read all
                    _send(connection, _head(where, headers, len(body)), until_s)
                    _send(connection, body, until_s)
                return _judged(_status(connection, until_s))
        except NoAddress as exc:
            return Outcome(None, str(exc))
        except ssl.SSLCertVerificationError as exc:
            return Outcome(None, f"its certificate is not accepted: {exc.verify_message}")
        except OSError as exc:
            if isinstance(exc, TimeoutError) or time.monotonic() >= until_s:
                return Outcome(None, f"no answer within {self._timeout_s:g} s")
            return Outcome(None, f"the connection failed: {exc.strerror or exc}")

    @contextlib.contextmanager
    def _connection(self, where: Receiver, connection: socket.socket, until_s: float) -> Iterator[socket.socket]:
        """What to write to and read from, closed at the end."""
        if where.scheme == "http":
            with connection:
                yield connection
            return
        if self._context is None:
            self._context = ssl.create_default_context(cafile=self._ca_file)
        with self._context.wrap_socket(
            connection, server_hostname=where.host, do_handshake_on_connect=False
        ) as secured:
            # TLS reads as often as a record needs, and under gevent each of these reads has the whole time-out.
            guard = threading.Timer(_left(until_s), _cut, (secured,))
            guard.daemon = True
            guard.start()
            try:
                secured.settimeout(_left(until_s))
                secured.do_handshake()
                yield secured
            finally:
                guard.cancel()


def _left(until_s: float) -> float:
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _head(where: Receiver, headers: Mapping[str, str], length: int) -> bytes:
    lines = [
        f"POST {where.target} HTTP/1.1",
        f"Host: {where.host_header}",
        "User-Agent: eas_queue",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        "Connection: close",
        *[f"{name}: {value}" for name, value in headers.items()],
    ]
    if any(re.search(r"[\x00-\x1f\x7f]", line) for line in lines):
        raise ValueError("a control character stands in a header")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _send(connection: socket.socket, data: bytes, until_s: float) -> None:
    view = memoryview(data)
    while view:
        connection.settimeout(_left(until_s))
        view = view[connection.send(view[:PIECE_BYTES]) :]


def _status(connection: socket.socket, until_s: float) -> int:
    """The status of the final answer. Raises OSError for what is none."""
    received = b""
    while True:
        found = _STATUS.match(received)
        if found is not None and int(found[1]) >= 200:
            return int(found[1])
        end = _HEAD_END.search(received) if found is not None else None
        if end is not None:  # an interim answer
            received = received[end.end() :]
            continue
        if len(received) > HEAD_MOST or (found is None and b"\n" in received):
            raise OSError("what it answered is not HTTP/1.1")
        connection.settimeout(_left(until_s))
        piece = connection.recv(PIECE_BYTES)
        if not piece:
            raise OSError("it closed the connection without an answer")
        received += piece


def _judged(status: int) -> Outcome:
    if 200 <= status <= 299:
        return Outcome(status)
    if status == GONE:
        return Outcome(status, "the receiver answered 410: it wants no more of this", is_final=True)
    more = ": redirects are not followed" if 300 <= status <= 399 else ""
    return Outcome(status, f"the receiver answered {status}{more}")
