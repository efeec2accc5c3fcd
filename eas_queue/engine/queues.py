"""What clients do with the queues of a service beside submitting: put, read, remove and settle items, and look on.

The consumers that items are pushed to: watching.py.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from eas_queue.engine import errors, tags, waiting
from eas_queue.engine.items import (
    ITEMS_MOST,
    Consumer,
    Found,
    Item,
    Queue,
    QueueView,
    Selection,
    class_of,
    item_of,
    view_of,
)
from eas_queue.engine.translation import translated
from eas_queue.engine.waiting import QueueWaiter, Turn
from eas_queue.store.errors import StoreError
from eas_queue.store.queues import FETCH_LOOKS_MOST, Row
from eas_queue.store.shapes import fresh_id

if TYPE_CHECKING:
    from eas_queue.engine.engine import Engine

ANSWER_BYTES_MOST = 67_108_864  # and of their data, but one item at least
LOOKS_MOST = 100_000  # items that one search by tags looks at
INDEXES_MOST = 10_000  # in one call
INDEXES_PER_SCRIPT = 200
COUNTED_AT_ONCE = 10_000  # tags only, no data


@dataclass(frozen=True, slots=True)
class Put:
    """An item that a client puts into a sink or a rear. *content_type* '': not known."""

    data: bytes
    tags: dict[str, str]
    priority: int = 0
    content_type: str = ""


class ServiceQueues:
    """The queues of an installation's services. Every method raises Unavailable when Redis is away, InvalidRequest or
    ServiceNotFound for the service's name."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._store = engine.store.queues

    @translated
    def put(self, service_name: str, queue: Queue, put: Put) -> tuple[int, str]:
        """Store an item; returns (index, requestId). The input takes requests: see Engine.submit.

        An item of the sink that carries the requestId of a request which a consumer works on is that request's result.
        Raises SinkFull; nothing is stored then.
        """
        service = self._engine.services.get(service_name)
        item_id = fresh_id()
        name = put.tags.get("requestId", "")
        if "\0" in name:
            raise errors.InvalidRequest("requestId contains a NUL character")
        code = put.tags.get("lastCode", "200")
        status = int(code) if code.isascii() and code.isdigit() and len(code) == 3 else 200
        succeeded = 200 <= status < 300
        headers = json.dumps([["content-type", put.content_type]] if put.content_type else [])
        celery = (
            {"status": "success", "target_status_code": status, "content_type": put.content_type or None}
            if succeeded
            else {"exc_type": "TargetFailed", "exc_message": [f"its consumer answered {status}"]}
            | {"exc_module": "eas_queue.engine.errors"}
        )
        for _ in range(2):
            code_, *rest = self._store.put(
                service.name,
                queue,
                item_id,
                priority_class=class_of(put.priority),
                tags=tags.packed({**put.tags, "requestId": name or item_id}),
                name=name,
                data=put.data,
                kind=headers if put.content_type else "",
                result=("succeeded" if succeeded else "failed", status, headers, json.dumps(celery)),
            )
            if code_ == 1:
                return rest[0], name or item_id
            if code_ == 0:
                raise errors.SinkFull(service.name, rest[0])
            self._engine.register(service)
        raise errors.Unavailable(f"service {service.name} vanished from Redis twice while an item was put")

    @translated
    def get(
        self,
        service_name: str,
        queue: Queue,
        selection: Selection,
        *,
        removes: bool,
        timeout_s: float = 0,
        is_gone: Callable[[], bool] = waiting.nobody_asks,
    ) -> list[Item]:
        """The items that are chosen, lowest index first, whether or not a group has had them; those there are when they
        are all there or *timeout_s* is over. *removes*: they leave the queue, for every group; a request that is
        removed from the input is cancelled. Removes nothing when *is_gone*; raises WaiterGone then.
        """
        service = self._engine.services.get(service_name).name
        if not 1 <= selection.length <= ITEMS_MOST:
            raise errors.InvalidRequest(f"_length_ must be 1 to {ITEMS_MOST} items")
        if not timeout_s:
            if removes and is_gone():  # while it waited to be served
                raise errors.WaiterGone(f"items of {service}")
            return self._collect(service, queue, selection, removes=removes)
        until_s = time.monotonic() + timeout_s
        waiter = QueueWaiter(service, queue, name=selection.request_id, is_gone=is_gone)
        with self._engine.waits.attending(waiter):
            while True:
                is_last = waiter.over is not None or time.monotonic() >= until_s
                if waiter.over is Turn.GONE or (removes and is_gone()):
                    raise errors.WaiterGone(f"items of {service}")
                try:
                    if selection.length > 1 and not is_last:
                        there, _ = self._rows(service, queue, selection, removes=False, with_data=False)
                        is_last = len(there) >= selection.length
                    if selection.length == 1 or is_last:
                        rows, reached = self._rows(service, queue, selection, removes=removes, with_data=True)
                        if rows or is_last:
                            return [item_of(row) for row in rows]
                        if selection.tags and selection.start >= 0 and not selection.request_id:
                            selection = replace(selection, start=max(reached + 1, selection.start))  # none up to here
                except StoreError as exc:  # it may be back before the time is up
                    if is_last:
                        raise errors.Unavailable(str(exc), exc.in_full) from exc
                waiter.wait(max(0.0, until_s - time.monotonic()))

    def _collect(self, service: str, queue: Queue, selection: Selection, *, removes: bool) -> list[Item]:
        rows, _ = self._rows(service, queue, selection, removes=removes, with_data=True)
        return [item_of(row) for row in rows]

    def _rows(
        self, service: str, queue: Queue, selection: Selection, *, removes: bool, with_data: bool
    ) -> tuple[list[Row], int]:
        """(what there is, the index up to which was looked)."""
        rows: list[Row] = []
        start, size, looks = selection.start, 0, 0
        while True:
            try:
                reached, has_more, found = self._store.fetch(
                    service,
                    queue,
                    start=start,
                    most=selection.length - len(rows),
                    name=selection.request_id,
                    filter=tags.as_filter(selection.tags),
                    removes=removes,
                    with_data=with_data,
                )
            except StoreError:
                if rows and removes:  # they have left the queue: who asked must have them
                    return rows, start
                raise
            rows += found
            size += sum(len(row.data) for row in found)
            looks += FETCH_LOOKS_MOST
            if not has_more or len(rows) >= selection.length or size >= ANSWER_BYTES_MOST or looks >= LOOKS_MOST:
                return rows, reached
            start = reached + 1

    @translated
    def search(self, service_name: str, queue: Queue, index: int, asks: Consumer) -> Found | None:
        """Where an item stands for the group of who *asks*, or, where that has no consumer, for any; None: no item."""
        service = self._engine.services.get(service_name).name
        found = self._store.search(service, queue, index, asks.key)
        return None if found is None else Found(found[0], str(Consumer.of(found[1])), found[2])

    @translated
    def count(self, service_name: str, queue: Queue, *, priority: int = 0, having: dict[str, str] | None = None) -> int:
        """How many items there are, of one *priority* where that is above 0, with all tags of *having*."""
        service = self._engine.services.get(service_name).name
        wanted, priority_class = having or {}, class_of(priority) if priority else None
        if not wanted:
            return self._store.count(service, queue, priority_class)
        request_id = wanted.get("requestId", "")
        start, count = 0, 0
        others = {name: value for name, value in wanted.items() if name != "requestId"}
        while True:
            reached, has_more, rows = self._store.fetch(
                service,
                queue,
                start=start,
                most=COUNTED_AT_ONCE,
                name=request_id,
                filter=tags.as_filter(others),
                with_data=False,
                priority_class=priority_class,
            )
            count += len(rows)
            if not has_more:
                return count
            start = reached + 1

    @translated
    def view(self, service_name: str, queue: Queue) -> QueueView:
        """How a queue stands, with its groups and consumers."""
        service = self._engine.services.get(service_name)
        standing = self._store.attributes(service.name, queue)
        return view_of(service.name, standing, service.max_concurrency if service.mode == "push" else 0)

    @translated
    def remove(self, service_name: str, queue: Queue, indexes: Iterable[int]) -> int:
        """Take items out of a queue, for every group; returns how many of them there were."""
        service = self._engine.services.get(service_name).name
        return sum(self._store.remove(service, queue, some) for some in _portions(indexes))

    @translated
    def truncate(self, service_name: str, queue: Queue, below: int) -> int:
        """Take all items with a lower index out of a queue; returns how many there were. In steps: what is put
        meanwhile has a higher index."""
        service = self._engine.services.get(service_name).name
        count, has_more = 0, True
        while has_more:
            removed, has_more = self._store.truncate(service, queue, below)
            count += removed
        return count

    @translated
    def commit(self, service_name: str, queue: Queue, indexes: Iterable[int], group: str | None) -> int:
        """A consumer of *group* (None: whoever holds them) is done with items; returns how many were held.

        Committed by every group that is waited for, an item leaves its queue. In the group named like the service a
        request has succeeded with that, whoever works on it. What is not held is passed over.
        """
        return self._settle(service_name, queue, indexes, group, done=True)

    @translated
    def refuse(
        self, service_name: str, queue: Queue, indexes: Iterable[int], group: str | None, *, code: str, reason: str
    ) -> int:
        """A consumer refuses items: they are pushed again, before all others of their priority, and count as delivered
        (with code Shutdown they don't, and the consumer is given nothing more). Returns how many were held."""
        return self._settle(service_name, queue, indexes, group, done=False, code=code, reason=reason)

    def _settle(
        self,
        service_name: str,
        queue: Queue,
        indexes: Iterable[int],
        group: str | None,
        *,
        done: bool,
        code: str = "",
        reason: str = "",
    ) -> int:
        service = self._engine.services.get(service_name).name
        name = "" if group is None else tags.quoted(group)
        code, reason = tags.quoted(code), tags.quoted(reason)
        return sum(
            self._store.settle(service, queue, name, some, done=done, code=code, reason=reason)
            for some in _portions(indexes)
        )


def _portions(indexes: Iterable[int]) -> Iterable[list[int]]:
    found = list(dict.fromkeys(indexes))
    if len(found) > INDEXES_MOST:
        raise errors.InvalidRequest(f"{len(found)} indexes are too many for one call: at most {INDEXES_MOST}")
    return (found[i : i + INDEXES_PER_SCRIPT] for i in range(0, len(found), INDEXES_PER_SCRIPT))
