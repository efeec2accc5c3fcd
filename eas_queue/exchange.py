"""One HTTP/1.1 exchange with a target, on a connection that another thread can shut down and that is kept for the next.

urllib3 connects (names, timeouts, TLS with certificate checks), httptools parses the answer; between the two stand one
send and as few reads as the answer needs. What requests and http.client do besides, each header an object, the answer's
head through the e-mail parser, is most of what forwarding a small request would cost (docs/decisions/0021).
"""

from __future__ import annotations

import collections
import contextlib
import select
import socket
import threading
from typing import Any, NamedTuple

import httptools
from gevent import monkey
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3 import exceptions as urllib3_errors
from urllib3.connection import HTTPConnection, HTTPSConnection

from eas_queue.worker.attempt import Attempt, ConnectionClosed

READ_BYTES = 65_536
ONE_SEND_BYTES = 131_072  # head and body go out in one piece up to here; beyond, joining them costs more than it saves
ORIGINS_KEPT = 100
_poll = monkey.get_original("select", "poll")
_NO_LENGTH_AFTER = frozenset({b"content-length", b"transfer-encoding"})


class ConnectTimeout(Exception):
    """No connection in time; nothing was sent."""


class Unreachable(Exception):
    """No connection, or it ended before any of an answer came."""


class Broken(Exception):
    """Something came, but no whole HTTP answer."""


class Origin(NamedTuple):
    """Where connections go. *port* 0: the scheme's own."""

    scheme: str
    host: str
    port: int


class Reply(NamedTuple):
    """An answer as it came: headers in order, names as sent. *is_whole* False: it is longer than was asked for."""

    status_code: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    is_whole: bool


class _Connection:
    """A connection to one origin, and what the parser has seen of the answer on it."""

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        self._parser = parser = httptools.HttpResponseParser(self)
        # What http.client would take as well; an answer is never followed by another one, so nothing can be smuggled.
        parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_optional_lf_after_cr=True,
            lenient_optional_cr_before_lf=True,
            lenient_optional_crlf_after_chunk=True,
            lenient_spaces_after_chunk_size=True,
        )
        self._begin()

    def _begin(self) -> None:
        self._status_code = 0
        self._headers: list[tuple[str, str]] = []
        self._chunks: list[bytes] = []
        self.size_bytes = 0
        self._head_is_over = self._has_length = self.is_complete = self.may_stay = self._has_begun = False

    def read(self, bytes_most: int) -> Reply:
        """The next answer; read no further than *bytes_most* of its body. Raises Unreachable, Broken, OSError."""
        self._begin()
        while not self.is_complete and self.size_bytes <= bytes_most:
            try:
                data = self.sock.recv(READ_BYTES)
            except TimeoutError:
                raise
            except OSError as exc:
                raise (Broken if self._has_begun else Unreachable)(_reason(exc)) from exc
            if data:
                self._has_begun = True
                try:
                    self._parser.feed_data(data)
                except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
                    raise Broken(f"what it sent is no HTTP answer: {exc}") from exc
            elif self._head_is_over and not self._has_length:
                self.is_complete = True  # it ends with its connection
            elif self._has_begun:
                raise Broken("it closed the connection midway")
            else:
                raise Unreachable("it closed the connection without an answer")
        return Reply(self._status_code, tuple(self._headers), b"".join(self._chunks), self.is_complete)

    # ------------------------------------------------------------------------------------------- called by the parser
    def on_message_begin(self) -> None:
        if self.is_complete:
            self.may_stay = False  # more than was asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_is_over:  # else a trailer
            self._headers.append((name.decode("latin-1"), value.decode("latin-1")))
            if name.lower() in _NO_LENGTH_AFTER:
                self._has_length = True

    def on_headers_complete(self) -> None:
        if not self.is_complete:
            self._status_code = self._parser.get_status_code()
            self.may_stay = self._parser.should_keep_alive()
            self._head_is_over = True

    def on_body(self, chunk: bytes) -> None:
        if not self.is_complete:
            self._chunks.append(chunk)
            self.size_bytes += len(chunk)

    def on_message_complete(self) -> None:
        if 100 <= self._status_code < 200 and not self.is_complete:  # the answer itself is still to come
            self._begin()
        else:
            self.is_complete = True


class Connections:
    """Connections to targets, for one process; safe to share between its threads."""

    def __init__(self, most: int) -> None:
        """*most*: idle ones kept to each of the latest ORIGINS_KEPT origins."""
        self._most = most
        self._lock = threading.Lock()
        self._idle: collections.OrderedDict[Origin, list[_Connection]] = collections.OrderedDict()
        self._tls = {"cert_reqs": "CERT_REQUIRED", "ca_certs": DEFAULT_CA_BUNDLE_PATH}

    def exchange(
        self, attempt: Attempt, origin: Origin, head: bytes, body: bytes, *, connect_s: float, bytes_most: int
    ) -> Reply:
        """Send one request and read its answer; each step may take attempt.service.timeout_s.

        Raises ConnectTimeout, TimeoutError, Unreachable, Broken, and ConnectionClosed when the attempt was closed;
        that may also show as any of the others.
        """
        connection = self._take(origin)
        if connection is None:
            attempt.opened(None)  # closed before there was anything to shut down
            connection = _Connection(self._connect(origin, connect_s))
        is_kept = False
        try:
            attempt.opened(connection.sock)
            connection.sock.settimeout(attempt.service.timeout_s)
            reply = _send_and_read(connection, head, body, bytes_most)
            # Before anybody else can take the connection: a late close must not hit another attempt's call. And an
            # answer that ends with its connection looks whole when that is shut down.
            if not attempt.released():
                raise ConnectionClosed("while the answer came")
            is_kept = reply.is_whole and connection.may_stay
            if is_kept:
                self._keep(origin, connection)
            return reply
        finally:
            if not is_kept:
                attempt.released()
                connection.sock.close()

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            idle, self._idle = self._idle, collections.OrderedDict()
        for connection in (connection for kept in idle.values() for connection in kept):
            connection.sock.close()

    def _take(self, origin: Origin) -> _Connection | None:
        while True:
            with self._lock:
                idle = self._idle.get(origin)
                if not idle:
                    return None
                connection = idle.pop()  # the latest: the others may end in peace
            if not _has_news(connection.sock):
                return connection
            connection.sock.close()

    def _keep(self, origin: Origin, connection: _Connection) -> None:
        surplus = []
        with self._lock:
            idle = self._idle.setdefault(origin, [])
            self._idle.move_to_end(origin)
            idle.append(connection)
            if len(idle) > self._most:
                surplus.append(idle.pop(0))
            if len(self._idle) > ORIGINS_KEPT:
                surplus += self._idle.popitem(last=False)[1]
        for old in surplus:
            old.sock.close()

    def _connect(self, origin: Origin, connect_s: float) -> Any:
        made: Any
        try:
            if origin.scheme == "https":
                made = HTTPSConnection(origin.host, origin.port or 443, timeout=connect_s, **self._tls)  # type: ignore[arg-type]
            else:
                made = HTTPConnection(origin.host, origin.port or 80, timeout=connect_s)
            made.connect()
        except (urllib3_errors.HTTPError, OSError, ValueError) as exc:
            # urllib3 counts a refused connection among those that took too long
            is_late = isinstance(exc, (urllib3_errors.ConnectTimeoutError, TimeoutError))
            if is_late and not isinstance(exc, urllib3_errors.NewConnectionError):
                raise ConnectTimeout from exc
            raise Unreachable(_reason(exc)) from exc
        return made.sock


def _send_and_read(connection: _Connection, head: bytes, body: bytes, bytes_most: int) -> Reply:
    cut = ""
    try:
        if len(body) <= ONE_SEND_BYTES:
            connection.sock.sendall(head + body)
        else:
            connection.sock.sendall(head)
            connection.sock.sendall(body)
    except (BrokenPipeError, ConnectionResetError) as exc:
        cut = _reason(exc)  # it may have answered before it stopped reading
    try:
        return connection.read(bytes_most)
    except Unreachable as exc:
        raise Unreachable(cut or str(exc)) from exc


def _has_news(sock: socket.socket) -> bool:
    """Whether an idle connection has anything to read: its end, or bytes that nobody asked for."""
    with contextlib.suppress(OSError, ValueError):
        poll = _poll()  # the system's own: it asks and never waits
        poll.register(sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))
    return True


def _reason(exc: BaseException) -> str:
    """The innermost cause: what the operating system or the peer said, without the wrappers."""
    while True:
        inner = getattr(exc, "reason", None) or exc.__cause__ or (exc.args[0] if exc.args else None)
        if not isinstance(inner, BaseException):
            return str(exc) or type(exc).__name__
        exc = inner
