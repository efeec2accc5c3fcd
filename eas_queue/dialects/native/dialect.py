"""The native dialect put together: what clients, operators and targets call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eas_queue.auth import Access
from eas_queue.dialects import problem
from eas_queue.dialects.dialect import Dialect
from eas_queue.dialects.native import operations, progress, routes, status, webhooks
from eas_queue.engine.engine import Engine


def dialect(
    engine: Engine,
    access: Access,
    *,
    base_url: str,
    max_wait_s: float,
    jwks: Callable[[], dict[str, Any]] = lambda: {"keys": []},
) -> Dialect:
    """*base_url* '' makes links relative. *max_wait_s*: the longest wait of one call. *jwks*: the public keys of
    webhooks."""
    blueprints = (
        routes.blueprint(engine, access, base_url=base_url, max_wait_s=max_wait_s),
        operations.blueprint(engine, access),
        webhooks.blueprint(engine, access),
        webhooks.keys_blueprint(jwks),
        progress.blueprint(engine),
    )
    return Dialect((status.PREFIX, operations.PREFIX, progress.PREFIX), blueprints, problem.render)
