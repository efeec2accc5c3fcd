"""A TCP proxy on loopback that breaks as networks do, for one test's worth of connections.

    with Proxy("127.0.0.1", 6379) as proxy:
        ...connect to proxy.port...
        proxy.blackhole()

Modes hold for the connections there are and for those that come:

- ``pass_on()``: bytes go through, in order; what was held goes first.
- ``blackhole()``: connections are accepted and held; nothing goes through, not even an end.
- ``reset()``: connections end with RST, new ones at once.
- ``latency(s)``: each piece arrives *s* later; bandwidth is not limited.

``strand()`` is for the connections of this moment only: they are held for good whatever the mode becomes, as when a
firewall has forgotten them, while new ones work.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

PIECE = 65_536
HELD_MOST = 64  # pieces in each direction of a connection; then the sender is no longer read, as with a full window
RST = b""


class _Connection:
    """One client and its own connection to the server."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.stranded = False
        self._proxy = proxy
        self._client = reader, writer
        self._writers = [writer]

    async def run(self) -> None:
        await self._let_through()
        try:
            server = await asyncio.open_connection(*self._proxy.upstream)
        except OSError:
            return self.abort()
        self._writers.append(server[1])
        pumps = [
            asyncio.ensure_future(self._pump(self._client[0], server[1])),
            asyncio.ensure_future(self._pump(server[0], self._client[1])),
        ]
        try:
            await asyncio.gather(*pumps)
        except OSError:
            self.abort()
        finally:
            for pump in pumps:
                pump.cancel()
            for writer in self._writers:
                writer.close()

    def abort(self) -> None:
        """End both sides with RST."""
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until the sender's end has been passed on."""
        pieces: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue(HELD_MOST)
        clock = asyncio.get_running_loop().time

        async def read() -> None:
            piece: bytes | None = b""
            while piece is not None:
                try:
                    piece = await reader.read(PIECE) or None
                    await pieces.put((clock() + self._proxy.latency_s, piece))
                except OSError:  # the sender's RST travels no better than its bytes
                    await pieces.put((0.0, RST))
                    return

        reading = asyncio.ensure_future(read())
        try:
            while True:
                due, piece = await pieces.get()
                await asyncio.sleep(max(0.0, due - clock()))
                await self._let_through()
                if piece is None:
                    writer.write_eof()
                    return
                if piece is RST:
                    self.abort()
                    return
                writer.write(piece)
                await writer.drain()
        finally:
            reading.cancel()

    async def _let_through(self) -> None:
        async with self._proxy.changed:
            await self._proxy.changed.wait_for(lambda: not self._proxy.holds and not self.stranded)


class Proxy:
    """Forwards to *host*:*port* from a port of its own, in a thread of its own. Methods may be called from any thread
    and return when the change is in force.
    """

    def __init__(self, host: str, port: int) -> None:
        self.upstream = host, port
        self.port = 0
        self.holds = False
        self.latency_s = 0.0
        self.accepted = 0  # connections since the start
        self._resets = False
        self._connections: dict[_Connection, asyncio.Task[None]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # ------------------------------------------------------------------------------------------------------- modes
    def pass_on(self) -> None:
        self._do(self._change())

    def blackhole(self) -> None:
        self._do(self._change(holds=True))

    def reset(self) -> None:
        self._do(self._change(resets=True))

    def latency(self, seconds: float) -> None:
        self._do(self._change(latency_s=seconds))

    def strand(self) -> None:
        self._do(self._each(lambda connection: setattr(connection, "stranded", True)))

    @property
    def open(self) -> int:
        """Connections that have not ended, held ones included."""
        return len(self._connections)

    # -------------------------------------------------------------------------------------------------- in the loop
    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self.changed = asyncio.Condition()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        connection = _Connection(self, reader, writer)
        if self._resets:
            return connection.abort()
        task = asyncio.ensure_future(connection.run())
        self._connections[connection] = task
        try:
            await task
        except asyncio.CancelledError:
            connection.abort()
        finally:
            del self._connections[connection]

    async def _change(self, *, holds: bool = False, resets: bool = False, latency_s: float = 0.0) -> None:
        async with self.changed:
            self.holds, self._resets, self.latency_s = holds, resets, latency_s
            self.changed.notify_all()
        if resets:
            await self._each(_Connection.abort)

    async def _each(self, act: Callable[[_Connection], None]) -> None:
        for connection in list(self._connections):
            act(connection)

    async def _close(self) -> None:
        self._server.close()
        tasks = list(self._connections.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)
