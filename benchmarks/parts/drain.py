"""A queue that was filled before the worker started, emptied towards a target that answers at once."""

from __future__ import annotations

import asyncio

from benchmarks import client
from benchmarks.fast_target import FastTarget
from benchmarks.parts.part import Column, Goal, Part, Row, Sample, Sizes, Table
from benchmarks.sides import Ours, Plain, Side

TIMEOUT_S = 180
ROWS = (
    Row("ours 2 workers", "2 celery processes, gevent -c 1000"),
    Row("ours 1 worker", "1 celery process, gevent -c 1000"),
    Row("plain", "prefork -c 2: 2 processes and their parent"),
    Row("tuned", "2 celery processes, gevent -c 100; results ignored"),
    Row("ours 2 workers events", "2 celery processes, gevent -c 1000, WORKER_EVENTS=all"),
    Row("plain events", "prefork -c 2, -E"),
)


def run(side: Side, count: int, *, options: str, workers: int, query: str = "", web: str = "") -> Sample:
    """Fill, start the workers, and measure from the first call at the target until *count* results are stored."""
    side.start_web(web)
    requests = client.Client(side.port, side.headers)

    async def fill() -> list[str]:
        try:
            return await client.fill(requests, side.path + query, count)
        finally:
            requests.close()

    made = asyncio.run(fill())
    side.spawn_workers(options, workers)
    side.await_first_call()
    meter = side.meter()  # from here, so that starting costs nothing
    ended_at = side.await_ends(count, timeout_s=TIMEOUT_S)
    costs, stats = meter.per(count), side.target.stats()
    side.verify(made)
    seconds = ended_at - stats["first_call_at"]
    return {"seconds": seconds, "rate": count / seconds, "max_running": stats["max_running"], "count": count, **costs}


def measure(row: str, sizes: Sizes) -> Sample:
    ours, events = row.startswith("ours"), row.endswith("events")
    with FastTarget() as target:
        side: Side
        if ours:
            side = Ours(target, worker_events="all" if events else "off")
        else:
            side = Plain(target, tuned=row == "tuned", results=row != "tuned")
        with side:
            if ours:
                return run(side, sizes.drain, options="", workers=1 if "1 worker" in row else 2)
            if row == "tuned":
                return run(side, sizes.drain, options="-P gevent -c 100", workers=2, web="-w 4 -k gevent")
            return run(side, sizes.drain, options="-c 2 -E" if events else "-c 2", workers=1, web="-w 4")


PART = Part(
    "drain",
    "Drain (1 KB requests, a target that answers at once with 1 KB, queue filled before)",
    ROWS,
    (
        Table(
            "",
            (
                Column("rate", "requests/s"),
                Column("seconds", "seconds", "{:.2f}"),
                Column("worker_us", "worker CPU us"),
                Column("server_us", "server CPU us"),
                Column("target_us", "target CPU us"),
                Column("reads", "round trips", "{:.1f}"),
                Column("commands", "commands", "{:.1f}"),
                Column("scripted", "of them in scripts", "{:.1f}"),
            ),
        ),
    ),
    measure,
    (
        Goal("ours, 2 workers against plain", "rate", "ours 2 workers", "plain", 4),
        Goal("ours, 1 worker against plain", "rate", "ours 1 worker", "plain", None),
        Goal("ours, 2 workers against tuned", "rate", "ours 2 workers", "tuned", None),
        Goal("both with events", "rate", "ours 2 workers events", "plain events", None),
    ),
)
