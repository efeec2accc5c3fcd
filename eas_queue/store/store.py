"""The state: one method per transition, each one script and one round trip; plus the plain reads.

Shapes go in and out, rules stay in the scripts and promises are written on :class:`eas_queue.engine.engine.Engine`.
All times are integer milliseconds of Redis' clock.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from eas_queue.store import client, keys, scripts

LOOK_FIELDS = (
    "state",
    "index",
    "class",
    "attempt",
    "submitted_ms",
    "started_ms",
    "finished_ms",
    "deadline_ms",
    "not_before_ms",
    "status_code",
    "headers",
    "from_target",
    "result_bytes",
    "error_type",
    "error",
    "sink_index",
)
SWEEP_ITEMS_MAX = 500


class Leased(NamedTuple):
    """One request as a claim hands it out. ``deadline_ms`` is 0 where there is none."""

    service: str
    request_id: str
    token: str
    attempt: int
    meta: bytes
    body: bytes
    submitted_ms: int
    deadline_ms: int
    started_ms: int


class Ended(NamedTuple):
    """The end of an attempt that is the end of its request."""

    state: str
    status_code: int
    headers: str
    body: bytes
    from_target: bool
    error_type: str
    error: str
    celery_result: str
    dead_letter: bool


class Requeued(NamedTuple):
    """The end of an attempt after which the request waits again. ``counted``: the attempt is used up."""

    counted: bool
    delay_ms: int
    error_type: str
    error: str


class Swept(NamedTuple):
    """What a sweep did; all 0 when it was not this caller's turn."""

    unreported: list[tuple[str, str, str]]  # (service, request id, state): ends that no worker saw
    was_our_turn: bool = False
    services: int = 0
    lapsed: int = 0
    retried: int = 0
    expired: int = 0
    forgotten_kicks: int = 0


def fresh_id() -> str:
    """An id for one call or one kick."""
    return str(uuid.uuid4())


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _leased(rows: Iterable[Sequence[Any]]) -> list[Leased]:
    return [
        Leased(_text(row[0]), _text(row[1]), _text(row[2]), int(row[3]), row[4], row[5], *map(int, row[6:]))
        for row in rows
    ]


class Store:
    """All that is kept. Raises StoreUnavailable from every method, StoreFull from register and submit."""

    def __init__(self, connection: client.Client) -> None:
        self.client = connection
        self.scripts = scripts.Scripts(connection)

    # ---------------------------------------------------------------------------------------------- transitions
    def register(
        self,
        service: str,
        *,
        max_concurrency: int,
        weight: float,
        max_attempts: int,
        ttl_ms: int,
        sink: bool,
        max_sink_length: int,
    ) -> int | None:
        """The number of *service* in request ids, None when all 65,535 are taken."""
        number = self.scripts.call(
            "register", service, fresh_id(), max_concurrency, weight, max_attempts, ttl_ms, int(sink), max_sink_length
        )
        return int(number) if number > 0 else None

    def submit(
        self,
        service: str,
        request_id: str,
        *,
        number: int,
        priority_class: int,
        deadline_in_ms: int,
        max_queue_length: int,
        meta: str,
        body: bytes,
    ) -> tuple[int, ...] | list[Any]:
        """Raw reply of submit.lua."""
        reply: list[Any] = self.scripts.call(
            "submit", service, request_id, number, priority_class, deadline_in_ms, max_queue_length, meta, body
        )
        return reply

    def start(self, kick_id: str, most: int, *, caller: str, lease_ms: int) -> list[Leased]:
        return _leased(self.scripts.call("start", kick_id, most, caller, fresh_id(), lease_ms))

    def finish(
        self,
        work: Leased,
        end: Ended | Requeued | None,
        most: int,
        *,
        caller: str,
        nonce: str,
        lease_ms: int,
    ) -> tuple[bool, list[Leased]]:
        """(taken, further work). *end* None: the lease is known to be lost; only its slot is cleaned."""
        outcome: tuple[Any, ...]
        if end is None:
            outcome, rest = ("release",), (0, "", "")
        elif isinstance(end, Requeued):
            outcome = ("retry" if end.counted else "release",)
            rest = (end.delay_ms, end.error_type, end.error)
        else:
            outcome = (end.state,)
            rest = (
                end.status_code,
                end.headers,
                end.body,
                int(end.from_target),
                end.error_type,
                end.error,
                end.celery_result,
                int(end.dead_letter),
            )  # type: ignore[assignment]
        taken, rows = self.scripts.call(
            "finish", work.service, work.request_id, work.token, *outcome, most, caller, nonce, lease_ms, *rest
        )
        return bool(taken), _leased(rows)

    def renew(self, leases: Iterable[tuple[str, str, str]], *, lease_ms: int) -> list[tuple[str, str]]:
        """*leases*: (service, request id, token); returns (request id, token) of those that are lost."""
        flat = [part for lease in leases for part in lease]
        return [(_text(row[0]), _text(row[1])) for row in self.scripts.call("renew", lease_ms, *flat)]

    def cancel(self, service: str, request_id: str) -> str:
        """The state it was in, '' when unknown."""
        return _text(self.scripts.call("cancel", service, request_id, fresh_id()))

    def pause(self, service: str, paused: bool) -> bool | None:
        """Whether that changed something; None when the service is not registered."""
        reply = self.scripts.call("pause", service, int(paused), fresh_id())
        return None if reply < 0 else bool(reply)

    def sweep(self, *, every_ms: int, report_most: int = 0) -> Swept:
        """At most one process sweeps in *every_ms*. *report_most*: how many unseen ends the caller will report."""
        rows, *counts = self.scripts.call("sweep", every_ms, fresh_id(), SWEEP_ITEMS_MAX, report_most)
        ends = [_text(row).split(" ") for row in rows]
        return Swept([(end[0], end[1], end[2]) for end in ends], bool(counts), *map(int, counts))

    # ----------------------------------------------------------------------------------------------------- reads
    def look(self, service: str, request_id: str) -> tuple[int, int, dict[str, str]] | None:
        """(position or -1, depth, the LOOK_FIELDS that are set); None when unknown."""
        reply = self.scripts.call("look", service, request_id, *LOOK_FIELDS)
        if not reply:
            return None
        fields = {name: _text(value) for name, value in zip(LOOK_FIELDS, reply[2:], strict=False) if value is not None}
        return int(reply[0]), int(reply[1]), fields

    def result_body(self, service: str, request_id: str) -> bytes | None:
        """The kept answer, None when there is none."""
        body: bytes | None = scripts.guard(self.client.redis.hget, keys.record_key(service, request_id), "result")
        return body

    def service_of_number(self, number: int) -> str | None:
        name: bytes | None = scripts.guard(self.client.redis.hget, keys.NUMBERS, str(number))
        return None if name is None else name.decode()

    def ping(self) -> None:
        """Raises StoreUnavailable when Redis is away."""
        scripts.guard(self.client.redis.ping)
