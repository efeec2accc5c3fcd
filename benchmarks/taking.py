"""Clients of the take API that cost little, all in this one process: a connection each, and a script of calls on it."""

from __future__ import annotations

import collections
import json
import re
import selectors
import socket
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import NamedTuple

from benchmarks.sides import Void

QUEUE = "takers"
LEVEL = f"{QUEUE}:1"
ENDPOINT = "/v1/work"
AT_ONCE = 10  # tasks a take
ANSWER_S = 30  # the most that one call may take
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.I)


class Answer(NamedTuple):
    """*seconds*: from the call's first byte to the answer's last one."""

    status: int
    body: bytes
    seconds: float


Script = Generator[bytes, Answer, None]  # gives calls, gets their answers


class Connection:
    """Sends what its script gives, one call at a time."""

    def __init__(self, port: int, script: Script) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._script, self._read = script, b""
        self._send(next(script))

    def receive(self) -> bool:
        """Read what has come; whether the script goes on. Raises Void when the server ends the connection."""
        data = self.socket.recv(65_536)
        if not data:
            raise Void(f"the web closed a connection in the middle of a call; it had sent {self._read[:200]!r}")
        self._read = read = self._read + data if self._read else data
        end = read.find(b"\r\n\r\n")
        if end < 0:
            return True
        length = _LENGTH.search(read, 0, end)
        if length is None:
            raise Void(f"an answer without a length: {read[:200]!r}")
        whole = end + 4 + int(length[1])
        if len(read) < whole:
            return True
        self._read = b""
        answer = Answer(int(read[9:12]), read[end + 4 : whole], time.perf_counter() - self._sent_at)
        try:
            call = self._script.send(answer)
        except StopIteration:
            return False
        self._send(call)
        return True

    def _send(self, call: bytes) -> None:
        self._sent_at = time.perf_counter()
        self.socket.sendall(call)


def play(port: int, scripts: Iterable[Script]) -> float:
    """Play all scripts at the same time, a connection each; the seconds until the last has ended. Raises Void."""
    with selectors.DefaultSelector() as selector:
        connections = [Connection(port, script) for script in scripts]
        began = min(connection._sent_at for connection in connections)
        try:
            for connection in connections:
                selector.register(connection.socket, selectors.EVENT_READ, connection)
            left = len(connections)
            while left:
                ready = selector.select(ANSWER_S)
                if not ready:
                    raise Void(f"no answer came for {ANSWER_S} s")
                for key, _ in ready:
                    if not key.data.receive():
                        selector.unregister(key.fileobj)
                        left -= 1
            return time.perf_counter() - began
        finally:
            for connection in connections:
                connection.socket.close()


class Calls:
    """Builds what scripts send, but for the parts that differ built once."""

    def __init__(self, token: str) -> None:
        self._head = f"Host: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n".encode()

    def post(self, path: str, body: bytes) -> bytes:
        line = b"POST %s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n" % (path.encode(), self._head, len(body))
        return line + body

    def get(self, path: str) -> bytes:
        return b"GET %s HTTP/1.1\r\n%s\r\n" % (path.encode(), self._head)

    def put(self, data: object) -> bytes:
        task = {"queue": QUEUE, "level": 1, "endpoint": ENDPOINT, "response_mode": "callback", "data": data}
        return self.post("/v1/queue/put", json.dumps(task).encode())

    def take(self) -> bytes:
        """What a worker sends that lets its tasks come back when it dies."""
        asked = {"queues": [LEVEL], "size": AT_ONCE, "strategy": "fifo"}
        return self.post(
            "/v1/queue/take", json.dumps(asked | {"process_timeout": 600, "process_max_retries": -1}).encode()
        )

    def complete(self, task_id: str, body: bytes) -> bytes:
        content = b'{"status_code": 200, "request_id": "%s", "body": %s}' % (task_id.encode(), body)
        return self.post(f"/v1/queue/{task_id}/complete", content)


def content(answer: Answer) -> bytes:
    """Raises Void unless the answer is a success."""
    if answer.status != 200:
        raise Void(f"answered {answer.status}: {answer.body[:300]!r}")
    return answer.body


def once(port: int, call: bytes) -> bytes:
    """The answer to one call. Raises Void."""
    found: list[bytes] = []

    def script() -> Script:
        found.append(content((yield call)))

    play(port, [script()])
    return found[0]


def putting(calls: Calls, numbers: Iterator[int], size: int, put: list[str]) -> Script:
    """Put a task for each of *numbers*, with *size* bytes of text; *put* gets their ids."""
    for number in numbers:
        answer = yield calls.put({"n": number, "text": "x" * size})
        put.append(json.loads(content(answer))["data"])


class Taken:
    """What all takers together were given, and what they answered."""

    def __init__(self) -> None:
        self.times: collections.Counter[str] = collections.Counter()  # how often each task was given to one
        self.results: dict[str, bytes] = {}  # by task: the body of its completion
        self.takes = 0


def taking(calls: Calls, taken: Taken, *, completes: bool) -> Script:
    """One taker: it takes until nothing is left. *completes*: each task, one by one, before it takes again."""
    take = calls.take()
    while True:
        answer = yield take
        found = json.loads(content(answer))
        taken.takes += 1
        if not found:
            return
        for task in found[LEVEL]:
            task_id = task["task_id"]
            taken.times[task_id] += 1
            if completes:
                result = b'{"n": %d, "by": "%x"}' % (task["data"]["n"], id(take))
                content((yield calls.complete(task_id, result)))
                taken.results[task_id] = result


def taking_nothing(calls: Calls, more: Callable[[], bool], took_s: list[float]) -> Script:
    """Takes from an empty queue as long as there are *more*."""
    take = calls.take()
    while more():
        answer = yield take
        if content(answer) != b"{}":
            raise Void(f"an empty queue gave {answer.body[:200]!r}")
        took_s.append(answer.seconds)
