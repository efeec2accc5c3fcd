"""What dialects hand on of a target's answer."""

from __future__ import annotations

from flask import Response

from eas_queue.dialects import inbound
from eas_queue.engine.request import Request

# What a browser would take for the queue's own: a target must not set cookies or policies for this origin.
_NOT_RELAYED = frozenset({"set-cookie", "set-cookie2", "strict-transport-security", "clear-site-data", "alt-svc"})


def relayed(found: Request, body: bytes) -> Response:
    """The answer that is kept of the target: its status, headers and bytes."""
    response = Response(body, found.status_code)
    del response.headers["Content-Type"]
    for name, value in found.headers:
        if name.lower() not in _NOT_RELAYED and inbound.is_header(name, value):
            response.headers.add(name, value)
    return response
