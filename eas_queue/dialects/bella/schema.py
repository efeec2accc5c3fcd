"""Tasks and the other shapes of the protocol."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, NamedTuple

from eas_queue.dialects.bella import answers, names
from eas_queue.engine.request import Request, State
from eas_queue.engine.taking import Lane, Standing, Taken

DAY_MS = 86_400_000
INSTANCE = "eas_queue:0"  # of the server that a task's client waits at: opaque to workers, as there is no event bus


class _Facts(NamedTuple):
    """What a task tells of a request. *about*: what was said where it was put, None where that was another dialect."""

    service: str
    request_id: str
    level: int
    status: str
    submitted_ms: int
    expire_ms: int
    about: dict[str, str] | None
    endpoint: str
    running_ms: int = 0
    completed_ms: int = 0


def task_id(request: Request) -> str:
    about = _about(request.about)
    level = names.level_of(request.priority_class)
    return _task_id(request.request_id, level, about, request.submitted_ms)


def taken_json(taken: Taken, lane: Lane) -> str:
    """A task as a take gives it. Its data stands there as it was put."""
    about, level = _about(taken.about), names.HIGH if lane.is_high else names.NORMAL
    data, endpoint = taken.body.decode() if about else "", taken.endpoint
    if about is None:
        meta = json.loads(taken.meta)
        kind = next((value for name, value in meta["headers"] if name.lower() == "content-type"), "")
        data = answers.as_object(taken.body, kind)
        endpoint += "/" + meta["path"] if meta["path"] else ""
        endpoint += "?" + meta["query"] if meta["query"] else ""
    facts = _Facts(
        lane.service,
        taken.request_id,
        level,
        "waiting" if taken.attempt == 1 else "queued",
        taken.submitted_ms,
        taken.deadline_ms if about else taken.lease_ends_ms,
        about,
        endpoint,
    )
    return _json(_fields(facts), data=data)


def task_json(request: Request, endpoint: str, body: bytes, result: str | None) -> str:
    """A task as it stands. *body*: what was submitted, while that is kept."""
    about = _about(request.about)
    is_done = request.state in (State.SUCCEEDED, State.FAILED)
    facts = _Facts(
        request.service,
        request.request_id,
        names.level_of(request.priority_class),
        status(request),
        request.submitted_ms,
        request.deadline_ms or request.submitted_ms + DAY_MS,
        about,
        endpoint,
        (request.finished_ms or 0) - (request.started_ms or request.submitted_ms) if is_done else 0,
        request.finished_ms or 0 if is_done else 0,
    )
    data = body.decode() if about and body else answers.as_object(body, "") if body else "{}"
    return _json(_fields(facts), data=data, **({} if result is None else {"result": result}))


def status(request: Request) -> str:
    """The protocol's word for a state."""
    match request.state:
        case State.QUEUED:
            return "queued" if request.attempts else "waiting"
        case State.RUNNING:
            return "queued"
        case State.FAILED:
            return "timeout" if request.error_type == answers.LOST else "failed"
        case State.EXPIRED:
            return "timeout"
        case _:
            return request.state.value


def standing_json(lane: Lane, found: Standing, now: datetime) -> dict[str, Any]:
    """The row of a queue. Where no client registered it, it has no ctime."""
    row = {
        "id": found.number * 2 + (0 if lane.is_high else 1),
        "queue": lane.service,
        "level": names.HIGH if lane.is_high else names.NORMAL,
        "last_wrote_sharding_key": "",
        "last_wrote_id": found.last_index,
        "last_scanned_sharding_key": "",
        "last_scanned_id": found.last_started_index,
        "total_put_cnt": found.put,
        "total_loaded_cnt": found.taken,
        "total_completed_cnt": found.done,
        "cuid": 0,
        "muid": 0,
        "cu_name": "",
        "mu_name": "",
    }
    if found.enrolled_ms:
        row["ctime"] = f"{datetime.fromtimestamp(found.enrolled_ms / 1000, UTC):%Y-%m-%dT%H:%M:%S}"
    return row | {"mtime": f"{now:%Y-%m-%dT%H:%M:%S}"}


def _about(text: str) -> dict[str, str] | None:
    found: dict[str, str] | None = json.loads(text) if text else None
    return found


def _task_id(request_id: str, level: int, about: dict[str, str] | None, submitted_ms: int) -> str:
    return request_id if about is None else names.task_id(request_id, level, about["mode"], submitted_ms)


def _fields(facts: _Facts) -> dict[str, Any]:
    about = facts.about or {"endpoint": facts.endpoint, "mode": "callback"}
    trace_id, callback_url = about.get("trace_id", ""), about.get("callback_url", "")
    content = {
        "task_id": _task_id(facts.request_id, facts.level, facts.about, facts.submitted_ms),
        "ak": "",  # the submitter's key is nobody else's
        "queue": facts.service,
        "level": facts.level,
        "endpoint": about["endpoint"],
        "status": facts.status,
        "start_time": facts.submitted_ms,
        "running_time": facts.running_ms,
        "expire_time": facts.expire_ms,
        "completed_time": facts.completed_ms,
        "response_mode": about["mode"],
    }
    if facts.level == names.HIGH:
        content["instance_id"] = INSTANCE
        more = {"trace_id": trace_id, "callback_url": callback_url}
        return content | {name: value for name, value in more.items() if value}
    return content | {"batch_id": "", "trace_id": trace_id, "callback_url": callback_url}


def _json(content: dict[str, Any], **raw: str) -> str:
    """*raw*: members that are JSON already."""
    return json.dumps(content)[:-1] + "".join(f', "{name}": {text}' for name, text in raw.items()) + "}"
