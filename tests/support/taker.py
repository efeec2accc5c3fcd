"""Takes, completes and extends as takers do, with every argument defaulted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eas_queue.store.takes import Lane, Standing, Taken
from tests.support.drive import FAILED, SUCCEEDED, Driver

ALL = 2**31


@dataclass
class Taker:
    drive: Driver
    name: str = "taker"

    def take(self, *lanes: str | Lane, strategy: str = "fifo", most: int = 10, **options: Any) -> list[Taken]:
        """*lanes*: also as "service:0", the half above normal priority, and "service:1"."""
        arguments: dict[str, Any] = {"lease_ms": 60_000, "taker": self.name, "turn": "turn"} | options
        return self.drive.store.takes.take(parsed(lanes), strategy, most, **arguments)

    def take_ids(self, *lanes: str | Lane, **options: Any) -> list[str]:
        return [taken.request_id for taken in self.take(*lanes, **options)]

    def complete(self, request_id: str, service: str = "s", *, is_good: bool = True) -> bool | None:
        return self.drive.store.takes.complete(service, request_id, SUCCEEDED if is_good else FAILED)

    def extend(self, request_id: str, service: str = "s", *, lease_ms: int = 60_000, taker: str = "") -> bool:
        return self.drive.store.takes.extend(service, request_id, lease_ms=lease_ms, taker=taker)

    def standing(self, lane: str) -> Standing:
        service, is_high, _ = parsed([lane])[0]
        found = self.drive.store.takes.standing(service, is_high=is_high)
        assert found is not None
        return found


def parsed(lanes: Sequence[str | Lane]) -> list[Lane]:
    return [
        lane if isinstance(lane, Lane) else Lane(lane.partition(":")[0], lane.endswith(":0"), ALL) for lane in lanes
    ]
