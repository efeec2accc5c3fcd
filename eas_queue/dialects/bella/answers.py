"""What a worker hands in and what is told of it: the whole map to who speaks this protocol, its body to others.

A body that is no JSON travels as `{"body_base64": "..", "content_type": ".."}`, either way.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from eas_queue.dialects import inbound
from eas_queue.dialects.bella.members import Members
from eas_queue.engine import errors
from eas_queue.engine.request import Request, State

_CODED = {"body_base64", "content_type"}
LOST = "TakerLost"  # error_type of what was given out as often as its takers allowed


def kept(text: str, span: tuple[int, int] | None = None, *, is_coded: bool = False) -> str:
    """The map without its body, and where that stood; all of the map where the body can't be put there again."""
    if span is None:
        return json.dumps({"around": text})
    start, end = span
    return json.dumps({"around": text[:start] + text[end:], "at": start} | ({"coded": True} if is_coded else {}))


def decoded(value: Any) -> tuple[bytes, str] | None:
    """The bytes and their type behind a coded body, None where it is none."""
    if not isinstance(value, dict) or set(value) - {"content_type"} != {"body_base64"}:
        return None
    text, kind = value["body_base64"], value.get("content_type") or ""
    if not isinstance(text, str) or not isinstance(kind, str):
        return None
    if not kind.isascii() or not inbound.is_header("content-type", kind):
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


def result(request: Request, task_id: str, body: bytes) -> str | None:
    """The map that the request was completed with, as it was written; None where there is none."""
    if not request.state.is_terminal or request.state in (State.CANCELLED, State.EXPIRED):
        return None
    if request.answer_about:
        about = json.loads(request.answer_about)
        around, at = about["around"], about.get("at")
        if at is None:
            return str(around)
        kind = request.header("content-type") or ""
        return f"{around[:at]}{coded(body, kind) if about.get('coded') else body.decode()}{around[at:]}"
    if request.error_type == LOST:
        return json.dumps({"status_code": 408, "request_id": task_id})
    head = json.dumps({"status_code": request.status_code or 500, "request_id": task_id})
    told = as_value(body, request.header("content-type") or "") if request.from_target else _error(request.error)
    return f'{head[:-1]}, "body": {told}}}'


def _error(text: str) -> str:
    return json.dumps({"error": text})
