"""The lines of `eascmd stream`, from what a queue says. Nothing that comes from elsewhere can steer the terminal."""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from eas_queue.stream.items import Item

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# Controls, directions and other invisible signs, halves of pairs, line ends; but not what joins emoji and letters.
_ESCAPED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"


def plain(text: str) -> str:
    """*text* on one line, control characters as escapes: an item must not draw rows or answers of its own."""
    if text.isprintable():
        return text
    return "".join(_escaped(sign) if _is_escaped(sign) else sign for sign in text)


def plain_bytes(data: bytes) -> str:
    """The same of bytes; those that are no UTF-8 become \\xNN."""
    return plain(data.decode("utf-8", "backslashreplace"))


def _is_escaped(sign: str) -> bool:
    return unicodedata.category(sign) in _ESCAPED and sign not in _JOINERS


def _escaped(sign: str) -> str:
    code = ord(sign)
    if sign in _SHORT:
        return _SHORT[sign]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def tags(of: Mapping[str, str]) -> str:
    """`tags[a=1 b=2]`, as Go prints them: sorted by key."""
    return plain("tags[" + " ".join(f"{key}={of[key]}" for key in sorted(of)) + "]")


def row(received: int, item: Item) -> str:
    """`[OK] [0 - 4] tags[...] data4`: the number on our side, then the index in the queue."""
    head = f"[OK] [{received} - {item.index}] {tags(item.tags)}"
    return f"{head} {plain_bytes(item.data)}" if item.data else head


def row_json(received: int, item: Item) -> dict[str, Any]:
    """The same for programs: `text` where the data is UTF-8, else `base64`."""
    shown: dict[str, Any] = {"received": received, "index": item.index, "tags": item.tags}
    try:
        return shown | {"text": item.data.decode()}
    except UnicodeDecodeError:
        return shown | {"base64": base64.b64encode(item.data).decode()}


def attributes(of: Mapping[str, str]) -> Iterator[str]:
    yield "[OK] Attributes:"
    yield from (plain(f"{key} : {of[key]}") for key in sorted(of))


def size(count: int) -> str:
    """`3.00 B`; larger ones in KiB, MiB, GiB."""
    number, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{number:.2f} {unit}"


def masked(token: str) -> str:
    """Enough to tell one token from another, for those that stay secret without it."""
    return "****" + token[-4:] if len(token) >= 16 else "****"
