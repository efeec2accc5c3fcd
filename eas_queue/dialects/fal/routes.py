"""fal's queue and its synchronous host. See PROTOCOL.md."""

from __future__ import annotations

import contextlib
import json
import re
import time

from flask import Blueprint, Response, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from eas_queue.auth import Access, Role
from eas_queue.dialects import inbound, outbound
from eas_queue.dialects.failure import Failure
from eas_queue.dialects.fal import entrance, names, parameters, schema, stream
from eas_queue.engine import errors, ids
from eas_queue.engine.engine import Engine
from eas_queue.engine.request import Caller, Request, State
from eas_queue.engine.service import NAME

REQUEST_ID_HEADER = "x-fal-request-id"
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_EXPOSED = "x-fal-request-id, x-fal-request-timeout-type, x-fal-error-type, x-fal-billable-units, x-fal-retryable"
_HEADER_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,4000}")
_NOT_RELAYED = ("x-fal-stop-runner", "access-control-allow-origin", "access-control-expose-headers")


class _UnknownEndpoint(HTTPException):
    """The path names no endpoint, or none that is served."""

    code = 404

    def __init__(self, name: str) -> None:
        super().__init__(f'Application "{name[:140]}" not found')


class _ForeignTarget(HTTPException):
    """The proxy was asked for something that is not this queue."""

    code = 412


def blueprint(engine: Engine, access: Access, *, max_wait_s: float) -> Blueprint:
    """The routes under entrance.INNER."""
    routes = Blueprint("fal", __name__, url_prefix=entrance.INNER.rstrip("/"))

    def allow(role: Role, endpoint: names.Endpoint) -> tuple[Caller, str]:
        service = engine.services.name_of(endpoint.name)
        caller = access.check(request.headers, request.remote_addr or "", role, service)
        if NAME.fullmatch(service) is None:  # the parts are names, and all of it is too long for one
            raise _UnknownEndpoint(endpoint.name)
        return caller, service

    def links(endpoint: names.Endpoint, request_id: str) -> schema.Links:
        return schema.Links.of(entrance.base_of(request.environ), endpoint.name, request_id)

    def submitted(inner: str, path: str) -> tuple[names.Endpoint, str, str]:
        """Store the request; returns its endpoint, its service and its id."""
        raw = inbound.raw_subpath(request, inner, path)
        endpoint = names.endpoint(raw)
        if endpoint is None:
            access.check(request.headers, request.remote_addr or "", Role.SUBMIT, None)
            raise _UnknownEndpoint(path)
        caller, service = allow(Role.SUBMIT, endpoint)
        try:
            receipt = engine.submit(service, parameters.submission(request, endpoint, caller))
        except errors.ServiceNotFound as exc:
            raise _UnknownEndpoint(endpoint.name) from exc
        g.fal_request_id = receipt.request_id
        return endpoint, receipt.service, receipt.request_id

    def submit(path: str) -> Response:
        endpoint, service, request_id = submitted(entrance.INNER_QUEUE, path)
        content = {"status": "IN_QUEUE", "request_id": request_id, **links(endpoint, request_id)._asdict()}
        content |= {"gateway_request_id": request_id, "logs": None, "metrics": {}, "queue_position": 0}
        with contextlib.suppress(errors.EngineError):  # it is stored, and its client must learn its id
            content["queue_position"] = engine.look(service, request_id).position or 0
        return _json(content)

    def status(operation: names.Operation, found: Request) -> Response:
        lines = engine.logs(found) if parameters.with_logs(request) else None
        content = schema.status_json(found, links(operation.endpoint, found.request_id), lines)
        return _json(content, schema.status_code(found))

    def result(found: Request) -> Response:
        if not found.state.is_terminal:
            return _error(400, "Request is still in progress")
        fault = schema.fault(found)
        if fault is not None and not found.from_target:
            response = _error(fault.status_code, fault.text, fault.error_type)
            if found.state is State.EXPIRED and found.has_own_deadline:
                response.headers["X-Fal-Request-Timeout-Type"] = "user"  # clients do not try again then
            return response
        response = outbound.relayed(found, engine.result_body(found))
        for name in _NOT_RELAYED:
            response.headers.pop(name, None)
        return response

    def read(operation: names.Operation, service: str) -> Response:
        found = engine.look(service, operation.request_id)
        if operation.action == "status":
            return status(operation, found)
        if operation.action == "status/stream":
            return stream.response(
                engine,
                found,
                links(operation.endpoint, found.request_id),
                with_logs=parameters.with_logs(request),
                is_gone=inbound.gone_check(request),
            )
        return result(found)

    def cancel(service: str, request_id: str) -> Response:
        try:
            was = engine.cancel(service, request_id)
        except errors.RequestNotFound:
            return _error(404, "Request not found", status="NOT_FOUND")
        except errors.NotCancellable:
            was = State.CANCELLED
        if was is State.CANCELLED:
            return _error(400, f"Request {request_id} is already completed.", status="ALREADY_COMPLETED")
        return _json({"status": "CANCELLATION_REQUESTED"}, 202)

    @routes.route("/queue/", methods=_METHODS, defaults={"path": ""}, provide_automatic_options=False)
    @routes.route("/queue/<path:path>", methods=_METHODS, provide_automatic_options=False)
    def queue(path: str) -> Response:
        if request.method == "POST":
            return submit(path)
        operation = names.operation(inbound.raw_subpath(request, entrance.INNER_QUEUE, path))
        if operation is None:
            if names.endpoint(path) is not None:
                raise MethodNotAllowed(["POST"], "an endpoint takes requests by POST")
            raise _UnknownEndpoint(path)
        allowed = "PUT" if operation.action == "cancel" else "GET"
        if request.method not in (allowed, "HEAD" if allowed == "GET" else allowed):
            raise MethodNotAllowed([allowed], f"this is asked for by {allowed}")
        _, service = allow(Role.SUBMIT if operation.action == "cancel" else Role.READ, operation.endpoint)
        if ids.is_id(operation.request_id):  # anything else might not be fit for a header
            g.fal_request_id = operation.request_id
        try:
            if operation.action == "cancel":
                return cancel(service, operation.request_id)
            return read(operation, service)
        except errors.ServiceNotFound as exc:
            raise _UnknownEndpoint(operation.endpoint.name) from exc

    @routes.route("/run/", methods=_METHODS, defaults={"path": ""}, provide_automatic_options=False)
    @routes.route("/run/<path:path>", methods=_METHODS, provide_automatic_options=False)
    def run(path: str) -> Response:
        """Submit, wait, and answer what the target answered.

        Who gets no answer, by hanging up, for want of time or by the stop of this process, has it cancelled: a client
        that sends it again then, as one does by itself, does not have it done twice. Not so with a key: they may come
        back with that, and others may wait as well.
        """
        if request.method != "POST":
            raise MethodNotAllowed(["POST"], "an endpoint takes requests by POST")
        _, service, request_id = submitted(entrance.INNER_RUN, path)
        until_s, has_key = time.monotonic() + max_wait_s, "Idempotency-Key" in request.headers
        try:
            found = engine.wait(service, request_id, max_wait_s, is_gone=inbound.gone_check(request))
        except errors.WaiterGone:
            if not has_key:
                engine.abandon(service, request_id)
            raise
        if found.state.is_terminal:
            return result(found)
        if time.monotonic() < until_s:
            code, why, error_type = 503, "this server stops", ""
        else:
            code, why, error_type = 504, f"no answer within {max_wait_s:g} s (MAX_WAIT_S)", "request_timeout"
        if has_key:
            return _error(code, f"{why}: send its Idempotency-Key again to go on waiting", error_type)
        try:
            engine.abandon(service, request_id)
        except errors.NotCancellable:  # it has ended in this moment
            return result(engine.look_again(found))
        detail = f"{why}: request {request_id} was cancelled; long ones belong on the queue host"
        return _error(code, detail, error_type)

    @routes.route("/queue/<path:path>", methods=["OPTIONS"])
    @routes.route("/run/<path:path>", methods=["OPTIONS"])
    @routes.route("/proxy/", methods=["OPTIONS"])
    def preflight(path: str = "") -> Response:
        """A browser asks before it sends a token to another origin; it has none for this question."""
        response = Response(status=204)
        response.headers["Access-Control-Allow-Methods"] = "GET, POST, PUT, OPTIONS"
        wanted = request.headers.get("Access-Control-Request-Headers", "")
        if _HEADER_NAMES.fullmatch(wanted):
            response.headers["Access-Control-Allow-Headers"] = wanted
        response.headers["Access-Control-Max-Age"] = "600"
        return response

    @routes.route("/proxy/", methods=_METHODS, provide_automatic_options=False)
    def foreign() -> Response:
        target = request.headers.get("x-fal-target-url", "")
        raise _ForeignTarget(
            f"x-fal-target-url names {target[:200]!r}: this proxy serves https://queue.fal.run/..., "
            "https://fal.run/... and its own addresses, all of them as this queue"
        )

    @routes.after_request
    def complete(response: Response) -> Response:
        if "fal_request_id" in g:
            response.headers[REQUEST_ID_HEADER] = g.fal_request_id
        return with_cors(response)

    return routes


def with_cors(response: Response) -> Response:
    """Pages of any origin may read it: what they need to get it is a token, which no browser adds by itself."""
    response.headers["Access-Control-Allow-Origin"] = "*"
    response.headers["Access-Control-Expose-Headers"] = _EXPOSED
    return response


def render_error(failure: Failure) -> Response:
    """`{"detail": ..}`, as fal's clients read it."""
    error_type = {400: "bad_request", 500: "internal_error"}.get(failure.status, "")
    detail = "Queue is full" if failure.code == errors.QueueFull.code else failure.detail
    response = _error(failure.status, detail, error_type)
    for name, value in failure.headers:
        response.headers[name] = value
    if failure.retry_after_s is not None:
        response.headers["Retry-After"] = str(failure.retry_after_s)
    return with_cors(response)


def _json(content: dict[str, object], code: int = 200) -> Response:
    response = Response(json.dumps(content) + "\n", code, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response


def _error(code: int, detail: str, error_type: str = "", **more: str) -> Response:
    response = Response(schema.error_json(detail, error_type, **more), code, mimetype="application/json")
    if error_type:
        response.headers["X-Fal-Error-Type"] = error_type
    return response
