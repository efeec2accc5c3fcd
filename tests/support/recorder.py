"""A reverse proxy on loopback that remembers what was asked and answered, for tests that count.

    with Recorder("127.0.0.1", 5000) as recorder:
        ...clients of recorder.url...
        recorder.exchanges

Each client's connection has one of its own to the server. Answers need a length; bytes are passed on as they came.
That a client has gone is noticed when its answer is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Self

BACKLOG = 4096
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.I)


@dataclass
class Exchange:
    """One request; *status* is 0 as long as, or because, no answer came. Times are those of time.monotonic()."""

    path: str
    asked: bytes
    began_at: float
    status: int = 0
    answer: bytes = b""
    ended_at: float = 0

    @property
    def endpoint(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """(head, body) of the next message, b"" where the sender has ended. Raises IncompleteReadError."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as exc:
        if exc.partial:
            raise
        return b"", b""
    length = _LENGTH.search(head)
    return head, await reader.readexactly(int(length[1])) if length else b""


class Recorder:
    """Forwards to *host*:*port* from a port of its own, in a thread of its own."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = host, port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="recorder", daemon=True)
        self._connections: set[asyncio.Task[None]] = set()
        self.exchanges: list[Exchange] = []
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def of(self, endpoint: str) -> list[Exchange]:
        """Those whose path ends with it, in the order of their beginning."""
        return [one for one in list(self.exchanges) if one.endpoint == endpoint]

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=BACKLOG)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _close(self) -> None:
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            # An end in the middle: the other side has it too, and sees no answer.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._pass_on(reader, writer)
        finally:
            writer.close()
            self._connections.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(*self._upstream)
        try:
            while True:
                head, body = await _message(reader)
                if not head:
                    return
                exchange = Exchange(head.split(b" ", 2)[1].decode(), body, time.monotonic())
                self.exchanges.append(exchange)
                to_server.write(head + body)
                answer_head, answer = await _message(from_server)
                if not answer_head:
                    return
                exchange.ended_at = time.monotonic()
                exchange.answer, exchange.status = answer, int(answer_head[9:12])
                writer.write(answer_head + answer)
                await writer.drain()
        finally:
            to_server.close()
