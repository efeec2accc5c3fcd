"""The native dialect's wire shapes. PROTOCOL.md beside this file describes them for people."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from eas_queue.engine.deliveries import Delivery
from eas_queue.engine.letters import Letter
from eas_queue.engine.request import LogLine, Request, State
from eas_queue.engine.service import Overview, Service

INLINE_BODY_MAX_BYTES = 65_536  # a larger answer is linked

# The words of the original eas_queue, which are Celery's, and EXPIRED.
_WORDS = {
    State.RUNNING: "STARTED",
    State.SUCCEEDED: "SUCCESS",
    State.FAILED: "FAILURE",
    State.CANCELLED: "REVOKED",
    State.EXPIRED: "EXPIRED",
}
_MESSAGES = {
    "PENDING": "Task is pending.",
    "STARTED": "Task is being processed.",
    "RETRY": "Task is waiting to be sent again.",
    "SUCCESS": "Task completed successfully.",
    "FAILURE": "Task failed.",
    "REVOKED": "Task was cancelled.",
    "EXPIRED": "Task expired before it was sent.",
}


def status_word(request: Request) -> str:
    if request.state is State.QUEUED:
        return "RETRY" if request.attempts else "PENDING"
    return _WORDS[request.state]


def status_code(request: Request) -> int:
    """200 once it has ended, 202 before."""
    return 200 if request.state.is_terminal else 202


def status_json(request: Request, body: bytes | None, result_url: str, lines: Sequence[LogLine] = ()) -> dict[str, Any]:
    """The status JSON, keys in the order that clients see. *body*: the kept answer, None if not to be shown."""
    word = status_word(request)
    return {
        "request_id": request.request_id,
        "status": word,
        "service_name": request.service,
        "message": _MESSAGES[word],
        "result": _result(request, body, result_url),
        "error_info": {"type": request.error_type, "detail": request.error} if _shows_error(request) else None,
        "position": request.position,
        "depth": request.depth,
        "eta_s": None if request.eta_s is None else round(request.eta_s, 1),
        "attempts": request.attempts,
        "submitted_at": rfc3339(request.submitted_ms),
        "started_at": rfc3339(request.started_ms),
        "finished_at": rfc3339(request.finished_ms),
        "progress": request.progress,
        "logs": [log_json(line) for line in lines],
        "redriven_as": request.redriven_as or None,
    }


def log_json(line: LogLine) -> dict[str, Any]:
    """One line that a target logged."""
    return {"timestamp": rfc3339(line.at_ms), "level": line.level, "message": line.message}


def overview_json(service: Service, found: Overview) -> dict[str, Any]:
    """How a service stands."""
    return {
        "service_name": service.name,
        "depth": found.startable + found.delayed,
        "delayed": found.delayed,
        "running": found.running,
        "max_concurrency": service.max_concurrency,
        "oldest_s": round(found.oldest_ms / 1000, 1),
        "mean_run_s": round(found.mean_run_ms / 1000, 3) if found.runs else None,
        "paused": found.paused,
        "held": found.held,
        "sink": found.sink,
        "rear": found.rear,
    }


def letter_json(letter: Letter) -> dict[str, Any]:
    """One dead letter."""
    fields = letter.fields
    return {
        "request_id": letter.request_id,
        "index": letter.rear_index,
        "error_info": {"type": fields.get("error_type", ""), "detail": fields.get("error", "")},
        "target_status_code": int(fields.get("status_code", "0")) or None,
        "attempts": int(fields.get("attempt", "0")),
        "finished_at": rfc3339(int(fields["finished_ms"])) if "finished_ms" in fields else None,
    }


def webhook_json(delivery: Delivery) -> dict[str, Any]:
    """What has become of one webhook. Of its URL only the part that holds no parameters."""
    return {
        "request_id": delivery.request_id,
        "index": delivery.index,
        "url": re.split("[?#]", delivery.webhook.url)[0],
        "style": delivery.webhook.style,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "next_at": rfc3339(delivery.next_ms),
        "last_status_code": delivery.last_status,
        "last_error": delivery.last_error or None,
        "delivered_at": rfc3339(delivery.delivered_ms),
    }


def _shows_error(request: Request) -> bool:
    """While it runs again, the error of the attempt before is history."""
    return bool(request.error_type) and request.state not in (State.SUCCEEDED, State.RUNNING)


def _result(request: Request, body: bytes | None, result_url: str) -> dict[str, Any] | None:
    if not request.from_target or request.state not in (State.SUCCEEDED, State.FAILED):
        return None
    content_type = request.header("content-type")
    result: dict[str, Any] = {
        "status": "success" if request.state is State.SUCCEEDED else "error",
        "target_status_code": request.status_code,
        "content_type": content_type,
    }
    shown = _readable(content_type, request.header("content-encoding"), body)
    if shown is None:
        result["body_url"] = result_url
    else:
        result["body"] = shown[0]
    return result


def _readable(content_type: str | None, encoding: str | None, body: bytes | None) -> tuple[Any] | None:
    """The answer as a JSON value: parsed JSON, or text. None where it is binary, coded or long."""
    if body is None or len(body) > INLINE_BODY_MAX_BYTES or (encoding or "identity").lower() != "identity":
        return None
    kind = (content_type or "").partition(";")[0].strip().lower()
    try:
        if kind == "application/json" or kind.endswith("+json"):
            value = json.loads(body)
            json.dumps([[value]], allow_nan=False)  # NaN, 1e999, nested too deeply: what is no JSON here is linked
            return (value,)
        if not kind or kind.startswith("text/"):
            return (body.decode(),)
    except (ValueError, RecursionError):
        pass
    return None


def rfc3339(ms: int | None) -> str | None:
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
