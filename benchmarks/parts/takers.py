"""Workers that pull: what takers drain over HTTP, next to the no-op messages that one Celery worker consumes.

Both have the same server and nothing to do but their protocol: a task is taken and completed with some bytes, a message
is taken and its task returns. The queue was filled before.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import statistics
import time
from pathlib import Path
from typing import Any

import redis

from benchmarks import noop_app, taking
from benchmarks.meter import Meter, percentile
from benchmarks.parts.part import Column, Goal, Part, Row, Sample, Sizes, Table
from benchmarks.sides import TUNED_WORKER, Void
from benchmarks.taking import Calls, Taken, play
from eas_queue.dialects.bella import names
from eas_queue.store import keys
from tests.support.installation import TOKEN, Installation, await_condition
from tests.support.server import RedisServer

PUTTERS = 16
BATCH = 1000
NOOP_S = 180  # the most that the Celery worker may take
DRAINED_WANTED, TAKEN_WANTED = 1, 5
TRIPS_WANTED = 1.01  # the web has some of its own, a few a minute
DRAIN, DRAIN_1_KB, TAKE = "drain", "drain 1 KB", "take alone"
EMPTY_ONE, EMPTY = "empty, 1 taker", "empty"
SOLO, PREFORK = "celery solo", "celery prefork"
ROWS = (
    Row(DRAIN, "2 gunicorn gevent processes (default); 16 takers, each takes 10 tasks and completes them one by one"),
    Row(DRAIN_1_KB, "the same; each task has 1 KB of data"),
    Row(TAKE, "the same takers; nothing is completed"),
    Row(EMPTY_ONE, "the same web; 1 taker, and nothing waits"),
    Row(EMPTY, "the same web; 16 takers, and nothing waits"),
    Row(SOLO, "1 celery process, -P solo; no results, early acks, --prefetch-multiplier 64"),
    Row(PREFORK, "1 celery process and its child, -P prefork -c 1; the same settings"),
)
POOLS = {SOLO: "-P solo", PREFORK: "-P prefork -c 1"}
SIZES = {DRAIN_1_KB: 1000}  # bytes of text in a task


def _verify(connection: Any, port: int, calls: Calls, put: list[str], taken: Taken, *, completes: bool) -> None:
    """Each of *put* was given to one taker once, and has that taker's result. Raises Void."""
    if len(set(put)) != len(put) or taken.times.keys() != set(put) or taken.times.total() != len(put):
        raise Void(f"{len(put)} tasks were put; {len(taken.times)} were given out, {taken.times.total()} times")
    for i in range(0, len(put), BATCH):
        some, pipeline = put[i : i + BATCH], connection.pipeline(transaction=False)
        for task_id in some:
            pipeline.hmget(keys.record_key(taking.QUEUE, names.request_id(task_id)), "state", "result")
        for task_id, (state, result) in zip(some, pipeline.execute(), strict=True):
            wanted = (b"succeeded", taken.results[task_id]) if completes else (b"running", None)
            if (state, result) != wanted:
                raise Void(f"{task_id} is {state!r} with {result!r}, and should be {wanted}")
    stats = json.loads(taking.once(port, calls.get(f"/v1/queue/{taking.LEVEL}/stats")))
    counts = [stats[f"total_{name}_cnt"] for name in ("put", "loaded", "completed")]
    if counts != [len(put), len(put), len(put) if completes else 0]:
        raise Void(f"of {len(put)} tasks the queue says {counts} were put, loaded and completed")


def _drained(port: int, connection: Any, meters: dict[str, list[int]], row: str, sizes: Sizes) -> Sample:
    calls, put, taken = Calls(TOKEN), list[str](), Taken()
    numbers = iter(range(sizes.taken))
    play(port, [taking.putting(calls, numbers, SIZES.get(row, 0), put) for _ in range(PUTTERS)])
    meter, used_s = Meter(connection, meters), time.process_time()
    seconds = play(port, [taking.taking(calls, taken, completes=row != TAKE) for _ in range(sizes.takers)])
    used_s, costs = time.process_time() - used_s, meter.per(len(put))
    _verify(connection, port, calls, put, taken, completes=row != TAKE)
    return costs | {
        "rate": len(put) / seconds,
        "seconds": seconds,
        "a_take": len(put) / (taken.takes - sizes.takers),  # each ends with one that gives nothing
        "client_us": used_s * 1e6 / len(put),
    }


def _empty(port: int, connection: redis.Redis, meters: dict[str, list[int]], takers: int, seconds: float) -> Sample:
    calls, took_s = Calls(TOKEN), list[float]()
    play(port, [taking.taking_nothing(calls, lambda: len(took_s) < BATCH // 10, took_s) for _ in range(takers)])
    took_s.clear()
    meter, end = Meter(connection, meters), time.perf_counter() + seconds
    took = play(port, [taking.taking_nothing(calls, lambda: time.perf_counter() < end, took_s) for _ in range(takers)])
    costs, took_ms = meter.per(len(took_s)), sorted(each * 1000 for each in took_s)
    return {f"empty_{name}": cost for name, cost in costs.items()} | {
        "takes": len(took_ms) / took,
        "p50": statistics.median(took_ms),
        "p99": percentile(took_ms, 0.99),
        "worst": took_ms[-1],
    }


def _ours(row: str, sizes: Sizes) -> Sample:
    with contextlib.ExitStack() as stack:
        server = RedisServer(maxmemory_bytes=4 * 2**30).start()
        stack.callback(server.stop)
        # The sweep is the web's own; a scarce one is no part of an empty take.
        settings: dict[str, object] = {"sweep_s": 60} if row in (EMPTY, EMPTY_ONE) else {}
        installation = stack.enter_context(Installation(server.url, "http://127.0.0.1:9", **settings))
        web = installation.web().pid
        connection = stack.enter_context(server.client())
        body = json.dumps({"queue": taking.QUEUE, "endpoint": taking.ENDPOINT}).encode()
        taking.once(installation.port, Calls(TOKEN).post("/v1/queue/register", body))
        assert server._process is not None
        meters = {"web": [web], "server": [server._process.pid]}
        if row in (EMPTY, EMPTY_ONE):
            takers = 1 if row == EMPTY_ONE else sizes.takers
            return _empty(installation.port, connection, meters, takers, sizes.empty_s)
        return _drained(installation.port, connection, meters, row, sizes)


def _celery(row: str, sizes: Sizes) -> Sample:
    """*sizes.taken* no-op messages, published as Celery does it; from the first execution to the last."""
    with contextlib.ExitStack() as stack:
        server = RedisServer(maxmemory_bytes=4 * 2**30).start()
        stack.callback(server.stop)
        connection: Any = stack.enter_context(server.client())
        installation = stack.enter_context(Installation(server.url, "http://127.0.0.1:9"))
        app = noop_app.celery_app
        with app.connection_for_write(server.url) as broker, app.amqp.Producer(broker) as producer:
            for _ in range(sizes.taken):
                noop_app.noop.apply_async(producer=producer)
        times = Path(installation.folder, "times")
        installation.env |= {"NOOP_COUNT": str(sizes.taken), "NOOP_FILE": str(times)}
        command = f"celery -A benchmarks.noop_app worker {TUNED_WORKER} --prefetch-multiplier 64 {POOLS[row]}"
        worker = installation.start("noop", shlex.split(command))
        await_condition(times.exists, timeout_s=30, what="the worker executes a message")
        assert server._process is not None
        meter = Meter(connection, {"worker": [worker.pid], "server": [server._process.pid]})  # starting costs nothing
        await_condition(lambda: len(_lines(times)) == 2, timeout_s=NOOP_S, what="all messages are executed")
        costs = meter.per(sizes.taken)
        first, last = map(float, _lines(times))
        if connection.llen(keys.QUEUE_NORMAL) or connection.hlen("unacked"):
            raise Void("the worker has executed all messages, and not all of them are consumed")
        return costs | {"rate": (sizes.taken - 1) / (last - first), "seconds": last - first}


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def measure(row: str, sizes: Sizes) -> Sample:
    return _celery(row, sizes) if row in POOLS else _ours(row, sizes)


PART = Part(
    "takers",
    "Workers that pull: tasks taken and completed over HTTP, no-op messages of Celery",
    ROWS,
    (
        Table(
            "20,000 tasks or messages",
            (
                Column("rate", "a second"),
                Column("seconds", "seconds", "{:.2f}"),
                Column("a_take", "tasks a take", "{:.1f}"),
                Column("web_us", "web CPU us"),
                Column("worker_us", "Celery CPU us"),
                Column("server_us", "server CPU us"),
                Column("script_us", "of it in scripts", "{:.0f}"),
                Column("client_us", "takers' CPU us"),
                Column("reads", "round trips", "{:.2f}"),
            ),
        ),
        Table(
            "takes that give nothing",
            (
                Column("takes", "a second"),
                Column("p50", "p50 ms", "{:.2f}"),
                Column("p99", "p99 ms", "{:.2f}"),
                Column("worst", "worst ms", "{:.1f}"),
                Column("empty_web_us", "web CPU us"),
                Column("empty_server_us", "server CPU us"),
                Column("empty_script_us", "of it in the script", "{:.1f}"),
                Column("empty_reads", "round trips", "{:.2f}"),
                Column("empty_scripts", "scripts", "{:.2f}"),
            ),
        ),
    ),
    measure,
    (
        *(Goal(f"taken and completed, against {pool}", "rate", DRAIN, pool, DRAINED_WANTED) for pool in POOLS),
        *(Goal(f"taken alone, against {pool}", "rate", TAKE, pool, TAKEN_WANTED) for pool in POOLS),
        Goal("round trips of an empty take", "empty_reads", EMPTY_ONE, "", TRIPS_WANTED, less=True),
    ),
)
