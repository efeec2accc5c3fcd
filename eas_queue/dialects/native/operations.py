"""What operators do with a service: see how it stands, pause it, and look after its dead letters. See PROTOCOL.md."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from flask import Blueprint, Response, request

from eas_queue.auth import Access, Role
from eas_queue.dialects import inbound
from eas_queue.dialects.native import schema
from eas_queue.engine import errors
from eas_queue.engine.engine import Engine
from eas_queue.engine.letters import Choice, checked

PREFIX = "/api/services/"
PAGE_DEFAULT = 100
CHOICE_MAX_BYTES = 4_194_304  # some 100,000 ids
_FILTERS = ("error_type", "target_status_code", "finished_before")


def blueprint(engine: Engine, access: Access) -> Blueprint:
    """The routes under /api/services/."""
    routes = Blueprint("native_operations", __name__, url_prefix="/api/services")

    def allow(role: Role, service: str) -> None:
        access.check(request.headers, request.remote_addr or "", role, service)

    def standing(service: str) -> Response:
        return _json(schema.overview_json(engine.services.get(service), engine.overview(service)))

    @routes.get("/<service>")
    def overview(service: str) -> Response:
        allow(Role.READ, service)
        return standing(service)

    @routes.post("/<service>/pause")
    def pause(service: str) -> Response:
        allow(Role.ADMIN, service)
        engine.pause(service)
        return standing(service)

    @routes.post("/<service>/resume")
    def resume(service: str) -> Response:
        allow(Role.ADMIN, service)
        engine.resume(service)
        return standing(service)

    @routes.get("/<service>/rear")
    def rear(service: str) -> Response:
        allow(Role.READ, service)
        after, limit = inbound.whole_number(request, "after", 0), inbound.whole_number(request, "limit", PAGE_DEFAULT)
        count, page = engine.dead_letters(service, after=after, most=max(1, limit))
        return _json({"service_name": service, "count": count, "items": [schema.letter_json(each) for each in page]})

    @routes.post("/<service>/rear/redrive")
    def redrive(service: str) -> Response:
        allow(Role.ADMIN, service)
        done = engine.redrive(service, _choice())
        content = {
            "service_name": service,
            "redriven": len(done.requests),
            "requests": dict(done.requests),
            "not_found": list(done.not_found),
            "queue_full": done.is_full,
            "cut_short": done.is_cut_short,
        }
        return _json(content)

    @routes.post("/<service>/rear/discard")
    def discard(service: str) -> Response:
        allow(Role.ADMIN, service)
        gone = engine.discard(service, _choice())
        return _json({"service_name": service, "discarded": len(gone), "request_ids": gone})

    @routes.delete("/<service>/rear/<request_id>")
    def discard_one(service: str, request_id: str) -> Response:
        allow(Role.ADMIN, service)
        gone = engine.discard(service, Choice(checked([request_id])))
        return _json({"service_name": service, "discarded": len(gone), "request_ids": gone})

    return routes


def _choice() -> Choice:
    """Which dead letters: `{"request_ids": [..]}`, `{"all": true}`, or filters. Never all by an empty body."""
    help_text = (
        'say which dead letters as JSON: {"request_ids": ["<id>"]}, {"error_type": "TargetTimeout"}, '
        '{"target_status_code": 503}, {"finished_before": "2026-11-20T12:00:00Z"} (filters may stand together), '
        'or {"all": true}'
    )
    try:
        content = inbound.json_object(request, bytes_most=CHOICE_MAX_BYTES)
    except errors.InvalidRequest as exc:
        raise errors.InvalidRequest(f"{exc}; {help_text}") from exc
    if not content:
        raise errors.InvalidRequest(help_text)
    kinds = [name for name in ("request_ids", "all") if name in content]
    unknown = set(content) - {"request_ids", "all", *_FILTERS}
    if unknown or len(kinds) > 1 or (kinds and len(content) > 1):
        raise errors.InvalidRequest(f"{sorted(unknown or content)} can't stand here or not together: {help_text}")
    if "all" in content:
        if content["all"] is not True:
            raise errors.InvalidRequest(help_text)
        return Choice()
    if "request_ids" in content:
        named = content["request_ids"]
        if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
            raise errors.InvalidRequest(f"request_ids must be a list of request ids: {help_text}")
        return Choice(checked(named))
    return Choice(None, _text(content), _status_code(content), _moment_ms(content))


def _text(content: dict[str, Any]) -> str | None:
    value = content.get("error_type")
    if value is not None and not isinstance(value, str):
        raise errors.InvalidRequest("error_type must be a text like TargetTimeout")
    return value


def _status_code(content: dict[str, Any]) -> int | None:
    value = content.get("target_status_code")
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise errors.InvalidRequest("target_status_code must be a number like 503")
    return value


def _moment_ms(content: dict[str, Any]) -> int | None:
    value = content.get("finished_before")
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError("no time zone")
    except (TypeError, ValueError) as exc:
        raise errors.InvalidRequest(
            "finished_before must be a date and time with its zone, like 2026-11-20T12:00:00Z"
        ) from exc
    return round(moment.timestamp() * 1000)


def _json(content: dict[str, Any]) -> Response:
    return Response(json.dumps(content) + "\n", mimetype="application/json")
