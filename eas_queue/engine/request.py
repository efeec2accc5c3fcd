"""A request as clients see it, and what a client hands in."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from eas_queue.engine import receivers
from eas_queue.engine.eta import eta_s, waiting_eta_s
from eas_queue.store.shapes import LogLine as LogLine  # part of what the engine hands out
from eas_queue.store.shapes import Place, Seen

NORMAL_CLASS = 100
CLASS_MAX = 255


class State(StrEnum):
    """queued -> running -> one of the four ends; a retry, a lapsed lease or a hand-back goes back to queued."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_terminal(self) -> bool:
        return self not in (State.QUEUED, State.RUNNING)


def priority_class(priority: int) -> int:
    """Class 0..255 of an integer priority: 0 is normal, higher starts first, below 0 starts last."""
    return max(0, min(NORMAL_CLASS + priority, CLASS_MAX))


@dataclass(frozen=True, slots=True)
class Caller:
    """Who submits: *tenant* keeps the idempotency keys of different tokens apart and names whose rate is limited.

    *rate_per_s* 0: not limited. *burst*: how many submits may come at once after a pause.
    """

    tenant: str = ""
    rate_per_s: float = 0
    burst: int = 1


@dataclass(frozen=True, slots=True)
class Retries:
    """How many further attempts may follow a failed one, by what it failed of; None: as the service says.

    *timeout*: no answer in time; *server_error*: an answer after which requests are sent again; *connection_error*: no
    connection, a broken answer, or a lost worker.
    """

    timeout: int | None = None
    server_error: int | None = None
    connection_error: int | None = None


@dataclass(frozen=True, slots=True)
class Webhook:
    """Whom to tell when the request has ended. *style*: whose dialect's form; *about*: what that form needs besides.

    *answers_only*: not of one that was cancelled or has expired.
    """

    url: str
    style: str
    about: Mapping[str, str] = field(default_factory=dict)
    answers_only: bool = False

    def packed(self) -> str:
        """As the record keeps it. Raises InvalidRequest for a URL that names no server."""
        kept: dict[str, Any] = {"to": receivers.receiver(self.url).server, "url": self.url, "style": self.style}
        kept["about"] = self.about
        if self.answers_only:
            kept["answers_only"] = True
        return json.dumps(kept, separators=(",", ":"))

    @classmethod
    def unpacked(cls, text: str) -> Webhook:
        kept = json.loads(text)
        return cls(kept["url"], kept["style"], kept["about"], kept.get("answers_only", False))


@dataclass(frozen=True, slots=True)
class Submission:
    """What is to be sent to the target. *path*: still quoted, no leading slash; *query*: raw; headers in order.

    *deadline_s*: how long it may wait, None as the service says. *idempotency_key*: '' none. *tags*: packed, what those
    who read queues know it by; *name*: the requestId among them, where the client chose one. *retries*: None as the
    service says. *max_queue_length*: it is refused where as many wait; never more than the service's. *brief_s*: it is
    not listed in sink or rear, its body goes at its end, and the rest so much later; None as long as others.
    *webhook*: whom to tell of the end. *answer_by*: the deadline is one for the answer, so that it ends a request that
    a taker has as well. *only_pull*: refused where requests are forwarded. *about*: what its dialect wants to know of
    it later; *key_covers_about*: under a key that was used before, another one makes it another request.
    """

    body: bytes
    path: str = ""
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    priority: int = 0
    deadline_s: float | None = None
    idempotency_key: str = ""
    caller: Caller = Caller()
    tags: str = "&"
    name: str = ""
    retries: Retries | None = None
    max_queue_length: int | None = None
    brief_s: float | None = None
    webhook: Webhook | None = None
    answer_by: bool = False
    only_pull: bool = False
    about: str = ""
    key_covers_about: bool = True

    def meta(self) -> str:
        """All but the body, as the record keeps it."""
        kept: dict[str, Any] = {"path": self.path, "query": self.query, "headers": self.headers}
        if self.retries is not None:
            kept["retries"] = dataclasses.asdict(self.retries)
        return json.dumps(kept, separators=(",", ":"), ensure_ascii=False)

    def own_fields(self) -> list[tuple[str, str]]:
        """What the record keeps because it differs from what holds for the service, or is told to clients."""
        own = []
        if self.deadline_s is not None:
            own.append(("own_deadline", "1"))
        if self.retries is not None and self.retries.connection_error is not None:
            own.append(("attempts_most", str(1 + self.retries.connection_error)))
        if self.brief_s is not None:
            own.append(("brief_ms", str(round(self.brief_s * 1000))))
        if self.webhook is not None:
            own.append(("hook", self.webhook.packed()))
        if self.answer_by:
            own.append(("answer_by", "1"))
        if self.about:
            own.append(("about", self.about))
        return own

    def idempotency(self) -> tuple[str, str]:
        """(digest of the key, fingerprint of what is submitted under it), both '' without a key."""
        if not self.idempotency_key:
            return "", ""
        # the tenant's name is hex, so that the blank ends it
        digest = hashlib.sha256(f"{self.caller.tenant} {self.idempotency_key}".encode()).hexdigest()[:40]
        told = b"" if self.webhook is None else f"{self.webhook.url}\n".encode()
        told += self.about.encode() if self.key_covers_about else b""
        fingerprint = hashlib.sha256(told + f"{self.path}?{self.query}\n".encode() + self.body).hexdigest()[:40]
        return digest, fingerprint

    def rate(self) -> tuple[str, float, int]:
        """(whose, milliseconds between two submits, burst), ('', 0, 0) where nobody's rate is limited."""
        if not self.caller.rate_per_s:
            return "", 0, 0
        return self.caller.tenant, 1000 / self.caller.rate_per_s, self.caller.burst


EVENT = "!event"  # no level of a log line: what a taker says for a reader of its stream


@dataclass(frozen=True, slots=True)
class ProgressNote:
    """What a target says of a request: *progress*, a JSON object as text ('' none), and (level, message) lines.

    *is_stream*: some have the level EVENT, and somebody reads them as they come, so that more are kept from here on.
    """

    progress: str
    lines: tuple[tuple[str, str], ...]
    is_stream: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to a submit. *index* grows by at least one with each request of a service and is never used twice.

    *replayed*: the idempotency key had been used, and this is the request of that time. *submitted_ms*: Redis' clock.
    """

    service: str
    request_id: str
    index: int
    replayed: bool = False
    submitted_ms: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """One look at a request. Times are milliseconds of Redis' clock, None where the moment has not come.

    position: requests of the service that will start before it, None unless it waits now (0: it is next).
    depth: requests of the service that wait, retries included; running: those that run. attempts: deliveries that
    count, so far.
    eta_s: seconds until it is expected to end, None where that can't be told.
    version: grows with every change. progress, log_count: what the target says while it works on it.
    redriven_as: the request that a dead letter was submitted again as, '' if it was not.
    has_own_deadline: how long it may wait was said by its client, not by the service.
    about: what its dialect keeps of it. deadline_ms: None where there is none.
    status_code, headers: the target's last answer (or our own 502 or 504, from_target False) once it has ended in
    succeeded or failed. result_bytes: how long the kept answer is. body: that answer, where the look brought it along;
    Engine.result_body has it in any case.
    """

    service: str
    request_id: str
    state: State
    index: int
    priority_class: int
    attempts: int
    position: int | None
    depth: int
    submitted_ms: int
    started_ms: int | None = None
    finished_ms: int | None = None
    status_code: int | None = None
    from_target: bool = False
    result_bytes: int = 0
    error_type: str = ""
    error: str = ""
    headers: tuple[tuple[str, str], ...] = field(default=())
    eta_s: float | None = None
    version: int = 0
    progress: dict[str, Any] | None = None
    log_count: int = 0
    redriven_as: str = ""
    has_own_deadline: bool = False
    about: str = ""
    deadline_ms: int | None = None
    running: int = 0
    body: bytes | None = field(default=None, repr=False)

    def moved(self, place: Place) -> Request:
        """The same request, of which nothing else has changed, at another place."""
        return dataclasses.replace(
            self, position=place.position, depth=place.depth, running=place.running, eta_s=waiting_eta_s(place)
        )

    def header(self, name: str) -> str | None:
        """The first header of the target's answer with this name, whatever its case."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)


def request_of(service: str, request_id: str, seen: Seen) -> Request:
    """The request behind one look of the store."""
    fields = seen.fields

    def number(name: str) -> int | None:
        return int(fields[name]) if name in fields else None

    state = State(fields["state"])
    return Request(
        service=service,
        request_id=request_id,
        state=state,
        index=int(fields["index"]),
        priority_class=int(fields["class"]),
        attempts=number("attempt") or 0,
        position=seen.position if seen.position >= 0 else None,
        depth=seen.depth,
        eta_s=eta_s(seen),
        submitted_ms=int(fields["submitted_ms"]),
        started_ms=number("started_ms"),
        finished_ms=number("finished_ms"),
        status_code=number("status_code"),
        from_target=fields.get("from_target") == "1",
        result_bytes=number("result_bytes") or 0,
        error_type=fields.get("error_type", ""),
        error=fields.get("error", ""),
        headers=tuple((name, value) for name, value in json.loads(fields.get("headers") or "[]")),
        version=number("events") or 0,
        progress=json.loads(fields["progress"]) if "progress" in fields else None,
        log_count=number("log_n") or 0,
        redriven_as=fields.get("redriven_as", ""),
        has_own_deadline="own_deadline" in fields,
        about=fields.get("about", ""),
        deadline_ms=number("deadline_ms") or None,
        running=seen.running,
        body=seen.body,
    )
