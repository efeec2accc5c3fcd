"""The webhook of fal's queue: body, and the headers that vouch for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from eas_queue.dialects.fal import schema
from eas_queue.engine.request import Request, Webhook

STYLE = "fal"
ANONYMOUS = "local"  # the user where a request came without a key: the header must not be empty
PAYLOAD_MOST = 16 * 2**20
NOT_JSON = (
    "Response payload is not JSON serializable. Either return a JSON serializable object or use the queue endpoint to "
    "retrieve the response."
)
TOO_LARGE = "Response payload is too large for a webhook. Use the queue endpoint to retrieve the response."


def render(request: Request, body: bytes | None) -> bytes:
    """*body*: the target's answer, None where there is none. It is embedded as it came, so that no number changes."""
    content: dict[str, Any] = {"request_id": request.request_id, "gateway_request_id": request.request_id}
    fault = schema.fault(request)
    if fault is not None and not request.from_target:
        code, payload, problem = fault.status_code, schema.error_json(fault.text, fault.error_type).encode(), ""
    else:
        code, payload, problem = request.status_code or 500, *_payload(request, body or b"")
    if code == 200:
        content["status"] = "OK"
    else:
        content |= {"status": "ERROR", "error": f"Invalid status code: {code}"}
    if problem:
        content["payload_error"] = problem
    return json.dumps(content).encode()[:-1] + b', "payload": ' + payload + b"}"


def _payload(request: Request, body: bytes) -> tuple[bytes, str]:
    """The answer as JSON, and why it is null."""
    if len(body) > PAYLOAD_MOST:
        return b"null", TOO_LARGE
    try:
        if (request.header("content-encoding") or "identity").lower() != "identity":
            raise ValueError("coded")
        json.loads(body.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return b"null", NOT_JSON
    return body, ""


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def headers(
    webhook: Webhook, request_id: str, at_s: int, body: bytes, *, sign: Callable[[bytes], str]
) -> dict[str, str]:
    """*sign*: Ed25519 of a message, in hexadecimal digits."""
    user = webhook.about.get("user_id") or ANONYMOUS
    message = "\n".join((request_id, user, str(at_s), hashlib.sha256(body).hexdigest()))
    return {
        "X-Fal-Webhook-Request-Id": request_id,
        "X-Fal-Webhook-User-Id": user,
        "X-Fal-Webhook-Timestamp": str(at_s),
        "X-Fal-Webhook-Signature": sign(message.encode()),
    }
