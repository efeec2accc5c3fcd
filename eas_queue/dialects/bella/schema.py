"""Tasks and the other shapes of the protocol."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from eas_queue.dialects.bella import answers, names
from eas_queue.engine.request import Request, State
from eas_queue.engine.taking import Lane, Standing, Taken

DAY_MS = 86_400_000
INSTANCE = "eas_queue:0"  # of the server that a task's client waits at: opaque to workers, as there is no event bus


class _Facts(NamedTuple):
    """What a task tells of a request. *about*: what was said where it was put, '' where that was another dialect."""

    service: str
    request_id: str
    level: int
    status: str
    submitted_ms: int
    expire_ms: int
    about: str
    endpoint: str
    running_ms: int = 0
    completed_ms: int = 0


def is_own(request: Request) -> bool:
    """Whether it was put here, and so says itself what it is for."""
    return _about(request.about) is not None


def task_id(request: Request) -> str:
    about = _about(request.about)
    level = names.level_of(request.priority_class)
    return _task_id(request.request_id, level, about, request.submitted_ms)


def taken_json(taken: Taken, lane: Lane) -> str:
    """A task as a take gives it. Its data stands there as it was put."""
    about, level = _about(taken.about), names.HIGH if lane.is_high else names.NORMAL
    endpoint, data = _endpoint_and_data(about, taken.endpoint, taken.meta, taken.body)
    facts = _Facts(
        lane.service,
        taken.request_id,
        level,
        "waiting" if taken.attempt == 1 else "queued",
        taken.submitted_ms,
        _expire_ms(about, taken.submitted_ms, taken.deadline_ms),
        taken.about,
        endpoint,
    )
    return _json(facts, data)


def task_json(request: Request, endpoint: str, meta: bytes, body: bytes | None, result: str | None) -> str:
    """A task as it stands. *endpoint*: of its queue; *body*: what was submitted, while that is kept."""
    about = _about(request.about)
    endpoint, data = _endpoint_and_data(about, endpoint, meta, body)
    is_done = request.state in (State.SUCCEEDED, State.FAILED)
    facts = _Facts(
        request.service,
        request.request_id,
        names.level_of(request.priority_class),
        status(request),
        request.submitted_ms,
        _expire_ms(about, request.submitted_ms, request.deadline_ms or 0),
        request.about,
        endpoint,
        (request.finished_ms or 0) - request.submitted_ms if is_done else 0,
        request.finished_ms or 0 if is_done else 0,
    )
    return _json(facts, data, result)


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


def _endpoint_and_data(
    about: Mapping[str, str] | None, endpoint: str, meta: bytes, body: bytes | None
) -> tuple[str, str]:
    """What a task is for, and what it brings, as JSON; nothing where that is not kept any more."""
    if about is not None:
        return about["endpoint"], "{}" if body is None else body.decode()
    said = json.loads(meta)
    kind = next((value for name, value in said["headers"] if name.lower() == "content-type"), "")
    endpoint += ("/" + said["path"] if said["path"] else "") + ("?" + said["query"] if said["query"] else "")
    return endpoint, "{}" if body is None else answers.as_object(body, kind)


def _expire_ms(about: Mapping[str, str] | None, submitted_ms: int, deadline_ms: int) -> int:
    """A deadline of other dialects is one for the start."""
    return deadline_ms if about and deadline_ms else submitted_ms + DAY_MS


@functools.lru_cache(maxsize=1024)  # many tasks say the same
def _about(text: str) -> Mapping[str, str] | None:
    """None also where another dialect keeps something of its own there."""
    found: dict[str, str] = json.loads(text) if text else {}
    return found if "endpoint" in found else None


def _task_id(request_id: str, level: int, about: Mapping[str, str] | None, submitted_ms: int) -> str:
    return request_id if about is None else names.task_id(request_id, level, about["mode"], submitted_ms)


@functools.lru_cache(maxsize=1024)
def _fixed(service: str, level: int, about_text: str, endpoint: str) -> str:
    """What tasks of the same kind have in common, as members of their JSON."""
    about = _about(about_text) or {"mode": "callback"}
    content = {
        "ak": "",  # the submitter's key is nobody else's
        "queue": service,
        "level": level,
        "endpoint": endpoint,
        "response_mode": about["mode"],
        "callback_url": about.get("callback_url", ""),
    }
    trace_id = about.get("trace_id", "")
    if level == names.NORMAL:
        content |= {"batch_id": "", "trace_id": trace_id}
    else:
        content |= {"instance_id": INSTANCE} | ({"trace_id": trace_id} if trace_id else {})
    return json.dumps(content)[1:-1]


def _json(facts: _Facts, data: str, result: str | None = None) -> str:
    """*data*, *result*: JSON already."""
    about = _about(facts.about)
    task_id = _task_id(facts.request_id, facts.level, about, facts.submitted_ms)
    fixed = _fixed(facts.service, facts.level, facts.about, facts.endpoint)
    return (
        f'{{"task_id": "{task_id}", {fixed}, "status": "{facts.status}", "start_time": {facts.submitted_ms}, '
        f'"running_time": {facts.running_ms}, "expire_time": {facts.expire_ms}, '
        f'"completed_time": {facts.completed_ms}, "data": {data}'
        + ("}" if result is None else f', "result": {result}}}')
    )
