"""The state: one method per transition, each one script and one round trip; plus the plain reads.

Shapes go in and out, rules stay in the scripts and promises are written on :class:`eas_queue.engine.engine.Engine`.
All times are integer milliseconds of Redis' clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from eas_queue.store import client, keys, scripts
from eas_queue.store.hooks import Hooks
from eas_queue.store.queues import Queues
from eas_queue.store.shapes import Alive, Ended, Leased, Letter, LogLine, Overview, Place, Requeued, Seen, Swept, text
from eas_queue.store.shapes import fresh_id as fresh_id
from eas_queue.store.takes import Takes

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
    "events",
    "progress",
    "log_n",
    "redriven_as",
    "own_deadline",
    "about",
)
LOOK_BODY_MOST = 65_536  # an answer that is shown with the status comes with the look
LETTER_FIELDS = ("finished_ms", "attempt", "status_code", "error_type", "error", "class")
SWEEP_ITEMS_MAX = 1000  # some 30 ms of the server
LOG_LINES_KEPT = 500  # per request; earlier ones are dropped
LOG_BYTES_KEPT = 1_048_576
STREAM_LINES_KEPT, STREAM_BYTES_KEPT = 10_000, 16_777_216  # where each of them is to be read


def _leased(rows: Iterable[Sequence[Any]]) -> list[Leased]:
    return [
        Leased(text(row[0]), text(row[1]), text(row[2]), int(row[3]), row[4], row[5], *map(int, row[6:]))
        for row in rows
    ]


class Store:
    """All that is kept. Raises StoreUnavailable from every method, StoreFull from register and submit."""

    def __init__(self, connection: client.Client) -> None:
        self.client = connection
        self.scripts = scripts.Scripts(connection)
        self.queues = Queues(self.scripts)
        self.hooks = Hooks(self.scripts)
        self.takes = Takes(self.scripts)

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
        hold: bool = False,
        pull: bool = False,
        listed: bool = True,
    ) -> int | None:
        """The number of *service* in request ids, None when all 65,535 are taken. *listed*: the settings name it, and
        go before what a client has enrolled it as."""
        number = self.scripts.call(
            "register",
            service,
            fresh_id(),
            max_concurrency,
            weight,
            max_attempts,
            ttl_ms,
            int(sink),
            max_sink_length,
            int(hold),
            int(pull),
            int(listed),
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
        idempotency: tuple[str, str] = ("", ""),
        rate: tuple[str, float, int] = ("", 0, 0),
        tags: str = "&",
        name: str = "",
        only_pull: bool = False,
        own: Sequence[tuple[str, str]] = (),
    ) -> list[Any]:
        """Raw reply of submit.lua. *idempotency*: digest of the key, fingerprint; *rate*: whose, interval ms, burst;
        *tags*: packed; *name*: the requestId that the client chose; *only_pull*: not where requests are forwarded;
        *own*: further fields of the record."""
        reply: list[Any] = self.scripts.call(
            "submit",
            service,
            request_id,
            number,
            priority_class,
            deadline_in_ms,
            max_queue_length,
            meta,
            body,
            *idempotency,
            *rate,
            tags,
            name,
            int(only_pull),
            *[part for field in own for part in field],
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
        return [(text(row[0]), text(row[1])) for row in self.scripts.call("renew", lease_ms, *flat)]

    def cancel(self, service: str, request_id: str) -> str:
        """The state it was in, '' when unknown."""
        return text(self.scripts.call("cancel", service, request_id, fresh_id()))

    def pause(self, service: str, paused: bool) -> bool | None:
        """Whether that changed something; None when the service is not registered."""
        reply = self.scripts.call("pause", service, int(paused), fresh_id())
        return None if reply < 0 else bool(reply)

    def sweep(self, *, every_ms: int, process: str, about: str = "{}", report_most: int = 0) -> Swept:
        """At most one process sweeps in *every_ms*. *report_most*: how many unseen ends the caller will report.
        *process*, *about*: the caller's name and what it says of itself, for ``alive``."""
        rows, *counts = self.scripts.call("sweep", every_ms, fresh_id(), SWEEP_ITEMS_MAX, report_most, process, about)
        ends = [text(row).split(" ") for row in rows]
        found = Swept([(end[0], end[1], end[2]) for end in ends])
        if not counts:
            return found
        *counts, more_is_due = map(int, counts)
        return Swept._make([found.unreported, True, *counts, bool(more_is_due)])

    def progress(
        self,
        service: str,
        request_id: str,
        token: str,
        *,
        progress: str,
        lines: Iterable[tuple[str, str]],
        taker: str = "",
        is_stream: bool = False,
    ) -> bool:
        """Whether the attempt with this progress token runs; without a token, whether *taker* holds it, '' anybody.
        *progress*: JSON or ''; *lines*: (level, message); *is_stream*: STREAM_.. of them are kept."""
        flat = [part for line in lines for part in line]
        limits = (STREAM_LINES_KEPT, STREAM_BYTES_KEPT) if is_stream else (LOG_LINES_KEPT, LOG_BYTES_KEPT)
        return bool(
            self.scripts.call("progress", service, request_id, token, progress, *limits, taker, int(is_stream), *flat)
        )

    def redrive(
        self, service: str, pairs: Iterable[tuple[str, str]], *, max_queue_length: int, deadline_in_ms: int
    ) -> list[tuple[str, str]]:
        """*pairs*: (dead letter's id, id of the new request); new id '' for what is none, '-' if the queue is full,
        '+' for what another call must do."""
        flat = [part for pair in pairs for part in pair]
        rows = self.scripts.call("redrive", service, max_queue_length, deadline_in_ms, fresh_id(), *flat)
        return [(text(row[0]), text(row[1])) for row in rows]

    def discard(self, service: str, request_ids: Iterable[str]) -> list[str]:
        """The ids that were dead letters and are none any more."""
        return [text(found) for found in self.scripts.call("discard", service, *request_ids)]

    def clone(self) -> int:
        """A number for a copy of a client that no other copy was given."""
        return int(self.scripts.call("clone"))

    # ----------------------------------------------------------------------------------------------------- reads
    def look(self, service: str, request_id: str) -> Seen | None:
        """The LOOK_FIELDS that are set, its place, and its answer up to LOOK_BODY_MOST; None when unknown."""
        reply = self.scripts.call("look", service, request_id, LOOK_BODY_MOST, *LOOK_FIELDS)
        if not reply:
            return None
        position, depth, now_ms, running, mean, runs, started, blocked, body, *values = reply
        # the server drops trailing fields that are not set
        fields = {name: text(value) for name, value in zip(LOOK_FIELDS, values, strict=False) if value is not None}
        return Seen(
            position, depth, now_ms, running, float(mean), runs, int(float(started)), bool(blocked), body, fields
        )

    def moves(self, services: Iterable[str]) -> list[bytes]:
        """Per service a stamp, another one whenever a request of it may have another place."""
        stamps: list[bytes] = self.scripts.call("moves", *services)
        return stamps

    def peek(self, service: str, request_ids: Iterable[str]) -> list[tuple[int, Place]]:
        """(changes so far, place) per id; changes -1 where it is unknown."""
        depth, now_ms, running, mean, runs, blocked, rows = self.scripts.call("peek", service, *request_ids)
        mean_ms, is_blocked = float(mean), bool(blocked)
        return [
            (changes, Place(position, depth, now_ms, running, mean_ms, runs, int(float(started)), is_blocked))
            for changes, position, started in rows
        ]

    def logs(
        self,
        service: str,
        request_id: str,
        *,
        after: int = -1,
        upto: int = 2**53,
        most: int = LOG_LINES_KEPT,
        bytes_most: int = LOG_BYTES_KEPT,
    ) -> list[LogLine]:
        """The latest lines that the target logged, of changes *after* to *upto*, oldest first."""
        rows = self.scripts.call("logs", service, request_id, after, upto, most, bytes_most)
        parts = (text(row).split(" ", 3) for row in rows)
        return [LogLine(int(event), int(at_ms), level, message) for event, at_ms, level, message in parts]

    def letters(self, service: str, *, after: int, most: int) -> tuple[int, int, list[Letter]]:
        """How many dead letters there are, the rear index that the page reaches (*after*: there is none behind), and
        the page, oldest first."""
        count, reached, rows = self.scripts.call("rear", service, after, most, *LETTER_FIELDS)
        page = []
        for index, request_id, *values in rows:
            fields = {name: text(v) for name, v in zip(LETTER_FIELDS, values, strict=False) if v is not None}
            page.append(Letter(int(float(index)), text(request_id), fields))
        return int(count), int(float(reached)), page

    def overview(self, service: str) -> Overview | None:
        """None when the service is not registered."""
        reply = self.scripts.call("overview", service)
        if not reply:
            return None
        return Overview.of(reply)

    def alive(self) -> tuple[int | None, list[Alive]]:
        """Age of the last sweep, ms, None before the first; and the processes that were heard of in the last minute."""
        sweep_age, rows = self.scripts.call("alive")
        found = []
        for name, value in zip(rows[::2], rows[1::2], strict=True):
            age, _, about = text(value).partition(" ")
            found.append(Alive(text(name), int(age), about))
        return (None if sweep_age < 0 else int(sweep_age)), found

    def last_index(self, service: str, queue: str) -> int:
        """The last index given in *queue*: input, sink or rear."""
        value: bytes | None = scripts.guard(self.client.redis.hget, keys.service_key(service, "seq"), queue)
        return int(value or 0)

    def result_body(self, service: str, request_id: str) -> bytes | None:
        """The kept answer, None when there is none."""
        body: bytes | None = scripts.guard(self.client.redis.hget, keys.record_key(service, request_id), "result")
        return body

    def answer(self, service: str, request_id: str) -> tuple[bytes | None, bytes | None]:
        """(result, answer_about) of a request, None where there is none."""
        key = keys.record_key(service, request_id)
        body, about = scripts.guard(self.client.redis.hmget, key, ["result", "answer_about"])
        return body, about

    def submitted(self, service: str, request_id: str) -> tuple[bytes | None, bytes | None]:
        """(meta, body) of a request, None for what is not kept any more."""
        key = keys.record_key(service, request_id)
        meta, body = scripts.guard(self.client.redis.hmget, key, ["meta", "body"])
        return meta, body

    def service_of_number(self, number: int) -> str | None:
        name: bytes | None = scripts.guard(self.client.shared.call, "HGET", keys.NUMBERS, str(number))
        return None if name is None else name.decode()
