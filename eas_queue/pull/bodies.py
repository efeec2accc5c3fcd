"""Between a task's `data`, what a target receives and answers, and the `body` of a result.

JSON is itself. Whatever else is `{"body_base64": .., "content_type": ..}`, on the way in as on the way out.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Never

JSON_TYPE = "application/json"
BYTES_TYPE = "application/octet-stream"
_KEYS = {"body_base64", "content_type"}


def received(data: Any) -> tuple[Any, str]:
    """What a task brings: bytes and their content type, or a JSON value and JSON's."""
    if isinstance(data, dict) and set(data) == _KEYS and all(isinstance(value, str) for value in data.values()):
        try:
            return base64.b64decode(data["body_base64"], validate=True), data["content_type"]
        except (binascii.Error, ValueError):
            pass  # looks like it, and is somebody's JSON
    return data, JSON_TYPE


def of_answer(body: bytes, content_type: str) -> bytes:
    """JSON text for the `body` of a result. An answer in JSON is taken over as it was written."""
    if _is_json(content_type) and _stands_for_itself(body):
        return body.strip()
    return of_bytes(body, content_type or BYTES_TYPE)


def of_value(value: Any) -> bytes:
    """The same for what a function returns. Raises TypeError, ValueError or RecursionError for what is not JSON."""
    if isinstance(value, bytes | bytearray | memoryview):
        return of_bytes(bytes(value), BYTES_TYPE)
    body = json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    return body if not _looks_coded(value) else of_bytes(body, JSON_TYPE)


def of_bytes(body: bytes, content_type: str) -> bytes:
    coded = base64.b64encode(body).decode()
    return json.dumps({"body_base64": coded, "content_type": content_type}, separators=(",", ":")).encode()


def of_error(kind: str, message: str) -> bytes:
    return json.dumps({"error": {"type": kind, "message": message}}, separators=(",", ":")).encode()


def completion(task_id: str, status_code: int, body: bytes) -> bytes:
    """The whole result; *body* is JSON text already."""
    head = json.dumps({"status_code": status_code, "request_id": task_id}, separators=(",", ":"))
    return head[:-1].encode() + b',"body":' + body + b"}"


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == JSON_TYPE or (kind.startswith("application/") and kind.endswith("+json"))


def _stands_for_itself(body: bytes) -> bool:
    try:
        value = json.loads(body.decode(), parse_constant=_refuse)  # decoded here: loads would take UTF-16 as well
    except (ValueError, RecursionError):
        return False
    return not _looks_coded(value)


def _looks_coded(value: Any) -> bool:
    """JSON that the queue would take for coded bytes: to arrive as it is, it has to be coded itself."""
    return isinstance(value, dict) and set(value) == _KEYS


def _refuse(constant: str) -> Never:
    raise ValueError(f"{constant} is not JSON")
