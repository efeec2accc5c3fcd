"""The dialect of Tinker and MinT put together."""

from __future__ import annotations

from eas_queue.auth import Access
from eas_queue.dialects.dialect import Dialect
from eas_queue.dialects.tinker import account, answers, sampling, training
from eas_queue.engine.engine import Engine

PREFIX = "/api/v1/"


def dialect(engine: Engine, access: Access, *, max_wait_s: float) -> Dialect:
    """*max_wait_s*: the longest time for which a poll is held, where that is less than sampling.HOLD_S."""
    hold_s = max(sampling.PENDING_LEAST_S, min(sampling.HOLD_S, max_wait_s))
    blueprints = (
        sampling.blueprint(engine, access, hold_s=hold_s),
        account.blueprint(engine, access),
        training.blueprint(access),
    )
    return Dialect((PREFIX,), blueprints, answers.render_error)
