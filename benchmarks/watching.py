"""Clients that watch queues, a thousand in one thread: WebSockets of the PAI-EAS protocol over plain sockets.

They know no more of WebSockets than a queue sends: whole binary frames, pings, pongs, closes.
"""

from __future__ import annotations

import base64
import itertools
import os
import resource
import selectors
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from benchmarks.sides import Void

BINARY, CLOSE, PING, PONG = 0x2, 0x8, 0x9, 0xA
AT_ONCE = 50  # handshakes
ANSWER_S = 30
RECEIVED_MOST = 65_536
SPARE_FILES = 200
# What the Python SDK sends every 2 s. A mask of zeros is a mask: the server has the same work with it.
PING_FRAME = b"\x89\x84\0\0\0\0ping"


class Place(NamedTuple):
    """Who watches what. *queue*: a path."""

    queue: str
    group: str
    user: str


class Answer(NamedTuple):
    """*at*: when its last byte had come, by time.perf_counter."""

    status: int
    head: bytes
    body: bytes
    at: float


@dataclass(frozen=True)
class Arrival:
    """An item as a watcher got it."""

    index: int
    place: Place
    at: float


class Reader(Protocol):
    """What stands behind a socket of the selector."""

    def receive(self) -> None:
        """Read what there is. Raises Void when the connection has ended."""


def frames(buffer: bytearray) -> list[tuple[int, bytes]]:
    """(opcode, content) of the whole frames at the start of *buffer*, which lose their place there.

    Raises Void for one that a queue must not send: fragmented, masked, or of an extension.
    """
    found: list[tuple[int, bytes]] = []
    at = 0
    while len(buffer) - at >= 2:
        first, size, start = buffer[at], buffer[at + 1], at + 2
        if first & 0xF0 != 0x80 or size & 0x80:
            raise Void(f"a frame begins with {bytes(buffer[at : at + 2])!r}")
        if size >= 126:
            form = ">H" if size == 126 else ">Q"
            if len(buffer) < start + struct.calcsize(form):
                break
            (size,) = struct.unpack_from(form, buffer, start)
            start += struct.calcsize(form)
        if len(buffer) < start + size:
            break
        found.append((first & 0x0F, bytes(buffer[start : start + size])))
        at = start + size
    del buffer[:at]
    return found


def index_of(content: bytes) -> int:
    """The index of a DataFrameProto, its first field; 0 where it has none."""
    if content[:1] != b"\x08":
        return 0
    value = 0
    for shift, byte in enumerate(content[1:]):
        value |= (byte & 0x7F) << 7 * shift
        if not byte & 0x80:
            break
    return value


class Watcher:
    """One WebSocket. *arrivals* is shared by all."""

    def __init__(self, port: int, token: str, place: Place, *, auto_commit: bool, arrivals: list[Arrival]) -> None:
        self.place = place
        self.is_open = False
        self.pongs = 0
        self._arrivals = arrivals
        self._buffer = bytearray()
        self.socket = socket.create_connection(("127.0.0.1", port))
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {place.queue}?_watch_=true&_index_=0&_window_=5&_index_only_=false"
            f"&_auto_commit_={str(auto_commit).lower()} HTTP/1.1\r\n"
            f"Host: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\nAuthorization: {token}\r\n"
            f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            f"X-EAS-QueueService-Uid: {place.user}\r\nX-EAS-QueueService-Gid: {place.group}\r\n\r\n".encode()
        )

    def receive(self) -> None:
        data = self.socket.recv(RECEIVED_MOST)
        if not data:
            raise Void(f"the server has closed the connection of {self.place}: {bytes(self._buffer[:300])!r}")
        self._buffer += data
        if not self.is_open:
            head, end, rest = bytes(self._buffer).partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                raise Void(f"{self.place} may not watch: {bytes(self._buffer[:300])!r}")
            self.is_open = True
            self._buffer[:] = rest
        at = time.perf_counter()
        for opcode, content in frames(self._buffer):
            if opcode == BINARY:
                self._arrivals.append(Arrival(index_of(content), self.place, at))
            elif opcode == PONG:
                self.pongs += 1
            elif opcode == PING:
                self.socket.sendall(bytes((0x80 | PONG, 0x80 | len(content))) + bytes(4) + content)
            else:
                raise Void(f"{self.place} got a frame with opcode {opcode}: {content[:100]!r}")


class Caller:
    """One kept connection for calls, one after the other."""

    def __init__(self, port: int, token: str) -> None:
        self._host = f"Host: 127.0.0.1:{port}\r\nAuthorization: {token}\r\n"
        self._buffer = bytearray()
        self.answer: Answer | None = None
        self.socket = socket.create_connection(("127.0.0.1", port))

    def send(self, method: str, target: str, body: bytes, headers: Mapping[str, str]) -> None:
        self.answer = None
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"{method} {target} HTTP/1.1\r\n{self._host}{more}Content-Length: {len(body)}\r\n\r\n"
        self.socket.sendall(head.encode() + body)

    def receive(self) -> None:
        data = self.socket.recv(RECEIVED_MOST)
        if not data:
            raise Void("the server has closed the connection of calls")
        self._buffer += data
        head, end, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        size = head.lower().partition(b"\r\ncontent-length:")[2].split(b"\r\n", 1)[0]
        if end and len(rest) >= int(size or 0):
            self.answer = Answer(int(head[9:12]), head, rest[: int(size or 0)], time.perf_counter())
            self._buffer.clear()


class Clients:
    """Watchers and one caller, served by whoever runs this; a context manager that closes them."""

    def __init__(self, port: int, token: str, *, auto_commit: bool) -> None:
        self._port, self._token, self._auto_commit = port, token, auto_commit
        self._selector = selectors.DefaultSelector()
        self.watchers: list[Watcher] = []
        self.arrivals: list[Arrival] = []
        self.pings = 0
        self._ping_every_s = 0.0
        self._pings_from = 0.0
        self._turn = itertools.cycle(self.watchers)
        self._caller: Caller | None = None

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _add(self, sock: socket.socket, reader: Reader) -> None:
        self._selector.register(sock, selectors.EVENT_READ, reader)

    def connect(self, places: Sequence[Place]) -> None:
        """Return when each of *places* is watched. Raises Void."""
        allowed, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if allowed < len(places) + SPARE_FILES:
            if hard < len(places) + SPARE_FILES:
                raise Void(f"{len(places)} watchers need as many open files; `ulimit -Hn` allows {hard}")
            resource.setrlimit(resource.RLIMIT_NOFILE, (len(places) + SPARE_FILES, hard))
        for i in range(0, len(places), AT_ONCE):
            for place in places[i : i + AT_ONCE]:
                watcher = Watcher(self._port, self._token, place, auto_commit=self._auto_commit, arrivals=self.arrivals)
                self._add(watcher.socket, watcher)
                self.watchers.append(watcher)
            self._until(lambda: all(watcher.is_open for watcher in self.watchers[-AT_ONCE:]), "the handshakes")

    def ping(self, every_s: float) -> None:
        """Let each watcher ping that often from now on, evenly spread; 0: not any more."""
        self._ping_every_s, self._pings_from, self.pings = every_s, time.perf_counter(), 0
        self._turn = itertools.cycle(self.watchers)
        for watcher in self.watchers:
            watcher.pongs = 0

    def serve(self, seconds: float) -> None:
        """Read and ping for so long. Raises Void when a watcher lost its connection."""
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            self._step(left)

    def await_pongs(self) -> None:
        """Ping no more, and return when all pings were answered. Raises Void."""
        self._ping_every_s = 0
        self._until(lambda: sum(watcher.pongs for watcher in self.watchers) >= self.pings, "the pongs")

    def call(self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """Raises Void unless the answer is a success."""
        if self._caller is None:
            self._caller = Caller(self._port, self._token)
            self._add(self._caller.socket, self._caller)
        caller = self._caller
        caller.send(method, target, body, headers or {})
        self._until(lambda: caller.answer is not None, f"an answer to {method} {target}")
        answer = caller.answer
        assert answer is not None
        if not 200 <= answer.status < 300:
            raise Void(f"{method} {target} was answered {answer.status}: {answer.body[:200]!r}")
        return answer

    def await_arrivals(self, count: int) -> None:
        """Return when so many items have come since the start. Raises Void."""
        self._until(lambda: len(self.arrivals) >= count, f"item {count} of this run")

    def _until(self, is_so: Callable[[], bool], what: str) -> None:
        end = time.perf_counter() + ANSWER_S
        while not is_so():
            left = end - time.perf_counter()
            if left <= 0:
                raise Void(f"waited {ANSWER_S} s for {what}")
            self._step(left)

    def _step(self, timeout_s: float) -> None:
        if self._ping_every_s:
            gap_s = self._ping_every_s / len(self.watchers)
            while (due := self._pings_from + self.pings * gap_s) <= time.perf_counter():
                next(self._turn).socket.sendall(PING_FRAME)
                self.pings += 1
            timeout_s = min(timeout_s, max(0, due - time.perf_counter()))
        for key, _ in self._selector.select(timeout_s):
            key.data.receive()
