"""Following a request: every change as it happens, for dialects that stream. What is sent is a state, not a diff, so a
reader that is slow or was away misses nothing that still matters."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eas_queue.engine import errors
from eas_queue.engine.request import Request
from eas_queue.engine.waiting import Turn
from eas_queue.store.shapes import LogLine

if TYPE_CHECKING:
    from eas_queue.engine.engine import Engine

HEARTBEAT_S = 15.0  # proxies close a stream that is silent for long
EVERY_EVENT = {"most": 10_000, "bytes_most": 16_777_216}  # as many as are kept
AWAY_MAX_S = 30.0  # Redis away for longer: the stream ends, and its reader learns why when it comes back


@dataclass(frozen=True, slots=True)
class Change:
    """The request as it is now, and what its target logged since the change before."""

    request: Request
    lines: tuple[LogLine, ...] = ()


def follow(
    engine: Engine, first: Request, *, after: int, is_gone: Callable[[], bool], events: bool = False
) -> Generator[Change | None]:
    """The request as it is, then each change until it has ended; None is a heartbeat.

    With each come the log lines since the one before, at first those since its version *after* (-1: all); of very many
    the latest. With *events*, each event of its stream instead.
    Ends early when the process stops, Redis stays away, or *is_gone* says that the reader has hung up. *first* is a
    look that was just made. Close the generator when it is not read any more: nothing is left behind then.
    """
    service, request_id = first.service, first.request_id
    with engine.waits.watching(service, request_id, end_only=False, is_gone=is_gone) as waiter:
        told: tuple[int, int | None] | None = None
        lines_after, log_count = after, -1
        away_since_s: float | None = None
        request, turn = first, Turn.NEWS
        while True:
            try:
                if turn is Turn.MOVED and waiter.place is not None:
                    request = request.moved(waiter.place)
                else:
                    request = engine.look_again(first)
                    waiter.saw(request.version, request.position)
                # only when there are new ones: a target may report its progress many times a second
                lines = _lines(engine, request, lines_after, events) if request.log_count != log_count else []
                away_since_s = None
            except errors.RequestNotFound:  # it has ended and is past its time
                return
            except errors.Unavailable:
                away_since_s = away_since_s or time.monotonic()
                if waiter.over is not None or time.monotonic() - away_since_s > AWAY_MAX_S:
                    return
                waiter.wait(1.0)
                turn = Turn.NEWS
                continue
            now = (request.version, request.position)
            if lines or now != told:
                yield Change(request, tuple(lines))
            told, lines_after, log_count = now, request.version, request.log_count
            if request.state.is_terminal:
                return
            while (turn := waiter.wait(HEARTBEAT_S)) is Turn.SILENCE:
                yield None
            if turn not in (Turn.NEWS, Turn.MOVED):
                return


def _lines(engine: Engine, request: Request, after: int, events: bool) -> list[LogLine]:
    """What was logged between version *after* and this look: later lines come with the next one."""
    if not request.log_count or request.version <= after:
        return []
    limits = EVERY_EVENT if events else {}
    return engine.logs(request, events=events, after=after, upto=request.version, **limits)
