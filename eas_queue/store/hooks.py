"""The transitions and reads of webhooks: one method per script. Every method raises StoreUnavailable; ``resend``
StoreFull as well."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from eas_queue.store.scripts import Scripts
from eas_queue.store.shapes import fresh_id, text

FIELDS = ("state", "attempts", "next_ms", "last_status", "last_error", "delivered_ms")


class Taken(NamedTuple):
    """A delivery to be made now. *hook*: what the client asked for, as its record keeps it."""

    service: str
    request_id: str
    token: str
    attempt: int
    hook: str


class Delivery(NamedTuple):
    """How a delivery stands. *state*: pending, delivered, or failed once it was given up."""

    at: int  # its index
    request_id: str
    hook: str
    is_being_sent: bool
    fields: dict[str, str]  # those of FIELDS that are set


class Hooks:
    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    def take(self, most: int, *, caller: str, lease_ms: int, attempts_most: int, nonce: str = "") -> list[Taken]:
        """Deliveries that are due, from one receiver after the other."""
        rows = self._scripts.call("hook_take", most, lease_ms, caller, nonce or fresh_id(), attempts_most)
        return [Taken(text(row[0]), text(row[1]), text(row[2]), int(row[3]), text(row[4])) for row in rows]

    def done(
        self, taken: Taken, outcome: str, *, pause_ms: int = 0, status: int | None = None, error: str = ""
    ) -> bool:
        """Whether this attempt counted. *outcome*: delivered, retry or failed."""
        shown = "" if status is None else status
        where = taken.service, taken.request_id, taken.token
        return bool(self._scripts.call("hook_done", *where, outcome, pause_ms, shown, error, fresh_id()))

    def resend(self, service: str, request_ids: Iterable[str]) -> list[str]:
        """The ids that had a delivery: they are due now, with fresh attempts."""
        return [text(found) for found in self._scripts.call("hook_resend", service, fresh_id(), *request_ids)]

    def page(self, service: str, *, failed: bool, after: int, most: int) -> tuple[int, int, list[Delivery]]:
        """How many there are, the index that the page reaches (*after*: there is none behind), and the page."""
        return self._list(service, "hooks_failed" if failed else "hooks", after, most, "")

    def look(self, service: str, request_id: str) -> Delivery | None:
        """None where the request has no webhook, or has not ended."""
        found = self._list(service, "hooks", 0, 0, request_id)[2]
        return found[0] if found else None

    def _list(self, *what: str | int) -> tuple[int, int, list[Delivery]]:
        count, reached, rows = self._scripts.call("hook_list", *what, *FIELDS)
        page = []
        for index, request_id, hook, sent, *values in rows:
            fields = {name: text(value) for name, value in zip(FIELDS, values, strict=False) if value is not None}
            page.append(Delivery(int(float(index)), text(request_id), text(hook), bool(sent), fields))
        return int(count), int(float(reached)), page
