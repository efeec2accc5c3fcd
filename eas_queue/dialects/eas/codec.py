"""Items and attributes as bytes of the three codecs, and which codec a request asks for."""

from __future__ import annotations

import base64
import codecs
import json
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import ParamSpec, TypeVar

import gevent
from gevent import monkey

from eas_queue.dialects.eas import frames_pb2
from eas_queue.engine import errors
from eas_queue.engine.items import Item

PROTOBUF_TYPE = "application/vnd.google.protobuf"
JSON_TYPE = "application/json"
TEXT_TYPE = "text/plain; charset=utf-8"
BYTES_TYPE = "application/octet-stream"

# From here on a codec's work is done aside: in C, base64 or a decoder of 1 MB takes 2 ms, of 32 MB 50.
_ASIDE_BYTES = 1_000_000
# Work goes on in pieces of this size (a multiple of 3, so that base64 of pieces can be joined): a call in C keeps all
# other threads waiting until it returns, wherever it runs.
_PIECE_BYTES = 3 * 65_536
_SURROGATES = re.compile("[\ud800-\udfff]")
_QUALITY = re.compile(r"[01]?\.?\d{0,3}", re.ASCII)
_DATA_FIELD, _LIST_FIELD = b"\x1a", b"\x0a"  # DataFrameProto.data and DataFrameListProto.index: number << 3 | 2

P = ParamSpec("P")
R = TypeVar("R")


class Codec(Enum):
    RAW = "raw"
    JSON = "json"
    PROTOBUF = "protobuf"


def negotiate(accept: str, raw: bool | None) -> Codec:
    """The codec for a get with this Accept header ('' if there is none) and this `_raw_` (None: not given).

    SDKs send `_raw_=false` and name protobuf; `requests` sends `_raw_=false` and `*/*`, and expects JSON. Without
    `_raw_`, an Accept that names a codec wins: so did the Python AsyncClient of 2022. Otherwise bytes, as for curl.
    Raises InvalidRequest when `_raw_=false` comes with an Accept of neither codec: it is answered before anything is
    deleted, and with 400, since 406 is not among the statuses of the EAS gateway.
    """
    if raw:
        return Codec.RAW
    qualities = _qualities(accept)
    protobuf = qualities.get(PROTOBUF_TYPE, 0.0)
    if raw is None:
        named = qualities.get(JSON_TYPE, 0.0)
        if not protobuf and not named:
            return Codec.RAW
        return Codec.PROTOBUF if protobuf >= named else Codec.JSON
    # the most specific range counts (RFC 9110 section 12.5.1); a range alone never means protobuf
    ranges = (JSON_TYPE, "application/*", "*/*")
    json_ = next((qualities[name] for name in ranges if name in qualities), 0.0 if qualities else 1.0)
    if not protobuf and not json_:
        raise errors.InvalidRequest(
            f"Accept: {accept[:100]!r} allows neither {PROTOBUF_TYPE} nor {JSON_TYPE}: name one of them, "
            "send no Accept, or ask for the data alone with _raw_=true"
        )
    return Codec.PROTOBUF if protobuf >= json_ else Codec.JSON


def _qualities(accept: str) -> dict[str, float]:
    """Quality by media range in lower case; 1 where it is not a number (a client that garbles it wants the type)."""
    found: dict[str, float] = {}
    for part in accept.split(","):
        name, *parameters = (each.strip().lower() for each in part.split(";"))
        name = "*/*" if name == "*" else name  # Java's default: `text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2`
        if "/" not in name:
            continue
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q" and _QUALITY.fullmatch(value := value.strip()) and value.strip("."):
                quality = min(float(value), 1.0)
        found[name] = max(quality, found.get(name, 0.0))
    return found


def encode_frame(item: Item) -> bytes:
    """The item as DataFrameProto."""
    return _joined(list(_frame(item)))


def http_watch_chunk(item: Item) -> bytes:
    """What a watch without WebSocket sends for an item: the length as big-endian uint32, then DataFrameProto."""
    frame = list(_frame(item))
    return _joined([struct.pack(">I", sum(map(len, frame))), *frame])


def encode_items(items: Sequence[Item], codec: Codec) -> tuple[bytes, str]:
    """All items as one body, and its content type. Several raw ones are answered as JSON: none may get lost."""
    if codec is Codec.RAW and len(items) == 1:
        return items[0].data, raw_content_type(items[0])
    if codec is Codec.PROTOBUF:
        pieces = []
        for item in items:
            frame = list(_frame(item))
            pieces += [_LIST_FIELD, _varint(sum(map(len, frame))), *frame]
        return _joined(pieces), PROTOBUF_TYPE
    size = sum(len(item.data) for item in items)
    return _aside(size, lambda: b"".join(_json_pieces(items))), JSON_TYPE


def encode_attributes(attributes: Mapping[str, str], *, protobuf: bool) -> tuple[bytes, str]:
    """A queue's attributes as one body, and its content type."""
    clean = _clean(attributes)
    if protobuf:
        return frames_pb2.AttributesProto(attributes=clean).SerializeToString(deterministic=True), PROTOBUF_TYPE
    return _json(clean) + b"\n", JSON_TYPE


def raw_content_type(item: Item) -> str:
    """What to call the item's data: what its sender called it, unless that is only what curl calls any upload."""
    named = item.content_type.partition(";")[0].strip().lower()
    if named and named != "application/x-www-form-urlencoded":
        return item.content_type
    return sniff(item.data)


def sniff(data: bytes) -> str:
    """text/plain for UTF-8, application/octet-stream for all else."""
    return TEXT_TYPE if _aside(len(data), _is_utf8, data) else BYTES_TYPE


def _frame(item: Item) -> Iterator[bytes]:
    """DataFrameProto in pieces, ready to be joined: protobuf itself would copy the data three times."""
    head = frames_pb2.DataFrameProto(index=item.index, tags=_clean(item.tags))
    yield head.SerializeToString(deterministic=True)
    if item.data:
        yield _DATA_FIELD + _varint(len(item.data))
        yield item.data


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def _json_pieces(items: Sequence[Item]) -> Iterator[bytes]:
    before = b"["
    for item in items:
        yield b'%s{"index":%d,"tags":%s,"data":"' % (before, item.index, _json(_clean(item.tags)))
        for begin in range(0, len(item.data), _PIECE_BYTES):
            yield base64.b64encode(item.data[begin : begin + _PIECE_BYTES])
        yield b'"}'
        before = b","
    yield b"]\n" if items else b"[]\n"


def _json(strings: Mapping[str, str]) -> bytes:
    return json.dumps(strings, ensure_ascii=False, separators=(",", ":")).encode()


def _clean(strings: Mapping[str, str]) -> dict[str, str]:
    """Without halves of surrogate pairs, which no UTF-8 can hold; bytes of a query that are no UTF-8 may decode so."""
    return {_SURROGATES.sub("\ufffd", name): _SURROGATES.sub("\ufffd", value) for name, value in strings.items()}


def _is_utf8(data: bytes) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for begin in range(0, len(data), _PIECE_BYTES):
            decoder.decode(data[begin : begin + _PIECE_BYTES])
        decoder.decode(b"", True)
    except UnicodeDecodeError:
        return False
    return True


def _joined(pieces: list[bytes]) -> bytes:
    return _aside(sum(map(len, pieces)), b"".join, pieces)


def _aside(size: int, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What *work* returns. Under gevent, where *size* is large, a thread does it, and other greenlets run meanwhile.

    That helps as far as the work lets go of the GIL: between pieces, and while `join` copies.
    """
    if size < _ASIDE_BYTES or not monkey.is_module_patched("socket"):
        return work(*args, **kwargs)
    done: R = gevent.get_hub().threadpool.apply(work, args, kwargs)
    return done
