"""A target that costs next to nothing: any POST is answered with 1 KB of JSON, after `?delay_s=F` if the caller asks.

With `?tokens=N` the answer is one sampled sequence of N tokens instead.

    python -m benchmarks.fast_target

Runs on a free port of 127.0.0.1, which it prints. GET /_stats tells calls, ended calls, how many ran at most at once,
and the unix times of the first call and of the last answer; DELETE /_stats forgets them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TypedDict

BACKLOG = 4096  # thousands of greenlets connect in one instant
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.I)
_DELAY = re.compile(rb"[?&]delay_s=([0-9.]+)")
_TOKENS = re.compile(rb"[?&]tokens=([0-9]+)")
_CONTENT = b'{"text": "' + b"x" * 1012 + b'"}'


def _answer(content: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


_ANSWER = _answer(_CONTENT)


@functools.cache
def _sampled(tokens: int) -> bytes:
    """Ids and logprobs as long as those of a model."""
    sequence = {
        "tokens": [(7919 * i) % 150_000 for i in range(tokens)],
        "logprobs": [-((i * 37) % 1000) / 317 for i in range(tokens)],
        "stop_reason": "length",
    }
    return _answer(json.dumps({"sequences": [sequence]}).encode())


class Stats(TypedDict):
    """Times are unix seconds, 0 where there was none."""

    calls: int
    ended: int
    max_running: int
    first_call_at: float
    last_answer_at: float


class Counts:
    """What all connections count together."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.calls = self.ended = self.max_running = 0
        self.first_call_at = self.last_answer_at = 0.0

    def stats(self) -> Stats:
        return {
            "calls": self.calls,
            "ended": self.ended,
            "max_running": self.max_running,
            "first_call_at": self.first_call_at,
            "last_answer_at": self.last_answer_at,
        }


class Connection(asyncio.Protocol):
    """One keep-alive connection; a request is answered before the next one of its connection is read."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._read = read = self._read + data if self._read else data
        end = read.find(b"\r\n\r\n")
        if end < 0:
            return
        found = _LENGTH.search(read, 0, end)
        whole = end + 4 + (int(found[1]) if found else 0)
        if len(read) < whole:
            return
        self._read = read[whole:]
        if not read.startswith(b"POST"):
            self._control(read)
            return
        counts = self._counts
        counts.calls += 1
        if counts.calls == 1:
            counts.first_call_at = time.time()
        running = counts.calls - counts.ended
        if running > counts.max_running:
            counts.max_running = running
        line = read.find(b"\r\n")
        delay, tokens = _DELAY.search(read, 0, line), _TOKENS.search(read, 0, line)
        answer = _sampled(int(tokens[1])) if tokens else _ANSWER
        if delay:
            asyncio.get_running_loop().call_later(float(delay[1]), self._end, answer)
        else:
            self._end(answer)

    def _end(self, answer: bytes) -> None:
        self._transport.write(answer)
        self._counts.ended += 1
        self._counts.last_answer_at = time.time()

    def _control(self, read: bytes) -> None:
        if read.startswith(b"DELETE /_stats"):
            self._counts.clear()
        self._transport.write(_answer(json.dumps(self._counts.stats()).encode()))


async def serve() -> None:
    counts = Counts()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(counts), "127.0.0.1", 0, backlog=BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class FastTarget:
    """The target as a process of its own, for a ``with`` block."""

    def __enter__(self) -> FastTarget:
        command = [sys.executable, "-m", "benchmarks.fast_target"]
        self._process = subprocess.Popen(
            command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline() or 0)
        if not self.port:
            raise RuntimeError("the fast target did not start")
        self.pid = self._process.pid
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def stats(self) -> Stats:
        return self._control("GET")

    def clear(self) -> None:
        self._control("DELETE")

    def _control(self, method: str) -> Stats:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request(method, "/_stats")
            found: Stats = json.loads(connection.getresponse().read())
            return found


def main() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    asyncio.run(serve())


if __name__ == "__main__":
    main()
