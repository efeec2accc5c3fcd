"""Clients that read status streams, a thousand in one thread: fal's protocol over plain sockets.

They know no more of HTTP than a stream sends: one chunk for each event, an empty one at the end.
"""

from __future__ import annotations

import functools
import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.holding import RECEIVED_MOST, Holder
from benchmarks.sides import Void

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

    @property
    def is_joined(self) -> bool:
        return bool(self.told.positions)

    @property
    def is_over(self) -> bool:
        return bool(self.told.closed_at)

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


class Readers(Holder):
    """Open streams, read by whoever runs this; a context manager that closes them."""

    def __init__(self, port: int, token: str) -> None:
        super().__init__()
        self._port, self._token = port, token

    def connect(self, paths: Sequence[str]) -> list[Stream]:
        """Return when each of *paths* has had its first event. Raises Void."""
        made: list[Stream] = []

        def make(path: str) -> Stream:
            made.append(Stream(self._port, self._token, path))
            return made[-1]

        self.hold([functools.partial(make, path) for path in paths])
        return made
