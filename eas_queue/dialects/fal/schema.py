"""fal's wire shapes: the status of a request, and its errors. PROTOCOL.md describes them for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from eas_queue.engine.request import LogLine, Request, State

COMPLETED = "COMPLETED"
_WORDS = {State.QUEUED: "IN_QUEUE", State.RUNNING: "IN_PROGRESS"}

_LEVELS = {"warning": "WARN", "critical": "ERROR", "fatal": "ERROR"}  # what fal has other words for

# What fal calls the ends that our error types stand for, and the status that its result then has.
_PLATFORM = {
    "TargetTimeout": ("request_timeout", 504),
    "TargetUnreachable": ("runner_connection_error", 503),
    "TargetBroken": ("runner_incomplete_response", 502),
    "ConnectionClosed": ("runner_disconnected", 503),
    "WorkerLost": ("runner_disconnected", 503),
    "WorkerStopped": ("runner_disconnected", 503),
    "WatcherLost": ("runner_disconnected", 503),
    "Refused": ("runner_disconnected", 503),
    "ServiceNotConfigured": ("runner_scheduling_failure", 503),
    "Unadaptable": ("runner_scheduling_failure", 503),
}


class Fault(NamedTuple):
    """Why a request has no 2xx result. *error_type* '' where the target itself said so."""

    status_code: int
    text: str
    error_type: str


class Links(NamedTuple):
    """The three addresses of a request, absolute: the Python client follows them as they are."""

    response_url: str
    status_url: str
    cancel_url: str

    @classmethod
    def of(cls, base: str, name: str, request_id: str) -> Links:
        """Never with the path behind the endpoint's name: clients compare them with what they build themselves."""
        response_url = f"{base}/{name}/requests/{request_id}"
        return cls(response_url, response_url + "/status", response_url + "/cancel")


def word(request: Request) -> str:
    """One of the three states that fal's clients know; whatever has ended is completed."""
    return _WORDS.get(request.state, COMPLETED)


def status_code(request: Request) -> int:
    """200 once it has ended, 202 before: one of the clients looks at nothing else."""
    return 200 if request.state.is_terminal else 202


def fault(request: Request) -> Fault | None:
    """Why its result is none, for a request that has ended; None where it has a 2xx of its target."""
    if request.state is State.CANCELLED:
        return Fault(499, "Request was cancelled", "client_cancelled")
    if request.state is State.EXPIRED:
        return Fault(504, "Request timed out", "request_timeout")
    if request.state is not State.FAILED:
        return None
    code = request.status_code or 502
    if request.from_target:
        return Fault(code, f"Invalid status code: {code}", "runner_server_error" if code >= 500 else "")
    error_type, code = _PLATFORM.get(request.error_type, ("internal_error", 500))
    return Fault(code, request.error or "the target gave no answer", error_type)


def status_json(request: Request, links: Links, lines: Sequence[LogLine] | None) -> dict[str, Any]:
    """The status. *lines* None where no logs were asked for: then they are null, as clients expect, and else a list."""
    content: dict[str, Any] = {"status": word(request), "request_id": request.request_id, **links._asdict()}
    if request.state is State.QUEUED:
        content["queue_position"] = request.position or 0  # one that will be sent again, later, has none
    content["logs"] = None if lines is None else [log_json(line) for line in lines]
    content["metrics"] = _metrics(request)
    found = fault(request)
    if found is not None:
        content["error"] = found.text
        if found.error_type:
            content["error_type"] = found.error_type
    return content


def log_json(line: LogLine) -> dict[str, Any]:
    """One line that the target logged; its time as fal writes it, UTC without saying so."""
    at = datetime.fromtimestamp(line.at_ms / 1000, UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    return {
        "timestamp": at,
        "message": line.message,
        "level": _LEVELS.get(line.level, line.level.upper()),
        "source": "USER",
        "labels": {},
    }


def error_json(detail: str, error_type: str = "", **more: str) -> str:
    """An error's body. The Python client shows *detail*, the JavaScript one only `message`."""
    content = {**more, "detail": detail, "message": detail}
    if error_type:
        content["error_type"] = error_type
    return json.dumps(content) + "\n"


def _metrics(request: Request) -> dict[str, float]:
    if not request.state.is_terminal or request.started_ms is None or request.finished_ms is None:
        return {}
    if request.state is State.EXPIRED:  # an attempt may have failed before, and nobody worked on it since
        return {}
    return {"inference_time": (request.finished_ms - request.started_ms) / 1000}
