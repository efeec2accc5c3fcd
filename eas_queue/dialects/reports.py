"""What those who work on a request may say of it meanwhile: progress and log lines."""

from __future__ import annotations

import json
import re
from typing import Any

from eas_queue.engine import errors
from eas_queue.engine.request import ProgressNote

BODY_MAX_BYTES = 262_144
PROGRESS_MAX_BYTES = 16_384
LINES_MAX = 100
MESSAGE_MAX = 4_000  # characters; longer ones are cut


def parse(content: dict[str, Any]) -> ProgressNote:
    """`{"progress": {..}, "logs": [{"message": "..", "level": "info"}]}`, one may be missing. Raises InvalidRequest."""
    if not set(content) & {"progress", "logs"}:
        raise errors.InvalidRequest(
            'a report looks like {"progress": {"step": 3}, "logs": [{"message": "loaded", "level": "info"}]}'
        )
    progress, lines = content.get("progress"), content.get("logs", [])
    if progress is not None and not isinstance(progress, dict):
        raise errors.InvalidRequest("progress must be an object")
    if not isinstance(lines, list) or len(lines) > LINES_MAX:
        raise errors.InvalidRequest(f"logs must be a list of at most {LINES_MAX} lines")
    text = "" if progress is None else json.dumps(progress, separators=(",", ":"))
    if len(text) > PROGRESS_MAX_BYTES:
        raise errors.InvalidRequest(f"progress may have {PROGRESS_MAX_BYTES} bytes")
    return ProgressNote(text, tuple(_line(each) for each in lines))


def _line(line: Any) -> tuple[str, str]:
    if not isinstance(line, dict) or not isinstance(line.get("message"), str):
        raise errors.InvalidRequest('each log line must be like {"message": "loaded", "level": "info"}')
    level = line.get("level", "info")
    if not isinstance(level, str) or not re.fullmatch(r"[A-Za-z]{1,16}", level):
        raise errors.InvalidRequest("a level must be a word like info or error")
    message = line["message"][:MESSAGE_MAX].encode("utf-8", "replace").decode()  # a lone surrogate is no text
    return level.lower(), message
