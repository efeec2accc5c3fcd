"""One HTTP/1.1 exchange with a target, on a connection that another thread can shut down and that is kept for the next.

urllib3 connects (names, timeouts, TLS with certificate checks), httptools parses the answer; between the two stand one
send and as few reads as the answer needs. What requests and http.client do besides, each header an object, the answer's
head through the e-mail parser, is most of what forwarding a small request would cost (docs/decisions/0021).
"""

from __future__ import annotations

import collections
import contextlib
import functools
import select
import socket
import ssl
import threading
from typing import Any, NamedTuple

import httptools
from gevent import monkey
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3 import exceptions as urllib3_errors
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.ssl_ import create_urllib3_context

from eas_queue.worker.attempt import Attempt, ConnectionClosed

READ_BYTES = 65_536
ONE_SEND_BYTES = 131_072  # head and body go out in one piece up to here; beyond, joining them costs more than it saves
NO_BODY_BYTES = 131_072  # of head, interim answers, chunk extensions or trailers, until something of a body comes
ORIGINS_KEPT = 100
_poll = monkey.get_original("select", "poll")


class ConnectTimeout(Exception):
    """No connection in time; nothing was sent."""


class Unreachable(Exception):
    """No connection, or it ended before any of an answer came."""


class Broken(Exception):
    """Something came, but no whole HTTP answer."""


class Origin(NamedTuple):
    """Where connections go."""

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
        self._parser: Any = httptools.HttpResponseParser(self)
        # What http.client would take as well; an answer is never followed by another one, so nothing can be smuggled.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_keep_alive=True,  # an interim answer of HTTP/1.0
            lenient_optional_lf_after_cr=True,
            lenient_optional_cr_before_lf=True,
            lenient_optional_crlf_after_chunk=True,
            lenient_spaces_after_chunk_size=True,
        )
        self._begin()

    def _begin(self) -> None:
        self._status_code = 0
        self._headers: list[tuple[str, str]] = []
        self._body = bytearray()  # not a list of pieces: an answer may come in chunks of one byte
        self._head_is_over = self._has_length = self.is_complete = self.may_stay = False

    def read(self, bytes_most: int) -> Reply:
        """The next answer; read no further than *bytes_most* of its body. Raises Unreachable, Broken, OSError."""
        self._begin()
        self.ends_with_it = has_begun = False
        self._bytes_without_body = 0
        while not self.is_complete and len(self._body) <= bytes_most:
            try:
                data = self.sock.recv(READ_BYTES)
            except TimeoutError:
                raise
            except OSError as exc:
                raise (Broken if has_begun else Unreachable)(_reason(exc)) from exc
            if data:
                has_begun = True
                self._feed(data)
            elif self._head_is_over and not self._has_length:
                self.is_complete = self.ends_with_it = True
            elif has_begun:
                raise Broken("it closed the connection midway")
            else:
                raise Unreachable("it closed the connection without an answer")
        reply = Reply(self._status_code, tuple(self._headers), bytes(self._body), self.is_complete)
        self._headers, self._body = [], bytearray()  # the connection may stay for long
        return reply

    def _feed(self, data: bytes) -> None:
        self._bytes_without_body += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            raise Broken("it switched to another protocol (101)") from exc
        except httptools.HttpParserError as exc:
            if not self.is_complete:
                raise Broken(f"what it sent is no HTTP answer: {exc}") from exc
            self.may_stay = False  # the answer is whole, and what came after it is none
        if self._bytes_without_body > NO_BODY_BYTES and not self.is_complete:
            raise Broken(f"it sent more than {NO_BODY_BYTES} bytes of headers")

    def close(self) -> None:
        self.sock.close()
        self._parser = None  # they hold each other: nothing should wait for the garbage collector

    # ------------------------------------------------------------------------------------------- called by the parser
    def on_message_begin(self) -> None:
        if self.is_complete:
            self.may_stay = False  # more than was asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_is_over:  # else a trailer
            self._headers.append((name.decode("latin-1"), value.decode("latin-1")))
            lower = name.lower()
            if lower == b"content-length" or (lower == b"transfer-encoding" and b"chunked" in value.lower()):
                self._has_length = True

    def on_headers_complete(self) -> None:
        if not self.is_complete:
            self._status_code = self._parser.get_status_code()
            self.may_stay = self._parser.should_keep_alive()
            self._head_is_over = True

    def on_body(self, chunk: bytes) -> None:
        if not self.is_complete:
            self._body += chunk
            self._bytes_without_body = 0

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
            # Before anybody else can take the connection: a late close must not hit another attempt's call.
            is_open = attempt.released()
            if connection.ends_with_it and not is_open:  # such an answer looks whole when its connection is shut down
                raise ConnectionClosed("while the answer came")
            is_kept = is_open and reply.is_whole and connection.may_stay
            if is_kept:
                self._keep(origin, connection)
            return reply
        finally:
            if not is_kept:
                attempt.released()
                connection.close()

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            idle, self._idle = self._idle, collections.OrderedDict()
        for connection in (connection for kept in idle.values() for connection in kept):
            connection.close()

    def _take(self, origin: Origin) -> _Connection | None:
        while True:
            with self._lock:
                idle = self._idle.get(origin)
                if not idle:
                    return None
                connection = idle.pop()  # the latest: the others may end in peace
            if not _has_news(connection.sock):
                return connection
            connection.close()

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
            old.close()

    def _connect(self, origin: Origin, connect_s: float) -> Any:
        made: HTTPConnection | None = None
        try:
            if origin.scheme == "https":
                made = HTTPSConnection(origin.host, origin.port, timeout=connect_s, ssl_context=self._tls)
            else:
                made = HTTPConnection(origin.host, origin.port, timeout=connect_s)
            made.connect()
        except (urllib3_errors.HTTPError, OSError, ValueError) as exc:
            if made is not None:
                made.close()
            if isinstance(exc, urllib3_errors.LocationParseError):
                raise  # no name of a host
            # urllib3 counts a refused connection among those that took too long
            is_late = isinstance(exc, (urllib3_errors.ConnectTimeoutError, TimeoutError))
            if is_late and not isinstance(exc, urllib3_errors.NewConnectionError):
                raise ConnectTimeout from exc
            raise Unreachable(_reason(exc)) from exc
        return made.sock

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        """One for all connections: to read the certificates takes some 20 ms of CPU."""
        context = create_urllib3_context()
        context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
        return context


def _send_and_read(connection: _Connection, head: bytes, body: bytes, bytes_most: int) -> Reply:
    cut = ""
    try:
        if len(body) <= ONE_SEND_BYTES:
            connection.sock.sendall(head + body)
        else:
            connection.sock.sendall(head)
            connection.sock.sendall(body)
    except TimeoutError:
        raise
    except OSError as exc:
        cut = _reason(exc)  # it may have answered before it stopped reading
    try:
        reply = connection.read(bytes_most)
    except Unreachable as exc:
        raise Unreachable(cut or str(exc)) from exc
    if cut:
        connection.may_stay = False
    return reply


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
