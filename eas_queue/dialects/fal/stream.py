"""The status stream: server-sent events of one request as fal's JavaScript client reads them.

It parses the data of every event as JSON, so that keep-alives are comments, and decodes each piece of the network by
itself, so that events are ASCII. It knows that the request is complete by the end of the stream.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

from flask import Response

from eas_queue.dialects.fal import schema
from eas_queue.engine import errors
from eas_queue.engine.engine import Engine
from eas_queue.engine.following import HEARTBEAT_S, follow
from eas_queue.engine.request import Request

PING = ": ping\n\n"


def response(
    engine: Engine, first: Request, links: schema.Links, *, with_logs: bool, is_gone: Callable[[], bool]
) -> Response:
    """The status now and at each change, its new log lines with it, until the request has ended."""

    def events() -> Iterator[str]:
        told: tuple[str, int | None] | None = None
        written_s = time.monotonic()
        changes = follow(engine, first, after=-1, is_gone=is_gone)
        try:
            for change in changes:
                if change is not None:
                    lines = change.lines if with_logs else ()
                    now = schema.word(change.request), change.request.position
                    if lines or now != told:  # the target's progress, which fal does not have, is no news here
                        told, written_s = now, time.monotonic()
                        content = schema.status_json(change.request, links, lines if with_logs else None)
                        yield f"data: {json.dumps(content)}\n\n"
                        continue
                if change is None or time.monotonic() - written_s > HEARTBEAT_S:
                    written_s = time.monotonic()
                    yield PING
        except errors.Unavailable:
            pass  # the stream ends early; its client asks for the result then, and is told how things are
        finally:
            changes.close()

    found = Response(events(), content_type="text/event-stream; charset=utf-8")
    found.headers["Cache-Control"] = "no-cache"
    found.headers["X-Accel-Buffering"] = "no"  # nginx would hold events back
    return found
