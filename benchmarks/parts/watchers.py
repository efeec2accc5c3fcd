"""Clients that watch queues and wait: what they cost one web process, and how late an item is with them.

The connections are idle first, then each pings every 2 s, as those of the Python SDK do; the items are put while they
do, one by one, each when its predecessor has arrived.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable

from benchmarks.meter import child_of, cpu_us, percentile, rss_mb
from benchmarks.parts.part import Column, Goal, Part, Row, Sample, Sizes, Table
from benchmarks.sides import Void
from benchmarks.watching import Clients, Place
from tests.support.installation import TOKEN, Installation
from tests.support.server import RedisServer

GROUP = "eas"
PING_EVERY_S = 2
SETTLED_S = 3
MB_WANTED, CPU_WANTED, P50_WANTED = 200, 5, 20
DATA = b'{"prompt": "' + b"x" * 1010 + b'"}'  # 1 KB
ONE, ONE_MANUAL, SOME, MANY = "one group", "one group commits", "50 services", "1000 services"
ROWS = (
    Row(ONE, "1 gunicorn gevent process; 1,000 watchers of one sink, one group, auto commit"),
    Row(ONE_MANUAL, "the same, and each item is committed by its watcher's client"),
    Row(SOME, "20 watchers of each of 50 sinks, a group each, auto commit"),
    Row(MANY, "1 watcher of each of 1,000 sinks, auto commit"),
)


def _queues(row: str, sizes: Sizes) -> list[str]:
    count = {SOME: sizes.watched_services, MANY: sizes.watchers}.get(row, 1)
    return [f"/api/predict/s{number}/sink" for number in range(count)]


def shares(serve: Callable[[float], None], pids: dict[str, int], seconds: float, name: str) -> Sample:
    """Percent of a core that each process takes while the clients do what they do: *serve*, for so many seconds."""
    before, began = {process: cpu_us([pid]) for process, pid in pids.items()}, time.perf_counter()
    serve(seconds)
    took_us = (time.perf_counter() - began) * 1_000_000
    return {f"{name}_{process}": 100 * (cpu_us([pid]) - before[process]) / took_us for process, pid in pids.items()}


def _latencies(clients: Clients, queues: list[str], sizes: Sizes, *, manual: bool) -> Sample:
    """Milliseconds from the first byte of a put to its item's last byte at a watcher."""
    took, answered = [], []
    clients.arrivals.clear()
    begin = time.perf_counter()
    for number in range(sizes.watched_puts):
        clients.serve(begin + number / sizes.watched_rate - time.perf_counter())
        queue = queues[number % len(queues)]
        began = time.perf_counter()
        answer = clients.call("POST", queue, DATA)
        clients.await_arrivals(number + 1)
        arrival = clients.arrivals[-1]
        if (arrival.place.queue, b"%d" % arrival.index) != (queue, answer.body) or len(clients.arrivals) > number + 1:
            raise Void(f"put number {number + 1} got the index {answer.body!r} in {queue}, then came {arrival}")
        took.append((arrival.at - began) * 1000)
        answered.append((answer.at - began) * 1000)
        if manual:
            who = {"X-EAS-QueueService-Uid": arrival.place.user, "X-EAS-QueueService-Gid": arrival.place.group}
            clients.call("PUT", f"{queue}?_indexes_={arrival.index}", headers=who)
    took.sort()
    return {
        "p50": statistics.median(took),
        "p99": percentile(took, 0.99),
        "worst": took[-1],
        "answered_p50": statistics.median(answered),
    }


def measure(row: str, sizes: Sizes) -> Sample:
    queues = _queues(row, sizes)
    places = [Place(queues[number % len(queues)], GROUP, f"u{number}") for number in range(sizes.watchers)]
    toml = "".join(f"[services.s{number}]\n" for number in range(len(queues)))
    with contextlib.ExitStack() as stack:
        server = RedisServer().start()
        stack.callback(server.stop)
        installation = Installation(server.url, "http://127.0.0.1:9", services_toml=toml, web_concurrency=1)
        stack.enter_context(installation)
        web = child_of(installation.web().pid)
        assert server._process is not None
        pids = {"web": web, "server": server._process.pid}
        clients = stack.enter_context(Clients(installation.port, TOKEN, auto_commit=row != ONE_MANUAL))
        clients.call("POST", queues[0], DATA)  # what the first call of a process loads counts for no watcher
        clients.call("GET", queues[0])
        found: Sample = {"before_mb": rss_mb(web)}
        began = time.perf_counter()
        clients.connect(places)
        found["joined_s"] = time.perf_counter() - began
        clients.serve(min(SETTLED_S, sizes.watched_s))
        found |= shares(clients.serve, pids, sizes.watched_s, "idle")
        found["idle_mb"] = rss_mb(web)
        clients.ping(PING_EVERY_S)
        clients.serve(min(SETTLED_S, sizes.watched_s))
        found |= shares(clients.serve, pids, sizes.watched_s, "ping")
        found |= _latencies(clients, queues, sizes, manual=row == ONE_MANUAL)
        found["after_mb"] = rss_mb(web)
        clients.await_pongs()
        found["pings"] = clients.pings
    return found


PART = Part(
    "watchers",
    "1,000 clients that watch queues, on one web process",
    ROWS,
    (
        Table(
            "while nothing comes",
            (
                Column("before_mb", "web MB before"),
                Column("idle_mb", "with watchers"),
                Column("after_mb", "at the end"),
                Column("joined_s", "s to connect all", "{:.1f}"),
                Column("idle_web", "idle: web, % of a core", "{:.1f}"),
                Column("idle_server", "server %", "{:.1f}"),
                Column("ping_web", "with pings: web %", "{:.1f}"),
                Column("ping_server", "server %", "{:.1f}"),
            ),
        ),
        Table(
            "put to arrival",
            (
                Column("p50", "p50 ms", "{:.1f}"),
                Column("p99", "p99 ms", "{:.1f}"),
                Column("worst", "worst ms", "{:.1f}"),
                Column("answered_p50", "the put's own answer, p50 ms", "{:.1f}"),
            ),
        ),
    ),
    measure,
    tuple(
        Goal(f"{row.name}: {text}", key, row.name, "", wanted, less=True)
        for text, key, wanted in (
            ("web MB", "after_mb", MB_WANTED),
            ("idle web, % of a core", "idle_web", CPU_WANTED),
            ("idle server, % of a core", "idle_server", CPU_WANTED),
            ("put to arrival, p50 ms", "p50", P50_WANTED),
        )
        for row in ROWS
    ),
)
