"""The dialect of Tinker and MinT put together."""

from __future__ import annotations

from eas_queue.auth import Access
from eas_queue.dialects.dialect import Dialect
from eas_queue.dialects.tinker import account, answers, sampling, training
from eas_queue.engine.engine import Engine

PREFIX = "/api/v1/"


def dialect(engine: Engine, access: Access, *, max_wait_s: float) -> Dialect:
    """*max_wait_s*: the longest time for which a poll is held, where that is less than sampling.HOLD_MOST_S."""
    blueprints = (
        sampling.blueprint(engine, access, hold_most_s=min(sampling.HOLD_MOST_S, max_wait_s)),
        account.blueprint(engine, access),
        training.blueprint(access),
    )
    return Dialect((PREFIX,), blueprints, answers.render_error)
