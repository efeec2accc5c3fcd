"""Drives the store as web and workers do, with every argument defaulted, and checks the engine's invariants.

The invariants are those of docs/engine.md; ``check`` reads all keys of the server and asserts each of them.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from eas_queue.engine import ids
from eas_queue.store import keys
from eas_queue.store.client import Client
from eas_queue.store.shapes import Ended, Leased, Requeued, progress_token
from eas_queue.store.store import Store, fresh_id
from tests.support.held import Held
from tests.support.hook_checks import HookChecks
from tests.support.queue_checks import check_queues

LEASE_MS = 30_000
TERMINAL = ("succeeded", "failed", "cancelled", "expired")
KICKS_MAX = 64

SUCCEEDED = Ended("succeeded", 200, '[["content-type","text/plain"]]', b"done", True, "", "", '{"ok": true}', False)
FAILED = Ended("failed", 500, "[]", b"no", True, "TargetFailed", "the target answered 500", '{"exc_type": "E"}', False)
DEAD = Ended("failed", 502, "[]", b"", False, "TargetUnreachable", "refused", '{"exc_type": "E"}', True)
RETRY = Requeued(True, 5_000, "TargetFailed", "the target answered 503")
HAND_BACK = Requeued(False, 0, "HandedBack", "stopped")


def race(count: int, act: Callable[[int], Any]) -> list[Any]:
    """Run *act(0..count-1)* in threads that leave a barrier together; their answers in order. Errors are raised."""
    barrier = threading.Barrier(count)
    answers: list[Any] = [None] * count

    def run(i: int) -> None:
        barrier.wait()
        try:
            answers[i] = act(i)
        except BaseException as exc:
            answers[i] = exc

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers


@dataclass
class Driver:
    """A store with services registered on demand, and short ways to call it."""

    url: str
    store: Store = field(init=False)
    numbers: dict[str, int] = field(default_factory=dict)
    caps: dict[str, int] = field(default_factory=dict)
    pulls: set[str] = field(default_factory=set)  # services that are not forwarded
    holds: dict[str, int] = field(default_factory=dict)  # service -> max_sink_length, where a full sink holds it
    orders: dict[tuple[str, bytes], list[str]] = field(default_factory=dict)  # of what waits, by service and stamp
    _callers: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.store = Store(Client(self.url))
        self.raw: Any = self.store.client.redis  # redis-py types every reply as three things at once

    def register(self, service: str = "s", **changes: Any) -> int:
        settings = {
            "max_concurrency": 4,
            "weight": 1,
            "max_attempts": 3,
            "ttl_ms": 3_600_000,
            "sink": True,
            "max_sink_length": 1000,
        } | changes
        number = self.store.register(service, **settings)
        assert number is not None
        self.numbers[service] = number
        self.caps[service] = settings["max_concurrency"]
        self.pulls.discard(service)
        if settings.get("pull"):
            self.pulls.add(service)
        self.holds.pop(service, None)
        if settings.get("hold"):
            self.holds[service] = settings["max_sink_length"]
        return number

    def submit_reply(self, service: str = "s", **changes: Any) -> tuple[str, Any]:
        if service not in self.numbers:
            self.register(service)
        arguments: dict[str, Any] = {
            "number": self.numbers[service],
            "priority_class": 100,
            "deadline_in_ms": 0,
            "max_queue_length": 100_000,
            "meta": '{"path":"","query":"","headers":[]}',
            "body": b"{}",
        } | changes
        request_id = arguments.pop("request_id", None) or ids.new_id(self.numbers[service])
        return request_id, self.store.submit(service, request_id, **arguments)

    def submit(self, service: str = "s", **changes: Any) -> str:
        _, reply = self.submit_reply(service, **changes)
        assert reply[0] == 1, reply
        request_id: str = reply[4].decode()
        return request_id

    def redrive(self, *request_ids: str, service: str = "s", **changes: Any) -> list[tuple[str, str]]:
        arguments: dict[str, Any] = {"max_queue_length": 100_000, "deadline_in_ms": 0} | changes
        pairs = [(request_id, ids.new_id(self.numbers[service])) for request_id in request_ids]
        return self.store.redrive(service, pairs, **arguments)

    def progress(self, work: Leased, progress: str = "", *lines: tuple[str, str]) -> bool:
        """As the target of this attempt, with the token that it was given."""
        return self.store.progress(
            work.service, work.request_id, progress_token(work.token), progress=progress, lines=lines
        )

    def caller(self) -> str:
        return f"test.{next(self._callers)}"

    def start(self, most: int = 1, *, kick_id: str = "", caller: str | None = None) -> list[Leased]:
        return self.store.start(kick_id, most, caller=caller or self.caller(), lease_ms=LEASE_MS)

    def finish(
        self, work: Leased, end: Ended | Requeued | None = SUCCEEDED, most: int = 0, **options: Any
    ) -> tuple[bool, list[Leased]]:
        arguments: dict[str, Any] = {"caller": self.caller(), "nonce": fresh_id(), "lease_ms": LEASE_MS} | options
        return self.store.finish(work, end, most, **arguments)

    def sweep(self) -> Any:
        """A sweep now, whoever swept before."""
        self.raw.delete(keys.SWEEP_LOCK)
        return self.store.sweep(every_ms=1000, process="test")

    def pass_time(self, ms: int) -> None:
        """Move the clock of all scripts. Nothing else may set skew_ms."""
        self.raw.hincrby(keys.SYS, "skew_ms", ms)

    def set_time(self, ms: int) -> None:
        """Make it *ms* o'clock for the next script, however long the steps before took."""
        seconds, micros = self.raw.time()
        self.raw.hset(keys.SYS, "skew_ms", ms - (seconds * 1000 + micros // 1000))

    def state(self, request_id: str, service: str = "s") -> str:
        value: Any = self.raw.hget(keys.record_key(service, request_id), "state")
        return "" if value is None else value.decode()

    def token(self, request_id: str, service: str = "s") -> str | None:
        """Of the lease on it, None while it does not run."""
        value: Any = self.raw.hget(keys.record_key(service, request_id), "token")
        return None if value is None else value.decode()

    def take_kick(self) -> str | None:
        """Pop a message as a Celery worker would, high_priority first; its kick id."""
        import json

        for queue in (keys.QUEUE_HIGH, keys.QUEUE_NORMAL):
            text: Any = self.raw.rpop(queue)
            if text is not None:
                kick_id: str = json.loads(text)["headers"]["id"]
                return kick_id
        return None

    # ------------------------------------------------------------------------------------------------- invariants
    def members(self, service: str, suffix: str) -> dict[str, float]:
        found: Any = self.raw.zrange(keys.service_key(service, suffix), 0, -1, withscores=True)
        return {name.decode(): score for name, score in found}

    def check(self) -> None:
        """Assert every invariant of the engine on what the server holds now."""
        held = Held(self.raw)
        ready_now, high_now = set(held.zset(keys.READY)), set(held.zset(keys.READY_HIGH))
        ready, high = set(), set()
        hooks = HookChecks(held)
        stamps = self.store.moves(self.numbers)
        for service, stamp in zip(self.numbers, stamps, strict=True):

            def members(suffix: str, service: str = service) -> dict[str, float]:
                return held.zset(keys.service_key(service, suffix))

            wait, delay, lease, ghosts = (members(name) for name in ("wait", "delay", "lease", "ghost"))
            assert self.orders.setdefault((service, stamp), list(wait)) == list(wait), (
                f"I14: another place, still {stamp!r}"
            )
            prefix = keys.record_key(service, "")
            states = {}
            for key in held.names(prefix):
                states[key.removeprefix(prefix)] = held.fields(key, "state", "token", "result", "hook")
            for request_id, (state, token, result, _) in states.items():
                assert state is not None, f"{request_id} has no state"
                places = [
                    name for name, ids_ in (("wait", wait), ("delay", delay), ("lease", lease)) if request_id in ids_
                ]
                expected = {b"queued": (["wait"], ["delay"]), b"running": (["lease"],)}.get(state, ([],))
                assert places in expected, f"I1: {request_id} is {state!r} and in {places}"
                assert (token is not None) == (state == b"running"), (
                    f"I7: {request_id} is {state!r} with token {token!r}"
                )
                if state.decode() in TERMINAL:
                    assert held.pttl_ms(prefix + request_id) >= 500, f"{request_id} has ended and never leaves"
                    assert held.has(keys.celery_result_key(request_id)), f"{request_id}: Celery was not told"
                else:
                    assert held.pttl_ms(prefix + request_id) == -1, f"{request_id} is alive and would leave"
                    assert result is None
            for name, found in (("wait", wait), ("delay", delay), ("lease", lease)):
                assert set(found) <= set(states), f"{name} holds requests without a record"
            assert set(members("run")) == set(lease), "the runs that the ETA counts are the leases"
            deadlines = members("dl")
            assert set(deadlines) <= set(wait) | set(delay), "a deadline outlives the waiting it bounds"
            paused = held.fields(keys.service_key(service, "cfg"), "paused") == [b"1"]
            sink = len(members("sink"))
            room = service not in self.holds or sink + len(lease) < self.holds[service]
            if (
                wait
                and not paused
                and room
                and service not in self.pulls
                and len(lease) + len(ghosts) < self.caps[service]
            ):
                ready.add(service)
                if min(wait.values()) < 155 * 2**44:
                    high.add(service)
            soonest = [min(found.values()) for found in (lease, delay, deadlines, ghosts) if found]
            if soonest:
                due = held.zset(keys.DUE).get(service)
                assert due is not None, f"{service} is due some time, and the sweep would never look"
                assert due <= min(soonest), f"{service}: the sweep would look too late"
            check_queues(held, service, states, lease)
            hooks.check(service, states)
        assert ready_now == ready, f"I3: ready is {ready_now}, startable are {ready}"
        assert high_now == high, f"I3: ready:high is {high_now}, should be {high}"
        kicks = len(held.zset(keys.KICKS))
        assert not ready or kicks >= 1, "I4: work is ready and nobody was told"
        assert kicks <= KICKS_MAX, "I5"

    def check_keys(self) -> None:
        """Every key is one that keys.py names, and has a TTL or is on the list of those that may stay."""
        stay = {keys.SYS, keys.SERVICES, keys.NUMBERS, keys.READY, keys.READY_HIGH, keys.KICKS, keys.DUE, keys.ALIVE}
        stay |= {keys.QUEUE_NORMAL, keys.QUEUE_HIGH, keys.WATCHERS, keys.QUEUE_HOOKS, keys.HOOKS, keys.HOOKS_FAILING}
        for service in self.numbers:
            stay |= {keys.service_key(service, suffix) for suffix in keys.SERVICE_SUFFIXES}
        records = tuple(keys.record_key(service, "") for service in self.numbers)
        logs = {keys.log_key(service, ""): keys.record_key(service, "") for service in self.numbers}
        idempotency = {keys.idempotency_key(service, ""): keys.record_key(service, "") for service in self.numbers}
        queues = tuple(keys.PREFIX + "{" + service + "}:" + keys.QUEUE_SUFFIX for service in self.numbers)
        held = Held(self.raw)
        for name in held.names():
            # queue_checks.py and hook_checks.py know their reasons to die
            if name.startswith((*queues, keys.WATCHES_PREFIX, keys.HOOKS_DUE_PREFIX, keys.HOOKS_OUT_PREFIX)):
                continue
            if name in stay or held.pttl_ms(name) != -1:
                continue
            for prefix, record_prefix in logs.items():  # these live as long as their record
                if name.startswith(prefix):
                    name = record_prefix + name.removeprefix(prefix)
            for prefix, record_prefix in idempotency.items():
                if name.startswith(prefix):
                    name = record_prefix + held.string(name).partition(" ")[0]
            assert name.startswith(records), f"{name} has no TTL and is not on the list"
            assert held.fields(name, "state")[0] in (b"queued", b"running"), f"{name} has ended and has no TTL"
