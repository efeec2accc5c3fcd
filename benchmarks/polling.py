"""Polls for samples: those of the high-level client, which the web holds, and those of scripts, answered at once."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import socket
import time
from collections.abc import Callable, Sequence

from benchmarks import taking
from benchmarks.holding import AT_ONCE, RECEIVED_MOST, Holder
from benchmarks.sides import Void

SERVICE = "demo"
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.I)


class Calls:
    """Builds what the clients send."""

    def __init__(self, token: str) -> None:
        self._token = token

    def post(self, name: str, content: object, **more: str) -> bytes:
        """*more*: headers, with underscores for hyphens."""
        body = json.dumps(content, separators=(",", ":")).encode()
        headers = {"X-API-Key": self._token, "User-Agent": "AsyncTinker/Python 0.38.0"} | more
        lines = "".join(f"{key.replace('_', '-')}: {value}\r\n" for key, value in headers.items())
        head = f"POST /api/v1/{name} HTTP/1.1\r\nHost: x\r\n{lines}Content-Type: application/json\r\n"
        return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def submit(self, service: str = SERVICE, *, tokens: int = 256, **more: str) -> bytes:
        """A sample, as the published script asks for one; it names its service itself."""
        asked = {
            "num_samples": 1,
            "prompt": {"chunks": [{"tokens": [1] * tokens, "type": "encoded_text"}]},
            "sampling_params": {"max_tokens": 128, "temperature": 0.7, "top_k": -1, "top_p": 1.0},
            "base_model": service,
            "type": "sample",
        }
        return self.post("asample", asked, **more)

    def submit_by_script(self) -> bytes:
        return self.submit(X_Tinker_Sampling_Backpressure="1")

    def poll(self, request_id: str, accept: str = "application/json") -> bytes:
        """A script's."""
        return self.post("retrieve_future", {"request_id": request_id, "allow_metadata_only": False}, Accept=accept)

    def high_poll(self, request_id: str, accept: str = "application/x-protobuf") -> bytes:
        asked = {"request_id": request_id, "allow_metadata_only": True}
        more = {"X_Tinker_Request_Type": "Sample", "X_Tinker_Request_Iteration": "0"}
        return self.post("retrieve_future", asked, Accept=accept, **more)


def submitting(call: bytes, count: int, made: list[str]) -> taking.Script:
    """Submit so often; *made* gets the ids."""
    for _ in range(count):
        answer = yield call
        made.append(json.loads(taking.content(answer))["request_id"])


def asking(call: bytes, status: int, more: Callable[[], bool], took_s: list[float], size: list[int]) -> taking.Script:
    """Ask for the same thing as long as there is *more*; *size* gets the length of the answer."""
    while more():
        answer = yield call
        if answer.status != status:
            raise Void(f"answered {answer.status}, not {status}: {answer.body[:200]!r}")
        took_s.append(answer.seconds)
        size[:] = [len(answer.body)]


class Poll:
    """What the high-level client does: ask again as soon as it is told to wait on, or of trouble, until all is well."""

    def __init__(self, port: int, call: bytes) -> None:
        self._call, self._buffer = call, bytearray()
        self.answered_at = 0.0  # unix seconds, so that they compare with those of the server
        self.renewals = self.troubles = 0  # 408 and 5xx
        self.body = b""
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(call)

    @property
    def is_joined(self) -> bool:
        """The web says nothing to who waits: that it holds this one is seen at its store."""
        return True

    @property
    def is_over(self) -> bool:
        return bool(self.answered_at)

    def receive(self) -> None:
        """Read what there is. Raises Void for what no poll may be told."""
        data = b""
        with contextlib.suppress(ConnectionError):
            data = self.socket.recv(RECEIVED_MOST)
        at = time.time()
        if not data:
            raise Void(f"the web closed a poll; it had sent {bytes(self._buffer[:200])!r}")
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        length = _LENGTH.search(self._buffer, 0, end) if end >= 0 else None
        if length is None or len(self._buffer) < end + 4 + int(length[1]):
            return
        status, self.body = int(self._buffer[9:12]), bytes(self._buffer[end + 4 :])
        self._buffer.clear()
        if status == 408 or status >= 500:
            self.renewals += status == 408
            self.troubles += status >= 500
            self.socket.sendall(self._call)
        elif status == 200:
            self.answered_at = at
        else:
            raise Void(f"a poll was answered {status}: {self.body[:200]!r}")


class Polls(Holder):
    """Polls that are held; a context manager that closes them."""

    def __init__(self, port: int, calls: Calls) -> None:
        super().__init__()
        self._port, self._calls = port, calls

    def begin(self, request_ids: Sequence[str], held: Callable[[], int] | None = None) -> list[Poll]:
        """One for each of them, some at a time: the next ones when the web holds all until then. Raises Void.

        *held*: how many it holds; None: all at once.
        """
        made: list[Poll] = []

        def make(request_id: str) -> Poll:
            made.append(Poll(self._port, self._calls.high_poll(request_id)))
            return made[-1]

        before = self.open_count
        for i in range(0, len(request_ids), AT_ONCE):
            self.hold([functools.partial(make, request_id) for request_id in request_ids[i : i + AT_ONCE]])
            if held is not None:
                wanted = before + len(made)
                self.until(lambda wanted=wanted: held() >= wanted, f"{wanted} polls to be held")  # type: ignore[misc]
        return made
