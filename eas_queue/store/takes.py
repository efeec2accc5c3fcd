"""The transitions and reads of those who take requests and answer them: one method per script. Every method raises
StoreUnavailable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from eas_queue.store.scripts import Scripts
from eas_queue.store.shapes import Ended, fresh_id, text


class Lane(NamedTuple):
    """Half of a service's queue: what has high priority, or the rest. *most*: of it, in one take."""

    service: str
    is_high: bool
    most: int = 2**31


class Taken(NamedTuple):
    """A request that is leased now. *lane*: which of those that were asked for, counted from 0; of one that was named
    twice the first. *deadline_ms*: 0 where there is none. *about*: what its dialect keeps of it. *endpoint*: what its
    service was enrolled with, '' if it was not."""

    lane: int
    request_id: str
    attempt: int
    submitted_ms: int
    deadline_ms: int
    lease_ends_ms: int
    meta: bytes
    about: str
    body: bytes
    endpoint: str


class NotPulled(Exception):
    """*lane*: the first one that consumers can't pull from, counted from 0."""

    def __init__(self, lane: int) -> None:
        super().__init__(lane)
        self.lane = lane


class Standing(NamedTuple):
    """A lane as it stands. *endpoint* and *enrolled_ms* are '' and 0 where no client has enrolled the service."""

    pull: bool
    endpoint: str
    enrolled_ms: int
    number: int
    put: int
    taken: int
    done: int
    last_index: int
    last_started_index: int


class Takes:
    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    def enroll(self, service: str, endpoint: str) -> tuple[str, bool] | None:
        """(the endpoint that was named first, whether consumers pull from it); None where it is not registered."""
        found = self._scripts.call("enroll", service, endpoint, fresh_id())
        return (text(found[0]), bool(found[1])) if found else None

    def take(
        self,
        lanes: Sequence[Lane],
        strategy: str,
        most: int,
        *,
        lease_ms: int,
        deliveries_most: int = -1,
        min_age_ms: int = 0,
        taker: str = "",
        turn: str = "",
        nonce: str = "",
    ) -> list[Taken]:
        """Up to *most* requests in the order of *strategy*: fifo, active_passive, round_robin or sequential.

        *lease_ms* 0: until the deadline. *deliveries_most* -1: any. *turn*: whose takes go on where the last one
        ended. The same *nonce* gives the same again. Raises NotPulled; nothing is taken then.
        """
        flat = [part for lane in lanes for part in (lane.service, int(lane.is_high), lane.most)]
        asked = nonce or fresh_id(), strategy, most, lease_ms, deliveries_most, min_age_ms, taker, turn
        rows = self._scripts.call("take", *asked, 0, *flat, again=(*asked, 1, *flat))
        if isinstance(rows, int):
            raise NotPulled(-rows - 1)
        return [
            Taken(lane - 1, text(known), attempt, submitted, deadline, ends, meta, text(about), body, text(endpoint))
            for lane, known, attempt, submitted, deadline, ends, meta, about, body, endpoint in rows
        ]

    def complete(
        self,
        service: str,
        request_id: str,
        end: Ended,
        *,
        about: str = "",
        nonce: str = "",
    ) -> bool | None:
        """Whether this ended the request; None where it is for the forwarder. *about*: what its dialect keeps of the
        answer besides."""
        answer = end.status_code, end.headers, end.body, about, end.error_type, end.error, end.celery_result
        found = self._scripts.call("complete", service, request_id, nonce or fresh_id(), end.state, *answer)
        return None if found < 0 else bool(found)

    def extend(self, service: str, request_id: str, *, lease_ms: int, taker: str = "") -> bool:
        """Whether the request is held, by *taker* ('' anybody): its lease ends *lease_ms* from now."""
        return bool(self._scripts.call("extend", service, request_id, lease_ms, taker))

    def standing(self, service: str, *, is_high: bool) -> Standing | None:
        """None where the service is not registered."""
        found = self._scripts.call("standing", service, int(is_high))
        return Standing(bool(found[0]), text(found[1]), *found[2:]) if found else None
