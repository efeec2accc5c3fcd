"""Server-sent events of one request (WHATWG HTML, section 9.2): its status at each change, its target's log lines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from flask import Response

from eas_queue.dialects.native import schema
from eas_queue.engine import errors
from eas_queue.engine.engine import Engine
from eas_queue.engine.following import follow
from eas_queue.engine.request import Request

RECONNECT_MS = 1000  # what a reader is told to wait before it comes back


def stream(
    engine: Engine,
    first: Request,
    *,
    last_event_id: str,
    show: Callable[[Request], dict[str, Any]],
    is_gone: Callable[[], bool],
) -> Response:
    """The events after *last_event_id*, until the request has ended; 204, which ends a reader's retries, when it has
    seen that already. *show*: the status JSON of a look."""
    after = int(last_event_id) if re.fullmatch(r"\d{1,15}", last_event_id, re.ASCII) else -1
    if first.state.is_terminal and after == first.version:
        return Response(status=204)

    def events() -> Iterator[str]:
        yield f"retry: {RECONNECT_MS}\n\n"
        changes = follow(engine, first, after=after, is_gone=is_gone)
        try:
            for change in changes:
                if change is None:
                    yield ": still there\n\n"
                    continue
                for line in change.lines:  # one by one: for a reader that is slow, little is kept at a time
                    yield _event("log", line.event, schema.log_json(line))
                yield _event("status", change.request.version, show(change.request))
        except errors.Unavailable:
            pass  # Redis went just now: the reader comes back, and goes on from the last event
        finally:
            changes.close()

    response = Response(events(), mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would hold events back
    return response


def _event(kind: str, number: int, data: dict[str, Any]) -> str:
    return f"event: {kind}\nid: {number}\ndata: {json.dumps(data)}\n\n"
