"""Calls that last one second, all queued before the one worker process starts."""

from __future__ import annotations

from benchmarks.fast_target import FastTarget
from benchmarks.parts.drain import run
from benchmarks.parts.part import Column, Goal, Part, Row, Sample, Sizes, Table
from benchmarks.sides import SERVICE, Ours, Plain

QUERY = "?delay_s=1"
ROWS = (
    Row("ours", "1 celery process, gevent -c 2000"),
    Row("plain", "prefork -c 2; so fewer calls, scaled up"),
    Row("tuned", "1 celery process, gevent -c 2000; results ignored"),
)


def measure(row: str, sizes: Sizes) -> Sample:
    with FastTarget() as target:
        if row == "ours":
            services = f"[services.{SERVICE}]\nmax_concurrency = {sizes.slow}\n"
            with Ours(target, worker_events="off", services_toml=services) as side:
                found = run(side, sizes.slow, options=f"-c {sizes.slow}", workers=1, query=QUERY)
        elif row == "plain":
            with Plain(target) as side:
                found = run(side, sizes.slow_plain, options="-c 2", workers=1, query=QUERY, web="-w 4")
        else:
            with Plain(target, tuned=True, results=False) as side:
                options = f"-P gevent -c {sizes.slow}"
                found = run(side, sizes.slow_tuned, options=options, workers=1, query=QUERY, web="-w 4 -k gevent")
    # what the same worker would need for all of them: calls beyond what it holds at once come after one another
    found["scaled"] = found["seconds"] * sizes.slow / found["count"]
    return found


PART = Part(
    "slow",
    "Calls of 1 s (queue filled before, one worker process)",
    ROWS,
    (
        Table(
            "",
            (
                Column("seconds", "seconds", "{:.2f}"),
                Column("count", "calls"),
                Column("scaled", "seconds, scaled to 2,000 calls", "{:,.1f}"),
                Column("max_running", "most at once"),
                Column("worker_us", "worker CPU us"),
                Column("server_us", "server CPU us"),
            ),
        ),
    ),
    measure,
    (Goal("seconds for 2,000 calls of 1 s", "seconds", "ours", "", 2.5, less=True),),
)
