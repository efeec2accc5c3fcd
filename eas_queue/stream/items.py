"""An item of a queue, and how to read it from JSON (answers to a get) and from protobuf (the frames of a watch)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    index: int
    tags: dict[str, str]
    data: bytes


def from_json(body: bytes) -> list[Item]:
    """The items of a list in the queue's JSON. Raises ValueError for anything else."""
    try:
        return [
            Item(
                int(each["index"]),
                {str(key): str(value) for key, value in (each.get("tags") or {}).items()},
                base64.b64decode(each.get("data") or "", validate=True),
            )
            for each in json.loads(body)
        ]
    except (KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise ValueError("not a list of items") from exc


def from_frame(frame: bytes) -> Item:
    """One DataFrameProto. Raises ValueError when it is none.

    By hand, since that is less than what generated code needs installed: field 1 is the index, each field 2 an entry of
    the tags, field 3 the data; others are skipped, as protobuf wants it, `message` (4) among them, which nobody fills.
    """
    index, tags, data = 0, {}, b""
    for number, value in _fields(frame):
        if number == 1 and isinstance(value, int):
            index = value
        elif number == 2 and isinstance(value, bytes):
            entry = {key: part.decode() for key, part in _fields(value) if isinstance(part, bytes)}
            tags[entry.get(1, "")] = entry.get(2, "")
        elif number == 3 and isinstance(value, bytes):
            data = value
    return Item(index, tags, data)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field; wire types as in protobuf's "Encoding"."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind} is not used by anybody")
        if at + size > len(message):
            raise ValueError("the frame ends within a field")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
    raise ValueError("the frame ends within a number, or the number is too long")
