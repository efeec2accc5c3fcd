"""What has to be mended about the way Celery comes back to a broker that was away."""

from __future__ import annotations

import time
from typing import Any

import kombu
import kombu.utils.functional
from celery import Celery

RETRY_MOST_S = 2  # between two tries to connect


class SteadyConnection(kombu.Connection):  # type: ignore[misc, name-defined]
    """Tries again and again at the same pace. kombu's pauses grow to 30 s, and Celery has no setting for that: after a
    minute without Redis, workers would stay away for half a minute more."""

    def ensure_connection(self, *args: Any, **options: Any) -> Any:
        return super().ensure_connection(*args, **{"interval_max": RETRY_MOST_S} | options)


def mend(app: Celery) -> None:
    """Opens no connection."""
    app.amqp.Connection = SteadyConnection
    # kombu has taken `sleep` by name before Celery's gevent pool replaces it. In the pauses of a reconnect the whole
    # process would stand still: no result written, no lease renewed.
    kombu.utils.functional.sleep = time.sleep  # type: ignore[attr-defined]
