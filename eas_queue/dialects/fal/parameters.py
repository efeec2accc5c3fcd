"""What a submit says beside its input: query parameters and headers of fal's clients."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any

from flask import Request

from eas_queue.dialects import inbound
from eas_queue.dialects.fal import webhook
from eas_queue.dialects.fal.names import Endpoint
from eas_queue.engine import errors
from eas_queue.engine.request import Caller, Retries, Submission, Webhook

OWN = frozenset({"fal_webhook", "fal_max_queue_length", "fal_jwt_token"})  # query parameters that no target gets
START_TIMEOUT_LEAST_S = 0.1  # and never that little: fal refuses it, and so do its clients
START_TIMEOUT_MOST_S = 31_536_000
BRIEF_S = 3_600.0  # how long fal itself keeps the output of a request that is not to be stored
RETRIES_MOST = 9  # ten attempts in all
# Bodies of more values are left to their target to read: they would take seconds, in which nobody else is served, and
# thirty times their length of memory.
CHECKED_VALUES_MOST = 200_000
_CONDITIONS = {"timeout", "server_error", "connection_error"}
_USER = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ENDPOINT_HEADER = "X-Fal-Endpoint"
_WITHHELD = frozenset({"x-fal-target-url", "x-fal-client-proxy", "x-fal-endpoint"})


def submission(request: Request, endpoint: Endpoint, caller: Caller) -> Submission:
    """The request as the engine stores it. Raises InvalidRequest; RequestEntityTooLarge when the body is too large."""
    found = inbound.submission(request, endpoint.path, caller, priority=_priority(request), own=OWN)
    headers = [header for header in found.headers if header[0].lower() not in _WITHHELD]
    name = endpoint.name + ("/" + endpoint.path if endpoint.path else "")
    start_timeout_s = _start_timeout_s(request)
    return replace(
        found,
        body=_input(request, found.body),
        headers=(*headers, (_ENDPOINT_HEADER, name)),
        deadline_s=found.deadline_s if start_timeout_s is None else start_timeout_s,
        retries=_retries(request),
        max_queue_length=_max_queue_length(request),
        webhook=_webhook(request),
        brief_s=BRIEF_S if "0" in _words(request, "X-Fal-Store-IO") else None,
    )


def with_logs(request: Request) -> bool:
    """`logs=1` of the JavaScript client, `logs=true` of the Python one."""
    return request.args.get("logs", "").lower() in ("1", "true")


def _input(request: Request, body: bytes) -> bytes:
    """The body, which must be JSON where it says so or nothing. The JavaScript client sends none for `{}`."""
    kind = request.mimetype
    if kind and kind != "application/json" and not kind.endswith("+json"):
        return body
    if not body:
        return b"{}"
    if body.count(b",") + body.count(b"[") + body.count(b"{") > CHECKED_VALUES_MOST:
        return body
    try:
        json.loads(body, parse_int=float)  # an int of many digits is JSON, though Python refuses it
    except (ValueError, RecursionError) as exc:
        raise errors.InvalidRequest(f"the body is not JSON: {exc}") from exc
    return body


def _priority(request: Request) -> int:
    """Anything but `low` is normal, as at fal."""
    return -1 if request.headers.get("X-Fal-Queue-Priority", "").strip().lower() == "low" else 0


def _start_timeout_s(request: Request) -> float | None:
    """How long it may wait for its start. The clients send the older of the two names; the newer one goes before it."""
    for name in ("X-Fal-Request-Start-Timeout", "X-Fal-Request-Timeout"):
        value = request.headers.get(name)
        if value is not None:
            try:
                seconds = float(value)
            except ValueError:
                seconds = math.nan
            if not START_TIMEOUT_LEAST_S < seconds <= START_TIMEOUT_MOST_S:
                raise errors.InvalidRequest(
                    f"{name}: {value[:40]!r} is not a number of seconds, more than {START_TIMEOUT_LEAST_S} "
                    f"and at most {START_TIMEOUT_MOST_S}"
                )
            return seconds
    return None


def _words(request: Request, name: str) -> set[str]:
    """What a header says; all of it where it was sent more than once."""
    return {word.strip().lower() for word in request.headers.get(name, "").split(",")}


def _retries(request: Request) -> Retries | None:
    if _words(request, "X-Fal-No-Retry") & {"1", "true", "yes"}:
        return Retries(0, 0, 0)
    value = request.headers.get("X-Fal-Retry-Config")
    if value is None:
        return None
    try:
        wanted: Any = json.loads(value)
        counts = {name: wanted[name]["retries"] for name in _CONDITIONS if name in wanted}
        if not isinstance(wanted, dict) or not all(type(count) is int and count >= 0 for count in counts.values()):
            raise ValueError(wanted)
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        raise errors.InvalidRequest(
            f"X-Fal-Retry-Config: {value[:80]!r} is not JSON like "
            '{"timeout": {"retries": 0}, "server_error": {"retries": 3}, "connection_error": {"retries": 1}}'
        ) from exc
    return Retries(**{name: min(count, RETRIES_MOST) for name, count in counts.items()})


def _webhook(request: Request) -> Webhook | None:
    """`fal_webhook=URL`. Its receiver is told whose it is by the first part of a key like `id:secret`."""
    urls = request.args.getlist("fal_webhook")
    if not urls:
        return None
    if len(urls) > 1:
        raise errors.InvalidRequest("fal_webhook is given more than once")
    user, colon, _ = request.headers.get("Authorization", "").rpartition(" ")[2].partition(":")
    about = {"user_id": user} if colon and _USER.fullmatch(user) else {}
    return Webhook(urls[0], webhook.STYLE, about)


def _max_queue_length(request: Request) -> int | None:
    """`fal_max_queue_length=N`: refused when more than N wait."""
    value = request.args.get("fal_max_queue_length")
    if value is None:
        return None
    if not re.fullmatch(r"\d{1,9}", value, re.ASCII):
        raise errors.InvalidRequest(f"fal_max_queue_length={value[:40]!r} is not a whole number")
    return int(value) + 1
