"""Watchers in several processes: what comes back, or may be started again, reaches whoever has room, wherever that is.

A process is an engine of its own here: to Redis they are the same.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from eas_queue.engine import errors, watching
from eas_queue.engine.engine import Engine
from eas_queue.engine.items import Consumer, Item, Queue, WatchOptions
from eas_queue.engine.queues import Put
from eas_queue.engine.request import Submission
from eas_queue.engine.service import Services, ServiceSettings
from eas_queue.store import keys
from eas_queue.store.client import Client
from eas_queue.store.errors import StoreUnavailable
from eas_queue.store.store import Store
from tests.support.installation import await_condition
from tests.support.server import RedisServer


class Reader:
    """A consumer that takes all it is pushed, and settles nothing."""

    def __init__(self, engine: Engine, queue: Queue, who: Consumer, options: WatchOptions) -> None:
        self.watcher = engine.watches.join("s", queue, who, options, is_dead=lambda _: False)
        self.items: list[Item] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for item in self.watcher.items():
            if item is not None:
                self.items.append(item)

    @property
    def indexes(self) -> list[int]:
        return [item.index for item in self.items]

    def leave(self) -> None:
        self.watcher.leave()
        self._thread.join(5)

    def await_indexes(self, *indexes: int) -> None:
        """In less time than the peek takes that finds what a note was lost for, once: later it would not."""
        await_condition(lambda: self.indexes == list(indexes), timeout_s=3, what=f"{self.indexes} are {indexes}")


class Processes:
    def __init__(self, url: str) -> None:
        self._url = url
        self._stores: list[Store] = []
        self._readers: list[Reader] = []
        self._pulled_s = 0.0

    def start(self, **settings: Any) -> Engine:
        store = Store(Client(self._url))
        self._stores.append(store)
        self._note_pulls(store)
        defaults = ServiceSettings(target_url="http://127.0.0.1:9/{path}", **settings)
        return Engine(store, Services({}, defaults, allow_unlisted=True, result_ttl_s=3600))

    def _note_pulls(self, store: Store) -> None:
        pull = store.queues.pull

        def noted(*args: Any, **options: Any) -> Any:
            try:
                return pull(*args, **options)
            finally:
                self._pulled_s = time.monotonic()

        store.queues.pull = noted  # type: ignore[method-assign]

    def await_quiet(self) -> None:
        """Until who came last has looked, and all have heard what was said."""
        await_condition(lambda: time.monotonic() - self._pulled_s > 0.3, what="nobody pulls any more")

    def watch(self, engine: Engine, queue: Queue, name: str, **options: Any) -> Reader:
        """*name*: group/user."""
        group, _, user = name.partition("/")
        self._pulled_s = math.inf
        reader = Reader(engine, queue, Consumer(group, user), WatchOptions(**options))
        self._readers.append(reader)
        return reader

    def close(self) -> None:
        for reader in self._readers:
            reader.leave()
        for store in self._stores:
            store.client.close()


@pytest.fixture
def processes(server: RedisServer) -> Iterator[Processes]:
    found = Processes(server.url)
    yield found
    found.close()


@pytest.fixture
def put(processes: Processes) -> Callable[[], int]:
    engine = processes.start()
    return lambda: engine.queues.put("s", Queue.SINK, Put(b"x", {}))[0]


def test_what_a_consumer_that_stops_gives_back_goes_to_another_process(
    processes: Processes, put: Callable[[], int]
) -> None:
    engines = processes.start(), processes.start()
    one = processes.watch(engines[0], Queue.SINK, "g/one")
    put()
    one.await_indexes(1)
    other = processes.watch(engines[1], Queue.SINK, "g/other")
    processes.await_quiet()

    engines[0].queues.refuse("s", Queue.SINK, [1], "g", code="Shutdown", reason="")

    other.await_indexes(1)


def test_a_request_that_a_watcher_refuses_when_it_stops_goes_to_another_process(processes: Processes) -> None:
    engines = processes.start(mode="pull"), processes.start(mode="pull")
    one = processes.watch(engines[0], Queue.INPUT, "s/one")
    engines[0].submit("s", Submission(body=b"x"))
    one.await_indexes(1)
    other = processes.watch(engines[1], Queue.INPUT, "s/other")
    processes.await_quiet()

    engines[0].queues.refuse("s", Queue.INPUT, [1], "s", code="Shutdown", reason="")

    other.await_indexes(1)


def test_a_service_that_is_resumed_is_watched_again(processes: Processes) -> None:
    engine = processes.start(mode="pull")
    engine.register(engine.services.get("s"))
    engine.pause("s")
    engine.submit("s", Submission(body=b"x"))
    reader = processes.watch(engine, Queue.INPUT, "s/one")
    processes.await_quiet()

    engine.resume("s")

    reader.await_indexes(1)


def test_a_sink_that_has_room_again_lets_watchers_of_the_input_go_on(processes: Processes) -> None:
    engine = processes.start(mode="pull", max_sink_length=1, sink_full="hold")
    engine.queues.put("s", Queue.SINK, Put(b"x", {}))
    engine.submit("s", Submission(body=b"x"))
    reader = processes.watch(engine, Queue.INPUT, "s/one")
    processes.await_quiet()

    engine.queues.remove("s", Queue.SINK, [1])

    reader.await_indexes(1)


def test_a_full_consumer_whose_process_was_taken_for_dead_is_given_what_it_held(
    processes: Processes, put: Callable[[], int], monkeypatch: pytest.MonkeyPatch, server: RedisServer
) -> None:
    monkeypatch.setattr(watching, "LEASE_MS", 500)
    engine = processes.start()
    reader = processes.watch(engine, Queue.SINK, "g/one", window=1)
    put()
    put()
    reader.await_indexes(1)
    await_condition(lambda: reader.watcher.is_full, what="it is full")
    with server.client() as client:
        await_condition(
            lambda: float(client.zscore(keys.WATCHERS, engine.watches.process) or 0) < float(client.time()[0]) * 1000,
            what="its lease is over",
        )
        client.delete(keys.SWEEP_LOCK)

    engine.store.sweep(every_ms=1, process="other")

    reader.await_indexes(1, 1)


def test_a_content_type_that_is_none_keeps_nothing_from_consumers(
    processes: Processes,
) -> None:
    engine = processes.start()
    reader = processes.watch(engine, Queue.SINK, "g/one")

    engine.queues.put("s", Queue.SINK, Put(b"x", {}, content_type="[not JSON"))
    engine.queues.put("s", Queue.SINK, Put(b"y", {}, content_type="text/plain"))

    reader.await_indexes(1, 2)
    assert [item.content_type for item in reader.items] == ["[not JSON", "text/plain"]


def test_a_consumer_whose_join_had_no_answer_does_not_stay(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = processes.start()
    join = engine.watches.store.join

    def unheard(*args: Any, **options: Any) -> int:
        join(*args, **options)
        monkeypatch.undo()
        monkeypatch.setattr(watching, "BUSY_S", 8.0)
        raise StoreUnavailable("no answer")

    processes.watch(engine, Queue.SINK, "g/other")  # the threads run
    monkeypatch.setattr(engine.watches.store, "join", unheard)
    with pytest.raises(errors.Unavailable):
        processes.watch(engine, Queue.SINK, "g/one")

    processes.watch(engine, Queue.SINK, "g/one")


def test_what_a_consumer_holds_that_does_not_read_is_given_to_others_when_its_process_stops(
    processes: Processes, put: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "KEEP_S", 0.2)
    engines = processes.start(), processes.start()
    stuck = engines[0].watches.join("s", Queue.SINK, Consumer("g", "stuck"), WatchOptions(), is_dead=lambda _: False)
    put()
    assert next(stuck.items())  # and no more: its connection's thread is in the middle of sending
    other = processes.watch(engines[1], Queue.SINK, "g/other")
    processes.await_quiet()

    engines[0].waits.stop()

    other.await_indexes(1)
    stuck.leave()
