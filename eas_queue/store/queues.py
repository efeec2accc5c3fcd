"""The transitions and reads of queues: one method per script. What items, groups and consumers are, keys.py tells.

Groups and consumers come as the scripts want them, percent-encoded; tags packed as ``&key=value&``, both parts
percent-encoded. Every method raises StoreUnavailable; ``put`` StoreFull as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from eas_queue.store.scripts import Scripts
from eas_queue.store.shapes import fresh_id, text

FETCH_LOOKS_MOST = 500  # items that one script looks at: about a millisecond of the server
REMOVED_MOST = 500  # in one script
NOTHING_MORE, MAYBE_MORE, ROOM_ELSEWHERE = 0, 1, 2  # after a pull: for these consumers, or for others of the group
BYTES_MOST = 4_194_304  # of data in one answer, but one item at least


class Row(NamedTuple):
    """An item. *kind*: the headers that tell its type, as JSON: of the answer where it is a result; '' not known."""

    at: int  # its index
    tags: str
    data: bytes
    kind: str


class Pulled(NamedTuple):
    """An item that a consumer was given. *consumer*: its place in the call."""

    consumer: int
    item: str
    row: Row


class Wants(NamedTuple):
    """A consumer in a pull: with auto commit, *done* are the items that it has had."""

    consumer: str
    token: str
    done: Sequence[str]


class ConsumerRow(NamedTuple):
    consumer: str
    left_ms: int
    window: int
    is_auto: bool
    last: int
    seen_ms: int
    held: int
    filter: str


class GroupRow(NamedTuple):
    group: str
    read: int
    held: int
    back: int
    last: int
    consumers: int
    unread: int


class Standing(NamedTuple):
    """How a queue stands. *lane*: of the input: waiting, running, last started index, 1 when workers are alive."""

    length: int
    first: int
    last: int
    now_ms: int
    lane: Sequence[int]
    consumers: Sequence[ConsumerRow]
    groups: Sequence[GroupRow]


def _row(parts: Sequence[Any]) -> Row:
    index, tags, data, kind = parts
    return Row(int(index), text(tags), data, text(kind))


class Queues:
    """The queues of all services."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    def put(
        self,
        service: str,
        queue: str,
        item_id: str,
        *,
        priority_class: int,
        tags: str,
        name: str,
        data: bytes,
        kind: str,
        result: tuple[str, int, str, str],
    ) -> list[int]:
        """Raw reply of put.lua. *result*: state, status code, headers and Celery's result, should it be a request's."""
        reply: list[int] = self._scripts.call(
            "put", service, queue, item_id, priority_class, tags, name, data, kind, fresh_id(), *result
        )
        return reply

    def fetch(
        self,
        service: str,
        queue: str,
        *,
        start: int,
        most: int,
        name: str = "",
        filter: str = "",
        removes: bool = False,
        with_data: bool = True,
        priority_class: int | None = None,
    ) -> tuple[int, bool, list[Row]]:
        """(index up to which was looked, whether there is more behind it, items)."""
        reached, more, rows = self._scripts.call(
            "fetch",
            service,
            queue,
            start,
            most,
            name,
            filter,
            int(removes),
            FETCH_LOOKS_MOST,
            BYTES_MOST,
            fresh_id(),
            int(with_data),
            "" if priority_class is None else priority_class,
        )
        return int(reached), bool(more), [_row(row) for row in rows]

    def remove(self, service: str, queue: str, indexes: Iterable[int]) -> int:
        """How many of these there were."""
        count, _ = self._scripts.call("remove", service, queue, fresh_id(), "", 0, *indexes)
        return int(count)

    def truncate(self, service: str, queue: str, below: int) -> tuple[int, bool]:
        """(how many were removed, whether there are more)."""
        count, more = self._scripts.call("remove", service, queue, fresh_id(), below, REMOVED_MOST)
        return int(count), bool(more)

    def join(
        self,
        service: str,
        queue: str,
        consumer: str,
        token: str,
        *,
        process: str,
        process_lease_ms: int,
        window: int,
        is_auto: bool,
        is_bare: bool,
        start: int,
        filter: str,
    ) -> int:
        """Raw reply of join.lua."""
        reply: int = self._scripts.call(
            "join",
            service,
            queue,
            consumer,
            token,
            process,
            process_lease_ms,
            window,
            int(is_auto),
            int(is_bare),
            start,
            filter,
        )
        return reply

    def leave(self, service: str, queue: str, consumer: str, token: str, done: Iterable[str]) -> bool:
        """Whether it was there. *done*: with auto commit, the items that it has had."""
        return bool(self._scripts.call("leave", service, queue, consumer, token, fresh_id(), *done))

    def holds(self, process: str, lease_ms: int) -> None:
        """The consumers of *process* are there for another *lease_ms*."""
        self._scripts.call("holds", process, lease_ms)

    def pull(
        self,
        service: str,
        queue: str,
        group: str,
        wants: Iterable[Wants],
        *,
        caller: str,
        nonce: str,
        most: int,
        bytes_most: int,
    ) -> tuple[int, list[Pulled], list[int], list[int]]:
        """(NOTHING_MORE.., items, places of the consumers that are not there any more, of those without room).

        Called again with the same *caller* and *nonce* it gives the same items, as far as they are still held.
        """
        flat: list[Any] = []
        for want in wants:
            flat += [want.consumer, want.token, len(want.done), *want.done]
        more, rows, lost, full = self._scripts.call(
            "pull", service, queue, group, caller, nonce, most, bytes_most, *flat
        )
        found = [Pulled(int(row[0]) - 1, text(row[1]), _row(row[2:])) for row in rows]
        return int(more), found, [int(place) - 1 for place in lost], [int(place) - 1 for place in full]

    def settle(
        self, service: str, queue: str, group: str, indexes: Iterable[int], *, done: bool, code: str, reason: str
    ) -> int:
        """How many of these were held. *group* '': by every group."""
        return int(self._scripts.call("settle", service, queue, group, fresh_id(), int(done), code, reason, *indexes))

    def search(self, service: str, queue: str, index: int, consumer: str) -> tuple[bool, str, int] | None:
        """(whether a consumer holds it, that consumer or *consumer*, how many come before it); None: no such item."""
        reply = self._scripts.call("search", service, queue, index, consumer)
        return (bool(reply[0]), text(reply[1]), int(reply[2])) if reply else None

    def count(self, service: str, queue: str, priority_class: int | None) -> int:
        return int(self._scripts.call("count", service, queue, "" if priority_class is None else priority_class))

    def attributes(self, service: str, queue: str) -> Standing:
        length, first, last, now_ms, lane, consumers, groups = self._scripts.call("attributes", service, queue)
        return Standing(
            length,
            first,
            last,
            now_ms,
            lane,
            [
                ConsumerRow(text(row[0]), row[1], row[2], bool(row[3]), row[4], row[5], row[6], text(row[7]))
                for row in consumers
            ],
            [GroupRow(text(row[0]), *row[1:]) for row in groups],
        )

    def pulse(self, queues: Iterable[tuple[str, str]]) -> list[int]:
        """A number per (service, queue): another one when something has been put, or may be startable."""
        flat = [part for queue in queues for part in queue]
        return [int(last) for last in self._scripts.call("pulse", *flat)]
