"""Drives the queues of one service as web processes do, on a Driver's store."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from eas_queue.engine import tags
from eas_queue.store.queues import Pulled, Queues, Standing, Wants
from eas_queue.store.shapes import fresh_id
from tests.support.drive import Driver

PROCESS_LEASE_MS = 6_000
RESULT = ("succeeded", 200, "[]", '{"status": "success"}')


@dataclass
class Desk:
    """*queue* of *service*. A consumer is written `group/user`; all are of the same process unless said otherwise."""

    drive: Driver
    queue: str = "sink"
    service: str = "s"
    store: Queues = field(init=False)
    tokens: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = self.drive.store.queues

    def put(self, data: bytes = b"x", priority_class: int = 100, name: str = "", **given: Any) -> int:
        """The index."""
        code, index = self.put_reply(data, priority_class=priority_class, name=name, **given)
        assert code == 1
        return index

    def put_reply(
        self, data: bytes = b"x", *, priority_class: int = 100, name: str = "", item_id: str = "", **given: Any
    ) -> list[int]:
        item_id = item_id or fresh_id()
        return self.store.put(
            self.service,
            self.queue,
            item_id,
            priority_class=priority_class,
            tags=tags.packed({**given, "requestId": name or item_id}),
            name=name,
            data=data,
            kind="",
            result=RESULT,
        )

    def join(self, consumer: str, **changes: Any) -> int:
        token = changes.pop("token", None) or self.tokens.setdefault(consumer, fresh_id())
        options: dict[str, Any] = {
            "process": "p",
            "process_lease_ms": PROCESS_LEASE_MS,
            "window": 10,
            "is_auto": False,
            "is_bare": False,
            "start": 0,
            "filter": "",
        } | changes
        code = self.store.join(self.service, self.queue, consumer, token, **options)
        if code == 1:
            self.tokens[consumer] = token
        return code

    def leave(self, consumer: str, *done: str) -> bool:
        return self.store.leave(self.service, self.queue, consumer, self.tokens.pop(consumer, ""), done)

    def pull_reply(self, *consumers: str, done: Iterable[str] = (), **changes: Any) -> Any:
        group = consumers[0].partition("/")[0]
        options: dict[str, Any] = {"caller": fresh_id(), "nonce": fresh_id(), "most": 100, "bytes_most": 1_000_000}
        wants = [Wants(consumer, self.tokens.get(consumer, "none"), tuple(done)) for consumer in consumers]
        return self.store.pull(self.service, self.queue, group, wants, **(options | changes))

    def pull(self, *consumers: str, **changes: Any) -> list[Pulled]:
        found: list[Pulled] = self.pull_reply(*consumers, **changes)[1]
        return found

    def indexes(self, *consumers: str, **changes: Any) -> list[int]:
        return [pulled.row.at for pulled in self.pull(*consumers, **changes)]

    def commit(self, group: str, *indexes: int) -> int:
        return self.store.settle(self.service, self.queue, group, indexes, done=True, code="", reason="")

    def refuse(self, group: str, *indexes: int, code: str = "", reason: str = "") -> int:
        return self.store.settle(self.service, self.queue, group, indexes, done=False, code=code, reason=reason)

    def there(self, queue: str = "") -> list[int]:
        """The indexes of what the queue holds."""
        return sorted(int(index) for index in self.drive.members(self.service, queue or self.queue).values())

    def standing(self) -> Standing:
        return self.store.attributes(self.service, self.queue)

    def search(self, index: int, consumer: str) -> tuple[bool, str, int] | None:
        return self.store.search(self.service, self.queue, index, consumer)
