"""Sampling: sessions, requests, the polls for their results, and cancelling. See PROTOCOL.md."""

from __future__ import annotations

import contextlib
import random
import time

from flask import Blueprint, Response, g, request

from eas_queue.auth import Access, Forbidden, Role
from eas_queue.dialects import inbound
from eas_queue.dialects.tinker import answers, names, parameters, pending
from eas_queue.dialects.tinker.parameters import About
from eas_queue.engine import errors
from eas_queue.engine.engine import Engine
from eas_queue.engine.request import Caller, Request

# The SDK gives a poll up after 45 s, and then waits before the next one. How long each is held is drawn by lot: those
# that began together would all be asked again in the same moment, for as long as they last.
HOLD_MOST_S = 30.0
HOLD_LEAST = 5 / 6  # of that
HIGH_LEVEL_HEADER = "X-Tinker-Request-Type"  # on polls of the high-level client, and on no others
# It asks again at once, whatever it was told: it must not be told anything sooner than this.
PENDING_LEAST_S, BROKEN_LEAST_S = 1.0, 5.0


def blueprint(engine: Engine, access: Access, *, hold_most_s: float) -> Blueprint:
    """The routes. *hold_most_s*: how long a poll is held at most that is not answered at once."""
    routes = Blueprint("tinker_sampling", __name__, url_prefix="/api/v1")

    def allow(role: Role, service: str | None = None) -> Caller:
        return access.check(request.headers, request.remote_addr or "", role, service)

    def usable(model: str, role: Role = Role.SUBMIT) -> str:
        """The service of a model. Raises UnknownModel, Forbidden."""
        service = names.service_of(engine.services, model)
        try:
            allow(role, service)
        except Forbidden as exc:
            allow(role)
            raise Forbidden(f"this token may not use model {model[:140]!r}") from exc
        try:
            engine.services.get(service)
        except errors.ServiceNotFound:
            raise names.UnknownModel(model) from None
        return service

    def found_service(role: Role, request_id: str) -> str:
        """Raises RequestNotFound also where the token may not use its service: it learns nothing of that."""
        service = engine.service_of(request_id)
        try:
            allow(role, service)
        except Forbidden:
            raise errors.RequestNotFound(request_id, engine.services.result_ttl_s) from None
        return service

    @routes.post("/create_sampling_session")
    def create_sampling_session() -> Response:
        caller = allow(Role.SUBMIT)
        model = names.asked(inbound.json_object(request, bytes_most=parameters.SMALL_BYTES))
        if model is None:
            raise errors.InvalidRequest("the body names no model: it needs a base_model or a model_path")
        usable(model)
        call = request.headers.get(parameters.IDEMPOTENCY_HEADER, "")
        session = names.session_id(model, f"{caller.tenant}\n{call}" if call else "")
        return answers.json_response({"type": "create_sampling_session", "sampling_session_id": session})

    @routes.get("/samplers/<session>")
    def sampler(session: str) -> Response:
        allow(Role.READ)
        model = names.of_session(session)
        if model is None:
            raise names.UnknownSession(session)
        service = usable(model, Role.READ)
        content = {"sampler_id": session, "base_model": model}
        if names.is_path(model):
            content = {"sampler_id": session, "base_model": engine.services.aliases_of(service)[0], "model_path": model}
        return answers.json_response(content)

    @routes.post("/join_sampling_session")
    def join_sampling_session() -> Response:
        """A copy of a client asks for numbers that no other copy uses for its requests."""
        allow(Role.SUBMIT)
        session = inbound.json_object(request, bytes_most=parameters.SMALL_BYTES).get("sampling_session_id")
        if not isinstance(session, str) or names.of_session(session) is None:
            raise names.UnknownSession(str(session))
        return answers.json_response({"type": "join_sampling_session", "client_counter": engine.clone_number()})

    @routes.post("/asample")
    def asample() -> Response:
        asked = parameters.sampling(request, allow(Role.SUBMIT), usable)
        receipt = engine.submit(asked.service, asked.submission)
        content = {
            "type": "untyped_future",
            "request_id": receipt.request_id,
            "model_id": asked.model,
            "sample_sequence_ids": [f"{receipt.request_id}:{number}" for number in range(asked.samples)],
        }
        return answers.json_response(content)

    @routes.post("/retrieve_future")
    def retrieve_future() -> Response:
        """Scripts that asked for backpressure are answered at once; all others wait for the end, a while."""
        high_level = HIGH_LEVEL_HEADER in request.headers
        if high_level:
            g.patient_since_s = time.monotonic()
        allow(Role.READ)
        request_id = _request_id()
        service = found_service(Role.READ, request_id)
        found: Request | None = None
        if not high_level:
            found = engine.look_anyway(service, request_id)
            if not About.of(found.about).has_backpressure and not found.state.is_terminal:
                found = None
        if found is None:
            hold_s = hold_most_s * random.uniform(HOLD_LEAST, 1)  # noqa: S311  spreads load, guards nothing
            hold_s = max(PENDING_LEAST_S, hold_s)
            found = engine.wait(service, request_id, hold_s, is_gone=inbound.gone_check(request))
        if not found.state.is_terminal:
            return pending.response(found, high_level=high_level)
        accept = request.headers.get("Accept", "")
        return answers.result(found, engine.result_body(found), accept, high_level=high_level)

    @routes.post("/cancel_future")
    def cancel_future() -> Response:
        """Whatever has become of it: anything but a success would be sent again and again."""
        allow(Role.SUBMIT)
        request_id = _request_id()
        with contextlib.suppress(errors.RequestNotFound, errors.NotCancellable):
            engine.abandon(found_service(Role.SUBMIT, request_id), request_id)
        return answers.json_response({"type": "cancel_future"})

    @routes.after_request
    def no_sooner(response: Response) -> Response:
        since_s = g.get("patient_since_s")
        if since_s is not None and (response.status_code == 408 or response.status_code >= 500):
            least_s = PENDING_LEAST_S if response.status_code == 408 else BROKEN_LEAST_S
            time.sleep(max(0.0, since_s + least_s - time.monotonic()))
        return response

    return routes


def _request_id() -> str:
    found = inbound.json_object(request, bytes_most=parameters.SMALL_BYTES).get("request_id")
    if not isinstance(found, str) or not found:
        raise errors.InvalidRequest('the body must name a request, like {"request_id": ".."}')
    return found
