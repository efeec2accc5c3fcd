"""What goes into the store and comes out of it. Times are integer milliseconds of Redis' clock."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any, NamedTuple


def fresh_id() -> str:
    """An id for one call, one kick or one item."""
    return str(uuid.uuid4())


def text(value: bytes | str) -> str:
    """What the server answers for a text."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


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


def progress_token(lease_token: str) -> str:
    """What the target of this attempt shows when it reports progress. Tells nothing of the lease itself."""
    return hashlib.sha1(b"progress " + lease_token.encode(), usedforsecurity=False).hexdigest()


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
    more_is_due: bool = False  # the next sweep need not wait


class Place(NamedTuple):
    """Where a request waits. ``position`` is -1 unless it does. ``mean_run_ms`` is 0 where nothing ran yet;
    ``slot_started_ms``: start of the run whose slot it will get, 0 where nothing runs. ``blocked``: nothing may start.
    """

    position: int
    depth: int
    now_ms: int
    running: int
    mean_run_ms: float
    runs: int
    slot_started_ms: int
    blocked: bool


class Seen(NamedTuple):
    """One look at a request: its ``Place``, and ``body``: the kept answer, None where there is none, and where it is
    long."""

    position: int
    depth: int
    now_ms: int
    running: int
    mean_run_ms: float
    runs: int
    slot_started_ms: int
    blocked: bool
    body: bytes | None
    fields: dict[str, str]

    @property
    def place(self) -> Place:
        return Place._make(self[: len(Place._fields)])


class LogLine(NamedTuple):
    """``event`` is the request's change counter at the moment it was written."""

    event: int
    at_ms: int
    level: str
    message: str


class Letter(NamedTuple):
    """A dead letter: a request whose attempts were used up."""

    rear_index: int
    request_id: str
    fields: dict[str, str]


class Overview(NamedTuple):
    """How a service stands. ``closing``: cancelled calls that still hold their slot."""

    startable: int
    delayed: int
    running: int
    closing: int
    sink: int
    rear: int
    paused: bool
    held: bool
    oldest_ms: int
    mean_run_ms: float
    runs: int

    @classmethod
    def of(cls, reply: list[Any]) -> Overview:
        """What overview.lua answers for a service that is registered."""
        found = cls._make(reply)
        return found._replace(paused=bool(found.paused), held=bool(found.held), mean_run_ms=float(found.mean_run_ms))

    @classmethod
    def empty(cls) -> Overview:
        return cls(0, 0, 0, 0, 0, 0, False, False, 0, 0.0, 0)


class Alive(NamedTuple):
    """A process of the installation as it last said of itself, JSON."""

    name: str
    age_ms: int
    about: str
