"""A JSON object, and where each of its members stands in the text: what clients write is handed on as they wrote it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from eas_queue.engine import errors

# More values take a second and more to read, in which nobody else is served. A text, however long, is one value.
VALUES_MOST = 200_000
# Possessive: nothing is kept to go back to. One that never closes ends with the body, or it would be gone through again
# from each quotation mark in it.
TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_DIGITS_MOST = 4000  # of a number that Python makes from a text; the text itself is handed on in any case
_BLANK = re.compile(r"[ \t\n\r]*")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def number(digits: str) -> int | float:
    return int(digits) if len(digits) < _DIGITS_MOST else float(digits)


_decoder = json.JSONDecoder(parse_constant=_refuse, parse_int=number)


@dataclass(frozen=True, slots=True)
class Members:
    """*values*: as Python sees them; *spans*: first and last character. Of a name that stands twice the last counts."""

    text: str
    values: dict[str, Any]
    spans: dict[str, tuple[int, int]]

    def raw(self, name: str) -> str:
        """The text of a member that is there."""
        start, end = self.spans[name]
        return self.text[start:end]

    @classmethod
    def of(cls, body: bytes) -> Members:
        """Raises InvalidRequest for what is not one JSON object in UTF-8, or has more than VALUES_MOST values."""
        if has_too_many(body):
            raise errors.InvalidRequest(
                f"the body has more than {VALUES_MOST:,} values, which is not read: nothing was stored. "
                'Send many numbers as one text, like {"body_base64": ".."}'
            )
        try:
            text = body.decode()
            return _members(text)
        except (ValueError, RecursionError) as exc:
            raise errors.InvalidRequest(f"the body is not a JSON object: {exc}") from exc


def values_of(body: bytes) -> dict[str, Any]:
    """Of an object whose text is not handed on. Raises InvalidRequest."""
    try:
        found = _decoder.decode(body.decode())
    except (ValueError, RecursionError) as exc:
        raise errors.InvalidRequest(f"the body is not a JSON object: {exc}") from exc
    if not isinstance(found, dict):
        raise errors.InvalidRequest("the body is not a JSON object")
    return found


def has_too_many(body: bytes) -> bool:
    """Whether *body* has more than VALUES_MOST values."""

    def marks(text: bytes) -> int:
        return text.count(b",") + text.count(b"[") + text.count(b"{")

    if marks(body) <= VALUES_MOST:
        return False
    return body.count(b'"') > 2 * VALUES_MOST or marks(TEXT.sub(b"", body)) > VALUES_MOST


def _members(text: str) -> Members:
    values: dict[str, Any] = {}
    spans: dict[str, tuple[int, int]] = {}
    at = _skip(text, _blank(text, 0), "{")
    if text[at : at + 1] == "}":
        at += 1
    else:
        while True:
            if text[at : at + 1] != '"':
                raise ValueError(f"expected a name at character {at}")
            name, end = _decoder.raw_decode(text, at)
            start = _skip(text, _blank(text, end), ":")
            values[name], end = _decoder.raw_decode(text, start)
            spans[name] = start, end
            at = _blank(text, end)
            if text[at : at + 1] == "}":
                at += 1
                break
            at = _skip(text, at, ",")
    if _blank(text, at) != len(text):
        raise ValueError(f"more follows at character {at}")
    return Members(text, values, spans)


def _blank(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _skip(text: str, at: int, mark: str) -> int:
    """Behind *mark*, and the blanks after it."""
    if text[at : at + 1] != mark:
        raise ValueError(f"expected {mark} at character {at}")
    return _blank(text, at + 1)
