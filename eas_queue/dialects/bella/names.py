"""What tasks and queues are called: `TASK-...` ids, and `name:level`."""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime

from eas_queue.engine import errors, ids
from eas_queue.engine.service import NAME
from eas_queue.engine.taking import Lane

HIGH, NORMAL = 0, 1  # levels; level 0 is what somebody waits for
MODES = {"blocking": "B", "streaming": "S", "callback": "C", "batch": "P"}
QUEUE = re.compile(r"[A-Za-z0-9_-]{1,64}")  # that clients may register
_TASK = re.compile(r"TASK-\d{1,5}-[01]-[BSCP]-\d{12}-([0-9a-f]{4})-([0-9a-f]{28})", re.ASCII)


def task_id(request_id: str, level: int, mode: str, submitted_ms: int) -> str:
    """The id of a task that was put here. Its last two parts are the request's id, all others are for people."""
    digits = request_id.replace("-", "")
    number = ids.service_number(request_id)
    return f"TASK-{number}-{level}-{MODES[mode]}-{_second(submitted_ms // 1000)}-{digits[:4]}-{digits[4:]}"


@functools.lru_cache(maxsize=64)
def _second(at_s: int) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC):%y%m%d%H%M%S}"


def request_id(task: str) -> str:
    """The request behind a task's id, which may be the request's own. Raises InvalidRequest for what is neither."""
    found = _TASK.fullmatch(task)
    if found is None:
        if ids.is_id(task):
            return task
        raise errors.InvalidRequest(f"{task[:100]!r} is not a task_id")
    digits = found[1] + found[2]
    known = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
    if not ids.is_id(known):
        raise errors.InvalidRequest(f"{task[:100]!r} is not a task_id")
    return known


def level_of(priority_class: int) -> int:
    return HIGH if priority_class > 100 else NORMAL


def lane(name: str) -> Lane:
    """Of `name:level`. Raises InvalidRequest."""
    queue, colon, level = name.rpartition(":")
    if not colon or NAME.fullmatch(queue) is None:
        raise errors.InvalidRequest(f"{name[:140]!r} is not a queue and its level, like orders:1")
    if level not in ("0", "1"):
        raise errors.InvalidRequest(f"Unknown queue level: {level[:20]} (there are 0 and 1)")
    return Lane(queue, level == "0")
