"""Webhooks of requests that have ended: whether they were delivered, and delivering them again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eas_queue.engine import errors, ids
from eas_queue.engine.request import Webhook
from eas_queue.store import hooks

if TYPE_CHECKING:
    from eas_queue.engine.engine import Engine

PAGE_MOST = 500
BATCH_MOST = 100  # in one script


@dataclass(frozen=True, slots=True)
class Delivery:
    """*state*: pending, delivered, or failed once it was given up. *next_ms*: when it is tried, None while it is being
    sent and once it has ended. *last_error*: of the last attempt, '' if that was a success."""

    index: int
    request_id: str
    webhook: Webhook
    state: str
    attempts: int
    next_ms: int | None
    last_status: int | None
    last_error: str
    delivered_ms: int | None


def page(engine: Engine, service: str, *, failed: bool, after: int, most: int) -> tuple[int, list[Delivery]]:
    """How many there are, and up to *most* of them behind index *after*, oldest first."""
    count, _, found = engine.store.hooks.page(service, failed=failed, after=after, most=min(most, PAGE_MOST))
    return count, [_delivery(each) for each in found]


def look(engine: Engine, service: str, request_id: str) -> Delivery:
    """Raises WebhookNotFound."""
    found = engine.store.hooks.look(service, request_id) if ids.is_id(request_id) else None
    if found is None:
        raise errors.WebhookNotFound(request_id)
    return _delivery(found)


def resend(engine: Engine, service: str, request_ids: tuple[str, ...] | None) -> list[str]:
    """Deliver those of these requests again, None: all that were given up; returns their ids."""
    batches = _failed(engine, service) if request_ids is None else _named(request_ids)
    return [found for batch in batches for found in engine.store.hooks.resend(service, batch)]


def _named(request_ids: tuple[str, ...]) -> Iterator[list[str]]:
    known = list(dict.fromkeys(request_ids))
    for i in range(0, len(known), BATCH_MOST):
        yield known[i : i + BATCH_MOST]


def _failed(engine: Engine, service: str) -> Iterator[list[str]]:
    after, last = 0, engine.store.last_index(service, "hooks")
    while after < last:
        _, reached, found = engine.store.hooks.page(service, failed=True, after=after, most=BATCH_MOST)
        if reached == after:
            return
        after = reached
        if found:
            yield [each.request_id for each in found]


def _delivery(found: hooks.Delivery) -> Delivery:
    fields = found.fields

    def number(name: str) -> int | None:
        return int(fields[name]) if fields.get(name) else None

    return Delivery(
        index=found.at,
        request_id=found.request_id,
        webhook=Webhook.unpacked(found.hook),
        state=fields["state"],
        attempts=number("attempts") or 0,
        next_ms=None if found.is_being_sent else number("next_ms"),
        last_status=number("last_status"),
        last_error=fields.get("last_error", ""),
        delivered_ms=number("delivered_ms"),
    )
