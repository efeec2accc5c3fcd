"""The server's side of one WebSocket (RFC 6455), on the socket that the web server shows: items go out, pings come in.

A view calls ``accept``, hands its work to others, starts the peer and returns ``Hijacked``. From ``accept`` on, nothing
but ``Hijacked`` may be returned or raised: whatever the server would write then, the client would take for frames.
"""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from flask import Response
from gevent import monkey
from werkzeug.exceptions import HTTPException
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode, ParseFailed
from wsproto.utilities import generate_accept_token

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

VERSION = "13"

_READ_BYTES = 4096  # clients send pings of some bytes
_JOINED_MOST_BYTES = 65_536  # up to here, one system call is worth a copy
_REASON_MOST_BYTES = 123  # 125 of a control frame, less the code
_PENDING_MOST = 4  # control frames that wait; of several pings, the latest alone may be answered (section 5.5.3)
# How long a close frame waits for a frame that is on its way, and then how long the client may take to close its side.
_GOODBYE_WAIT_S = 0.25
_LINGER_S = 1.0
_RESET = struct.pack("ii", 1, 0)  # struct linger: on, 0 s
_poll = monkey.get_original("select", "poll")


class BadHandshake(HTTPException):
    """The request is no WebSocket handshake that can be answered. *more*: headers that belong into the answer."""

    def __init__(self, text: str, code: int = 400, more: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(text)
        self.code, self.more = code, more

    def get_headers(self, *arguments: Any, **keywords: Any) -> list[tuple[str, str]]:
        return [*super().get_headers(*arguments, **keywords), *self.more]


class PeerGone(Exception):
    """The connection is over: what was to be sent may or may not have arrived."""


def is_asked_for(environ: WSGIEnvironment) -> bool:
    """Whether this request wants to become a WebSocket, well-formed or not."""
    return "websocket" in _tokens(environ, "HTTP_UPGRADE")


def accept(environ: WSGIEnvironment) -> Peer:
    """Answer the handshake and take the connection over. Raises BadHandshake while nothing has been written.

    No extension and no subprotocol is ever agreed on. A client that is gone already shows as an end of the peer.
    """
    key = checked_key(environ)
    shown = environ.get("gunicorn.socket", environ.get("werkzeug.socket"))
    if shown is None or hasattr(shown, "getpeercert"):
        text = "this server can't hand a connection over: it does TLS itself, or is neither gunicorn nor flask run"
        raise BadHandshake(text, 501)
    # A duplicate, because both servers close theirs when the view has returned: that is no end of the connection.
    connection: socket.socket = shown.dup()
    with contextlib.suppress(OSError):  # not TCP
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(OSError):  # the reader will find out
        # `Connection` is compared as a whole by the Go client, so "keep-alive, Upgrade" would not do
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %s\r\n\r\n" % generate_accept_token(key)
        )
    return Peer(connection)


def checked_key(environ: WSGIEnvironment) -> bytes:
    if environ["REQUEST_METHOD"] != "GET":
        raise BadHandshake("a WebSocket is opened with GET", 405, (("Allow", "GET"),))
    if environ["SERVER_PROTOCOL"] != "HTTP/1.1":
        raise BadHandshake("a WebSocket needs HTTP/1.1")
    if not is_asked_for(environ) or "upgrade" not in _tokens(environ, "HTTP_CONNECTION"):
        raise BadHandshake("a WebSocket is asked for with `Upgrade: websocket` and `Connection: Upgrade`")
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION", "").strip() != VERSION:
        text = f"only version {VERSION} of WebSocket is spoken here (Sec-WebSocket-Version)"
        raise BadHandshake(text, 426, (("Sec-WebSocket-Version", VERSION), ("Upgrade", "websocket")))
    if environ.get("CONTENT_LENGTH") not in (None, "", "0") or "HTTP_TRANSFER_ENCODING" in environ:
        raise BadHandshake("a WebSocket handshake has no body")  # it would be read as frames
    key: str = environ.get("HTTP_SEC_WEBSOCKET_KEY", "").strip()
    try:
        found = base64.b64decode(key.encode("ascii"), validate=True)
    except ValueError:
        found = b""
    if len(found) != 16:
        raise BadHandshake("Sec-WebSocket-Key must be 16 bytes in base64")
    return key.encode()


def _tokens(environ: WSGIEnvironment, name: str) -> list[str]:
    return [token.strip().lower() for token in environ.get(name, "").split(",")]


class _End(NamedTuple):
    """Why a connection is over, and the close frame that is due; None where nobody would read one."""

    reason: str
    code: int | None = None
    text: str = ""


class Peer:
    """The client at the other end of an accepted WebSocket. All methods may be called from any thread or greenlet.

    Frames never mix: whoever holds the write lock sends a frame whole. Control frames don't wait for the lock: they are
    left to its holder, who sends them after its own frame. So the reader never stops reading, however slow the client.
    """

    __slots__ = (
        *("_connection", "_ended", "_has_said", "_is_over", "_pending", "_reader", "_writing"),
        *("has_pinged", "last_heard_s"),
    )

    def __init__(self, connection: socket.socket) -> None:
        self.last_heard_s = time.monotonic()  # when the latest frame came, of whatever kind
        self.has_pinged = False
        self._connection = connection
        self._ended = ""  # why, once it is so
        self._has_said = False  # a close frame: nothing may follow it
        self._is_over = threading.Event()  # the reader is done; unlike its thread, to be waited for before it runs
        self._pending: list[bytes] = []
        self._reader: threading.Thread | None = None
        self._writing = threading.Lock()

    def start(self, on_end: Callable[[str], None]) -> None:
        """Begin to listen. *on_end* is called exactly once, with the reason, when the connection is over.

        It is called in the reader, without any context of Flask.
        """
        self._reader = threading.Thread(target=self._run, args=(on_end,), name="websocket-reader", daemon=True)
        self._reader.start()

    def wait(self) -> None:
        """Return when the connection is over and closed."""
        if self._reader is not None:
            self._is_over.wait()

    def send(self, data: bytes) -> None:
        """Send one binary message in one frame. Blocks while the client does not read. Raises PeerGone.

        It has arrived when the client says so, not when this returns: the system keeps some of it in its buffers.
        """
        if not data:
            raise ValueError("clients take an empty message for an item with index 0")
        with self._writing:
            self._write(_header(Opcode.BINARY, len(data)), data)
            self._write_pending()
        self._flush(may_block=True)  # what came after the last look, and before the lock was free

    def ping(self) -> None:
        """Send a ping, never waiting: not before a frame that is on its way, nor for room to send in."""
        self._control(Opcode.PING, b"")

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye and end. Never waits; on_end is called when the client has closed its side, 2 s later at most.

        From here on ``send`` raises PeerGone. A second call cuts the connection without more ado.
        """
        if self._ended:
            self._cut()
            return
        self._ended = f"closed by the server: {code} {reason}".rstrip()
        has_said = self._goodbye(code, reason, wait_s=0)
        if self._reader is None:
            self._cut()
            self._connection.close()
            return
        threading.Thread(target=self._part, args=(has_said, code, reason), name="websocket-end", daemon=True).start()

    # ------------------------------------------------------------------------------------------------------ writing

    def _write(self, *pieces: bytes) -> None:
        """Send a frame; the lock is held. Raises PeerGone."""
        if self._ended:
            raise PeerGone(self._ended)
        try:
            if sum(map(len, pieces)) <= _JOINED_MOST_BYTES:
                pieces = (b"".join(pieces),)
            for piece in pieces:
                self._connection.sendall(piece)
        except OSError as exc:
            self._cut()
            raise PeerGone(self._ended or f"connection lost: {exc}") from exc
        except BaseException:  # a greenlet that is killed in the middle: nothing may follow half a frame
            self._cut()
            raise

    def _control(self, opcode: Opcode, payload: bytes) -> None:
        self._pending.append(_header(opcode, len(payload)) + payload)
        del self._pending[:-_PENDING_MOST]
        self._flush()

    def _flush(self, *, may_block: bool = False) -> None:
        """Send what is pending, unless somebody holds the lock: who does, looks again after having let go of it."""
        while self._pending and self._writing.acquire(blocking=False):
            try:
                if not may_block and not self._has_room():
                    return
                self._write_pending()
            except PeerGone:
                return
            finally:
                self._writing.release()

    def _write_pending(self) -> None:
        while self._pending:
            with contextlib.suppress(IndexError):  # a newer one has just pushed it out
                self._write(self._pending.pop(0))

    def _has_room(self) -> bool:
        """Whether a small frame can be sent without waiting."""
        try:
            poll = _poll()  # the system's own: it asks and never waits
            poll.register(self._connection, select.POLLOUT)
            return bool(poll.poll(0))
        except (OSError, ValueError):  # closed already
            return False

    def _goodbye(self, code: int, reason: str, *, wait_s: float) -> bool:
        """Send a close frame as the last one; False if it can't be sent now, because other data is stuck."""
        payload = b""
        if code != CloseReason.NO_STATUS_RCVD:  # which stands for a close frame without a code
            payload = struct.pack(">H", code) + reason.encode()[:_REASON_MOST_BYTES].decode(errors="ignore").encode()
        if not self._writing.acquire(timeout=wait_s):
            return False
        try:
            if self._has_said:
                return True
            if not self._has_room():
                return False
            self._has_said = True
            self._connection.sendall(_header(Opcode.CLOSE, len(payload)) + payload)
            self._connection.shutdown(socket.SHUT_WR)
        except OSError:  # gone: the reader has seen it, or will
            return False
        finally:
            self._writing.release()
        return True

    # ------------------------------------------------------------------------------------------------------ reading

    def _run(self, on_end: Callable[[str], None]) -> None:
        try:
            end = self._read()
        except OSError as exc:
            end = _End(f"connection lost: {exc}")
        self._ended = self._ended or end.reason
        lingers = end.code is not None and self._goodbye(end.code, end.text, wait_s=_GOODBYE_WAIT_S)
        if not lingers:
            self._cut()  # a sender that is stuck must not hold on_end up
        try:
            on_end(self._ended)
        finally:
            if not lingers or not self._client_closes():
                self._cut()
            with self._writing:  # when the last sender has let go: the number of a closed socket is soon another's
                self._connection.close()
            self._is_over.set()

    def _read(self) -> _End:
        """Listen until the end."""
        protocol = FrameProtocol(client=False, extensions=[])
        while True:
            self._await_input()
            data = self._connection.recv(_READ_BYTES)
            if not data:
                return _End("the client closed the connection")
            protocol.receive_bytes(data)
            try:
                for frame in protocol.received_frames():
                    self.last_heard_s = time.monotonic()
                    if frame.opcode is Opcode.PING:
                        self.has_pinged = True
                        assert isinstance(frame.payload, bytes)
                        self._control(Opcode.PONG, frame.payload)
                    elif frame.opcode is Opcode.CLOSE:
                        assert isinstance(frame.payload, tuple)
                        code, reason = frame.payload
                        return _End(f"closed by the client: {int(code)} {reason}".rstrip(), int(code))
                    elif frame.opcode is not Opcode.PONG:
                        # at its first bytes, however many it announces
                        text = "a watch takes no data from its client"
                        return _End(text, int(CloseReason.POLICY_VIOLATION), text)
            except ParseFailed as exc:
                return _End(f"the client broke the protocol: {exc}", int(exc.code), str(exc))

    def _await_input(self) -> None:
        """While a control frame waits for room, look for room too: no sender may come by to take it along."""
        while self._pending and not self._writing.locked() and not self._ended:
            poll = select.poll()
            poll.register(self._connection, select.POLLIN | select.POLLOUT)
            found = poll.poll()
            self._flush()
            if any(event & ~select.POLLOUT for _, event in found):
                return

    # ------------------------------------------------------------------------------------------------------- ending

    def _part(self, has_said: bool, code: int, reason: str) -> None:
        """The rest of ``close``: a client that neither reads nor closes its side is cut off."""
        if has_said or self._goodbye(code, reason, wait_s=_GOODBYE_WAIT_S):
            self._is_over.wait(_LINGER_S)
        self._cut()

    def _client_closes(self) -> bool:
        """Wait for it, and drop what still comes: a reset could overtake our close frame."""
        deadline_s = time.monotonic() + _LINGER_S
        with contextlib.suppress(OSError):
            while (left_s := deadline_s - time.monotonic()) > 0:
                self._connection.settimeout(left_s)
                if not self._connection.recv(_READ_BYTES):
                    return True
        return False

    def _cut(self) -> None:
        """End both directions at once: whoever reads or sends is woken. The reader closes the socket."""
        with contextlib.suppress(OSError):
            # With a reset: else the system keeps up to some MB for minutes, for a client that will not read them.
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._connection.shutdown(socket.SHUT_RDWR)


class Hijacked(Response):
    """What a view returns after its connection has become a peer's: no server writes anything more to it."""

    def __init__(self, peer: Peer) -> None:
        super().__init__(status=101)
        self._peer = peer

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if "werkzeug.socket" in environ:
            # It shuts the connection down when the request is done; and it writes its head into a closed one.
            self._peer.wait()
            return super().__call__(environ, start_response)
        # gunicorn takes it for the end of the connection, and closes its own end of it without a word. Its greenlet is
        # free then, and at a stop it waits for none of us.
        raise StopIteration


def _header(opcode: Opcode, length: int) -> bytes:
    """Of a whole message in one frame; a server's frames are not masked (section 5.2)."""
    if length < 126:
        return bytes((0x80 | opcode, length))
    if length < 65_536:
        return struct.pack(">BBH", 0x80 | opcode, 126, length)
    return struct.pack(">BBQ", 0x80 | opcode, 127, length)
