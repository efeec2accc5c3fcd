"""Queues as who consumes them sees them: ordered items with an index, tags and data; groups, and consumers in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import unquote

from eas_queue.engine import errors, tags
from eas_queue.engine.request import NORMAL_CLASS
from eas_queue.store.queues import ConsumerRow, GroupRow, Row, Standing

NAME_MOST = 200  # characters of a group or user
ITEMS_MOST = 10_000  # in one answer
NEWEST = -1  # as a start: of a get the newest item, of a watch what arrives from now on


class Queue(StrEnum):
    """The four queues of a service. A rear holds what was delivered too often."""

    INPUT = "input"
    SINK = "sink"
    REAR = "rear"
    SINK_REAR = "sink_rear"

    @property
    def rear(self) -> Queue:
        """Where this queue's dead letters go."""
        return Queue.REAR if self in (Queue.INPUT, Queue.REAR) else Queue.SINK_REAR


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a queue. *index* grows from 1 within its queue and is never given twice.

    *content_type*: of the data, where its sender named one; '' otherwise.
    """

    index: int
    tags: Mapping[str, str]
    data: bytes
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class Consumer:
    """Who consumes: a user of a group. In a group each item goes to one consumer; each group gets every item."""

    group: str
    user: str

    def __post_init__(self) -> None:
        for kind, name in (("group", self.group), ("user", self.user)):
            if not 1 <= len(name) <= NAME_MOST or not name.isprintable():
                raise errors.InvalidRequest(
                    f"{name[:40]!r} can't be a {kind}: it needs 1 to {NAME_MOST} printable characters"
                )

    @property
    def group_key(self) -> str:
        return tags.quoted(self.group)

    @property
    def key(self) -> str:
        """As the store names it."""
        return f"{self.group_key}/{tags.quoted(self.user)}"

    @classmethod
    def of(cls, key: str) -> Consumer:
        group, _, user = key.partition("/")
        return cls(unquote(group), unquote(user))

    def __str__(self) -> str:
        return f"{self.group}.{self.user}"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which items: from *start* on (NEWEST: only the newest), at most *length*, with *request_id* and all *tags*."""

    start: int = 0
    length: int = 1
    request_id: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """How a consumer watches: at most *window* items that it has not committed; with *auto_commit* each is committed
    when it was sent. *index_only*: without data. *start*: nothing with a lower index, or NEWEST. *tags*: only items
    that have all of them, the same for all consumers of a group."""

    window: int = 10
    auto_commit: bool = False
    index_only: bool = False
    start: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """Where an item stands. *consumer*: who holds it, else who asked. *ahead*: items that are pushed before it."""

    is_pending: bool
    consumer: str
    ahead: int


@dataclass(frozen=True, slots=True)
class ConsumerView:
    """A consumer as others see it. *left_ms*: how long it has been gone, None while it is there."""

    name: str
    group: str
    index: int
    pending: int
    idle_ms: int
    left_ms: int | None
    window: int
    slots: int
    auto_commit: bool
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class GroupView:
    """A group. *read*: up to this index, in the normal class. *waiting*: what it has not been given, or gave back."""

    name: str
    read: int
    pending: int
    delivered: int
    consumers: int
    waiting: int


@dataclass(frozen=True, slots=True)
class QueueView:
    """How a queue stands. *fills*: how many of its items count against its limit, of the input those that wait.
    *first*, *last*: indexes of its ends, 0 where it is empty."""

    length: int
    fills: int
    first: int
    last: int
    consumers: tuple[ConsumerView, ...]
    groups: tuple[GroupView, ...]


def item_of(row: Row) -> Item:
    """The item behind a row of the store."""
    found = tags.unpacked(row.tags)
    kind = row.kind
    if kind:
        kind = next((value for name, value in json.loads(kind) if name.lower() == "content-type"), "")
    elif "ts@sink" not in found:
        kind = found.get("Header:Content-Type", "")
    return Item(row.at, found, row.data, kind)


def view_of(service: str, standing: Standing, concurrency: int) -> QueueView:
    """*concurrency*: of the forwarder; 0 where nothing is forwarded. It stands among the consumers of the input, in the
    group that is named like the service and works on the requests; its figures are those of the requests themselves."""
    consumers = [_consumer(row, standing.now_ms) for row in standing.consumers]
    groups = [_group(row) for row in standing.groups]
    if standing.lane:
        waiting, running, last, has_workers = standing.lane
        in_lane = [view for view in consumers if view.group == service]
        by_watchers = sum(view.pending for view in in_lane)
        forwards = bool(has_workers and concurrency)
        if forwards:
            pending = max(0, running - by_watchers)
            slots = max(0, concurrency - running)
            name = f"{service}.forwarder"
            consumers.insert(0, ConsumerView(name, service, last, pending, 0, None, concurrency, slots, False, {}))
        present = sum(view.left_ms is None for view in in_lane) + forwards
        if in_lane or forwards:
            groups.insert(0, GroupView(service, last, running, last, present, waiting))
    fills = standing.lane[0] if standing.lane else standing.length
    return QueueView(standing.length, fills, standing.first, standing.last, tuple(consumers), tuple(groups))


def _consumer(row: ConsumerRow, now_ms: int) -> ConsumerView:
    who = Consumer.of(row.consumer)
    return ConsumerView(
        name=str(who),
        group=who.group,
        index=row.last,
        pending=row.held,
        idle_ms=max(0, now_ms - row.seen_ms),
        left_ms=max(0, now_ms - row.left_ms) if row.left_ms else None,
        window=0 if row.is_auto else row.window,
        slots=0 if row.is_auto else max(0, row.window - row.held),
        auto_commit=row.is_auto,
        tags=tags.unpacked(row.filter),
    )


def _group(row: GroupRow) -> GroupView:
    return GroupView(unquote(row.group), row.read, row.held, row.last, row.consumers, row.back + row.unread)


def class_of(priority: int) -> int:
    """Class of a put: 0 is normal, higher comes first."""
    return min(NORMAL_CLASS + max(0, priority), 255)
