"""The native dialect: the routes of the original eas_queue, made precise. See PROTOCOL.md."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import Any

from flask import Blueprint, Response, request

from eas_queue.auth import Access, Role
from eas_queue.dialects import inbound, outbound, problem
from eas_queue.dialects.failure import Failure
from eas_queue.dialects.native import events, schema, webhook
from eas_queue.dialects.native.status import PREFIX, status_of
from eas_queue.engine import errors
from eas_queue.engine.engine import Engine
from eas_queue.engine.request import Caller, Receipt, Request, State, Webhook

REQUEST_ID_HEADER = "X-Eas-Queueservice-Request-Id"
INDEX_HEADER = "X-Eas-Queueservice-Index"


def blueprint(engine: Engine, access: Access, *, base_url: str, max_wait_s: float) -> Blueprint:
    """The routes under /api/predict/. *base_url* '' makes links relative."""
    routes = Blueprint("native", __name__, url_prefix="/api/predict")

    def allow(role: Role, service: str) -> Caller:
        return access.check(request.headers, request.remote_addr or "", role, service)

    def waited(service: str, request_id: str) -> tuple[Request, str]:
        """The request, once it has ended if the client would wait for that; and the wait in force, '' none."""
        seconds = inbound.wait_s(request)
        if not seconds:
            return engine.look(service, request_id), ""
        seconds = min(seconds, max_wait_s)
        return engine.wait(service, request_id, seconds, is_gone=inbound.gone_check(request)), f"wait={seconds:g}"

    def status(found: Request, code: int | None = None, applied: str = "") -> Response:
        response = Response(
            json.dumps(status_of(engine, found, base_url)) + "\n",
            code or schema.status_code(found),
            mimetype="application/json",
        )
        response.headers[REQUEST_ID_HEADER] = found.request_id
        if not found.state.is_terminal:
            response.headers["Retry-After"] = "1"
        elif applied:
            response.headers["Preference-Applied"] = applied
        return response

    @routes.post("/<service>", strict_slashes=False)
    @routes.post("/<service>/<path:subpath>")
    def submit(service: str, subpath: str = "") -> Response:
        caller = allow(Role.SUBMIT, service)
        wait_s = inbound.wait_s(request)
        submission = inbound.submission(request, inbound.raw_subpath(request, PREFIX + "x/", subpath), caller)
        urls = request.args.getlist("_webhook_") if request.query_string else None
        if urls:
            submission = dataclasses.replace(submission, webhook=_webhook(urls))
        by_index = engine.services.get(service).submit_body == "index"  # now: a reload may take the service away
        receipt = engine.submit(service, submission)
        location = f"{base_url}{PREFIX}{receipt.service}/requests/{receipt.request_id}"
        if wait_s:
            # it is stored, whatever becomes of the wait: the client must learn its id
            with contextlib.suppress(errors.Unavailable, errors.ServiceNotFound, errors.WaiterGone):
                found, applied = waited(service, receipt.request_id)
                if found.state.is_terminal:
                    return _with_receipt(status(found, applied=applied), receipt, location)
        return _with_receipt(_Ready(str(receipt.index) if by_index else receipt.request_id), receipt, location)

    @routes.get("/<service>/sink")
    def sink(service: str) -> Response:
        allow(Role.READ, service)
        request_id = request.args.get("request_id", "")
        if not request_id:
            raise errors.InvalidRequest("which request? add ?request_id=<the id that the submit answered>")
        found, applied = waited(service, request_id)
        return status(found, applied=applied)

    @routes.get("/<service>/requests/<request_id>")
    def look(service: str, request_id: str) -> Response:
        allow(Role.READ, service)
        found, applied = waited(service, request_id)
        return status(found, applied=applied)

    @routes.get("/<service>/requests/<request_id>/events")
    def changes(service: str, request_id: str) -> Response:
        allow(Role.READ, service)
        return events.stream(
            engine,
            engine.look(service, request_id),
            last_event_id=request.headers.get("Last-Event-ID", ""),
            show=lambda found: status_of(engine, found, base_url, with_logs=False),
            is_gone=inbound.gone_check(request),
        )

    @routes.delete("/<service>/requests/<request_id>")
    def cancel(service: str, request_id: str) -> Response:
        allow(Role.SUBMIT, service)
        was = engine.cancel(service, request_id)
        # 202: its connection to the target is being closed; asked again, 200
        return status(engine.look(service, request_id), 202 if was is State.RUNNING else 200)

    @routes.get("/<service>/requests/<request_id>/result")
    def result(service: str, request_id: str) -> Response:
        allow(Role.READ, service)
        found, applied = waited(service, request_id)
        if not found.state.is_terminal:
            return status(found)
        if not found.from_target:
            response = _without_answer(found)
            if applied:
                response.headers["Preference-Applied"] = applied
            return response
        response = outbound.relayed(found, engine.result_body(found))
        response.headers[REQUEST_ID_HEADER] = found.request_id
        response.headers["X-Result-Source"] = "target"
        if applied:
            response.headers["Preference-Applied"] = applied
        return response

    return routes


def _webhook(urls: list[str]) -> Webhook:
    """`_webhook_=<URL>`: whom to tell of the end. Raises InvalidRequest."""
    if len(urls) > 1:
        raise errors.InvalidRequest("_webhook_ is given more than once")
    return Webhook(urls[0], webhook.STYLE)


class _Ready(Response):
    """A short text that is sent as it stands. Its headers are complete and ASCII, and there is one at each submit:
    werkzeug would take as long to look through them as the queue to parse the request."""

    def __init__(self, text: str) -> None:
        body = text.encode()
        super().__init__(body, content_type="text/plain; charset=utf-8")
        self.headers["Content-Length"] = str(len(body))

    def get_wsgi_headers(self, environ: Any) -> Any:
        return self.headers


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


def _with_receipt(response: Response, receipt: Receipt, location: str) -> Response:
    response.headers[REQUEST_ID_HEADER] = receipt.request_id
    response.headers[INDEX_HEADER] = str(receipt.index)
    if receipt.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    response.headers["Location"] = location
    response.autocorrect_location_header = False
    return response
