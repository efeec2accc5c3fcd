"""Open status streams of requests that wait: what they cost one web process, and how late their readers are told.

All belong to one service with one slot, so that each start is a change of position for everybody behind it. The
streams of 1,000 requests are idle first; then further ones are opened, of requests ahead of them, and those are worked
off by a real worker at a steady rate, so that there are never less than 1,000. What happened when is read from the
records afterwards: the server's own times, on the clock of this machine.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import statistics
import time
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.fast_target import FastTarget
from benchmarks.meter import child_of, percentile, pss_mb, rss_mb
from benchmarks.parts.part import Column, Goal, Part, Row, Sample, Sizes, Table
from benchmarks.parts.watchers import shares
from benchmarks.sides import Void
from benchmarks.streaming import Readers, Stream, Told
from eas_queue.store import keys
from tests.support.installation import TOKEN, Installation, await_condition
from tests.support.server import RedisServer

NAME, SERVICE = "acme/demo", "acme.demo"
SETTLED_S = 3
CALL_S = 0.004  # what a call takes beside the target's delay
TWO_WITHIN_S = 0.9  # a second, and what the way to a client may differ
LAST_S = 2  # until everybody must have been told of the last start
MB_WANTED, IDLE_WANTED, END_MS_WANTED, POSITION_MS_WANTED, TOLD_WANTED = 200, 2, 50, 500, 2
RATES = {"2 a second": 2, "10 a second": 10, "20 a second": 20}
ROWS = tuple(
    Row(name, f"1 gunicorn gevent process, 1 celery process; 1,000 streams and more, {rate} requests end a second")
    for name, rate in RATES.items()
)


class _Calls:
    """One kept connection to the web, for submits and operators' calls."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def post(self, path: str, scheme: str) -> Any:
        """The JSON of its answer. Raises Void unless it is a success."""
        headers = {"Authorization": f"{scheme} {TOKEN}", "Content-Type": "application/json"}
        self._connection.request("POST", path, b'{"prompt": "a cat"}', headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise Void(f"POST {path} was answered {answer.status}: {content[:200]!r}")
        return json.loads(content)

    def submit(self, delay_s: float) -> str:
        request_id: str = self.post(f"/fal/{NAME}?delay_s={delay_s:.4f}", "Key")["request_id"]
        return request_id

    def set_paused(self, is_paused: bool) -> None:
        self.post(f"/api/services/{SERVICE}/{'pause' if is_paused else 'resume'}", "Bearer")

    def close(self) -> None:
        self._connection.close()


def _times(connection: Any, request_ids: Sequence[str], name: str) -> list[float]:
    """That moment of each request, unix seconds; those that have none are left out."""
    pipeline = connection.pipeline(transaction=False)
    for request_id in request_ids:
        pipeline.hget(keys.record_key(SERVICE, request_id), name)
    return [int(value) / 1000 for value in pipeline.execute() if value]


def lateness_s(told: Sequence[tuple[float, int]], starts: Sequence[float]) -> list[float]:
    """Seconds from each of *starts*, sorted, until a stream was told the place that it had then, or a better one.

    *told*: its (time, position), from before the first start on. Raises Void when it never was told.
    """
    first, at, found = told[0][1], 0, []
    for number, start in enumerate(starts, 1):
        while at < len(told) and told[at][1] > first - number:
            at += 1
        if at == len(told):
            raise Void(f"a stream was last told the place {told[-1][1]}, and had {first - len(starts)}")
        found.append(told[at][0] - start)
    return found


def most_within(seconds: float, times: Sequence[float]) -> int:
    """How many of *times*, sorted, at most come within less than so many seconds."""
    most = begin = 0
    for end, time_s in enumerate(times):
        while time_s - times[begin] >= seconds:
            begin += 1
        most = max(most, end - begin + 1)
    return most


def _quantiles(name: str, values_s: Iterable[float]) -> Sample:
    values = sorted(value * 1000 for value in values_s)
    return {
        f"{name}_p50": statistics.median(values),
        f"{name}_p95": percentile(values, 0.95),
        f"{name}_p99": percentile(values, 0.99),
        f"{name}_worst": values[-1],
    }


def _positions(streams: Sequence[Stream], begun_at: float, starts: Sequence[float]) -> Sample:
    """Of those that only wait: how late they were told of each start, and how often they were told anything."""
    late: list[float] = []
    rates, most = [], []
    for stream in streams:
        positions = stream.told.positions
        before = max(i for i, (at, _) in enumerate(positions) if at < begun_at)
        late += lateness_s(positions[before:], starts)
        told_s = [at for at, _ in positions if starts[0] < at < starts[-1]]
        rates.append((len(told_s) - 1) / (told_s[-1] - told_s[0]) if len(told_s) > 1 else 0)
        most.append(most_within(TWO_WITHIN_S, [at for at, _ in positions]))
    return _quantiles("place", late) | {
        "told_a_second": statistics.mean(rates),
        "told_most": max(most),
    }


def _ends(told: Sequence[Told], finished: Sequence[float]) -> Sample:
    if len(finished) != len(told) or any(not one.completed_at for one in told):
        were_told = sum(one.completed_at > 0 for one in told)
        raise Void(f"{len(finished)} of {len(told)} have ended, and {were_told} were told")
    late = [max(one.completed_at, one.closed_at) - at for one, at in zip(told, finished, strict=True)]
    return _quantiles("end", late) | {"ends": len(late)}


def measure(row: str, sizes: Sizes) -> Sample:
    rate = RATES[row]
    ends = max(2, round(rate * sizes.streamed_s))
    toml = f"[services.{SERVICE!r}]\nmax_concurrency = 1\n"
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(FastTarget())
        server = RedisServer().start()
        stack.callback(server.stop)
        connection: Any = stack.enter_context(server.client())
        installation = Installation(server.url, target.url, services_toml=toml, web_concurrency=1)
        stack.enter_context(installation)
        web = child_of(installation.web().pid)
        worker = installation.worker().pid
        assert server._process is not None
        pids = {"web": web, "server": server._process.pid, "worker": worker}
        calls = stack.enter_context(contextlib.closing(_Calls(installation.port)))
        readers = stack.enter_context(Readers(installation.port, TOKEN))

        first = calls.submit(0)  # what the first call of a process loads counts for no stream
        await_condition(lambda: _times(connection, [first], "finished_ms"), what="the first request ends")
        calls.set_paused(True)
        ids = [calls.submit(max(0, 1 / rate - CALL_S)) for _ in range(ends + sizes.streams)]
        paths = [f"/fal/{NAME}/requests/{request_id}/status/stream?logs=1" for request_id in ids]
        found: Sample = {"before_mb": rss_mb(web)}
        began = time.perf_counter()
        waiting = readers.connect(paths[ends:])
        found["joined_s"] = time.perf_counter() - began
        readers.serve(min(SETTLED_S, sizes.streamed_s))
        found |= shares(readers.serve, pids, sizes.streamed_s, "idle")
        found |= {"idle_mb": rss_mb(web), "idle_pss_mb": pss_mb(web)}
        ending = readers.connect(paths[:ends])
        readers.serve(min(SETTLED_S, sizes.streamed_s))

        begun_at = time.time()
        calls.set_paused(False)
        found |= shares(readers.serve, pids, sizes.streamed_s, "drain")
        readers.until(lambda: readers.open_count <= len(waiting), "the ends", sizes.streamed_s + 20)
        calls.set_paused(True)
        readers.serve(LAST_S)
        starts = sorted(_times(connection, ids, "started_ms"))
        found |= _ends([stream.told for stream in ending], _times(connection, ids[:ends], "finished_ms"))
        found |= _positions([one for one in waiting if one.told.word == "IN_QUEUE"], begun_at, starts)
        found["rate"] = (len(starts) - 1) / (starts[-1] - starts[0])
        found |= {"after_mb": rss_mb(web), "after_pss_mb": pss_mb(web)}
    return found


PART = Part(
    "streams",
    "1,000 open status streams, on one web process",
    ROWS,
    (
        Table(
            "cost",
            (
                Column("before_mb", "web MB before"),
                Column("idle_mb", "with 1,000 streams"),
                Column("idle_pss_mb", "of it its own (PSS)"),
                Column("after_mb", "at the end"),
                Column("idle_web", "idle: web, % of a core", "{:.1f}"),
                Column("idle_server", "server %", "{:.1f}"),
                Column("drain_web", "while they move: web %", "{:.1f}"),
                Column("drain_server", "server %", "{:.1f}"),
            ),
        ),
        Table(
            "an end, until its stream is closed",
            (
                Column("rate", "ends a second", "{:.1f}"),
                Column("end_p50", "p50 ms", "{:.1f}"),
                Column("end_p95", "p95 ms", "{:.1f}"),
                Column("end_p99", "p99 ms", "{:.1f}"),
                Column("end_worst", "worst ms", "{:.1f}"),
            ),
        ),
        Table(
            "a start, until those behind it know their place",
            (
                Column("place_p50", "p50 ms"),
                Column("place_p95", "p95 ms"),
                Column("place_p99", "p99 ms"),
                Column("place_worst", "worst ms"),
                Column("told_a_second", "events a second and stream", "{:.2f}"),
                Column("told_most", f"most in {TWO_WITHIN_S} s"),
            ),
        ),
    ),
    measure,
    tuple(
        Goal(f"{row.name}: {text}", key, row.name, "", wanted, less=True)
        for text, key, wanted in (
            ("web MB", "after_mb", MB_WANTED),
            ("idle web, % of a core", "idle_web", IDLE_WANTED),
            ("end to closed stream, p95 ms", "end_p95", END_MS_WANTED),
            ("start to place told, p95 ms", "place_p95", POSITION_MS_WANTED),
            (f"places told in {TWO_WITHIN_S} s, the most", "told_most", TOLD_WANTED),
        )
        for row in ROWS
    ),
)
