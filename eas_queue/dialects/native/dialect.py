"""The native dialect put together: what clients, operators and targets call."""

from __future__ import annotations

from eas_queue.auth import Access
from eas_queue.dialects import problem
from eas_queue.dialects.dialect import Dialect
from eas_queue.dialects.native import operations, progress, routes, status
from eas_queue.engine.engine import Engine


def dialect(engine: Engine, access: Access, *, base_url: str, max_wait_s: float) -> Dialect:
    """*base_url* '' makes links relative. *max_wait_s*: the longest wait of one call."""
    blueprints = (
        routes.blueprint(engine, access, base_url=base_url, max_wait_s=max_wait_s),
        operations.blueprint(engine, access),
        progress.blueprint(engine),
    )
    return Dialect((status.PREFIX, operations.PREFIX, progress.PREFIX), blueprints, problem.render)
