"""What holds requests back though everything runs: pauses, full sinks, dead letters that nobody has looked after."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import redis

from eas_queue.doctor.result import Result, ok, warn
from eas_queue.store import keys, scripts
from eas_queue.store.client import Client
from eas_queue.store.shapes import Overview

NAMED_MOST = 10  # services in the report, per finding


def check(url: str) -> Iterator[Result]:
    """Plain reads: looking at a queue changes nothing in it."""
    client = Client(url, command_timeout_s=2)
    try:
        raw: Any = client.redis
        found = {name.decode(): _look(raw, name.decode()) for name in raw.hkeys(keys.SERVICES)}
    except (redis.RedisError, OSError) as exc:
        yield warn("services", f"could not be looked at: {exc}", "mend the connection to Redis, then run this again")
        return
    finally:
        client.close()
    waiting = {name: each.startable + each.delayed for name, each in found.items()}
    paused = {name: waiting[name] for name, each in found.items() if each.paused}
    held = {name: waiting[name] for name, each in found.items() if each.held and each.startable}
    rear = {name: each.rear for name, each in found.items() if each.rear}
    if paused:
        yield warn(
            "paused",
            f"{_named(paused, 'waiting')}: accepted, and not started",
            "POST /api/services/<service>/resume ends a pause",
        )
    if held:
        yield warn(
            "held",
            f"{_named(held, 'waiting')}: the sink is full and sink_full is hold, so nothing starts",
            "read, commit or truncate its items (they leave RESULT_TTL_S after their end); or raise max_sink_length, "
            "or choose evict, then SIGHUP",
        )
    if rear:
        yield warn(
            "dead letters",
            f"{_named(rear, 'dead')}: their attempts are used up",
            "GET /api/services/<service>/rear says why; POST .../rear/redrive sends them again, .../discard drops them",
        )
    if not paused and not held and not rear:
        yield ok("queues", "none paused, none held, no dead letters")


def _look(raw: Any, name: str) -> Overview:
    # The script by its text: loading all of them is what a program does that goes on to write.
    reply = raw.eval(scripts.source("overview"), 0, name)
    return Overview.of(reply) if reply else Overview.empty()


def _named(services: dict[str, int], what: str) -> str:
    names = sorted(services, key=lambda name: -services[name])
    more = f" and {len(names) - NAMED_MOST} more" if len(names) > NAMED_MOST else ""
    return ", ".join(f"{name} ({services[name]} {what})" for name in names[:NAMED_MOST]) + more
