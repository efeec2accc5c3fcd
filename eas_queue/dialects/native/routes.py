"""The native dialect: the routes of the original eas_queue, made precise. See PROTOCOL.md."""

from __future__ import annotations

import contextlib
import json

from flask import Blueprint, Response, request

from eas_queue.auth import Access, Role
from eas_queue.dialects import inbound, problem
from eas_queue.dialects.dialect import Dialect
from eas_queue.dialects.failure import Failure
from eas_queue.dialects.native import schema
from eas_queue.engine import errors
from eas_queue.engine.engine import Engine
from eas_queue.engine.request import Request, State

PREFIX = "/api/predict/"
REQUEST_ID_HEADER = "X-Eas-Queueservice-Request-Id"
INDEX_HEADER = "X-Eas-Queueservice-Index"
# What a browser would take for the queue's own: a target must not set cookies or policies for this origin.
_NOT_RELAYED = frozenset({"set-cookie", "set-cookie2", "strict-transport-security", "clear-site-data", "alt-svc"})


def dialect(engine: Engine, access: Access, *, base_url: str, max_wait_s: float) -> Dialect:
    """The routes under /api/predict/. *base_url* '' makes links relative."""
    routes = Blueprint("native", __name__, url_prefix="/api/predict")

    def allow(role: Role, service: str) -> None:
        access.check(request.headers, request.remote_addr or "", role, service)

    def request_url(found: Request) -> str:
        return f"{base_url}{PREFIX}{found.service}/requests/{found.request_id}"

    def status(found: Request, code: int | None = None) -> Response:
        is_shown = found.from_target and found.result_bytes <= schema.INLINE_BODY_MAX_BYTES
        body = engine.result_body(found) if is_shown else None
        content = schema.status_json(found, body, request_url(found) + "/result")
        response = Response(json.dumps(content) + "\n", code or schema.status_code(found), mimetype="application/json")
        response.headers[REQUEST_ID_HEADER] = found.request_id
        if not found.state.is_terminal:
            response.headers["Retry-After"] = "1"
        return response

    @routes.post("/<service>", strict_slashes=False)
    @routes.post("/<service>/<path:subpath>")
    def submit(service: str, subpath: str = "") -> Response:
        allow(Role.SUBMIT, service)
        if subpath == "sink" or subpath.startswith("sink/"):
            raise errors.InvalidRequest("the sink is written by the queue: submit to /api/predict/<service>")
        wait_s = inbound.preferred_wait_s(request)
        submission = inbound.submission(request, inbound.raw_subpath(request, PREFIX + "x/", subpath))
        receipt = engine.submit(service, submission)
        if wait_s is not None:
            with contextlib.suppress(errors.Unavailable):  # it is stored: the client must learn its id
                found = engine.wait(service, receipt.request_id, min(wait_s, max_wait_s))
                if found.state.is_terminal:
                    response = status(found)
                    response.headers["Preference-Applied"] = f"wait={min(wait_s, max_wait_s):g}"
                    return _with_receipt(response, receipt.request_id, receipt.index, request_url(found))
        by_index = engine.services.get(service).submit_body == "index"
        response = Response(
            str(receipt.index) if by_index else receipt.request_id, content_type="text/plain; charset=utf-8"
        )
        location = f"{base_url}{PREFIX}{receipt.service}/requests/{receipt.request_id}"
        return _with_receipt(response, receipt.request_id, receipt.index, location)

    @routes.get("/<service>/sink")
    def sink(service: str) -> Response:
        allow(Role.READ, service)
        request_id = request.args.get("request_id", "")
        if not request_id:
            raise errors.InvalidRequest("which request? add ?request_id=<the id that the submit answered>")
        return status(engine.look(service, request_id))

    @routes.get("/<service>/requests/<request_id>")
    def look(service: str, request_id: str) -> Response:
        allow(Role.READ, service)
        return status(engine.look(service, request_id))

    @routes.delete("/<service>/requests/<request_id>")
    def cancel(service: str, request_id: str) -> Response:
        allow(Role.SUBMIT, service)
        was = engine.cancel(service, request_id)
        # 202: its connection to the target is being closed; asked again, 200
        return status(engine.look(service, request_id), 202 if was is State.RUNNING else 200)

    @routes.get("/<service>/requests/<request_id>/result")
    def result(service: str, request_id: str) -> Response:
        allow(Role.READ, service)
        found = engine.look(service, request_id)
        if not found.state.is_terminal:
            return status(found)
        if not found.from_target:
            return _without_answer(found)
        response = Response(engine.result_body(found), found.status_code)
        del response.headers["Content-Type"]
        for name, value in found.headers:
            if name.lower() not in _NOT_RELAYED and inbound.is_header(name, value):
                response.headers.add(name, value)
        response.headers[REQUEST_ID_HEADER] = found.request_id
        response.headers["X-Result-Source"] = "target"
        return response

    return Dialect((PREFIX,), routes, problem.render)


def _without_answer(found: Request) -> Response:
    """The result of a request that ended without an answer of its target: 502 or 504 after attempts, else 410."""
    code = found.status_code or 502 if found.state is State.FAILED else 410
    title = "The request was cancelled" if found.state is State.CANCELLED else f"The request has {found.state}"
    response = problem.render(
        Failure(code, f"request-{found.state}", title, found.error or "there is no result"),
        request_id=found.request_id,
        error_type=found.error_type,
    )
    response.headers[REQUEST_ID_HEADER] = found.request_id
    response.headers["X-Result-Source"] = "queue"
    return response


def _with_receipt(response: Response, request_id: str, index: int, location: str) -> Response:
    response.headers[REQUEST_ID_HEADER] = request_id
    response.headers[INDEX_HEADER] = str(index)
    response.headers["Location"] = location
    response.autocorrect_location_header = False
    return response
