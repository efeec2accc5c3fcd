"""Queues as who consumes them sees them: ordered items with an index, tags and data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


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
