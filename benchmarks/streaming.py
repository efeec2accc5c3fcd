"""Clients that read status streams, a thousand in one thread: fal's protocol over plain sockets.

They know no more of HTTP than a stream sends: one chunk for each event, an empty one at the end.
"""

from __future__ import annotations

import re
import resource
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.sides import Void

AT_ONCE = 50  # connections that are made
ANSWER_S = 30
RECEIVED_MOST = 65_536
SPARE_FILES = 200
_POSITION = re.compile(rb'"queue_position": (\d+)')


def chunks(buffer: bytearray) -> list[bytes]:
    """The whole chunks at the start of *buffer*, which lose their place there; b"" is the end of the stream.

    Raises Void for what is no chunk.
    """
    found, at = [], 0
    while (line := buffer.find(b"\r\n", at)) >= 0:
        try:
            size = int(buffer[at:line], 16)
        except ValueError:
            raise Void(f"no chunk: {bytes(buffer[at : at + 100])!r}") from None
        end = line + 2 + size
        if len(buffer) < end + 2:
            break
        found.append(bytes(buffer[line + 2 : end]))
        at = end + 2
    del buffer[:at]
    return found


@dataclass
class Told:
    """What one stream was told. Times are unix seconds, so that they compare with those of the server."""

    positions: list[tuple[float, int]] = field(default_factory=list)
    started_at: float = 0
    completed_at: float = 0
    closed_at: float = 0  # its last chunk had come

    @property
    def word(self) -> str:
        """Of the latest event."""
        return "COMPLETED" if self.completed_at else "IN_PROGRESS" if self.started_at else "IN_QUEUE"


class Stream:
    """One stream as the JavaScript client asks for it."""

    def __init__(self, port: int, token: str, path: str) -> None:
        self.path = path
        self.told = Told()
        self._buffer = bytearray()
        self._is_open = False
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Key {token}\r\n"
            "accept: application/json, text/event-stream\r\ncontent-type: application/json\r\n"
            "accept-language: *\r\nsec-fetch-mode: cors\r\nuser-agent: node\r\n"
            "connection: keep-alive\r\naccept-encoding: gzip, deflate\r\n\r\n".encode()
        )

    def receive(self) -> None:
        """Read what there is. Raises Void for what no stream may send."""
        data = self.socket.recv(RECEIVED_MOST)
        at = time.time()
        if not data:
            raise Void(f"the server has closed {self.path}: {bytes(self._buffer[:300])!r}")
        self._buffer += data
        if not self._is_open:
            head, end, rest = bytes(self._buffer).partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 200 ") or b"text/event-stream" not in head:
                raise Void(f"{self.path} is no stream: {bytes(self._buffer[:300])!r}")
            self._is_open = True
            self._buffer[:] = rest
        for chunk in chunks(self._buffer):
            self._take(chunk, at)

    def _take(self, chunk: bytes, at: float) -> None:
        told = self.told
        if not chunk:
            told.closed_at = at
        elif chunk.startswith(b":"):
            pass
        elif chunk.startswith(b'data: {"status": "IN_QUEUE"') and (found := _POSITION.search(chunk)):
            told.positions.append((at, int(found[1])))
        elif chunk.startswith(b'data: {"status": "IN_PROGRESS"'):
            told.started_at = told.started_at or at
        elif chunk.startswith(b'data: {"status": "COMPLETED"'):
            told.completed_at = at
        else:
            raise Void(f"{self.path} was told {chunk[:200]!r}")


class Readers:
    """Open streams, read by whoever runs this; a context manager that closes them."""

    def __init__(self, port: int, token: str) -> None:
        self._port, self._token = port, token
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_: object) -> None:
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    @property
    def open_count(self) -> int:
        """How many have not been closed by the server."""
        return len(self._selector.get_map())

    def connect(self, paths: Sequence[str]) -> list[Stream]:
        """Return when each of *paths* has had its first event. Raises Void."""
        wanted = self.open_count + len(paths) + SPARE_FILES
        allowed, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if allowed < wanted:
            if hard < wanted:
                raise Void(f"{len(paths)} streams need as many open files; `ulimit -Hn` allows {hard}")
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        made: list[Stream] = []
        for i in range(0, len(paths), AT_ONCE):
            some = [Stream(self._port, self._token, path) for path in paths[i : i + AT_ONCE]]
            for stream in some:
                self._selector.register(stream.socket, selectors.EVENT_READ, stream)
            self.until(lambda some=some: all(stream.told.positions for stream in some), "first events")  # type: ignore[misc]
            made += some
        return made

    def serve(self, seconds: float) -> None:
        """Read for so long. Raises Void."""
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            self._step(left)

    def until(self, is_so: Callable[[], bool], what: str, timeout_s: float = ANSWER_S) -> None:
        """Read until it is so. Raises Void."""
        end = time.perf_counter() + timeout_s
        while not is_so():
            left = end - time.perf_counter()
            if left <= 0:
                raise Void(f"waited {timeout_s:g} s for {what}")
            self._step(left)

    def _step(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            key.data.receive()
            if key.data.told.closed_at:
                self._selector.unregister(key.fileobj)
                key.data.socket.close()
