"""What the SDK asks for around sampling: its settings, its session, telemetry, and what is served. See PROTOCOL.md."""

from __future__ import annotations

import secrets

from flask import Blueprint, Response, request

from eas_queue.auth import Access, Forbidden, Role
from eas_queue.dialects import inbound
from eas_queue.dialects.tinker import answers, parameters
from eas_queue.engine import health
from eas_queue.engine.engine import Engine

# Fetched once by each client. What is left out has the SDK's own default.
CLIENT_CONFIG = {
    "pjwt_auth_enabled": False,  # keys are sent as they are, none is changed for a short-lived one
    "sample_enable_stuck_detection": False,  # it takes two hours without an end for a defect; queues may be that long
    "sample_max_concurrent_requests": 1000,  # requests in flight of one client; each holds a connection
    "sample_use_retrieve_futures": False,  # one poll for all of a session; it tells of no places
    "sample_join_sampling_session": True,  # copies of a client ask for numbers that no other copy has
}
# Fetched again every five minutes.
DYNAMIC_CONFIG = {
    "refresh_interval_sec": 300,
    "sample_cancel_enabled": True,  # what nobody waits for any more is cancelled
    "sample_cancel_max_batch_size": 64,
}


def check_any(access: Access, service: str | None = None) -> None:
    """Whoever may submit or read. Raises Unauthorized, Forbidden."""
    try:
        access.check(request.headers, request.remote_addr or "", Role.SUBMIT, service)
    except Forbidden:
        access.check(request.headers, request.remote_addr or "", Role.READ, service)


def blueprint(engine: Engine, access: Access) -> Blueprint:
    """The routes. Sessions are not kept: there is nothing that would depend on them."""
    routes = Blueprint("tinker_account", __name__, url_prefix="/api/v1")

    def allow_any() -> None:
        check_any(access)

    def may_use(service: str) -> bool:
        try:
            check_any(access, service)
        except Forbidden:
            return False
        return True

    @routes.post("/client/config")
    def client_config() -> Response:
        allow_any()
        return answers.json_response(CLIENT_CONFIG)

    @routes.post("/client/dynamic_config")
    def dynamic_config() -> Response:
        allow_any()
        return answers.json_response(DYNAMIC_CONFIG)

    @routes.post("/create_session")
    def create_session() -> Response:
        allow_any()
        inbound.json_object(request, bytes_most=parameters.SMALL_BYTES)
        return answers.json_response({"type": "create_session", "session_id": secrets.token_hex(16)})

    @routes.post("/session_heartbeat")
    def session_heartbeat() -> Response:
        """Nothing ends for want of it."""
        allow_any()
        return answers.json_response({"type": "session_heartbeat"})

    @routes.post("/sessions/<session>/finish")
    def finish(session: str) -> Response:
        allow_any()
        return answers.json_response({"type": "finish_session", "session_id": session[:200]})

    @routes.post("/telemetry")
    def telemetry() -> Response:
        """Taken and dropped, at once: the SDK tells it before it raises an error, and a refusal costs it 30 s."""
        allow_any()
        return answers.json_response({"status": "accepted"})

    @routes.get("/get_server_capabilities")
    def capabilities() -> Response:
        allow_any()
        services = engine.services
        models = [
            {"model_name": name, "trainable": False, "sampleable": True}
            for service in services
            if may_use(service.name)
            for name in services.aliases_of(service.name)
        ]
        return answers.json_response({"supported_models": models})

    @routes.get("/healthz")
    def healthz() -> Response:
        _, code = health.report(engine)
        return answers.json_response({"status": "ok" if code == 200 else "unavailable"}, code)

    return routes
