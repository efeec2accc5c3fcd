"""A client of the PAI-EAS dialect as its wire has it: put, get, commit, watch, by requests made by hand."""

from __future__ import annotations

import base64
import contextlib
import copy
import http.client
import os
import select
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from eas_queue.dialects.eas import frames_pb2
from tests.support.front import Answer
from tests.support.installation import TOKEN, await_condition

PROTOBUF = "application/vnd.google.protobuf"
REQUEST_ID = "X-Eas-Queueservice-Request-Id"
Query = Mapping[str, object] | Sequence[tuple[str, object]] | str
BINARY, CLOSE, PING, PONG = 2, 8, 9, 10
QUIET_S = 0.3  # what should not come has had time to come


@dataclass(frozen=True)
class Item:
    index: int
    tags: Mapping[str, str]
    data: bytes


def items_of(answer: Answer) -> list[Item]:
    """Of a get's JSON or protobuf."""
    assert answer.status == 200, (answer.status, answer.body)
    if answer.headers["Content-Type"] == PROTOBUF:
        frames = frames_pb2.DataFrameListProto.FromString(answer.body).index
        return [Item(frame.index, dict(frame.tags), frame.data) for frame in frames]
    assert answer.headers["Content-Type"] == "application/json"
    return [Item(each["index"], each["tags"], base64.b64decode(each["data"], validate=True)) for each in answer.json]


class Queue:
    """One queue, as one user of one group sees it. *family*: between `X-EAS-QueueService-` and `Uid`."""

    def __init__(
        self,
        port: int,
        path: str,
        *,
        user: str | bytes | None = "alice",
        group: str | bytes | None = "eas",
        family: str = "Redis-",
        headers: Mapping[str, str | bytes] | None = None,
        authorization: str | None = TOKEN,
    ) -> None:
        self.port, self.path, self.user, self.group, self._family = port, path, user, group, family
        self.headers: dict[str, str | bytes] = {} if authorization is None else {"Authorization": authorization}
        if user is not None:
            self.headers[f"X-EAS-QueueService-{family}Uid"] = user
        if group is not None:
            self.headers[f"X-EAS-QueueService-{family}Gid"] = group
        self.headers |= headers or {}

    def as_(self, user: str | bytes | None = "alice", group: str | bytes | None = "eas", **more: str) -> Queue:
        """The same queue seen by another. *more*: `family`."""
        known = {name: value for name, value in self.headers.items() if "QueueService" not in name}
        rear = {name: value for name, value in self.headers.items() if name.endswith("Access-Rear")}
        family = more.get("family", self._family)
        return Queue(
            self.port, self.path, user=user, group=group, family=family, headers=known | rear, authorization=None
        )

    @property
    def sink(self) -> Queue:
        found = copy.copy(self)
        found.path = f"{self.path.rstrip('/')}/sink"
        return found

    @property
    def rear(self) -> Queue:
        found = copy.copy(self)
        found.headers = self.headers | {"X-EAS-QueueService-Access-Rear": "true"}
        return found

    def call(
        self,
        method: str,
        query: Query = "",
        body: Any = None,
        headers: Mapping[str, str | bytes] | None = None,
        *,
        path: str = "",
    ) -> Answer:
        """*path*: behind the queue's own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            connection.putrequest(method, self.target(query, path), skip_accept_encoding=True)
            sent = {name.lower(): (name, value) for name, value in {**self.headers, **(headers or {})}.items()}
            for name, value in sent.values():
                connection.putheader(name, value.encode() if isinstance(value, str) else value)
            chunked = not (body is None or isinstance(body, bytes))
            if chunked:
                connection.putheader("Transfer-Encoding", "chunked")
            elif body is not None or method in ("POST", "PUT"):
                connection.putheader("Content-Length", str(len(body or b"")))
            connection.endheaders(body, encode_chunked=chunked)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def target(self, query: Query = "", path: str = "") -> str:
        text = query if isinstance(query, str) else urlencode(query)
        return self.path + path + (f"?{text}" if text else "")

    # --------------------------------------------------------------------------------------------- what must succeed
    def put(self, data: bytes = b"x", query: Query = "", headers: Mapping[str, str | bytes] | None = None) -> int:
        answer = self.call("POST", query, data, headers)
        assert answer.status == 200, (answer.status, answer.body)
        return int(answer.body)

    def puts(self, count: int) -> list[int]:
        return [self.put(b"%d" % i) for i in range(count)]

    def get(self, **query: object) -> list[Item]:
        """By JSON. *query* without the underscores of the queue's own: `index_=3`, `tag="v"`."""
        answer = self.call("GET", _named(query) | {"_raw_": "false"})
        if answer.status == 204:
            assert answer.body == b""
            return []
        return items_of(answer)

    def peek(self, **query: object) -> list[Item]:
        """All items, left where they are."""
        return self.get(**{"length_": 10_000, "auto_delete_": "false"} | query)

    @property
    def indexes(self) -> list[int]:
        return [item.index for item in self.peek()]

    @property
    def attributes(self) -> dict[str, str]:
        answer = self.call("GET", "_attrs_=true")
        assert answer.status == 200, (answer.status, answer.body)
        found: dict[str, str] = answer.json
        return found

    @property
    def length(self) -> int:
        return int(self.attributes["stream.length"])

    def consumer(self, name: str) -> dict[str, str]:
        """The line of this one in consumers.list; {} where there is none."""
        return self._line("consumers.list.", name)

    def in_group(self, name: str) -> dict[str, str]:
        return self._line("groups.list.", name)

    def _line(self, prefix: str, name: str) -> dict[str, str]:
        for key, value in self.attributes.items():
            fields = dict(part.split(": ", 1) for part in value.split(", ")) if key.startswith(prefix) else {}
            if fields.get("Id") == name:
                return fields
        return {}

    def count(self, **query: object) -> int:
        answer = self.call("GET", {"_count_": "true"} | _named(query))
        assert answer.status == 200, (answer.status, answer.body)
        return int(answer.body)

    def search(self, index: int) -> Any:
        answer = self.call("GET", {"_search_": "true", "_index_": index})
        assert answer.status == 200, (answer.status, answer.body)
        return answer.json

    def _ok(
        self, method: str, query: Query, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        answer = self.call(method, query, body, headers)
        assert (answer.status, answer.body) == (200, b"OK"), (answer.status, answer.body)

    def commit(self, *indexes: int) -> None:
        self._ok("PUT", {"_indexes_": ",".join(map(str, indexes))})

    def refuse(self, *indexes: int, code: str = "", reason: str = "") -> None:
        query = {"_indexes_": ",".join(map(str, indexes)), "_negative_": "true"}
        body = urlencode({"_code_": code, "_reason_": reason}).encode()
        self._ok("PUT", query, body, {"Content-Type": "application/x-www-form-urlencoded"})

    def delete(self, *indexes: int) -> None:
        self._ok("DELETE", {"_indexes_": ",".join(map(str, indexes))})

    def truncate(self, below: int) -> None:
        self._ok("DELETE", {"_index_": below, "_trunc_": "true"})

    def watch(self, **query: object) -> Watch:
        """Refused ones are returned as well: see Watch.status."""
        return Watch(self, _named(query))

    @contextlib.contextmanager
    def watching(self, **query: object) -> Iterator[Watch]:
        with contextlib.closing(self.watch(**query)) as watch:
            assert watch.status == 101, (watch.status, watch.body)
            yield watch

    @contextlib.contextmanager
    def chunks(self, **query: object) -> Iterator[Chunks]:
        """A watch without WebSocket."""
        with contextlib.closing(Chunks(self, _named(query))) as chunks:
            yield chunks


def _named(query: Mapping[str, object]) -> dict[str, object]:
    return {f"_{name}" if name.endswith("_") else name: value for name, value in query.items()}


class Connection:
    """A socket to the server, after a request with this head, and its answer's head."""

    def __init__(
        self, queue: Queue, target: str, headers: Mapping[str, str | bytes], *, receive_bytes: int = 0
    ) -> None:
        self.socket = socket.socket()
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(15)
        self.socket.connect(("127.0.0.1", queue.port))
        lines = [f"GET {target} HTTP/1.1".encode(), b"Host: 127.0.0.1"]
        for name, value in {**queue.headers, **headers}.items():
            lines.append(name.encode() + b": " + (value.encode() if isinstance(value, str) else value))
        self.socket.sendall(b"\r\n".join([*lines, b"", b""]))
        self._buffer = b""
        self.head = self._until(b"\r\n\r\n").decode("latin-1")
        self.status = int(self.head.split()[1])

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.split("\r\n")[1:-2]
        return {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}

    def _more(self) -> None:
        piece = self.socket.recv(262_144)
        if not piece:
            raise EOFError("the server has closed the connection")
        self._buffer += piece

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._more()
        found, _, self._buffer = self._buffer.partition(mark)
        return found + mark

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def is_quiet(self, for_s: float = QUIET_S) -> bool:
        """Whether nothing comes in this time."""
        return not self._buffer and not select.select([self.socket], [], [], for_s)[0]

    def is_closed(self) -> bool:
        """Whether the server has closed it; waits for that, and drops what comes before."""
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                self._buffer = b""
                self._more()
        return True

    def close(self) -> None:
        """At once, as a client that is killed."""
        self.socket.close()

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Watch(Connection):
    """A watch over a WebSocket. Its frames are checked to be what the official clients can read."""

    def __init__(
        self,
        queue: Queue,
        query: Query,
        headers: Mapping[str, str | bytes] | None = None,
        *,
        receive_bytes: int = 0,
    ) -> None:
        self.queue = queue
        handshake = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            "Sec-WebSocket-Version": "13",
            "Accept": PROTOBUF,
        }
        asked = {"_watch_": "true", **dict(query)} if not isinstance(query, str) else query
        super().__init__(queue, queue.target(asked), handshake | dict(headers or {}), receive_bytes=receive_bytes)
        self.body = b""
        if self.status != 101:
            self.body = self._exactly(int(self.headers["content-length"]))
            self.close()

    def frame(self) -> tuple[int, bytes]:
        """(opcode, payload) of the next frame: never fragmented, masked, or with an extension's bit."""
        first, second = self._exactly(2)
        assert first & 0xF0 == 0x80, f"fragmented or extended: {first:#x}"
        assert second < 0x80, "masked"
        length = second
        if second == 126:
            [length] = struct.unpack(">H", self._exactly(2))
        elif second == 127:
            [length] = struct.unpack(">Q", self._exactly(8))
        return first & 0xF, self._exactly(length)

    def next(self) -> Item:
        opcode, payload = self.frame()
        assert opcode == BINARY, (opcode, payload)
        assert payload, "an empty message is an item with index 0 to the clients"
        frame = frames_pb2.DataFrameProto.FromString(payload)
        assert frame.message == ""
        return Item(frame.index, dict(frame.tags), frame.data)

    def take(self, count: int) -> list[Item]:
        return [self.next() for _ in range(count)]

    def indexes(self, count: int) -> list[int]:
        return [item.index for item in self.take(count)]

    def send(self, opcode: int, payload: bytes = b"", *, mask: bool = True, fin: bool = True) -> None:
        length = len(payload)
        size = bytes([length]) if length < 126 else b"\x7e" + struct.pack(">H", length)
        if mask:
            size = bytes([size[0] | 0x80]) + size[1:] + b"\0\0\0\0"  # a mask of zeros leaves the payload as it is
        self.socket.sendall(bytes([opcode | (0x80 if fin else 0)]) + size + payload)

    def ping(self, payload: bytes = b"ping") -> bytes:
        """The pong's payload. Nothing else may be on its way."""
        self.send(PING, payload)
        opcode, found = self.frame()
        assert opcode == PONG, (opcode, found)
        return found

    def goodbye(self) -> int:
        """Close as the Go client does; returns the code that comes back."""
        self.send(CLOSE, struct.pack(">H", 1000))
        return self.close_code()

    def close_code(self) -> int:
        """Of the close frame, which is the next one."""
        opcode, payload = self.frame()
        assert opcode == CLOSE, (opcode, payload)
        [code] = struct.unpack(">H", payload[:2])
        return int(code)

    def await_gone(self) -> None:
        """Close, and return when the queue knows."""
        self.close()
        assert isinstance(self.queue.user, str) and isinstance(self.queue.group, str)
        name = f"{self.queue.group}.{self.queue.user}"
        await_condition(lambda: self.queue.consumer(name).get("Status") != "Running", what=f"{name} has gone")


class Chunks(Connection):
    """A watch without WebSocket: chunks of a length and a frame."""

    def __init__(self, queue: Queue, query: Mapping[str, object]) -> None:
        super().__init__(queue, queue.target({"_watch_": "true", **query}), {"Accept": PROTOBUF})

    def chunk(self) -> bytes:
        size = int(self._until(b"\r\n"), 16)
        found = self._exactly(size)
        assert self._exactly(2) == b"\r\n"
        return found

    def next(self) -> Item:
        data = self.chunk()
        [length] = struct.unpack(">I", data[:4])
        assert len(data) == 4 + length, "each item is flushed on its own"
        frame = frames_pb2.DataFrameProto.FromString(data[4:])
        return Item(frame.index, dict(frame.tags), frame.data)
