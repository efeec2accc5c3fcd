"""What a target may say of a request while it works on it: progress and log lines. See PROTOCOL.md."""

from __future__ import annotations

import re

from flask import Blueprint, Response, request

from eas_queue.dialects import inbound, reports
from eas_queue.engine import errors
from eas_queue.engine.engine import Engine

PREFIX = "/api/progress/"
TOKEN_HEADER = "X-Progress-Token"  # noqa: S105  a header's name


def blueprint(engine: Engine) -> Blueprint:
    """The route under /api/progress/. The one-attempt token of the forwarded request is all it asks for."""
    routes = Blueprint("native_progress", __name__, url_prefix="/api/progress")

    @routes.post("/<request_id>")
    def note(request_id: str) -> Response:
        token = request.headers.get(TOKEN_HEADER, "")
        if not re.fullmatch(r"[0-9a-f]{40}", token):
            raise errors.InvalidRequest(f"send the {TOKEN_HEADER} that came with the request, as a header")
        content = inbound.json_object(request, bytes_most=reports.BODY_MAX_BYTES)
        engine.note_progress(request_id, token, reports.parse(content))
        return Response(status=204)

    return routes
