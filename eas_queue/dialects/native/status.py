"""The status JSON of a request, with what has to be read for it."""

from __future__ import annotations

from typing import Any

from eas_queue.dialects.native import schema
from eas_queue.engine.engine import Engine
from eas_queue.engine.request import Request

PREFIX = "/api/predict/"
LOG_LINES_SHOWN, LOG_BYTES_SHOWN = 100, 65_536  # in the status; the events bring each line


def status_of(engine: Engine, found: Request, base_url: str, *, with_logs: bool = True) -> dict[str, Any]:
    """*base_url* '' makes links relative."""
    is_shown = found.from_target and found.result_bytes <= schema.INLINE_BODY_MAX_BYTES
    body = engine.result_body(found) if is_shown else None
    lines = engine.logs(found, most=LOG_LINES_SHOWN, bytes_most=LOG_BYTES_SHOWN) if with_logs else ()
    result_url = f"{base_url}{PREFIX}{found.service}/requests/{found.request_id}/result"
    return schema.status_json(found, body, result_url, lines)
