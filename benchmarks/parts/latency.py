"""A client that waits for its result, at a fixed rate: from the moment it should submit to the whole result.

Ours asks once, with `Prefer: wait`. The plain app's client submits, and gets the result with a GET that waits.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from benchmarks import client
from benchmarks.fast_target import FastTarget
from benchmarks.meter import percentile
from benchmarks.parts.part import Column, Goal, Part, Row, Sample, Sizes, Table
from benchmarks.sides import Ours, Plain, Side, Void

WARM_UP = 20
WAIT_S = 30
ROWS = (
    Row("ours", "gunicorn gevent, 2 processes; 1 celery process, gevent -c 1000"),
    Row("plain", "gunicorn sync, 4 processes; prefork -c 2: 2 processes and their parent"),
    Row("tuned", "gunicorn gevent, 4 processes; 1 celery process, gevent -c 100; results kept"),
)


def _start(row: str, target: FastTarget) -> Side:
    side: Side
    if row == "ours":
        side = Ours(target, worker_events="off")
        side.start_web("")
        side.spawn_workers("")
    else:
        side = Plain(target, tuned=row == "tuned")
        side.start_web("-w 4 -k gevent" if side.tuned else "-w 4")
        side.spawn_workers("-P gevent -c 100" if side.tuned else "-c 2")
    side.await_workers()
    return side


def _asking(side: Side, requests: client.Client, made: list[str]) -> Callable[[], Awaitable[bool]]:
    async def ours() -> bool:
        answer = await requests.call("POST", side.path, client.BODY, more=f"Prefer: wait={WAIT_S}\r\n")
        if answer.status != 200 or b"SUCCESS" not in answer.body:
            return False
        made.append(json.loads(answer.body)["request_id"])
        return True

    async def plain() -> bool:
        submitted = await requests.call("POST", side.path, client.BODY)
        if submitted.status != 200:
            return False
        made.append(submitted.body.decode())
        answer = await requests.call("GET", f"{side.path}/{made[-1]}?wait={WAIT_S}")
        return answer.status == 200

    return ours if isinstance(side, Ours) else plain


def measure(row: str, sizes: Sizes) -> Sample:
    found: Sample = {}
    with FastTarget() as target, _start(row, target) as side:
        requests = client.Client(side.port, side.headers)
        made: list[str] = []
        act = _asking(side, requests, made)

        async def run() -> int:
            failed = 0
            for _ in range(WARM_UP):
                await act()
            for rate, seconds in sizes.latency:
                meter = side.meter()
                took, wrong = await client.open_loop(act, rate=rate, seconds=seconds)
                failed += len(wrong)
                if wrong and (not took or isinstance(side, Ours)):
                    raise Void(f"{len(wrong)} of {len(wrong) + len(took)} had no result; the first: {wrong[0]}")
                if wrong:  # of the others these are counted
                    found[f"failed_{rate:g}"] = len(wrong)
                costs = meter.per(len(took))
                found.update({f"{name}_{rate:g}": value for name, value in costs.items()})
                for share in (50, 90, 99):
                    found[f"p{share}_{rate:g}"] = percentile(took, share / 100)
            requests.close()
            return failed

        if not asyncio.run(run()):
            side.verify(made)
    return found


PART = Part(
    "latency",
    "Submit to result, for a client that waits (open loop: sent by the clock, lateness counts)",
    ROWS,
    tuple(
        Table(
            f"{rate} a second",
            (
                *(Column(f"p{share}_{rate}", f"p{share} ms", "{:.1f}") for share in (50, 90, 99)),
                Column(f"failed_{rate}", "had no result"),
                Column(f"web_us_{rate}", "web CPU us"),
                Column(f"worker_us_{rate}", "worker CPU us"),
                Column(f"server_us_{rate}", "server CPU us"),
                Column(f"reads_{rate}", "round trips", "{:.1f}"),
            ),
        )
        for rate in (10, 100)
    ),
    measure,
    (
        Goal("p50 at 10/s, ours of plain's", "p50_10", "ours", "plain", 0.7, less=True),
        Goal("p50 at 100/s, ours of plain's", "p50_100", "ours", "plain", None, less=True),
        Goal("p50 at 10/s, ours of tuned's", "p50_10", "ours", "tuned", None, less=True),
    ),
)
