"""The project's worker with one more remote command, whose reply comes late enough to kill Redis before it.

``celery -A tests.support.slow_reply worker``
"""

from __future__ import annotations

import time
from typing import Any

from celery.worker.control import Panel, ok

from tasks import celery_app as celery_app

DELAY_S = 1.0


def slow_reply(state: Any) -> Any:
    print("slow_reply begins", flush=True)
    time.sleep(DELAY_S)
    return ok("late")


Panel.data["slow_reply"] = slow_reply
