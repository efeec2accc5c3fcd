"""The routes of the take API. See PROTOCOL.md."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, request
from werkzeug.exceptions import RequestEntityTooLarge

from eas_queue.auth import Access, Role
from eas_queue.dialects import inbound, outbound
from eas_queue.dialects.bella import answers, names, parameters, schema, stream
from eas_queue.dialects.failure import Failure
from eas_queue.dialects.members import Members, values_of
from eas_queue.engine import errors
from eas_queue.engine.engine import Engine
from eas_queue.engine.request import Caller, Request, State

PREFIX = "/v1/queue"
# Workers that insist on an event bus before they take get one that leads nowhere: `.invalid` never resolves (RFC 2606).
EVENT_BUS = {"url": "redis://eventbus.invalid:6379/0", "topic": "eventbus-off:"}
_PROGRESS_BYTES = 1_048_576
_SMALL_BYTES = 65_536


@dataclass(frozen=True)
class Limits:
    max_wait_s: float
    max_result_bytes: int
    fifo_most: int


def blueprint(engine: Engine, access: Access, limits: Limits) -> Blueprint:
    """The routes under PREFIX."""
    routes = Blueprint("bella", __name__, url_prefix=PREFIX)

    def allow(role: Role, service: str | None = None) -> Caller:
        return access.check(request.headers, request.remote_addr or "", role, service)

    def allow_task(role: Role, task: str) -> tuple[str, str]:
        """(service, request id) of a task. Raises RequestNotFound for one that nobody knows."""
        allow(role)
        request_id = names.request_id(task)
        service = engine.service_of(request_id)
        allow(role, service)
        return service, request_id

    @routes.post("/register")
    def register() -> Response:
        allow(Role.ADMIN)
        values = _values()
        queue, endpoint = parameters.queue_name(values), parameters.endpoint(values)
        allow(Role.ADMIN, queue)
        try:
            known = engine.takes.enroll(queue, endpoint)
        except errors.ServiceNotFound:
            return _error(403, f"queue {queue} can't be registered: the services file allows only what it lists")
        except errors.NotPulled:
            return _error(400, f"{queue} is a service of the services file whose requests are forwarded")
        if known != endpoint:
            return _error(400, f"queue {queue} is registered with another endpoint: {known}")
        return _json(queue)

    @routes.get("/<queue>/metadata")
    def metadata(queue: str) -> Response:
        allow(Role.READ, queue)
        try:
            found = engine.takes.standing(queue)
        except (errors.NotPulled, errors.ServiceNotFound):
            return _error(404, _unregistered(queue))
        return _json({"endpoint": found.endpoint, "queue": queue})

    @routes.get("/<name>/stats")
    def stats(name: str) -> Response:
        allow(Role.READ)
        lane = names.lane(name)
        allow(Role.READ, lane.service)
        try:
            found = engine.takes.standing(lane.service, is_high=lane.is_high)
        except (errors.NotPulled, errors.ServiceNotFound):
            return _error(404, _unregistered(lane.service))
        return _json(schema.standing_json(lane, found, datetime.now(UTC)))

    @routes.get("/eventbus")
    def eventbus() -> Response:
        allow(Role.CONSUME)
        return _json(EVENT_BUS)

    @routes.post("/put")
    def put() -> Response:
        caller = allow(Role.SUBMIT)
        key = inbound.idempotency_key(request)
        asked = parameters.put(_members(), caller, held_most_s=limits.max_wait_s, idempotency_key=key)
        allow(Role.SUBMIT, asked.queue)
        try:
            receipt = engine.submit(asked.queue, asked.submission)
        except (errors.NotPulled, errors.ServiceNotFound) as exc:
            raise errors.InvalidRequest(_unregistered(asked.queue)) from exc
        if asked.mode == "streaming":
            first = engine.look_anyway(receipt.service, receipt.request_id)
            return stream.response(engine, first, is_gone=inbound.gone_check(request))
        if asked.mode == "blocking":
            return _held(engine, receipt.service, receipt.request_id, asked.timeout_s)
        task = names.task_id(receipt.request_id, asked.level, asked.mode, receipt.submitted_ms)
        return _json({"code": 200, "timestamp": receipt.submitted_ms, "data": task})

    @routes.post("/take")
    def take() -> Response:
        caller = allow(Role.CONSUME)
        queues, wanted = parameters.take(_values(), caller, fifo_most=limits.fifo_most)
        for lane in wanted.lanes:
            allow(Role.CONSUME, lane.service)
        if wanted.most == 0:
            return _text("{}")
        try:
            taken = engine.takes.take(wanted, is_gone=inbound.gone_check(request))
        except (errors.NotPulled, errors.ServiceNotFound) as exc:
            raise errors.InvalidRequest(_unregistered(exc.service)) from exc
        tasks: dict[str, list[str]] = {}
        for each in taken:
            tasks.setdefault(queues[each.lane], []).append(schema.taken_json(each, wanted.lanes[each.lane]))
        parts = [f"{json.dumps(name)}: [{', '.join(found)}]" for name, found in tasks.items()]
        return _text("{" + ", ".join(parts) + "}")

    @routes.post("/<task>/complete")
    def complete(task: str) -> Response:
        allow(Role.CONSUME)
        request_id = names.request_id(task)
        # a body that is no JSON is a third longer in base64
        answer, about = parameters.complete(_members(limits.max_result_bytes * 4 // 3 + _SMALL_BYTES))
        if max(len(answer.body), len(about) - _SMALL_BYTES) > limits.max_result_bytes:
            raise RequestEntityTooLarge
        try:
            allow(Role.CONSUME, engine.service_of(request_id))
        except errors.RequestNotFound:
            return _json(task)
        engine.takes.complete(request_id, answer, about=about)
        return _json(task)

    @routes.post("/<task>/cancel")
    def cancel(task: str) -> Response:
        # nothing of it will be done, whatever has been
        with contextlib.suppress(errors.RequestNotFound, errors.NotCancellable):
            engine.abandon(*allow_task(Role.SUBMIT, task))
        return _json(task, 202)

    @routes.post("/<task>/renew")
    def renew(task: str) -> Response:
        request_id = _held_by_a_worker(task)
        lease_s, worker = parameters.renew(_values())
        engine.takes.extend(request_id, lease_s, taker=worker)
        return _json(task)

    @routes.post("/<task>/progress")
    def progress(task: str) -> Response:
        request_id = _held_by_a_worker(task)
        note, worker = parameters.progress(inbound.json_object(request, bytes_most=_PROGRESS_BYTES))
        engine.takes.note_progress(request_id, note, taker=worker)
        return _json(task)

    def _held_by_a_worker(task: str) -> str:
        try:
            return allow_task(Role.CONSUME, task)[1]
        except errors.RequestNotFound:
            raise errors.NotTaken(task[:100]) from None

    @routes.get("/<task>")
    def get(task: str) -> Response:
        found = engine.look_anyway(*allow_task(Role.READ, task))
        result = answers.result(found, schema.task_id(found), *engine.answer(found))
        return _text(schema.task_json(found, _endpoint(engine, found), *engine.submitted(found), result))

    return routes


def _unregistered(queue: str) -> str:
    return (
        f"Queue not registered: {queue[:128]} (POST {PREFIX}/register makes one; its operator, "
        f'[services.{queue[:128]}] with mode = "pull")'
    )


def _endpoint(engine: Engine, found: Request) -> str:
    """That a task of another dialect is for."""
    if schema.is_own(found):
        return ""
    try:
        return engine.takes.standing(found.service).endpoint
    except (errors.NotPulled, errors.ServiceNotFound):
        return ""


def _held(engine: Engine, service: str, request_id: str, timeout_s: float) -> Response:
    """Wait for the end, and answer what the worker answered. Who gets no answer has the task cancelled."""
    until_s = time.monotonic() + timeout_s
    try:
        found = engine.wait(service, request_id, timeout_s, is_gone=inbound.gone_check(request))
    except errors.WaiterGone:
        engine.abandon(service, request_id)
        raise
    if not found.state.is_terminal:
        try:
            engine.abandon(service, request_id)
        except errors.NotCancellable:  # it has ended in this moment
            found = engine.look_again(found)
        else:
            if time.monotonic() < until_s:
                return _error(503, "this server stops: the task was cancelled, put it again")
    if found.from_target:
        return outbound.relayed(found, engine.result_body(found))
    if found.state is State.CANCELLED:
        return _error(409, "the task was cancelled")
    if found.state is State.FAILED and found.error_type != answers.LOST:
        return _error(found.status_code or 500, found.error)
    return _empty(408)


def render_error(failure: Failure) -> Response:
    """`{"code": .., "message": .., "timestamp": ..}`; a caller that nobody knows gets no words."""
    if failure.status == 401:
        response = _empty(401)
        response.headers["WWW-Authenticate"] = 'Bearer realm="eas_queue"'
        return response
    response = _error(failure.status, "Queue full" if failure.code == errors.QueueFull.code else failure.detail)
    for name, value in failure.headers:
        response.headers[name] = value
    if failure.retry_after_s is not None:
        response.headers["Retry-After"] = str(failure.retry_after_s)
    return response


def _empty(code: int) -> Response:
    response = Response(status=code)
    del response.headers["Content-Type"]
    return response


def _values() -> dict[str, Any]:
    request.max_content_length = _SMALL_BYTES
    return values_of(inbound.whole_body(request))


def _members(bytes_most: int | None = None) -> Members:
    if bytes_most is not None:
        request.max_content_length = bytes_most
    return Members.of(inbound.whole_body(request))


def _json(content: object, code: int = 200) -> Response:
    return _text(json.dumps(content), code)


def _text(content: str, code: int = 200) -> Response:
    response = Response(content, code, mimetype="application/json")
    response.headers["Cache-Control"] = "no-cache"
    return response


def _error(code: int, message: str) -> Response:
    return _json({"code": code, "message": message, "timestamp": time.time_ns() // 1_000_000}, code)
