"""Watching a queue: items are pushed to consumers as they come, as many as each has room for.

A consumer is a connection to this process. Those of one group that are connected here are served together: when
something has happened to their queue, one thread pulls for the group, and what it gets lies ready for each connection's
own thread to send. Nothing more is pulled for a consumer before it has sent what it was given, so that a slow reader
costs this process one batch, and its window's rest stays in Redis.

Redis knows of each consumer, and what it holds; if this process dies, its lease ends, and all that its consumers held
is pushed to others.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import itertools
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from eas_queue.engine import errors, tags
from eas_queue.engine.items import Consumer, Item, Queue, WatchOptions, item_of
from eas_queue.engine.translation import translated
from eas_queue.engine.waiting import QueueWaiter, Turn, Waiter, nobody_asks
from eas_queue.store import keys
from eas_queue.store.errors import StoreError
from eas_queue.store.queues import MAYBE_MORE, ROOM_ELSEWHERE, Wants
from eas_queue.store.shapes import fresh_id

if TYPE_CHECKING:
    from eas_queue.engine.engine import Engine

log = logging.getLogger("eas_queue.web")

LEASE_MS = 6_000  # of this process on its consumers
KEEP_S = 2.0  # between two renewals, and two looks at each connection
ASKED_AT_ONCE = 32  # consumers in one pull
ASKED_FIRST = 8  # in the first one: most often there is one item to give
BATCH_ITEMS = 100  # one pull
BATCH_BYTES = 1_048_576
BUSY_S = 2.0  # a consumer waits so long for its double to go: who reconnects may come before the old connection ends
BUSY_TICK_S = 0.1
AWAY_S = 0.25  # between two pulls while Redis is away


class Watcher:
    """One consumer, as its connection sees it. Made by Watches.join."""

    def __init__(
        self, group: _Group, consumer: Consumer, options: WatchOptions, is_dead: Callable[[bool], bool]
    ) -> None:
        self.consumer, self.options = consumer, options
        self.token = fresh_id()
        self.over: Turn | None = None
        self.on_over: Callable[[Turn], None] | None = None  # wakes who is sending to a client that does not read
        self._group = group
        self._is_dead = is_dead
        self._inbox: collections.deque[tuple[str, Item]] = collections.deque()
        self._woken = threading.Event()
        self.done: list[str] = []  # with auto commit: had, and Redis does not know it yet
        self.is_sending = False
        self.is_full = False  # it holds as many as its window takes
        self.rooms = 0  # notes that it has room again

    def items(self, heartbeat_s: float | None = None) -> Generator[Item | None]:
        """What is pushed to it, until it is over. An item counts as had when the next one is asked for.

        None after *heartbeat_s* of silence. To be closed when the connection ends.
        """
        while self.over is None:
            if not self._inbox:
                if self.is_sending:
                    self.is_sending = False
                    self._group.has_room(self)
                if not self._woken.wait(heartbeat_s):
                    yield None
                self._woken.clear()
                continue
            name, item = self._inbox[0]
            yield item
            self._inbox.popleft()
            if self.options.auto_commit:
                self.done.append(name)

    def end(self, turn: Turn = Turn.GONE) -> None:
        """Its connection is over, or is to be; ``items`` ends. From any thread."""
        is_first = self.over is None
        self.over = self.over or turn
        self._woken.set()
        if is_first and self.on_over is not None:
            self.on_over(turn)

    def leave(self) -> None:
        """It has gone: what it has not had goes to others."""
        self.end()
        self._group.watches.leave(self)

    # ------------------------------------------------------------------------------------- for those who serve it
    @property
    def wants(self) -> Wants:
        return Wants(self.consumer.key, self.token, tuple(self.done))

    @property
    def is_ready(self) -> bool:
        return self.over is None and not self.is_sending and not self.is_full

    def give(self, given: list[tuple[str, Item]]) -> None:
        self.is_sending = True
        self._inbox.extend(given)
        self._woken.set()

    def check(self, *, is_asked_for: bool) -> None:
        """End it if its connection is dead. *is_asked_for*: its double has come."""
        if self.over is None and self._is_dead(is_asked_for):
            self.end()


class _Group(QueueWaiter):
    """The consumers of one group that are connected to this process."""

    is_client = False

    def __init__(self, watches: Watches, service: str, queue: Queue, group_key: str) -> None:
        super().__init__(service, queue)
        self.watches, self.group_key = watches, group_key
        self.watchers: dict[str, Watcher] = {}  # by the consumer's key
        self.members = 0  # those, and who is about to join
        self.caller = f"{watches.process}.{next(watches.numbers)}"
        self.nonce = fresh_id()  # of the pull that has no answer yet
        self.turn = 0  # whom to ask first
        self.has_news = False  # since the last pull for all of them
        self.roomy: dict[Watcher, None] = {}  # who has got room since then
        self.pending: list[Watcher] = []  # whom the pull without an answer asked for

    def hear(self, note: bytes) -> None:
        kind, _, whom = note.partition(b" ")
        if kind == b"room" and b"/" in whom:
            watcher = self.watchers.get(whom.decode())
            if watcher is None:
                return
            watcher.rooms += 1
            watcher.is_full = False
            self.has_room(watcher)
        elif kind != b"room" or whom.decode() == self.group_key:
            self.stir()

    def wake(self) -> None:
        """Nobody knows what happened meanwhile."""
        if self.over is not None:
            for watcher in list(self.watchers.values()):
                watcher.end(self.over)
        for watcher in list(self.watchers.values()):
            watcher.rooms += 1
            watcher.is_full = False
        self.stir()

    def check_client(self) -> None:
        """Its clients are looked after by Watches."""

    def stir(self) -> None:
        """Something may be there for any of them."""
        self.has_news = True
        self.watches.stir(self)

    def has_room(self, watcher: Watcher) -> None:
        """There may be more for this one; with auto commit, what it has had is to leave the queue."""
        self.roomy[watcher] = None
        self.watches.stir(self)

    def pull(self) -> bool:
        """Pull for those who are ready; returns whether to do so again at once. Raises StoreError."""
        if self.pending:
            self._pull_for(self.pending)
            return True
        roomy, self.roomy = list(self.roomy), {}
        if not self.has_news:
            ready = [watcher for watcher in roomy if watcher.is_ready]
        else:
            self.has_news = False
            ready = [watcher for watcher in list(self.watchers.values()) if watcher.is_ready]
            if len(ready) > ASKED_FIRST:
                self.turn = (self.turn + ASKED_FIRST) % len(ready)
                ready = ready[self.turn :] + ready[: self.turn]
                ready.sort(key=lambda watcher: not watcher.done)
        asked = 0
        while asked < len(ready):
            some = ready[asked : asked + (ASKED_AT_ONCE if asked else ASKED_FIRST)]
            asked += len(some)
            code = self._pull_for(some)
            self.has_news = self.has_news or code == MAYBE_MORE
            if code != ROOM_ELSEWHERE and not any(watcher.done for watcher in ready[asked:]):
                break
        return self.has_news

    def _pull_for(self, asked: list[Watcher]) -> int:
        self.pending = asked
        wants = [watcher.wants for watcher in asked]
        rooms = [watcher.rooms for watcher in asked]
        code, found, lost, full = self.watches.store.pull(
            self.service,
            self.queue,
            self.group_key,
            wants,
            caller=self.caller,
            nonce=self.nonce,
            most=BATCH_ITEMS,
            bytes_most=BATCH_BYTES,
        )
        self.nonce, self.pending = fresh_id(), []
        for watcher, want in zip(asked, wants, strict=True):
            del watcher.done[: len(want.done)]
        for place in full:
            if asked[place].rooms == rooms[place]:  # else it has got room since
                asked[place].is_full = not asked[place].options.auto_commit
        given: dict[int, list[tuple[str, Item]]] = {}
        for pulled in found:
            given.setdefault(pulled.consumer, []).append((pulled.item, item_of(pulled.row)))
        for place, items in given.items():
            asked[place].give(items)
        for place in lost:
            self.watches.rejoin(asked[place])
        return code


class Watches:
    """All consumers that are connected to one process. Its threads start with the first."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.store = engine.store.queues
        self.numbers = itertools.count()
        self.process = ""
        self._pid = 0
        self._lock = threading.Lock()
        self._groups: dict[tuple[str, str, str], _Group] = {}
        self._stirred: dict[_Group, None] = {}  # in the order of stirring
        self._something = threading.Event()
        self._leaving: list[Watcher] = []  # whom Redis could not be told of

    def join(
        self,
        service_name: str,
        queue: Queue,
        consumer: Consumer,
        options: WatchOptions,
        *,
        is_dead: Callable[[bool], bool],
        is_gone: Callable[[], bool] = nobody_asks,
    ) -> Watcher:
        """Begin to watch. Every Watcher must be left in the end.

        *is_dead*, asked every few seconds, tells that the connection does not live; its argument is true when somebody
        else wants to take this consumer's place. Raises ConsumerBusy when a consumer of this name is alive,
        FilterMismatch, TooManyGroups, WaiterGone when *is_gone* meanwhile, Unavailable.
        """
        service = self._engine.services.get(service_name)
        self._ensure_threads()
        key = (service.name, str(queue), consumer.group_key)
        with self._lock:
            group = self._groups.get(key)
            is_new = group is None
            if group is None:
                group = self._groups[key] = _Group(self, service.name, queue, consumer.group_key)
            group.members += 1
            watcher = Watcher(group, consumer, options, is_dead)
        if is_new:
            self._engine.waits.add(group)
        try:
            self._join(watcher, service_name, is_gone)
        except BaseException as exc:
            self._forget(watcher)
            if isinstance(exc, errors.Unavailable) or not isinstance(exc, errors.EngineError):
                with self._lock:  # Redis may have it nevertheless, and would keep its name for it
                    self._leaving.append(watcher)
            raise
        with self._lock:
            group.watchers[consumer.key] = watcher
        if group.over is not None:
            watcher.end(group.over)
        group.stir()
        return watcher

    @translated
    def _join(self, watcher: Watcher, service_name: str, is_gone: Callable[[], bool]) -> None:
        service = self._engine.services.get(service_name)
        until_s = time.monotonic() + BUSY_S
        while True:
            code = self._send_join(watcher)
            if code == 1:
                return
            if code == -1:
                self._engine.register(service)
            elif code == -2:
                raise errors.FilterMismatch(watcher.consumer.group)
            elif code == -3:
                raise errors.TooManyGroups(f"{watcher._group.queue} of {service.name}")
            elif time.monotonic() > until_s:
                raise errors.ConsumerBusy(str(watcher.consumer))
            else:
                time.sleep(BUSY_TICK_S)
            if is_gone():
                raise errors.WaiterGone(str(watcher.consumer))

    def _send_join(self, watcher: Watcher) -> int:
        options, group = watcher.options, watcher._group
        return self.store.join(
            group.service,
            group.queue,
            watcher.consumer.key,
            watcher.token,
            process=self.process,
            process_lease_ms=LEASE_MS,
            window=max(1, options.window),
            is_auto=options.auto_commit,
            is_bare=options.index_only,
            start=options.start,
            filter=tags.as_filter(options.tags),
        )

    def rejoin(self, watcher: Watcher) -> None:
        """Redis does not know it any more: this process was taken for dead, or Redis was emptied. Raises StoreError."""
        if watcher.over is not None:
            return
        code = self._send_join(watcher)
        if code == -1:
            with contextlib.suppress(errors.EngineError):
                self._engine.register(self._engine.services.get(watcher._group.service))
                code = self._send_join(watcher)
        if code != 1:
            watcher.end()
        elif watcher.over is not None:
            self._send_leave(watcher)

    def leave(self, watcher: Watcher) -> None:
        """Tell Redis, now or when it is back."""
        self._forget(watcher)
        try:
            self._send_leave(watcher)
        except StoreError:
            with self._lock:
                self._leaving.append(watcher)

    def _send_leave(self, watcher: Watcher) -> None:
        group = watcher._group
        self.store.leave(group.service, group.queue, watcher.consumer.key, watcher.token, watcher.done)

    def _forget(self, watcher: Watcher) -> None:
        group = watcher._group
        key = (group.service, str(group.queue), group.group_key)
        with self._lock:
            if group.watchers.get(watcher.consumer.key) is watcher:
                del group.watchers[watcher.consumer.key]
            group.members -= 1
            is_last = group.members == 0
            if is_last:
                del self._groups[key]
                self._stirred.pop(group, None)
        if is_last:
            self._engine.waits.remove(group)

    def count(self) -> int:
        """How many watch."""
        with self._lock:
            return sum(len(group.watchers) for group in self._groups.values())

    # -------------------------------------------------------------------------------------------------- threads
    def _ensure_threads(self) -> None:
        with self._lock:
            if self._pid == os.getpid():
                return
            self._pid = os.getpid()
            self.process = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
            self._groups, self._stirred, self._leaving = {}, {}, []
            for target in (self._push_forever, self._keep_forever):
                thread = threading.Thread(target=target, name="watches", daemon=True)
                contextvars.Context().run(thread.start)  # without the request of the first consumer
        self._engine.waits.add(_Knocks(self))

    def stir(self, group: _Group) -> None:
        """Something may be there for this group."""
        with self._lock:
            self._stirred[group] = None
        self._something.set()

    def _push_forever(self) -> None:
        while True:
            self._something.wait()
            with self._lock:
                group = next(iter(self._stirred), None)
                if group is None:
                    self._something.clear()
                    continue
                del self._stirred[group]
            try:
                if group.pull():
                    group.stir()
            except StoreError as exc:
                log.warning("pull_failed error=%s", exc.in_full)
                group.stir()
                time.sleep(AWAY_S)
            except Exception:
                log.exception("pull_failed service=%s queue=%s", group.service, group.queue)

    def _keep_forever(self) -> None:
        while True:
            time.sleep(KEEP_S)
            try:
                with self._lock:
                    watchers = [each for group in self._groups.values() for each in group.watchers.values()]
                for watcher in watchers:
                    watcher.check(is_asked_for=False)
                    if watcher.over is Turn.STOPPING:  # its connection may be stuck until this process is killed
                        with contextlib.suppress(StoreError):
                            self._send_leave(watcher)
                with self._lock:
                    leaving, self._leaving = self._leaving, []
                while leaving:
                    try:
                        self._send_leave(leaving[-1])
                        leaving.pop()
                    except StoreError:
                        with self._lock:
                            self._leaving += leaving
                        break
                if watchers:
                    self.store.holds(self.process, LEASE_MS)
            except StoreError:
                pass  # the pushing thread says so
            except Exception:
                log.exception("watches_keeper_failed")

    def knocked(self, service: str, queue: str, consumer: str) -> None:
        """Somebody else would be this consumer: end it if it is dead."""
        with self._lock:
            group = self._groups.get((service, queue, consumer.partition("/")[0]))
            watcher = group.watchers.get(consumer) if group is not None else None
        if watcher is not None:
            watcher.check(is_asked_for=True)


class _Knocks(Waiter):
    """Hears of doubles."""

    is_client = False

    def __init__(self, watches: Watches) -> None:
        super().__init__("", "", end_only=True, is_gone=nobody_asks)
        self._watches = watches

    @property
    def topic(self) -> str:
        return keys.KNOCK_TOPIC

    def hear(self, note: bytes) -> None:
        with contextlib.suppress(ValueError):
            self._watches.knocked(*note.decode().split(" "))

    def check_client(self) -> None:
        """It has none."""
