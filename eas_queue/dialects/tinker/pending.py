"""How a request that has not ended is told of: 408, with its place in the queue in the body and in headers.

Two vocabularies for two clients. Scripts read `waiting` and `processing`. The SDK's high-level client reads
`paused_capacity` and `active`, and warns of anything but the latter.
"""

from __future__ import annotations

import json
import math
from typing import Any

from flask import Response

from eas_queue.engine.request import Request, State

STATUS = "queued"  # in both states, as the published page shows it: what differs is queue_state
RETRY_AFTER_MOST_S = 30
BLIND_RETRY_AFTER_MOST_S = 10  # where it can't be told when it ends
_WORDS = {False: ("waiting", "processing"), True: ("paused_capacity", "active")}


def response(found: Request, *, high_level: bool) -> Response:
    """The 408. Without `x-should-retry` the SDK would repeat it by itself, and its caller never see it."""
    is_waiting = found.state is State.QUEUED
    depth, position = found.depth + found.running, found.position if is_waiting else 0
    retry_after_s = _retry_after_s(found, position)
    content: dict[str, Any] = {
        "request_id": found.request_id,
        "type": "pending",
        "status": STATUS,
        "queue_state": _WORDS[high_level][0 if is_waiting else 1],
        "queue_state_reason": _reason(found, depth) if is_waiting else None,
        "queue_depth": depth,
        "queue_position": position,
        "estimated_wait_s": None if found.eta_s is None else round(found.eta_s, 3),
        "progress": found.progress,
        "retry_after_s": float(retry_after_s),
    }
    answer = Response(json.dumps(content) + "\n", 408, mimetype="application/json")
    told = {
        "Retry-After": retry_after_s,
        "X-Queue-Status": STATUS,
        "X-Queue-Depth": depth,
        "X-Queue-Position": position,
        "X-Queue-ETA-S": None if found.eta_s is None else f"{found.eta_s:.3f}",
        "X-Queue-Tokens-Generated": _count(found, "tokens_generated"),
        "X-Queue-Max-Tokens": _count(found, "max_tokens"),
        "x-should-retry": "false",
    }
    for name, value in told.items():
        if value is not None:
            answer.headers[name] = str(value)
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _reason(found: Request, depth: int) -> str:
    if found.position is None:
        return "waits for another attempt"
    reason = f"queue position {found.position} of {depth}"
    return reason if found.eta_s is None else f"{reason}, about {math.ceil(found.eta_s)} s"


def _retry_after_s(found: Request, position: int | None) -> int:
    if found.eta_s is not None:
        return max(1, min(int(found.eta_s / 4), RETRY_AFTER_MOST_S))
    return 1 if position is None else min(position + 1, BLIND_RETRY_AFTER_MOST_S)


def _count(found: Request, name: str) -> int | None:
    value = (found.progress or {}).get(name)
    return value if type(value) is int and 0 <= value < 2**63 else None
