"""Attributes of a queue in the words of PAI-EAS. All values are texts. See PROTOCOL.md, "Attributes"."""

from __future__ import annotations

from collections.abc import Mapping

from eas_queue.dialects.eas import parameters
from eas_queue.engine.items import ConsumerView, GroupView, QueueView

LEAVING_S = 60


def attributes(name: str, view: QueueView, *, max_length: int, max_payload_bytes: int) -> dict[str, str]:
    """All keys that the official clients and tools know. *name*: of the queue."""
    present = sum(consumer.left_ms is None for consumer in view.consumers)
    found = {
        "consumers.stats.total": present,
        "consumers.status.total": present,
        "meta.backend": "redis",
        "meta.header.group": parameters.GROUP_HEADER,
        "meta.header.groupIdentifyHeader": parameters.GROUP_HEADER,
        "meta.header.priority": parameters.PRIORITY_HEADER,
        "meta.header.user": parameters.USER_HEADER,
        "meta.header.userIdentifyHeader": parameters.USER_HEADER,
        "meta.maxPayloadBytes": max_payload_bytes,
        "meta.name": name,
        "meta.state": "Full" if view.fills >= max_length else "Normal",
        "stream.approxMaxLength": max_length,
        "stream.firstEntry": view.first,
        "stream.lastEntry": view.last,
        "stream.length": view.length,
        "stream.maxPayloadBytes": max_payload_bytes,
    }
    lines = {f"consumers.list.[{i}]": _consumer(consumer, view) for i, consumer in enumerate(view.consumers)}
    lines |= {f"groups.list.[{i}]": _group(group) for i, group in enumerate(view.groups)}
    return {key: str(value) for key, value in sorted((found | lines).items())}


def _consumer(consumer: ConsumerView, view: QueueView) -> str:
    parts = [
        f"Id: {consumer.name}",
        f"Index: {consumer.index}",
        f"Pending: {consumer.pending}",
        f"Status: {_status(consumer, view)}",
        f"Idle: {go_duration(consumer.idle_ms)}",
        f"Window: {consumer.window}",
        f"Slots: {consumer.slots}",
        f"AutoCommit: {str(consumer.auto_commit).lower()}",
    ]
    if consumer.tags:
        parts.append(f"Tags: {go_tags(consumer.tags)}")
    return ", ".join(parts)


def _status(consumer: ConsumerView, view: QueueView) -> str:
    """Complete: it has gone, and its group has had everything. Exit: it has gone long since, and there is more."""
    if consumer.left_ms is None:
        return "Running"
    group = next((each for each in view.groups if each.name == consumer.group), None)
    if group is None or group.waiting + group.pending == 0:
        return "Complete"
    return "Leaving" if consumer.left_ms < LEAVING_S * 1000 else "Exit"


def _group(group: GroupView) -> str:
    return (
        f"Id: {group.name}, Index: {group.read}, Pending: {group.pending}, Delivered: {group.delivered}, "
        f"Consumers: {group.consumers}"
    )


def go_tags(tags: Mapping[str, str]) -> str:
    return "tags[" + " ".join(f"{key}={tags[key]}" for key in sorted(tags)) + "]"


def go_duration(ms: int) -> str:
    """As Go writes it: `0s`, `250ms`, `19.997s`, `1m0.5s`, `2h0m0s`."""
    if ms == 0:
        return "0s"
    if ms < 1000:
        return f"{ms}ms"
    minutes, rest = divmod(ms, 60_000)
    seconds = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}" if minutes else seconds
