"""Is the Redis-protocol server there, is it one that can carry the queue, and does it take writes?

Nothing is changed on it: the one write is the deletion of a key that never exists, which a server that refuses writes
refuses just the same.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import redis

from eas_queue.doctor import disk
from eas_queue.doctor.result import Result, fail, ok, warn
from eas_queue.store import keys
from eas_queue.store.client import Client

COMMAND_TIMEOUT_S = 2.0
ROUND_TRIPS = 5
SLOW_MS = 20.0  # a submit makes a round trip or two, a request some five in its life
OLDEST = (7, 0)
CLOCKS_APART_MS = 2_000
PROBE_KEY = keys.PREFIX + "doctor"


@dataclass
class Facts:
    """What the server says of itself. ``config`` holds only what it lets us see."""

    answer_ms: float = 0.0
    clock_ahead_ms: float = 0.0
    info: dict[str, Any] = field(default_factory=dict)
    config: dict[str, str] = field(default_factory=dict)
    sys: dict[str, str] = field(default_factory=dict)
    refusal: str = ""  # of a script that writes; "": none


def place(url: str) -> str:
    """Host, port and database of a Redis URL, without its password. Raises ValueError."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or "localhost"
    return f"{host}:{parts.port or 6379}/{parts.path.strip('/') or 0}"


def check(url: str, *, source: str, advice: str) -> Iterator[Result]:
    """The first result tells whether the server can be talked to; without that there are no others.

    *source*: the setting or file that names the server; *advice*: what to do when nobody is there.
    """
    try:
        at = place(url)
        client = Client(url, command_timeout_s=COMMAND_TIMEOUT_S)
    except ValueError:  # its text could quote the password
        yield fail("redis", f"{source} is not a Redis URL", "write redis://:PASSWORD@HOST:PORT/0 there")
        return
    try:
        facts = collect(client.redis)
    except (redis.RedisError, OSError) as exc:
        if url.startswith("rediss:"):
            advice += "; rediss:// is for servers that speak TLS, redis:// for the others"
        yield unreachable(exc, at, source, advice)
        return
    finally:
        client.close()
    yield reached(facts, at)
    for judge in (version, role, cluster, layout, writes, disk.eviction, disk.memory, disk.durability, disk.saved):
        yield judge(facts)
    yield idle(facts)
    yield clock(facts)


def collect(client: redis.Redis) -> Facts:
    """Ask for everything at once. Raises RedisError when the server can't be talked to."""
    raw: Any = client  # redis-py types every reply as three things at once
    facts = Facts()
    raw.echo("")  # not PING: a server that can't save refuses that too, and why is told further down
    times = []
    for _ in range(ROUND_TRIPS):
        began_s = time.monotonic()
        raw.echo("")
        times.append(time.monotonic() - began_s)
    facts.answer_ms = statistics.median(times) * 1000
    facts.info = raw.info()
    seconds, micros = raw.time()
    facts.clock_ahead_ms = seconds * 1000 + micros / 1000 - time.time() * 1000
    for name in ("appendfsync", "save", "timeout"):
        try:
            facts.config |= raw.config_get(name)
        except redis.ResponseError:
            break  # managed servers forbid CONFIG
    try:
        facts.sys = {name.decode(): value.decode() for name, value in raw.hgetall(keys.SYS).items()}
        raw.eval("return redis.call('DEL', ARGV[1])", 0, PROBE_KEY)
    except redis.TimeoutError:
        raise
    except redis.RedisError as exc:  # some refusals have classes of their own that are no ResponseError
        facts.refusal = str(exc)
    return facts


def unreachable(exc: Exception, at: str, source: str, advice: str) -> Result:
    said = str(exc)
    if isinstance(exc, redis.AuthenticationError) or said.startswith(("NOAUTH", "WRONGPASS")):
        return fail("redis", f"{at} refuses the password: {said}", f"correct user and password in {source}")
    if isinstance(exc, redis.BusyLoadingError):
        return fail("redis", f"{at} is still loading its data", "wait for it; clients get 503 until then")
    if isinstance(exc, redis.TimeoutError):
        return fail(
            "redis",
            f"{at} does not answer within {COMMAND_TIMEOUT_S:g} s: {said}",
            f"{advice}; a firewall on the way, a stopped process or a long-running command looks like this too",
        )
    if isinstance(exc, redis.ResponseError):
        return fail(
            "redis",
            f"{at} refuses to answer: {said}",
            f"give the user in {source} the commands of the queue: ACL SETUSER NAME ~* &* +@all",
        )
    return fail("redis", f"{at} can't be reached: {said}", advice)


def reached(facts: Facts, at: str) -> Result:
    fact = f"{at} answers in {facts.answer_ms:.1f} ms"
    if facts.answer_ms > SLOW_MS:
        return warn("redis", f"{fact}, which slows every request down", "run web and workers nearer to the server")
    return ok("redis", fact)


def version(facts: Facts) -> Result:
    compatible = str(facts.info.get("redis_version", "0"))
    own = facts.info.get("valkey_version")
    fact = f"Valkey {own} (Redis {compatible} in features)" if own else f"Redis {compatible}"
    numbers = tuple(int(part) for part in compatible.split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        return fail("version", f"{fact} is too old", "install Redis 7.0 or later, or Valkey")
    return ok("version", fact)


def role(facts: Facts) -> Result:
    if facts.info.get("role") in ("slave", "replica"):
        primary = f"{facts.info.get('master_host')}:{facts.info.get('master_port')}"
        return fail(
            "role",
            f"this server is a replica of {primary}; nothing can be stored on it",
            f"let REDIS_URL name the primary, {primary}; where that is gone for good, make this one the primary: "
            "REPLICAOF NO ONE",
        )
    replicas = facts.info.get("connected_slaves", 0)
    return ok("role", f"primary, {replicas} replica{'' if replicas == 1 else 's'}")


def cluster(facts: Facts) -> Result:
    if facts.info.get("cluster_enabled"):
        return fail(
            "cluster",
            "cluster mode is on, and the queue's scripts use keys of several slots",
            "use a server with cluster-enabled no",
        )
    return ok("cluster", "off")


def layout(facts: Facts) -> Result:
    kept = facts.sys.get("layout")
    if kept is None:
        return ok("data", "none of this queue yet in this database")
    if kept != str(keys.LAYOUT):
        return fail(
            "data",
            f"written with key layout {kept}; this version writes {keys.LAYOUT} and will not touch it",
            "run the version that wrote it, or let REDIS_URL name an empty database (another number at its end)",
        )
    return ok("data", f"key layout {kept}, as this version writes it")


def writes(facts: Facts) -> Result:
    """Whether a script may write now, with the server's own reason where it may not."""
    said = facts.refusal
    if not said:
        return ok("writes", "a script may write")
    fact = f"refused: {said.removeprefix('-')[:160]}"
    if "MISCONF" in said:
        return fail(
            "writes",
            fact,
            "the server can't save to its disk: free space there or mend the folder that its log names; "
            "writes go on by themselves after the next save that works (BGSAVE)",
        )
    if "NOREPLICAS" in said:
        return fail("writes", fact, "bring the replicas back, or lower min-replicas-to-write on the server")
    if any(words in said for words in ("read only replica", "READONLY", "MASTERDOWN")):
        return fail("writes", fact, "let REDIS_URL name the primary")
    if "NOPERM" in said:
        return fail("writes", fact, "give the user all keys, channels and scripts: ACL SETUSER NAME ~* &* +@all")
    return fail("writes", fact, "see the server's log; until it takes writes, every submit gets 503")


def idle(facts: Facts) -> Result:
    timeout_s = facts.config.get("timeout")
    if timeout_s is None:
        return warn(
            "idle clients",
            "not known: the server does not let CONFIG be read",
            "see in its settings that idle connections are not closed (timeout 0)",
        )
    if timeout_s != "0":
        return warn(
            "idle clients",
            f"their connections are closed after {timeout_s} s, so that calls fail and are repeated for no reason",
            "CONFIG SET timeout 0, and the same in the server's configuration file",
        )
    return ok("idle clients", "stay connected")


def clock(facts: Facts) -> Result:
    apart_ms, skew_ms = facts.clock_ahead_ms, int(facts.sys.get("skew_ms", 0))
    if skew_ms:
        return warn(
            "clock",
            f"the queue's clock is shifted by {skew_ms} ms from the server's, which only tests do",
            f"HDEL {keys.SYS} skew_ms; leases and deadlines then move by as much, once",
        )
    if abs(apart_ms) > CLOCKS_APART_MS:
        return warn(
            "clock",
            f"the server is {abs(apart_ms) / 1000:.1f} s {'ahead of' if apart_ms > 0 else 'behind'} this host; "
            "only dates in logs are affected, the queue counts by the server's clock",
            "let both hosts keep time (timedatectl set-ntp true)",
        )
    return ok("clock", f"{abs(apart_ms):.0f} ms between the server and this host")
