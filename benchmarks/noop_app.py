"""A Celery app whose one task does nothing: what a worker process consumes of it is the most it can.

    NOOP_COUNT=20000 NOOP_FILE=times celery -A benchmarks.noop_app worker -P solo ...

The file gets the unix time of the first execution, and that of the last of so many.
"""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

from celery import Celery

COUNT = int(os.environ.get("NOOP_COUNT", "0"))
TIMES = Path(os.environ.get("NOOP_FILE", os.devnull))

# What a consumer can do without is off: results, events, remote control, rate limits. Acks are early, which is Celery's
# default and its cheapest.
celery_app = Celery("noop", broker=os.environ.get("REDIS_URL", "redis://localhost:6379/0"))
celery_app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    task_ignore_result=True,
    worker_enable_remote_control=False,
    worker_disable_rate_limits=True,
    broker_connection_retry_on_startup=True,
)
_executed = itertools.count(1)


@celery_app.task(name="noop")  # type: ignore[untyped-decorator]
def noop() -> None:
    number = next(_executed)
    if number in (1, COUNT):
        with TIMES.open("a") as file:
            file.write(f"{time.time()}\n")
