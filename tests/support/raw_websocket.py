"""A WebSocket client that sends exactly the bytes it is told to, and shows each frame as it came."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from typing import NamedTuple

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 section 1.3, where its answer stands too
ACCEPTED = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
HEADERS: Mapping[str, str | None] = {
    "Host": "test",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


class Frame(NamedTuple):
    """*first*: the byte with FIN, the reserved bits and the opcode. *second*: the one with the mask bit and length."""

    first: int
    second: int
    payload: bytes

    @property
    def code(self) -> int:
        """Of a close frame."""
        assert self.first == 0x80 | CLOSE, self
        found: int = struct.unpack(">H", self.payload[:2])[0]
        return found


class RawWebSocket:
    """One connection; use as a context manager."""

    def __init__(
        self,
        port: int,
        target: str,
        headers: Mapping[str, str | None] | None = None,
        *,
        start: str = "GET {} HTTP/1.1",
        receive_bytes: int | None = None,
        timeout_s: float = 10,
    ) -> None:
        """*headers*: besides, or instead of, those of a good handshake; None leaves one out. *receive_bytes*: of the
        system's buffer, where the client is to be slow."""
        self.socket = socket.socket()
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(timeout_s)
        self.socket.connect(("127.0.0.1", port))
        lines = [start.format(target)]
        lines += [f"{name}: {value}" for name, value in {**HEADERS, **(headers or {})}.items() if value is not None]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self.head = b""
        while not self.head.endswith(b"\r\n\r\n"):
            piece = self.socket.recv(1)
            if not piece:
                break
            self.head += piece

    def __enter__(self) -> RawWebSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    @property
    def status(self) -> int:
        return int(self.head.split()[1])

    @property
    def headers(self) -> list[str]:
        """As they came."""
        return self.head.decode().split("\r\n")[1:-2]

    def send(self, opcode: int, payload: bytes = b"", *, first: int | None = None, mask: bool = True) -> None:
        self.socket.sendall(frame(opcode, payload, first=first, mask=mask))

    def reset(self) -> None:
        """Close with RST, as a process that is killed with unread data does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def receive(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = self.socket.recv(min(size - len(data), 1_048_576))
            if not piece:
                raise EOFError(f"closed after {len(data)} of {size} bytes")
            data += piece
        return bytes(data)

    def frame(self) -> Frame:
        first, second = self.receive(2)
        length = second & 0x7F
        if length == 126:
            [length] = struct.unpack(">H", self.receive(2))
            assert length > 125, "a length must be written in its shortest form"
        elif length == 127:
            [length] = struct.unpack(">Q", self.receive(8))
            assert length > 65_535, "a length must be written in its shortest form"
        return Frame(first, second, self.receive(length))

    def ends(self) -> bool:
        """Whether nothing comes any more."""
        return self.socket.recv(1) == b""


def frame(opcode: int, payload: bytes = b"", *, first: int | None = None, mask: bool = True) -> bytes:
    """A client's frame. *first*: its first byte, where it is to be a strange one."""
    head = bytes([0x80 | opcode if first is None else first])
    marked = 0x80 if mask else 0
    if len(payload) < 126:
        head += bytes([marked | len(payload)])
    elif len(payload) < 65_536:
        head += struct.pack(">BH", marked | 126, len(payload))
    else:
        head += struct.pack(">BQ", marked | 127, len(payload))
    if not mask:
        return head + payload
    key = b"\x12\x34\x56\x78"  # the same each time: parallel runs must collect the same tests
    return head + key + bytes(byte ^ key[number % 4] for number, byte in enumerate(payload))
