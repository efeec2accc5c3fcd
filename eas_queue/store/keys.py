"""Every Redis key of this project, with its type and its reason to die. No other module spells a key.

Keys of one service share the hash tag ``{service}``, so that services can be spread over servers later.
``lua_names()`` gives the same names to the Lua scripts.
"""

from __future__ import annotations

LAYOUT = 2  # raise it when a key changes its meaning; epoch.lua refuses to work on another layout

PREFIX = "eas:"

# --- one per server ----------------------------------------------------------------------------------------
SYS = PREFIX + "sys"  # HASH   layout, run_id, skew_ms (tests only), vt, claims, turns, clones, swept_ms  permanent
SERVICES = PREFIX + "services"  # HASH   service name -> its number in request ids          permanent
NUMBERS = PREFIX + "services:numbers"  # HASH   number -> service name                      permanent
READY = PREFIX + "ready"  # ZSET   service -> virtual time; services that can start work    member leaves when idle
READY_HIGH = PREFIX + "ready:high"  # ZSET   those whose next request has high priority     member leaves when idle
KICKS = PREFIX + "kicks"  # ZSET   kick id -> issued at, ms; messages believed outstanding  start.lua, sweep.lua
DUE = PREFIX + "due"  # ZSET   service -> next moment, ms, at which something in it lapses  sweep.lua
ALIVE = PREFIX + "alive"  # HASH   process -> "seen at, ms" and what it is, JSON              fields: 60 s, sweep.lua
UNREPORTED = PREFIX + "unreported"  # LIST   "service id state" of ends no worker saw, for Flower     bounded; TTL 1 h
# Webhooks stand per receiver, "scheme://host:port", as "service id".
HOOKS = PREFIX + "hooks"  # ZSET   receiver -> when it has something to be sent, ms           member: nothing due or out
HOOKS_DUE_PREFIX = PREFIX + "hooks:due:"  # ZSET   per receiver: delivery -> due, ms          taken, or hook_take, sweep
HOOKS_OUT_PREFIX = PREFIX + "hooks:out:"  # ZSET   per receiver: delivery -> lease end, ms    done or lapsed
HOOKS_FAILING = PREFIX + "hooks:failing"  # SET    receivers whose last answer was no success   as in hooks
WATCHERS = PREFIX + "watchers"  # ZSET   process -> end of its lease, ms; processes with consumers  member: when lapsed
WATCHES_PREFIX = PREFIX + "watches:"  # SET    per such process: "service queue consumer"     leave.lua, sweep.lua
SWEEP_LOCK = PREFIX + "sweep"  # STRING one sweeper at a time                               TTL = SWEEP_S

# Celery's own names: the broker lists of `-Q celery,high_priority` and `-Q webhooks`, and the result backend's keys.
QUEUE_NORMAL = "celery"  # LIST   consumed by Celery workers
QUEUE_HIGH = "high_priority"  # LIST   consumed by Celery workers
QUEUE_HOOKS = "webhooks"  # LIST   consumed by the worker that delivers webhooks; one message at most
CELERY_RESULT_PREFIX = "celery-task-meta-"  # STRING + channel, per request                 TTL = result_ttl_s

# --- one per service: eas:{service}:<suffix> ------------------------------------------------------------------
SERVICE_SUFFIXES = (
    "wait",  # ZSET   id -> class and index; waiting and startable now                      leaves at start or end
    "delay",  # ZSET   id -> not before, ms; retries                                        leaves when due or at end
    "lease",  # ZSET   id -> lease end, ms; running; ZCARD = slots in use                   leaves at end or lapse
    "run",  # ZSET   id -> started at, ms; the members of lease                             as lease
    "ghost",  # ZSET   id/token -> end, ms; cancelled calls whose connection still closes   10 s, sweep.lua
    "dl",  # ZSET   id -> queue deadline, ms; only requests that have one                   leaves at start or end
    "cfg",  # HASH   number and limits as registered, paused, vtime, pulled, run_ms, run_n; where    permanent
    #                consumers pull, by lane (0, 1: high): put, taken, done, sole (last one of a sequential take)
    "seq",  # HASH   queue -> the last index given                                          permanent
    # The four queues: ZSETs of item -> index. An item is the id of a request, or "i.." for one that a client put there.
    "input",  # requests that wait or run, and ended ones that a tap still reads           leaves at end; sweep.lua
    "sink",  # requests that have ended, and what was put                                   bounded; sweep.lua
    "rear",  # dead letters of the input                                                    bounded; sweep.lua
    "sink_rear",  # what consumers of the sink were given too often                         bounded; sweep.lua
    "kept",  # ZSET   id -> end of its record, ms; ended requests still in input            sweep.lua
    "hooks",  # ZSET   id -> index; webhooks of ended requests, whatever became of them     with its record, sweep.lua
    "hooks_failed",  # ZSET   id -> the same index; those given up                           resent, or as hooks
)
OWN_SUFFIX = "i:"  # HASH   eas:{service}:i:<item>, what a client put into a queue itself     TTL result_ttl_s
# Of one queue, eas:{service}:q:<queue>:<suffix>; they die with their items, groups and consumers (sweep.lua).
QUEUE_SUFFIX = "q:"
PRIO_SUFFIX = "prio"  # ZSET   item -> class and index; only classes other than normal
NAMED_SUFFIX = "named"  # ZSET   "requestId NUL index NUL item", by name; only ids that clients chose
NAMES_SUFFIX = "names"  # HASH   item -> requestId; the same the other way round
GROUPS_SUFFIX = "groups"  # ZSET   group -> inf: consumers are there; ms: left; -ms: no longer waited for
CONSUMERS_SUFFIX = "consumers"  # ZSET   consumer -> inf: is there; ms: left
# Of one group of a queue, eas:{service}:q:<queue>:g:<group>:<suffix>; TTL result_ttl_s when no consumer is there.
GROUP_SUFFIX = "g:"
AT_SUFFIX = "at"  # HASH   start, c<class>: read up to this index; filter; last
HELD_SUFFIX = "held"  # HASH   item -> "deliveries consumer code reason" until it is committed
BACK_SUFFIX = "back"  # ZSET   item -> class and index; held, but by nobody now
AHEAD_SUFFIX = "ahead"  # ZSET   item -> index; committed though the group has not read so far
# Of one consumer of a queue, "<group>/<user>".
CONSUMER_SUFFIX = "c:"  # HASH   token, process, what it asked for                            TTL 1 h after it left
WINDOW_SUFFIX = "w:"  # ZSET   item -> class and index: delivered to it, not committed      emptied when it leaves
RECORD_SUFFIX = "r:"  # HASH   eas:{service}:r:<id>, the request record               TTL result_ttl_s after its end
# Both live as long as the record: without TTL until the request ends, then result_ttl_s.
LOG_SUFFIX = "log:"  # LIST   eas:{service}:log:<id>, "event ms level message" per line      bounded; with its record
IDEMPOTENCY_SUFFIX = "idem:"  # STRING eas:{service}:idem:<digest> -> "id fingerprint"       with its record

HOOK_SUFFIX = "hook:"  # HASH   eas:{service}:hook:<id>, the delivery of its webhook     with its record; TTL 1 h later

RATE_PREFIX = PREFIX + "rate:"  # STRING per token: when its bucket is full again, ms        TTL: until then
TURN_PREFIX = PREFIX + "turn:"  # STRING per taker's token and lanes: the lane whose turn it is    TTL 1 day
CALL_PREFIX = PREFIX + "call:"  # STRING per calling seat: its last nonce and what it was given    TTL 120 s

# --- channels -------------------------------------------------------------------------------------------------
CANCEL_CHANNEL = PREFIX + "cancel"  # "<id> <token>": holders close this attempt's connection
NOTE_PREFIX = PREFIX + "note:"  # eas:note:<id>: the request changed, look again
QUEUE_NOTE_PREFIX = NOTE_PREFIX + "q:"  # eas:note:q:<service>:<queue>: "put <requestId>", "room <group or consumer>"
KNOCK_CHANNEL = NOTE_PREFIX + "knock"  # "<service> <queue> <consumer>": its double asks whether it is still there


def service_key(service: str, suffix: str) -> str:
    """Key of one of SERVICE_SUFFIXES of *service*."""
    if suffix not in SERVICE_SUFFIXES:
        raise KeyError(suffix)
    return f"{PREFIX}{{{service}}}:{suffix}"


def record_key(service: str, request_id: str) -> str:
    return f"{PREFIX}{{{service}}}:{RECORD_SUFFIX}{request_id}"


def log_key(service: str, request_id: str) -> str:
    return f"{PREFIX}{{{service}}}:{LOG_SUFFIX}{request_id}"


def idempotency_key(service: str, digest: str) -> str:
    return f"{PREFIX}{{{service}}}:{IDEMPOTENCY_SUFFIX}{digest}"


def hook_key(service: str, request_id: str) -> str:
    return f"{PREFIX}{{{service}}}:{HOOK_SUFFIX}{request_id}"


def note_channel(topic: str) -> str:
    """*topic*: a request's id, or what queue_topic makes."""
    return NOTE_PREFIX + topic


KNOCK_TOPIC = "knock"  # behind NOTE_PREFIX, too


def queue_topic(service: str, queue: str) -> str:
    """What stands behind NOTE_PREFIX in the channel of a queue."""
    return f"q:{service}:{queue}"


def celery_result_key(request_id: str) -> str:
    return CELERY_RESULT_PREFIX + request_id


def lua_names() -> str:
    """Lua text that defines the names above as locals of the same spelling, plus ``service_keys(name)``."""
    plain = {
        name: value
        for name, value in globals().items()
        if name.isupper() and isinstance(value, (str, int)) and not name.startswith("_")
    }
    lines = [f"local {name} = {value!r}" for name, value in sorted(plain.items())]
    # Most scripts need few of a service's keys, so that they are made when they are asked for.
    special = {"records": RECORD_SUFFIX, "logs": LOG_SUFFIX, "idempotency": IDEMPOTENCY_SUFFIX}
    special |= {"own": OWN_SUFFIX, "hook": HOOK_SUFFIX}
    given = ", ".join(f"{name} = {suffix!r}" for name, suffix in special.items())
    lines.append(
        f"local SUFFIXES = {{ {given} }} -- all others are called like their field\n"
        "local function service_keys(name)\n"
        "  local base = PREFIX .. '{' .. name .. '}:'\n"
        "  return setmetatable({ name = name, base = base }, { __index = function(_, field)\n"
        "    return base .. (SUFFIXES[field] or field)\n"
        "  end })\n"
        "end"
    )
    return "\n".join(lines)
