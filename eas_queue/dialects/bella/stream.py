"""The answer to a streaming put: what the worker says as it says it, until the task is completed."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator

from flask import Response

from eas_queue.engine import errors
from eas_queue.engine.engine import Engine
from eas_queue.engine.following import follow
from eas_queue.engine.request import Request

_MARK = re.compile(r"\Adata: ?")  # some workers bring it along
_LINE_END = re.compile(r"\r\n|\r|\n")
PING = ": ping\n\n"


def response(engine: Engine, first: Request, *, is_gone: Callable[[], bool]) -> Response:
    """Each event of the task's worker. Who leaves before the end has it cancelled."""

    ended: list[Request] = []

    def events() -> Iterator[str]:
        yield ": waiting\n\n"  # the head goes out now
        changes = follow(engine, first, after=-1, is_gone=is_gone, events=True)
        try:
            for change in changes:
                if change is None:
                    yield PING
                    continue
                for line in change.lines:
                    yield _event(line.message)
                if change.request.state.is_terminal:
                    ended.append(change.request)
        except errors.Unavailable:
            pass
        finally:
            changes.close()

    def close() -> None:
        if not ended:
            with contextlib.suppress(errors.EngineError):
                engine.abandon(first.service, first.request_id)

    found = Response(events(), content_type="text/event-stream; charset=utf-8")
    found.call_on_close(close)  # also of one that went before its first byte
    found.headers["Cache-Control"] = "no-cache"
    found.headers["X-Accel-Buffering"] = "no"  # nginx would hold events back
    return found


def _event(message: str) -> str:
    content = json.loads(message)
    data = content["data"]
    text = _MARK.sub("", data) if isinstance(data, str) else json.dumps(data)
    lines = [f"{name}:{content[name]}" for name in ("id", "event") if content[name] is not None]
    found = "\n".join(lines + [f"data:{line}" for line in _LINE_END.split(text)]) + "\n\n"
    return found.encode("utf-8", "replace").decode()  # half of a character is no text
