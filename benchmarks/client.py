"""HTTP clients that measure: one of asyncio that is its own clock, and wrk."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

BODY = b'{"prompt": "' + b"x" * 1010 + b'"}'  # 1 KB
REUSE_S = 1  # gunicorn closes a connection that is idle for 2 s, unless it is told otherwise
WRK_SCRIPT = Path(__file__).parent / "wrk_post.lua"


class Answer(NamedTuple):
    status: int
    body: bytes


class Client:
    """Keeps connections as long as the server lets it; as many at once as calls are made at once."""

    def __init__(self, port: int, headers: dict[str, str]) -> None:
        self._port = port
        self._head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._idle: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []  # since when

    async def call(self, method: str, path: str, body: bytes = b"", more: str = "") -> Answer:
        """*more*: further header lines, each with its end. Raises OSError, EOFError; a call is never repeated."""
        reader, writer = self._kept() or await asyncio.open_connection("127.0.0.1", self._port)
        try:
            length = f"Content-Length: {len(body)}\r\n" if body else ""
            writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{self._head}{more}{length}\r\n".encode() + body)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            content = await reader.readexactly(int(head.partition(b"\r\ncontent-length:")[2].split(b"\r\n", 1)[0]))
        except BaseException:
            writer.close()
            raise
        if b"\r\nconnection: close" in head:
            writer.close()
        else:
            self._idle.append((time.monotonic(), reader, writer))
        return Answer(int(head[9:12]), content)

    def _kept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """The connection used last; those that the server may be closing at this moment are not used."""
        if not self._idle:
            return None
        since, reader, writer = self._idle.pop()
        if time.monotonic() - since < REUSE_S:
            return reader, writer
        writer.close()
        self.close()
        return None

    def close(self) -> None:
        for _, _, writer in self._idle:
            writer.close()
        self._idle.clear()


async def fill(client: Client, path: str, count: int, at_once: int = 16) -> list[str]:
    """Submit *count* requests as fast as it goes; their ids. Raises RuntimeError when one is refused."""
    left, made = iter(range(count)), []

    async def submit() -> None:
        for _ in left:
            answer = await client.call("POST", path, BODY)
            if answer.status != 200:
                raise RuntimeError(f"submit answered {answer.status}: {answer.body[:200]!r}")
            made.append(answer.body.decode())

    await asyncio.gather(*(submit() for _ in range(at_once)))
    return made


async def open_loop(
    act: Callable[[], Awaitable[bool]], *, rate: float, seconds: float
) -> tuple[list[float], list[str]]:
    """Begin *act* by the clock, whatever became of earlier ones: (milliseconds, sorted; what went wrong).

    Each counts from the moment at which it was due: that this process or the server was late is part of it. *act* tells
    whether it had its result.
    """
    took: list[float] = []
    wrong: list[str] = []

    async def one(due: float) -> None:
        try:
            if await act():
                took.append((time.perf_counter() - due) * 1000)
            else:
                wrong.append("no result")
        except (OSError, EOFError, ValueError) as exc:
            wrong.append(repr(exc))

    began = time.perf_counter() + 0.05
    tasks = []
    for number in range(round(rate * seconds)):
        due = began + number / rate
        await asyncio.sleep(max(0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    return sorted(took), wrong


def wrk(url: str, headers: dict[str, str], *, connections: int, seconds: int) -> dict[str, Any]:
    """POST the 1 KB body as fast as it goes: `requests`, `rate` per second, `p50_ms`, `p90_ms`, `p99_ms`, `errors`.

    Raises RuntimeError where wrk is not installed.
    """
    program = shutil.which("wrk")
    if program is None:
        raise RuntimeError("the enqueue part needs wrk: apt install wrk, or leave the part out (--parts)")
    command = [program, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(WRK_SCRIPT)]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    output = subprocess.run([*command, url], capture_output=True, text=True, check=True, timeout=seconds + 30).stdout
    found: dict[str, Any] = json.loads(output[output.index("JSON ") + 5 :])
    return found
