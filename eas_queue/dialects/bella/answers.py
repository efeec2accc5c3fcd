"""What a worker hands in and what is told of it: the whole map to who speaks this protocol, its body to others.

A body that is no JSON travels as `{"body_base64": "..", "content_type": ".."}`, either way.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from eas_queue.dialects import inbound
from eas_queue.dialects.members import Members
from eas_queue.engine import errors
from eas_queue.engine.request import Request, State

_CODED = {"body_base64", "content_type"}
_TYPE_MOST = 255  # characters of a type: longer headers are refused by many a client and proxy
LOST = "TakerLost"  # error_type of what was given out as often as its takers allowed


def kept_of(text: str, span: tuple[int, int] | None = None, *, is_coded: bool = False) -> str:
    """The map without its body, or without the base64 of that, and where it stood; without a span all of the map."""
    found: dict[str, Any] = {"around": text}
    if span is not None:
        start, end = span
        found = {"around": text[:start] + text[end:], "at": start} | ({"coded": True} if is_coded else {})
    return json.dumps(found, ensure_ascii=False)


def coded_span(raw: str, start: int, body: bytes) -> tuple[int, int] | None:
    """Where in a text the base64 of *body* stands; None where it is written in another way.

    *raw*: the coded body, which begins at *start*.
    """
    text = base64.b64encode(body).decode()
    at = raw.find(f'"{text}"')
    return None if at < 0 else (start + at + 1, start + at + 1 + len(text))


def decoded(value: Any) -> tuple[bytes, str] | None:
    """The bytes and their type behind a coded body, None where it is none."""
    if not isinstance(value, dict) or set(value) - {"content_type"} != {"body_base64"}:
        return None
    text, kind = value["body_base64"], value.get("content_type") or ""
    if not isinstance(text, str) or not isinstance(kind, str):
        return None
    if len(kind) > _TYPE_MOST or not kind.isascii() or not inbound.is_header("content-type", kind):
        return None
    try:
        return base64.b64decode(text, validate=True), kind
    except ValueError:
        return None


def coded(body: bytes, kind: str) -> str:
    return json.dumps({"body_base64": base64.b64encode(body).decode(), "content_type": kind})


def as_object(body: bytes, kind: str) -> str:
    """A request's body as the `data` of a task, which must be an object: as it came where it is one."""
    if body.lstrip(b" \t\r\n").startswith(b"{"):
        try:
            return Members.of(body).text
        except errors.InvalidRequest:
            pass
    return coded(body, kind)


def as_value(body: bytes, kind: str) -> str:
    """An answer as JSON: as it came where it is that."""
    if kind.partition(";")[0].strip().lower() in ("", "application/json") or kind.endswith("+json"):
        try:
            found = Members.of(b'{"v":' + body + b"}").raw("v")
        except errors.InvalidRequest:
            return coded(body, kind)
        if found.encode() == body.strip(b" \t\r\n"):
            return found
    return coded(body, kind)


def result(request: Request, task_id: str, body: bytes, about: str) -> str | None:
    """The map that the request was completed with, as it was written; None where there is none.

    *body* and *about* are what is kept of its answer.
    """
    if not request.state.is_terminal or request.state in (State.CANCELLED, State.EXPIRED):
        return None
    if about:
        kept = json.loads(about)
        around, at = kept["around"], kept.get("at")
        if at is None:
            return str(around)
        inner = base64.b64encode(body) if kept.get("coded") else body
        return f"{around[:at]}{inner.decode()}{around[at:]}"
    if request.error_type == LOST:
        return json.dumps({"status_code": 408, "request_id": task_id})
    head = json.dumps({"status_code": request.status_code or 500, "request_id": task_id})
    told = as_value(body, request.header("content-type") or "") if request.from_target else _error(request.error)
    return f'{head[:-1]}, "body": {told}}}'


def _error(text: str) -> str:
    return json.dumps({"error": text})
