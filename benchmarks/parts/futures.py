"""What polls for samples cost one web process: those that it holds, those that it answers at once, and results.

Held polls are idle first, for as long as one is held at most, so that each is renewed; then a worker ends samples at a
steady rate. Scripts poll as fast as they are answered, ten of them for each sample, next to a Flask view that does
nothing, asked by the same clients. Results are asked for one after the other by a single client.
"""

from __future__ import annotations

import contextlib
import shlex
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks import polling, taking
from benchmarks.fast_target import FastTarget
from benchmarks.meter import Meter, child_of, cpu_us, percentile, pss_mb, rss_mb
from benchmarks.parts.floors import GUNICORN
from benchmarks.parts.part import Column, Goal, Part, Row, Sample, Sizes, Table
from benchmarks.parts.watchers import shares
from benchmarks.polling import SERVICE, Calls, Poll, Polls
from benchmarks.sides import Void
from eas_queue.store import keys
from tests.support.installation import TOKEN, Installation, await_condition
from tests.support.server import RedisServer

SUBMITTERS, SCRIPTS = 16, 10
CALL_S = 0.004  # what a call takes beside the target's delay
SETTLED_S = 3
WARM = 50  # calls that don't count
SMALL, LARGE = 256, 8192  # tokens of a result
TYPES = {"JSON": "application/json", "protobuf": "application/x-protobuf"}
MB_WANTED, END_MS_WANTED = 200, 50
HELD, AT_ONCE, EMPTY = "held", "408 at once", "empty view"
ROWS = (
    Row(HELD, "1 gunicorn gevent process, 1 celery process; 1,000 polls and more"),
    Row(AT_ONCE, "1 gunicorn gevent process; 10 samples that wait, 10 scripts for each"),
    Row(
        EMPTY,
        "the same clients; 1 gunicorn gevent process, settings of gunicorn.conf.py, a Flask view that does nothing",
    ),
    *(Row(f"result, {name}", "1 gunicorn gevent process, 1 client, one call after the other") for name in TYPES),
)


def _quantiles(name: str, values_s: Sequence[float]) -> Sample:
    values = sorted(value * 1000 for value in values_s)
    return {
        f"{name}_p50": statistics.median(values),
        f"{name}_p95": percentile(values, 0.95),
        f"{name}_p99": percentile(values, 0.99),
        f"{name}_worst": values[-1],
    }


class _Place:
    """A server and one web process; a context manager that leaves nothing running."""

    def __init__(self, services_toml: str, target_url: str = "", **settings: object) -> None:
        """*target_url*: whatever is given here, there is a worker."""
        self._stack = contextlib.ExitStack()
        self.server = RedisServer().start()
        self._stack.callback(self.server.stop)
        self.connection: Any = self._stack.enter_context(self.server.client())
        installation = Installation(
            self.server.url,
            target_url or "http://127.0.0.1:9",
            services_toml=services_toml,
            web_concurrency=1,
            **settings,
        )
        self._stack.enter_context(installation)
        web = installation.start("web", ["gunicorn", "app:app"])  # it gets ready beside the worker
        if target_url:
            installation.worker()
        installation.await_web()
        self.web, self.port, self.calls = child_of(web.pid), installation.port, Calls(TOKEN)
        assert self.server._process is not None
        self.pids = {"web": self.web, "server": self.server._process.pid}

    def __enter__(self) -> _Place:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def submit(self, call: bytes, count: int) -> list[str]:
        """The ids, in their order in the queue. Raises Void."""
        made: list[str] = []
        shares_of = [count // SUBMITTERS + (number < count % SUBMITTERS) for number in range(SUBMITTERS)]
        taking.play(self.port, [polling.submitting(call, each, made) for each in shares_of if each])
        return [request_id for _, request_id in sorted(zip(self.numbers(made, "index"), made, strict=True))]

    def numbers(self, request_ids: Sequence[str], name: str) -> list[int]:
        """That field of each request's record; those that have none are left out."""
        pipeline = self.connection.pipeline(transaction=False)
        for request_id in request_ids:
            pipeline.hget(keys.record_key(SERVICE, request_id), name)
        return [int(value) for value in pipeline.execute() if value]

    def set_paused(self, is_paused: bool) -> None:
        path = f"/api/services/{SERVICE}/{'pause' if is_paused else 'resume'}"
        taking.once(self.port, taking.Calls(TOKEN).post(path, b""))

    def held(self) -> int:
        """How many requests the web listens for the ends of."""
        return len(self.connection.pubsub_channels(f"{keys.note_channel('')}?*"))


def _held(sizes: Sizes) -> Sample:
    ends, delay_s = sizes.poll_ends, 1 / sizes.poll_end_rate - CALL_S
    with FastTarget() as target:
        toml = f'[services.{SERVICE}]\nmax_concurrency = 1\ntarget_url = "{target.url}/?tokens=16&delay_s={delay_s}"\n'
        with (
            _Place(toml, target.url, max_wait_s=sizes.poll_hold_s) as place,
            Polls(place.port, place.calls) as polls,
        ):
            [first] = place.submit(place.calls.submit(), 1)
            # What the first call of a process loads counts for no poll.
            polls.begin([first])
            polls.until(lambda: not polls.open_count, "the first sample")
            place.set_paused(True)
            ids = place.submit(place.calls.submit(), ends + sizes.polls)
            found: Sample = {"before_mb": rss_mb(place.web), "before_pss_mb": pss_mb(place.web)}
            waiting = polls.begin(ids[ends:], place.held)
            polls.serve(min(SETTLED_S, sizes.poll_hold_s))
            found |= {"held_mb": rss_mb(place.web), "held_pss_mb": pss_mb(place.web)}
            found["poll_kb"] = (found["held_pss_mb"] - found["before_pss_mb"]) * 1024 / sizes.polls
            found |= shares(polls.serve, place.pids, sizes.poll_still_s, "still")
            renewed = sum(poll.renewals for poll in waiting)
            found |= shares(polls.serve, place.pids, sizes.poll_hold_s, "hold")
            found["renewals"] = (sum(poll.renewals for poll in waiting) - renewed) / sizes.polls
            ending = polls.begin(ids[:ends], place.held)

            place.set_paused(False)
            found |= shares(polls.serve, place.pids, ends / sizes.poll_end_rate, "drain")
            polls.until(lambda: all(poll.is_over for poll in ending), "the ends")
            place.set_paused(True)
            found |= _ends(place, ending, ids[:ends])
            found["after_mb"] = rss_mb(place.web)
            found["troubles"] = sum(poll.troubles for poll in (*waiting, *ending))
    return found


def _ends(place: _Place, ending: Sequence[Poll], ids: Sequence[str]) -> Sample:
    finished = [moment_ms / 1000 for moment_ms in place.numbers(ids, "finished_ms")]
    if len(finished) != len(ids):
        raise Void(f"{len(finished)} of {len(ids)} have ended, and all were told that they have")
    if wrong := [poll.body for poll in ending if poll.body.startswith(b"{") or len(poll.body) < 2 * 16 * 4]:
        raise Void(f"the result of a sample is {wrong[0][:200]!r}")
    late_s = [poll.answered_at - at for poll, at in zip(ending, finished, strict=True)]
    return _quantiles("end", late_s) | {"ends": len(ids), "rate": (len(ids) - 1) / (max(finished) - min(finished))}


def _asked(port: int, calls: Sequence[bytes], status: int, seconds: float) -> tuple[list[float], float, int]:
    """Each of *calls* by a client of its own, again and again: (seconds of each, those of all, length of an answer)."""
    took_s, size = list[float](), [0]
    taking.play(
        port, [polling.asking(call, status, lambda: len(took_s) < len(calls) * 5, took_s, size) for call in calls]
    )
    took_s.clear()
    end = time.perf_counter() + seconds
    took = taking.play(
        port, [polling.asking(call, status, lambda: time.perf_counter() < end, took_s, size) for call in calls]
    )
    return took_s, took, size[0]


def _at_once(sizes: Sizes) -> Sample:
    with _Place(f"[services.{SERVICE}]\n") as place:
        place.set_paused(True)
        ids = place.submit(place.calls.submit_by_script(), sizes.polled)
        calls = [place.calls.poll(request_id) for request_id in ids for _ in range(SCRIPTS)]
        meter = Meter(place.connection, {name: [pid] for name, pid in place.pids.items()})
        took_s, took, _ = _asked(place.port, calls, 408, sizes.polled_s)
        costs = meter.per(len(took_s))
    return costs | _quantiles("answer", took_s) | {"answers": len(took_s) / took}


@contextlib.contextmanager
def _empty_view() -> Iterator[tuple[int, int]]:
    """(port, pid) of it."""
    with Installation("redis://127.0.0.1:9/0", "http://127.0.0.1:9") as installation:
        command = f"gunicorn -c /dev/null -b 127.0.0.1:{installation.port} -k gevent -w 1 {GUNICORN}"
        web = installation.start("floor", [*shlex.split(command), "benchmarks.floor_app:app"])

        def answers() -> bool:
            with contextlib.suppress(OSError):
                return installation.session.get(installation.url, timeout=2).status_code == 405
            return False

        await_condition(answers, timeout_s=20, what="the empty view answers")
        yield installation.port, child_of(web.pid)


def _empty(sizes: Sizes) -> Sample:
    # As long as a poll, with its headers.
    call = Calls(TOKEN).poll("0" * 36).replace(b"/api/v1/retrieve_future", b"/")
    with _empty_view() as (port, pid):
        before_us = cpu_us([pid])
        took_s, took, _ = _asked(port, [call] * (sizes.polled * SCRIPTS), 200, sizes.polled_s)
        used_us = cpu_us([pid]) - before_us
        found = _quantiles("answer", took_s) | {"answers": len(took_s) / took, "web_us": used_us / len(took_s)}
        return found | _one_by_one("small", port, pid, call, sizes)


def _one_by_one(name: str, port: int, pid: int, call: bytes, sizes: Sizes) -> Sample:
    took_s, size, before_us = list[float](), [0], 0.0

    def more() -> bool:
        nonlocal before_us
        if len(took_s) == WARM and not before_us:
            before_us = cpu_us([pid])
        return len(took_s) < WARM + sizes.results

    taking.play(port, [polling.asking(call, 200, more, took_s, size)])
    counted = took_s[WARM:]
    return {
        f"{name}_us": statistics.median(counted) * 1e6,
        f"{name}_cpu_us": (cpu_us([pid]) - before_us) / len(counted),
        f"{name}_kb": size[0] / 1024,
    }


def _results(kind: str, sizes: Sizes) -> Sample:
    found: Sample = {}
    with FastTarget() as target:
        services = {"small": SMALL, "large": LARGE}
        toml = "".join(
            f'[services.{name}]\ntarget_url = "{target.url}/?tokens={count}"\n' for name, count in services.items()
        )
        with _Place(toml, target.url) as place, Polls(place.port, place.calls) as polls:
            for name in services:
                made: list[str] = []
                taking.play(place.port, [polling.submitting(place.calls.submit(name), 1, made)])
                polls.begin(made)
                polls.until(lambda: not polls.open_count, "a sample")
                call = place.calls.high_poll(made[0], TYPES[kind])
                found |= _one_by_one(name, place.port, place.web, call, sizes)
    return found


def measure(row: str, sizes: Sizes) -> Sample:
    if row.startswith("result, "):
        return _results(row.removeprefix("result, "), sizes)
    return {HELD: _held, AT_ONCE: _at_once, EMPTY: _empty}[row](sizes)


PART = Part(
    "futures",
    "Futures: polls that are held, polls that are answered at once, results",
    ROWS,
    (
        Table(
            "1,000 polls",
            (
                Column("before_mb", "web MB before"),
                Column("held_mb", "with them"),
                Column("after_mb", "at the end"),
                Column("poll_kb", "KB a poll (PSS)", "{:.1f}"),
                Column("still_web", "none renewed: web, % of a core", "{:.1f}"),
                Column("still_server", "server %", "{:.1f}"),
                Column("hold_web", "each renewed: web %", "{:.1f}"),
                Column("hold_server", "server %", "{:.1f}"),
                Column("renewals", "renewals a poll", "{:.2f}"),
                Column("drain_web", "while samples end: web %", "{:.1f}"),
                Column("drain_server", "server %", "{:.1f}"),
                Column("troubles", "5xx in all"),
            ),
        ),
        Table(
            "an end, until its poll is answered",
            (
                Column("rate", "ends a second", "{:.1f}"),
                Column("end_p50", "p50 ms", "{:.1f}"),
                Column("end_p95", "p95 ms", "{:.1f}"),
                Column("end_p99", "p99 ms", "{:.1f}"),
                Column("end_worst", "worst ms", "{:.1f}"),
            ),
        ),
        Table(
            "100 clients at once",
            (
                Column("answers", "answers a second"),
                Column("web_us", "web CPU us"),
                Column("server_us", "server CPU us"),
                Column("reads", "round trips", "{:.2f}"),
                Column("answer_p50", "p50 ms", "{:.1f}"),
                Column("answer_p99", "p99 ms", "{:.1f}"),
            ),
        ),
        Table(
            "one after the other",
            (
                Column("small_us", "256 tokens: p50 us"),
                Column("small_cpu_us", "web CPU us"),
                Column("small_kb", "KB", "{:.1f}"),
                Column("large_us", "8,192 tokens: p50 us"),
                Column("large_cpu_us", "web CPU us"),
                Column("large_kb", "KB", "{:.1f}"),
            ),
        ),
    ),
    measure,
    (
        Goal("held: web MB", "after_mb", HELD, "", MB_WANTED, less=True),
        Goal("held: end to answered poll, p95 ms", "end_p95", HELD, "", END_MS_WANTED, less=True),
        Goal("408 at once, against an empty view", "answers", AT_ONCE, EMPTY, None),
        Goal("a result of 256 tokens as JSON, against an empty view, us", "small_us", "result, JSON", EMPTY, None),
        Goal("protobuf against JSON, 256 tokens, us", "small_us", "result, protobuf", "result, JSON", None),
        Goal("protobuf against JSON, 8,192 tokens, us", "large_us", "result, protobuf", "result, JSON", None),
    ),
)
