"""Submits as fast as the web takes them; no worker runs."""

from __future__ import annotations

import time

from benchmarks import client
from benchmarks.fast_target import FastTarget
from benchmarks.parts.part import Column, Goal, Part, Row, Sample, Sizes, Table
from benchmarks.sides import Ours, Plain, Side, Void

WARM_UP_S = 1
WARM_UP_CONNECTIONS = 16
SETTLED_S = 0.1
ROWS = (
    Row("ours", "gunicorn gevent, 2 processes (default)"),
    Row("ours 4 web", "gunicorn gevent, 4 processes"),
    Row("plain", "gunicorn sync, 4 processes"),
    Row("tuned", "gunicorn gevent, 4 processes; results ignored"),
)


def _start(row: str, target: FastTarget) -> Side:
    side: Side
    if row.startswith("ours"):
        side = Ours(target, worker_events="off")
        side.start_web("-w 4" if row == "ours 4 web" else "")
    else:
        side = Plain(target, tuned=row == "tuned", results=row != "tuned")
        side.start_web("-w 4 -k gevent" if row == "tuned" else "-w 4")
    return side


def _settled(side: Side) -> int:
    """How many are stored, once that does not change: wrk leaves its last requests behind without their answers."""
    found = -1
    while found != (found := side.submitted()):
        time.sleep(SETTLED_S)
    return found


def measure(row: str, sizes: Sizes) -> Sample:
    found: Sample = {}
    with FastTarget() as target, _start(row, target) as side:
        url = f"http://127.0.0.1:{side.port}{side.path}"
        client.wrk(url, side.headers, connections=WARM_UP_CONNECTIONS, seconds=WARM_UP_S)
        for connections in sizes.connections:
            before, meter = _settled(side), side.meter()
            got = client.wrk(url, side.headers, connections=connections, seconds=sizes.enqueue_s)
            stored = _settled(side) - before
            costs = meter.per(stored)
            # Ours must have no errors; the others' are counted.
            most_unheard = WARM_UP_CONNECTIONS + connections + (0 if isinstance(side, Ours) else got["errors"])
            if not 0 <= stored - got["requests"] <= most_unheard or (got["errors"] and isinstance(side, Ours)):
                raise Void(f"wrk had {got['requests']} answers, {got['errors']} errors; {stored} are stored")
            found |= {f"{name}_c{connections}": value for name, value in got.items()}
            found |= {f"{name}_c{connections}": value for name, value in costs.items()}
    return found


PART = Part(
    "enqueue",
    "Submit (wrk, POST of 1 KB, no worker running)",
    ROWS,
    tuple(
        Table(
            f"{c} connections",
            (
                Column(f"rate_c{c}", "requests/s"),
                Column(f"p50_ms_c{c}", "p50 ms", "{:.1f}"),
                Column(f"p99_ms_c{c}", "p99 ms", "{:.1f}"),
                Column(f"web_us_c{c}", "web CPU us"),
                Column(f"server_us_c{c}", "server CPU us"),
                Column(f"reads_c{c}", "round trips", "{:.1f}"),
                Column(f"commands_c{c}", "commands", "{:.1f}"),
                Column(f"scripted_c{c}", "of them in scripts", "{:.1f}"),
            ),
        )
        for c in (16, 64)
    ),
    measure,
    tuple(
        Goal(f"{ours} against {other}, {c} connections", f"rate_c{c}", ours, other, 2 if other == "plain" else None)
        for c in (16, 64)
        for ours, other in (("ours", "plain"), ("ours 4 web", "plain"), ("ours 4 web", "tuned"))
    ),
)
