"""A request as clients see it, and what a client hands in."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum

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
class Submission:
    """What is to be sent to the target. *path*: still quoted, no leading slash; *query*: raw; headers in order."""

    body: bytes
    path: str = ""
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    priority: int = 0

    def meta(self) -> str:
        """All but the body, as the record keeps it."""
        return json.dumps(
            {"path": self.path, "query": self.query, "headers": self.headers}, separators=(",", ":"), ensure_ascii=False
        )


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to a submit. *index* grows by at least one with each request of a service and is never used twice."""

    service: str
    request_id: str
    index: int


@dataclass(frozen=True, slots=True)
class Request:
    """One look at a request. Times are milliseconds of Redis' clock, None where the moment has not come.

    position: requests of the service that will start before it, None unless it waits now (0: it is next).
    depth: requests of the service that wait, retries included. attempts: deliveries that count, so far.
    status_code, headers: the target's last answer (or our own 502 or 504, from_target False) once it has ended in
    succeeded or failed. result_bytes: how long the kept answer is.
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

    def header(self, name: str) -> str | None:
        """The first header of the target's answer with this name, whatever its case."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)
