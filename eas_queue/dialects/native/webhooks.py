"""What becomes of webhooks: a service's deliveries, and delivering again; and the public keys. See PROTOCOL.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, request

from eas_queue.auth import Access, Role
from eas_queue.dialects import inbound
from eas_queue.dialects.native import schema
from eas_queue.engine import errors
from eas_queue.engine.engine import Engine
from eas_queue.engine.letters import checked

PAGE_DEFAULT = 100
CHOICE_MAX_BYTES = 4_194_304  # some 100,000 ids
KEYS_AGE_S = 3600


def blueprint(engine: Engine, access: Access) -> Blueprint:
    """The routes under /api/services/<service>/webhooks."""
    routes = Blueprint("native_webhooks", __name__, url_prefix="/api/services/<service>/webhooks")

    def allow(role: Role, service: str) -> None:
        access.check(request.headers, request.remote_addr or "", role, service)

    @routes.get("")
    def listed(service: str) -> Response:
        allow(Role.READ, service)
        state = request.args.get("state", "all")
        if state not in ("all", "failed"):
            raise errors.InvalidRequest(f"state={state[:40]!r} can't be listed: all, or failed")
        after, limit = inbound.whole_number(request, "after", 0), inbound.whole_number(request, "limit", PAGE_DEFAULT)
        count, page = engine.webhook_page(service, failed=state == "failed", after=after, most=max(1, limit))
        return _json({"service_name": service, "count": count, "items": [schema.webhook_json(each) for each in page]})

    @routes.get("/<request_id>")
    def look(service: str, request_id: str) -> Response:
        allow(Role.READ, service)
        return _json(schema.webhook_json(engine.webhook(service, request_id)))

    @routes.post("/resend")
    def resend(service: str) -> Response:
        allow(Role.ADMIN, service)
        chosen = _choice()
        found = engine.resend_webhooks(service, chosen)
        missing = sorted(set(chosen or ()) - set(found))
        return _json({"service_name": service, "resent": len(found), "request_ids": found, "not_found": missing})

    @routes.post("/<request_id>/resend")
    def resend_one(service: str, request_id: str) -> Response:
        allow(Role.ADMIN, service)
        if not engine.resend_webhooks(service, checked([request_id])):
            raise errors.WebhookNotFound(request_id)
        return _json(schema.webhook_json(engine.webhook(service, request_id)))

    return routes


def keys_blueprint(jwks: Callable[[], dict[str, Any]]) -> Blueprint:
    """The public keys, for anybody."""
    routes = Blueprint("native_keys", __name__)

    @routes.get("/.well-known/jwks.json")
    def keys() -> Response:
        response = _json(jwks())
        response.headers["Cache-Control"] = f"public, max-age={KEYS_AGE_S}"
        return response

    return routes


def _choice() -> tuple[str, ...] | None:
    """Which: `{"request_ids": [..]}`, or None for `{"state": "failed"}`. Never all by an empty body."""
    help_text = 'say which webhooks as JSON: {"request_ids": ["<id>"]} or {"state": "failed"}'
    try:
        content = inbound.json_object(request, bytes_most=CHOICE_MAX_BYTES)
    except errors.InvalidRequest as exc:
        raise errors.InvalidRequest(f"{exc}; {help_text}") from exc
    if content == {"state": "failed"}:
        return None
    named = content.get("request_ids")
    if len(content) != 1 or not isinstance(named, list) or not all(isinstance(each, str) for each in named):
        raise errors.InvalidRequest(help_text)
    return checked(named)


def _json(content: dict[str, Any]) -> Response:
    return Response(json.dumps(content) + "\n", mimetype="application/json")
