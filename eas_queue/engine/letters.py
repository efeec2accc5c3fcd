"""Dead letters: requests whose attempts were used up. They are listed in the rear of their service's queue until their
records go; here they are looked at, submitted again, or dropped."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eas_queue.engine import errors, ids
from eas_queue.store.errors import StoreError
from eas_queue.store.shapes import Letter as Letter  # part of what the engine hands out

if TYPE_CHECKING:
    from eas_queue.engine.engine import Engine

PAGE_MOST = 500
BATCH_MOST = 100  # letters in one script


@dataclass(frozen=True)
class Choice:
    """Which dead letters are meant: those of these ids, else all to which every filter that is given applies."""

    request_ids: tuple[str, ...] | None = None
    error_type: str | None = None
    status_code: int | None = None
    before_ms: int | None = None  # ended before

    def takes(self, letter: Letter) -> bool:
        fields = letter.fields
        return (
            (self.error_type is None or fields.get("error_type") == self.error_type)
            and (self.status_code is None or fields.get("status_code") == str(self.status_code))
            and (self.before_ms is None or int(fields.get("finished_ms", "0")) < self.before_ms)
        )


@dataclass(frozen=True)
class Redriven:
    """*requests*: (dead letter's id, id of the new request). *not_found*: ids that are no dead letters (any more).

    *is_full*: the queue had no room for the rest, which stay dead letters. *is_cut_short*: Redis went away on the way;
    the letters of the last step may have been taken or not.
    """

    requests: tuple[tuple[str, str], ...]
    not_found: tuple[str, ...] = ()
    is_full: bool = False
    is_cut_short: bool = False


def page(engine: Engine, service: str, *, after: int, most: int) -> tuple[int, list[Letter]]:
    """How many dead letters there are, and up to *most* of them behind rear index *after*, oldest first."""
    count, _, found = engine.store.letters(service, after=after, most=min(most, PAGE_MOST))
    return count, found


def redrive(engine: Engine, service: str, choice: Choice) -> Redriven:
    """Submit the chosen letters again, each as a new request that starts with fresh attempts.

    Each letter is taken by one redrive only. Letters that arrive meanwhile are not taken.
    """
    settings = engine.services.get(service)
    number = engine.register(settings)
    done: list[tuple[str, str]] = []
    missing: list[str] = []
    is_full = is_cut_short = False
    try:
        for batch in _batches(engine, service, choice):
            todo = [(request_id, ids.new_id(number)) for request_id in batch]
            while todo and not is_full:
                rows = engine.store.redrive(
                    service,
                    todo,
                    max_queue_length=settings.max_queue_length,
                    deadline_in_ms=math.ceil(settings.deadline_s * 1000),
                )
                done += [row for row in rows if row[1] not in ("", "-", "+")]
                missing += [row[0] for row in rows if not row[1]]
                is_full = any(new == "-" for _, new in rows)
                todo = [pair for pair, row in zip(todo, rows, strict=True) if row[1] == "+"]
            if is_full:
                break
    except StoreError:
        if not done:
            raise
        is_cut_short = True
    # Who named an id wants to know that it is none; of a filter's, somebody else was faster.
    told = tuple(missing) if choice.request_ids is not None else ()
    return Redriven(tuple(done), told, is_full, is_cut_short)


def discard(engine: Engine, service: str, choice: Choice) -> list[str]:
    """Take the chosen letters off the list for good; returns their ids."""
    return [gone for batch in _batches(engine, service, choice) for gone in engine.store.discard(service, batch)]


def _batches(engine: Engine, service: str, choice: Choice) -> Iterator[list[str]]:
    if choice.request_ids is not None:
        known = list(dict.fromkeys(choice.request_ids))
        for i in range(0, len(known), BATCH_MOST):
            yield known[i : i + BATCH_MOST]
        return
    after, last = 0, engine.store.last_index(service, "rear")
    while after < last:
        _, reached, found = engine.store.letters(service, after=after, most=BATCH_MOST)
        if reached == after:
            return
        after = reached
        chosen = [letter.request_id for letter in found if choice.takes(letter) and letter.rear_index <= last]
        if chosen:
            yield chosen


def checked(request_ids: list[str]) -> tuple[str, ...]:
    """Raises InvalidRequest for what is no request id."""
    for request_id in request_ids:
        if not ids.is_id(request_id):
            raise errors.InvalidRequest(f"{request_id[:100]!r} is not a request id")
    return tuple(request_ids)
