"""The PAI-EAS dialect put together, and which requests it takes for its own.

It shares its paths with the native dialect. Its clients are known by a header of the queue service, an Accept for
protobuf, or a token without a scheme; its operations by their parameters. What remains is native: a plain GET or DELETE
of a service's path with a Bearer token, above all, which here would remove an item, has to name itself.
"""

from __future__ import annotations

import re
from typing import Any

from flask import Response

from eas_queue.auth import Access
from eas_queue.dialects.dialect import Dialect
from eas_queue.dialects.eas import parameters, routes
from eas_queue.dialects.failure import Failure
from eas_queue.engine.engine import Engine

PREFIX = "/api/predict/"
_TARGET = re.compile(rf"{PREFIX}([^/]+)(?:/(.*))?")


def dialect(
    engine: Engine, access: Access, *, max_payload_bytes: int, max_wait_s: float, default_service: str = ""
) -> Dialect:
    """*default_service*: whose queues are also at `/` and `/sink`, '' none."""

    def claim(environ: dict[str, Any]) -> str:
        path: str = environ["PATH_INFO"]
        if default_service and path in ("/", "/sink"):
            return routes.PREFIX + default_service + path.rstrip("/")
        found = _TARGET.fullmatch(path)
        return routes.PREFIX + path.removeprefix(PREFIX) if found and _is_ours(environ, found[2] or "") else ""

    blueprint = routes.blueprint(engine, access, max_payload_bytes=max_payload_bytes, max_wait_s=max_wait_s)
    return Dialect((routes.PREFIX,), (blueprint,), render_error, claim)


def _is_ours(environ: dict[str, Any], rest: str) -> bool:
    method = environ["REQUEST_METHOD"]
    if method != "POST" and (rest == "requests" or rest.startswith("requests/")):
        return False
    names = {pair.partition("=")[0] for pair in environ.get("QUERY_STRING", "").split("&") if pair}
    if parameters.has_marks(environ):
        return True
    if parameters.is_sink(rest) and method in ("GET", "HEAD") and "request_id" in names:
        return False
    if parameters.has_bare_token(environ):
        return True
    if method == "POST":
        return parameters.is_sink(rest) or "_eos_" in names
    return any(name.startswith("_") or name == "requestId" for name in names)


def render_error(failure: Failure) -> Response:
    """A short text. Never with Retry-After: the official Python client would sleep on it."""
    response = Response(failure.detail + "\n", failure.status, content_type="text/plain; charset=utf-8")
    for name, value in failure.headers:
        response.headers[name] = value
    return response
