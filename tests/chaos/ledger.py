"""The account of one fault: what clients were promised against what the server kept and the target saw.

Nothing here asks the queue about itself, except for the ends that clients look up.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from eas_queue.store.shapes import progress_token
from tests.chaos.history import Breach, Request
from tests.chaos.load import Entry
from tests.support.installation import TERMINAL
from tests.support.target import CallRecord

UNDONE_S = 1.0  # `appendfsync everysec`: what was answered in this time before the server died may be undone
TOUCH_S = 0.25  # how long a target may take to see that its caller has gone, on a busy machine

_STATES = {"SUCCESS": "succeeded", "FAILURE": "failed", "REVOKED": "cancelled", "EXPIRED": "expired"}
# The columns that have to be 0.
ZERO = ("lost", "unexplained", "twice", "unfenced", "illegal", "overlaps", "wrong_end")


@dataclass(frozen=True)
class Allowed:
    """What a fault may bring about. *cuts*: why attempts may be cut off, by the queue's error types; *only*: in this
    service, "" in all; *recovery_s*: how long until all goes on; *undone*: whether the server may lose what it
    answered in its last second.
    """

    cuts: frozenset[str] = frozenset()
    only: str = ""
    overlaps: bool = False
    undone: bool = False
    recovery_s: float = 10.0


@dataclass
class Row:
    """One line of the ledger. Counts are of requests, *extra* and *unexplained* of calls, the last ones of breaches."""

    name: str
    title: str
    submitted: int = 0
    acknowledged: int = 0
    refused: int = 0
    terminal: int = 0
    lost: int = 0
    undone: int = 0
    extra: int = 0
    unexplained: int = 0
    at_once: int = 0  # overlaps that the fault may bring about
    twice: int = 0
    unfenced: int = 0
    illegal: int = 0
    overlaps: int = 0
    wrong_end: int = 0
    recovery_s: float = 0.0
    recovery_limit_s: float = 0.0
    cuts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # the first few of what is wrong

    @property
    def red(self) -> set[str]:
        """The columns that break a promise."""
        found = {column for column in ZERO if getattr(self, column)}
        if self.recovery_s > self.recovery_limit_s:
            found.add("recovery")
        return found

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def note(self, text: str) -> None:
        if len(self.notes) < 8:
            self.notes.append(text)


def fill(
    row: Row,
    allowed: Allowed,
    *,
    entries: list[Entry],
    requests: list[Request],
    calls: list[CallRecord],
    breaches: Iterable[Breach],
    kills: list[float],
) -> Row:
    """Fill the counts of *row*. *requests*: all of the fault's services that the server kept. *kills*: when the server
    was killed, Unix seconds.
    """
    row.recovery_limit_s = allowed.recovery_s
    entries = [entry for entry in entries if entry.sent]
    kept = {request.id: request for request in requests}
    row.submitted = len(entries)
    row.refused = sum(entry.refused for entry in entries)
    _ends(row, allowed, entries, kept, kills)
    _numbers(row, requests)
    _deliveries(row, allowed, kept, calls, kills)
    for breach in breaches:
        setattr(row, breach.kind, getattr(row, breach.kind) + 1)
        row.note(f"{breach.kind}: {breach.service}: {breach.what}")
    return row


def _ends(row: Row, allowed: Allowed, entries: list[Entry], kept: dict[str, Request], kills: list[float]) -> None:
    for entry in entries:
        if not entry.acknowledged_at:
            continue
        row.acknowledged += 1
        if entry.status in TERMINAL:
            row.terminal += 1
            found = kept.get(entry.request_id)
            if entry.status not in entry.item.expect or found is None or found.state != _STATES[entry.status]:
                row.wrong_end += 1
                row.note(f"wrong end: {entry.request_id} ({entry.item.query}) ended as {entry.status}, kept: {found}")
        elif (
            allowed.undone
            and entry.request_id not in kept
            and any(0 <= kill - entry.acknowledged_at <= UNDONE_S for kill in kills)
        ):
            row.undone += 1
        else:
            row.lost += 1
            row.note(
                f"lost: {entry.request_id}: {entry.status or 'no answer'}; the server kept {kept.get(entry.request_id)}"
            )


def _numbers(row: Row, requests: list[Request]) -> None:
    """However often a client sent a request, there is one record of it."""
    counts = collections.Counter((request.service, request.number) for request in requests)
    for (service, number), count in counts.items():
        if count > 1:
            row.illegal += 1
            row.note(f"illegal: {count} records of request {number} of {service}")


def _deliveries(
    row: Row, allowed: Allowed, kept: dict[str, Request], calls: list[CallRecord], kills: list[float]
) -> None:
    by_request: dict[str, list[CallRecord]] = collections.defaultdict(list)
    for call in calls:
        by_request[call["request_id"] or ""].append(call)
    for request_id, made in by_request.items():
        row.extra += len(made) - 1
        claims = {progress_token(claim.token): claim for claim in kept[request_id].claims} if request_id in kept else {}
        counts = collections.Counter(call["progress_token"] for call in made)
        for token, count in counts.items():
            claim = claims.get(token or "")
            started = min(call["started_at"] for call in made if call["progress_token"] == token)
            if claim is None and allowed.undone and any(-TOUCH_S <= kill - started <= UNDONE_S for kill in kills):
                row.cuts["undone"] = row.cuts.get("undone", 0) + 1
            elif claim is None:
                row.unexplained += count
                row.note(f"unexplained: {request_id} was called under a lease that the server does not know")
            elif count > 1:
                row.unexplained += count - 1
                row.note(f"unexplained: {request_id} was called {count} times under one lease")
        # Whoever was called again must have been cut off before, for a reason that this fault can have.
        called = [claim for token, claim in claims.items() if token in counts]
        for claim in called[:-1]:
            row.cuts[claim.closed] = row.cuts.get(claim.closed, 0) + 1
            if claim.closed not in allowed.cuts or allowed.only not in ("", kept[request_id].service):
                row.unexplained += 1
                row.note(f"unexplained: {request_id} was sent again after {claim}")
        _overlaps(row, allowed, request_id, made)


def _overlaps(row: Row, allowed: Allowed, request_id: str, made: list[CallRecord]) -> None:
    for before, after in itertools.pairwise(made):
        if before["ended_at"] is not None and before["ended_at"] - after["started_at"] <= TOUCH_S:
            continue
        if allowed.overlaps:
            row.at_once += 1
        else:
            row.overlaps += 1
            row.note(f"overlap: {request_id}: {before} and {after}")
