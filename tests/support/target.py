"""A real HTTP target that does what its caller's query string asks, and logs every call.

    python -m tests.support.target --port N [--log FILE]

POST to any path; the query parameters are the script, unknown ones are ignored:

    (none)                    200, application/json, {"ok": true}
    delay_s=F                 wait before anything is sent; combines with all below
    fail_first=N              the first N attempts of one X-Request-Id get fail_status=S (default
                              503); later ones get the rest of the script. Calls without that
                              header share one count
    status=N                  that status (200..999); the body says {"ok": false} from 400 on
    content_type=T            that Content-Type
    retry_after=V             a Retry-After header
    body_bytes=N              a body of N times "x"
    echo=1                    JSON of method, path, query (both raw), headers ([name, value] as
                              received) and body (base64)
    drip_s=F&drips=N          headers at once, then N (default 1) chunks, one each F seconds
    redirect=URL              302 (or status=N) with Location
    hang=1                    never answer
    broken=1                  answer bytes that are not HTTP, then close
    close=early               close without a byte
    close=midway              announce 1000 bytes, send 100, close
    close=reset               close by RST without a byte

A parameter with a value it cannot have is answered with 400, so a mistyped script is seen.

Beside it: GET /_calls[?request_id=R][&since=N] (the log; *since* keeps n > N), GET /_stats,
DELETE /_calls (forget calls, counts and fail_first attempts; running calls go on and still count
as running, but appear nowhere else), GET /healthz. A call's *n* never restarts.

The peer's FIN or RST is seen while a call is delayed, hanging or dripping, and ends it at that
moment. A peer that only shuts down its sending side therefore counts as gone.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import functools
import http
import json
import math
import os
import resource
import signal
import socket
import struct
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypedDict, TypeVar
from urllib.parse import parse_qsl

Outcome = Literal["answered", "closed_before_headers", "closed_mid_body", "closed_by_us"]

T = TypeVar("T")

READ_BYTES = 256 * 1024  # what asyncio itself asks of one recv()
MAX_HEAD_BYTES = 64 * 1024
PIECE_BYTES = 256 * 1024  # large answers are made and sent in pieces: memory stays flat
BACKLOG = 4096  # thousands of workers may connect in one instant


class PeerClosed(Exception):
    """The other side went away."""


class MalformedRequest(Exception):
    """The bytes received are not an HTTP/1.1 request."""


class InvalidScript(Exception):
    """A query parameter has a value it cannot have."""


class CallRecord(TypedDict):
    """One POST as GET /_calls and the log file show it."""

    n: int
    request_id: str | None
    attempt: int | None  # X-Request-Attempt
    path: str
    query: str
    started_at: float  # unix time, when the head was read
    ended_at: float | None
    outcome: Outcome | None  # None while it runs
    status: int | None  # None until headers were sent
    body_bytes: int  # received so far
    running: int  # how many calls ran when it started, this one included
    progress_token: str | None  # X-Progress-Token: tells one lease from another
    peer_port: int


class Stats(TypedDict):
    """GET /_stats: counts since the start or the last DELETE /_calls."""

    total: int
    running: int
    max_running: int
    answered: int
    closed: int  # every other outcome


@dataclass(slots=True)
class Call:
    """A CallRecord in a fifth of a dict's memory: a load test keeps a million of them."""

    n: int
    request_id: str | None
    attempt: int | None
    path: str
    query: str
    started_at: float
    running: int
    progress_token: str | None
    peer_port: int
    ended_at: float | None = None
    outcome: Outcome | None = None
    status: int | None = None
    body_bytes: int = 0
    any_byte_sent: bool = False

    def record(self) -> CallRecord:
        return {
            "n": self.n,
            "request_id": self.request_id,
            "attempt": self.attempt,
            "path": self.path,
            "query": self.query,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "outcome": self.outcome,
            "status": self.status,
            "body_bytes": self.body_bytes,
            "running": self.running,
            "progress_token": self.progress_token,
            "peer_port": self.peer_port,
        }


class CallLog:
    """Every call since the last clear, and the counts over them."""

    def __init__(self, log_path: str | None = None) -> None:
        # Unbuffered: a line is one write(), so SIGTERM never leaves half of one.
        self._file = open(log_path, "ab", buffering=0) if log_path else None  # noqa: SIM115
        self._next_n = 1
        self._running = 0
        self.clear()

    def clear(self) -> None:
        self._first_n = self._next_n
        self._calls: list[Call] = []
        self._max_running = self._running
        self._answered = 0
        self._closed = 0
        self._attempts: dict[str | None, int] = {}

    def begin(self, head: Head, peer_port: int) -> Call:
        self._running += 1
        self._max_running = max(self._max_running, self._running)
        attempt = head.fields.get("x-request-attempt", "")
        call = Call(
            n=self._next_n,
            request_id=head.fields.get("x-request-id"),
            attempt=int(attempt) if attempt.isdecimal() else None,
            path=head.path,
            query=head.query,
            started_at=time.time(),
            running=self._running,
            progress_token=head.fields.get("x-progress-token"),
            peer_port=peer_port,
        )
        self._next_n += 1
        self._calls.append(call)
        return call

    def end(self, call: Call, outcome: Outcome) -> None:
        call.ended_at = time.time()
        call.outcome = outcome
        self._running -= 1
        if call.n >= self._first_n:  # else it was cleared away while it ran
            if outcome == "answered":
                self._answered += 1
            else:
                self._closed += 1
        if self._file is not None:
            self._file.write(json.dumps(call.record()).encode() + b"\n")

    def count_attempt(self, request_id: str | None) -> int:
        """Return which attempt of *request_id* this is, from 1."""
        count = self._attempts.get(request_id, 0) + 1
        self._attempts[request_id] = count
        return count

    def records(self, request_id: str | None, since: int) -> list[CallRecord]:
        calls = self._calls[max(0, since - self._first_n + 1) :]
        return [call.record() for call in calls if request_id is None or call.request_id == request_id]

    def stats(self) -> Stats:
        return {
            "total": len(self._calls),
            "running": self._running,
            "max_running": self._max_running,
            "answered": self._answered,
            "closed": self._closed,
        }


@dataclass(frozen=True, slots=True)
class Script:
    """What one query string asks for."""

    delay_s: float = 0.0
    fail_first: int = 0
    fail_status: int = 503
    status: int | None = None
    content_type: str | None = None
    retry_after: str | None = None
    body_bytes: int | None = None
    echo: bool = False
    drip_s: float | None = None
    drips: int = 1
    redirect: str | None = None
    hang: bool = False
    broken: bool = False
    close: str | None = None


def _seconds(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError("not a duration")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError("negative")
    return value


def _status(text: str) -> int:
    value = int(text)
    if not 200 <= value <= 999:
        raise ValueError("not a final status")
    return value


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("neither 0 nor 1")
    return text == "1"


def _header_value(text: str) -> str:
    text.encode("latin-1")
    if not text.isprintable():
        raise ValueError("not a header value")
    return text


def _close(text: str) -> str:
    if text not in ("early", "midway", "reset"):
        raise ValueError("unknown way to close")
    return text


_PARSERS: dict[str, Callable[[str], object]] = {
    "delay_s": _seconds,
    "fail_first": _count,
    "fail_status": _status,
    "status": _status,
    "content_type": _header_value,
    "retry_after": _header_value,
    "body_bytes": _count,
    "echo": _flag,
    "drip_s": _seconds,
    "drips": _count,
    "redirect": _header_value,
    "hang": _flag,
    "broken": _flag,
    "close": _close,
}


@functools.lru_cache(maxsize=1024)
def parse_script(query: str) -> Script:
    """Return the script in *query*. Raises InvalidScript."""
    values: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        parse = _PARSERS.get(name)
        if parse is None:
            continue
        try:
            values[name] = parse(text)
        except ValueError as exc:
            raise InvalidScript(f"{name}={text!r}: {exc}") from exc
    return Script(**values)


@dataclass(slots=True)
class Head:
    """The request line and headers of one request."""

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    fields: dict[str, str]  # by lower-case name; the last one wins
    keep_alive: bool

    @classmethod
    def parse(cls, raw: bytes) -> Head:
        """Parse *raw*, the head without its empty line. Raises MalformedRequest."""
        request_line, *lines = raw.decode("latin-1").split("\r\n")
        parts = request_line.split(" ")
        if len(parts) != 3 or parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
            raise MalformedRequest(f"request line {request_line!r}")
        headers = []
        fields = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                raise MalformedRequest(f"header {line!r}")
            value = value.strip(" \t")
            headers.append((name, value))
            fields[name.lower()] = value
        path, _, query = parts[1].partition("?")
        keep_alive = parts[2] == "HTTP/1.1" and fields.get("connection", "").lower() != "close"
        return cls(parts[0], path, query, headers, fields, keep_alive)


@functools.lru_cache(maxsize=1024)
def render_head(status: int, headers: tuple[tuple[str, str], ...], keep_alive: bool) -> bytes:
    """Return the bytes of a response's head, its empty line included."""
    try:
        reason = http.HTTPStatus(status).phrase
    except ValueError:
        reason = "Unassigned"
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    if not keep_alive:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start *work* as a task whose failure nobody has to collect: a peer that goes fails two at once."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


class Connection:
    """One client connection: reads its requests one after the other and plays their scripts."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, log: CallLog) -> None:
        self._reader = reader
        self._writer = writer
        self._transport = writer.transport
        # drain() then waits until the kernel has every byte, which is when a call counts as answered.
        # (TCP_NODELAY needs no line here: asyncio sets it on every TCP socket.)
        self._transport.set_write_buffer_limits(high=0)
        self._log = log
        self._buffer = bytearray()  # received, not yet used: may hold the next requests already
        self._pending_read: asyncio.Task[bytes] | None = None

    async def serve(self) -> None:
        try:
            while await self._serve_request():
                pass
        except PeerClosed:
            pass
        finally:
            if self._pending_read is not None:
                self._pending_read.cancel()
            self._writer.close()

    # Reading

    async def _fill(self) -> None:
        """Append what arrives next to the buffer. Raises PeerClosed."""
        read = self._pending_read
        self._pending_read = None
        try:
            data = await (self._reader.read(READ_BYTES) if read is None else read)
        except OSError as exc:
            raise PeerClosed from exc
        if not data:
            raise PeerClosed
        self._buffer += data

    def _reading(self) -> asyncio.Task[bytes]:
        """Return the one read under way, started if there is none.

        It is never cancelled while the connection lives, so what it reads is never lost: the next
        _fill() picks it up.
        """
        if self._pending_read is None:
            self._pending_read = _start(self._reader.read(READ_BYTES))
        return self._pending_read

    async def _wait(self, seconds: float | None) -> None:
        """Wait so long (None: for ever), but raise PeerClosed the moment the peer goes."""
        loop = asyncio.get_running_loop()
        deadline = None if seconds is None else loop.time() + seconds
        while True:
            timeout = None if deadline is None else deadline - loop.time()
            done, _ = await asyncio.wait({self._reading()}, timeout=timeout)
            if not done:
                return
            await self._fill()  # pipelined bytes stay in the buffer; an end raises

    async def _read_until(self, end: bytes) -> bytes:
        """Take the bytes before the next *end* out of the buffer, and drop *end*."""
        while (at := self._buffer.find(end)) < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise MalformedRequest(f"no {end!r} in {MAX_HEAD_BYTES} bytes")
            await self._fill()
        taken = bytes(self._buffer[:at])
        del self._buffer[: at + len(end)]
        return taken

    async def _read_body(self, head: Head, call: Call | None, keep: bool) -> bytes:
        """Read the body through, counting it into *call*; return it only if *keep*."""
        chunked = "chunked" in head.fields.get("transfer-encoding", "").lower()
        length_text = head.fields.get("content-length", "0")
        if not chunked and length_text == "0":
            return b""
        if head.fields.get("expect", "").lower() == "100-continue" and not self._buffer:
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        kept = bytearray()
        if not chunked:
            if not length_text.isdecimal():
                raise MalformedRequest(f"Content-Length {length_text!r}")
            await self._read_exactly(int(length_text), call, kept if keep else None)
            return bytes(kept)
        while True:
            size_text = (await self._read_until(b"\r\n")).partition(b";")[0].strip()
            try:
                size = int(size_text, 16)
            except ValueError as exc:
                raise MalformedRequest(f"chunk size {size_text!r}") from exc
            if size == 0:
                break
            await self._read_exactly(size, call, kept if keep else None)
            if await self._read_until(b"\r\n"):
                raise MalformedRequest("chunk longer than its size")
        while await self._read_until(b"\r\n"):
            pass  # trailers
        return bytes(kept)

    async def _read_exactly(self, size: int, call: Call | None, kept: bytearray | None) -> None:
        while True:
            part = self._buffer[:size]
            del self._buffer[:size]
            size -= len(part)
            if call is not None:
                call.body_bytes += len(part)
            if kept is not None:
                kept += part
            if size == 0:
                return
            await self._fill()

    # Writing

    async def _send(self, data: bytes, call: Call | None = None) -> None:
        """Return when the kernel has all of *data*. Raises PeerClosed."""
        self._writer.write(data)
        if self._transport.is_closing():
            raise PeerClosed
        if call is not None:
            call.any_byte_sent = True
        if self._transport.get_write_buffer_size() == 0:
            return
        drain = _start(self._writer.drain())
        try:
            while not drain.done():
                await asyncio.wait({drain, self._reading()}, return_when=asyncio.FIRST_COMPLETED)
                if self._reading().done():
                    await self._fill()
            await drain
        except OSError as exc:
            raise PeerClosed from exc
        finally:
            drain.cancel()

    async def _answer(
        self,
        head: Head,
        status: int,
        body: bytes,
        content_type: str = "application/json",
        headers: tuple[tuple[str, str], ...] = (),
        call: Call | None = None,
        fill_bytes: int = 0,
    ) -> None:
        """Answer with *body* and *fill_bytes* of "x" behind it."""
        if status in (204, 304):
            body, fill_bytes = b"", 0
        else:
            headers = (
                ("Content-Type", content_type),
                ("Content-Length", str(len(body) + fill_bytes)),
                *headers,
            )
        if call is not None:
            call.status = status
        piece = min(fill_bytes, PIECE_BYTES)
        await self._send(render_head(status, headers, head.keep_alive) + body + b"x" * piece, call)
        while fill_bytes := fill_bytes - piece:
            piece = min(fill_bytes, PIECE_BYTES)
            await self._send(b"x" * piece, call)

    # Requests

    async def _serve_request(self) -> bool:
        """Serve one request; False when the connection is to be closed."""
        try:
            head = Head.parse(await self._read_until(b"\r\n\r\n"))
        except MalformedRequest as exc:
            nothing = Head("", "", "", [], {}, keep_alive=False)
            await self._answer(nothing, 400, f"{exc}\n".encode(), "text/plain")
            return False
        if head.method == "POST":
            return await self._serve_call(head)
        try:
            await self._read_body(head, None, keep=False)
        except MalformedRequest:
            return False
        await self._serve_control(head)
        return head.keep_alive

    async def _serve_call(self, head: Head) -> bool:
        call = self._log.begin(head, self._transport.get_extra_info("peername")[1])
        outcome: Outcome = "closed_by_us"
        try:
            try:
                outcome = await self._play(head, call)
            except (MalformedRequest, InvalidScript) as exc:
                head.keep_alive = False
                await self._answer(head, 400, f"{exc}\n".encode(), "text/plain", call=call)
                outcome = "answered"
        except PeerClosed:
            outcome = "closed_mid_body" if call.any_byte_sent else "closed_before_headers"
            raise
        finally:
            self._log.end(call, outcome)
        return head.keep_alive and outcome == "answered"

    async def _play(self, head: Head, call: Call) -> Outcome:
        """Do what the call's query asks; return how that ended."""
        try:
            script = parse_script(head.query)
        except InvalidScript:
            # Closing on unread bytes sends RST, which can overtake the 400.
            await self._read_body(head, call, keep=False)
            raise
        # Counted before the body is read: an attempt whose peer goes away early is one, too.
        failing = bool(script.fail_first) and self._log.count_attempt(call.request_id) <= script.fail_first
        body = await self._read_body(head, call, keep=script.echo)
        if script.delay_s:
            await self._wait(script.delay_s)

        if not failing:
            if script.hang:
                await self._wait(None)
            if script.close == "early":
                self._transport.close()
                return "closed_by_us"
            if script.close == "reset":
                on_with_0_s = struct.pack("ii", 1, 0)
                self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, on_with_0_s)
                self._transport.abort()
                return "closed_by_us"
            if script.broken:
                head.keep_alive = False
                await self._send(b"\x00\x01 this is not HTTP \xff\r\n\r\n", call)
                return "answered"

        headers: tuple[tuple[str, str], ...] = ()
        if script.retry_after is not None:
            headers += (("Retry-After", script.retry_after),)
        if failing:
            status = script.fail_status
        elif script.redirect is not None:
            status = script.status or 302
            headers += (("Location", script.redirect),)
        else:
            status = script.status or 200
        content_type = script.content_type

        if not failing and script.close == "midway":
            call.status = status
            headers += (("Content-Type", content_type or "text/plain"), ("Content-Length", "1000"))
            await self._send(render_head(status, headers, head.keep_alive) + b"x" * 100, call)
            self._transport.close()
            return "closed_by_us"
        if not failing and script.drip_s is not None:
            call.status = status
            headers += (("Content-Type", content_type or "text/plain"), ("Transfer-Encoding", "chunked"))
            await self._send(render_head(status, headers, head.keep_alive), call)
            for number in range(1, script.drips + 1):
                await self._wait(script.drip_s)
                chunk = f"drip {number}\n"
                await self._send(f"{len(chunk):x}\r\n{chunk}\r\n".encode(), call)
            await self._send(b"0\r\n\r\n", call)
            return "answered"

        if not failing and script.echo:
            answer = self._echo(head, body)
        elif not failing and script.body_bytes is not None:
            content_type = content_type or "text/plain"
            await self._answer(head, status, b"", content_type, headers, call, script.body_bytes)
            return "answered"
        else:
            answer = b'{"ok": true}' if status < 400 else b'{"ok": false}'
        await self._answer(head, status, answer, content_type or "application/json", headers, call)
        return "answered"

    @staticmethod
    def _echo(head: Head, body: bytes) -> bytes:
        return json.dumps(
            {
                "method": head.method,
                "path": head.path,
                "query": head.query,
                "headers": head.headers,
                "body": base64.b64encode(body).decode(),
            }
        ).encode()

    async def _serve_control(self, head: Head) -> None:
        route = (head.method, head.path)
        if route == ("GET", "/healthz"):
            await self._answer(head, 200, b"ok", "text/plain")
        elif route == ("GET", "/_stats"):
            await self._answer(head, 200, json.dumps(self._log.stats()).encode())
        elif route == ("GET", "/_calls"):
            wanted = dict(parse_qsl(head.query, keep_blank_values=True))
            since = wanted.get("since", "0")
            if since.isdecimal():
                records = self._log.records(wanted.get("request_id"), int(since))
                await self._answer(head, 200, json.dumps(records).encode())
            else:
                await self._answer(head, 400, f"since={since!r}: not a number\n".encode(), "text/plain")
        elif route == ("DELETE", "/_calls"):
            self._log.clear()
            await self._answer(head, 204, b"")
        else:
            await self._answer(head, 405, b"only POST is scripted\n", "text/plain")


async def serve(port: int, log_path: str | None) -> None:
    """Serve on 127.0.0.1:*port* (0: a free one) for ever; print one line when ready."""
    log = CallLog(log_path)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Connection(reader, writer, log).serve()

    server = await asyncio.start_server(connected, "127.0.0.1", port, backlog=BACKLOG, limit=READ_BYTES)
    print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def _exit_at_once(signum: int, frame: object) -> NoReturn:
    os._exit(0)  # hanging calls are not waited for


def main() -> None:
    parser = argparse.ArgumentParser(description="A scriptable HTTP target with a call log.")
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--log", metavar="FILE", help="append each finished call as a JSON line")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, _exit_at_once)
    signal.signal(signal.SIGINT, _exit_at_once)
    asyncio.run(serve(arguments.port, arguments.log))


if __name__ == "__main__":
    main()
