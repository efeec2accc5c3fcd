"""The dialect of bella-queue put together."""

from __future__ import annotations

from eas_queue.auth import Access
from eas_queue.dialects.bella import routes
from eas_queue.dialects.dialect import Dialect
from eas_queue.engine.engine import Engine


def dialect(engine: Engine, access: Access, *, max_wait_s: float, max_result_bytes: int, fifo_most: int) -> Dialect:
    """*max_wait_s*: the longest blocking put. *max_result_bytes*: the longest answer, decoded.

    *fifo_most*: tasks of one fifo take.
    """
    limits = routes.Limits(max_wait_s, max_result_bytes, fifo_most)
    return Dialect((routes.PREFIX + "/",), (routes.blueprint(engine, access, limits),), routes.render_error)
