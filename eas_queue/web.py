"""The Flask app: dialects side by side, their errors by path, and a health page."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from flask import Flask, Response, request

from eas_queue.dialects import failure, problem
from eas_queue.dialects.dialect import Dialect
from eas_queue.engine import health
from eas_queue.engine.engine import Engine
from eas_queue.engine.sweeper import Sweeper

log = logging.getLogger("eas_queue.web")
OWN_PREFIX = "/~"  # of the paths that dialects give to what they claim


def make_app(engine: Engine, dialects: Sequence[Dialect], *, max_payload_bytes: int, sweep_s: float) -> Flask:
    """The app with these dialects. Opens no connection and starts no thread before its first request."""
    app = Flask("eas_queue", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = max_payload_bytes
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.url_map.merge_slashes = False  # a redirect would lose the body of a POST
    sweeper = Sweeper(engine, sweep_s)
    app.extensions["eas_queue"] = {"engine": engine, "sweeper": sweeper}
    app.before_request(sweeper.ensure_started)
    for dialect in dialects:
        for routes in dialect.routes:
            app.register_blueprint(routes)

    app.wsgi_app = _Claims(app.wsgi_app, dialects)  # type: ignore[method-assign]

    # Routing's own 404 and 405 never reach a blueprint's handlers, so errors are told apart by path here.
    def render(exc: Exception) -> Response:
        found = failure.of(exc, max_payload_bytes=max_payload_bytes, limit_bytes=request.max_content_length)
        if found.status == 500:
            log.exception("request_failed method=%s path=%r", request.method, request.path, exc_info=exc)
        for dialect in dialects:
            if request.path.startswith(dialect.prefixes):
                return dialect.render_error(found)
        return problem.render(found)

    app.register_error_handler(Exception, render)

    @app.get("/healthz")
    def healthz() -> Response:
        content, code = health.report(engine)
        return Response(json.dumps(content) + "\n", code, mimetype="application/json")

    return app


class _Claims:
    """Dialects share paths: what a request says of its client tells which one it speaks."""

    def __init__(self, app: Any, dialects: Sequence[Dialect]) -> None:
        self._app = app
        self._claims = [dialect.claim for dialect in dialects if dialect.claim is not None]

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"].lstrip("/").startswith(OWN_PREFIX.lstrip("/")):  # routing drops slashes at the front
            environ["PATH_INFO"] = OWN_PREFIX  # not from outside
        for claim in self._claims:
            path = claim(environ)
            if path:
                environ["PATH_INFO"] = path
                break
        return self._app(environ, start_response)
