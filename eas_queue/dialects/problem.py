"""Errors as `application/problem+json` (RFC 9457): the native shape, and that of every path without a dialect."""

from __future__ import annotations

import json
from typing import Any

from flask import Response

from eas_queue.dialects.failure import Failure

TYPE_PREFIX = "urn:eas-queue:error:"  # followed by the failure's stable code


def render(failure: Failure, **members: Any) -> Response:
    """One problem, with further *members*. 429 and 503 carry ``Retry-After``; 401 names the scheme."""
    body = {
        "type": TYPE_PREFIX + failure.code,
        "title": failure.title,
        "status": failure.status,
        "detail": failure.detail,
    }
    if failure.retry_after_s is not None:
        members["retry_after_s"] = failure.retry_after_s
    response = Response(
        json.dumps(body | members) + "\n", status=failure.status, content_type="application/problem+json"
    )
    add_headers(response, failure)
    return response


def add_headers(response: Response, failure: Failure) -> None:
    """What a failure says in headers, whatever the body's shape."""
    for name, value in failure.headers:
        response.headers[name] = value
    if failure.retry_after_s is not None:
        response.headers["Retry-After"] = str(failure.retry_after_s)
    if failure.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="eas_queue"'
