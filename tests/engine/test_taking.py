"""Takes that wait: what has come reaches one that can use it, whoever was woken first."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from eas_queue.engine import errors
from eas_queue.engine.engine import Engine
from eas_queue.engine.request import Submission
from eas_queue.engine.retry import Answer
from eas_queue.engine.service import Services, ServiceSettings
from eas_queue.engine.taking import Lane, Strategy, Taken, Wanted
from eas_queue.store.store import Store
from tests.support.installation import await_condition

SOON_S = 1.0
HIGH, NORMAL = Lane("q", True), Lane("q", False)


@pytest.fixture
def engine(store: Store) -> Engine:
    listed = {name: ServiceSettings(mode="pull") for name in ("q", "a", "b", "c")}
    return Engine(store, Services(listed, ServiceSettings(), allow_unlisted=False, result_ttl_s=3600))


def put(engine: Engine, priority: int = 0, service: str = "q") -> str:
    return engine.submit(service, Submission(b"{}", priority=priority)).request_id


@contextmanager
def waiting(engine: Engine, pool: ThreadPoolExecutor, *lanes: Lane, **more: Any) -> Iterator[Future[list[Taken]]]:
    """A take that stands in the row of its services."""
    is_gone = more.pop("is_gone", lambda: False)
    before = row(engine)
    wanted = Wanted(lanes, 1, wait_s=more.pop("wait_s", 4), **more)
    future = pool.submit(engine.takes.take, wanted, is_gone=is_gone)
    await_condition(lambda: row(engine) > before, what="it waits")
    time.sleep(0.05)  # and has looked
    yield future


def row(engine: Engine) -> int:
    return sum(len(bell.takers) for bell in engine.takes._bells.values())


def assert_soon(future: Future[list[Taken]], request_id: str) -> None:
    began_s = time.monotonic()
    assert [each.request_id for each in future.result(5)] == [request_id]
    assert time.monotonic() - began_s < SOON_S


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as made:
        yield made


def test_one_that_waits_for_the_other_lane_passes_it_on(engine: Engine, pool: ThreadPoolExecutor) -> None:
    with waiting(engine, pool, HIGH) as first, waiting(engine, pool, NORMAL) as second:
        assert_soon(second, put(engine))
        assert_soon(first, put(engine, 1))


def test_so_does_one_whose_client_has_gone(engine: Engine, pool: ThreadPoolExecutor) -> None:
    gone: list[bool] = []
    with waiting(engine, pool, NORMAL, is_gone=lambda: bool(gone)) as first, waiting(engine, pool, NORMAL) as second:
        gone.append(True)
        assert_soon(second, put(engine))
        with pytest.raises(errors.WaiterGone):
            first.result(5)


def test_so_does_one_whose_sequential_lane_is_busy(engine: Engine, pool: ThreadPoolExecutor) -> None:
    out = put(engine)
    assert [each.request_id for each in engine.takes.take(Wanted((NORMAL,), 1, Strategy.SEQUENTIAL))] == [out]
    with (
        waiting(engine, pool, NORMAL, strategy=Strategy.SEQUENTIAL) as first,
        waiting(engine, pool, NORMAL) as second,
    ):
        assert_soon(second, put(engine))
        last = put(engine)
        engine.takes.complete(out, Answer(200, (), b""))
        assert_soon(first, last)


def test_so_does_one_that_wants_older_ones(engine: Engine, pool: ThreadPoolExecutor) -> None:
    with (
        waiting(engine, pool, NORMAL, min_age_s=60, wait_s=1) as first,
        waiting(engine, pool, NORMAL) as second,
    ):
        assert_soon(second, put(engine))
        assert first.result(5) == []


def test_each_of_many_that_wait_gets_one_of_as_many(engine: Engine) -> None:
    with ThreadPoolExecutor(20) as pool:
        futures = [pool.submit(engine.takes.take, Wanted((HIGH, NORMAL), 1, wait_s=5)) for _ in range(20)]
        await_condition(lambda: row(engine) == 20, what="all wait")
        began_s = time.monotonic()
        ids = [put(engine, number % 2) for number in range(20)]
        found = [each.request_id for future in futures for each in future.result(6)]

    assert sorted(found) == sorted(ids)
    assert time.monotonic() - began_s < 3
    assert engine.takes._bells == {}, "nobody listens any more"


def test_a_server_that_was_emptied_is_told_of_all_listed_ones(engine: Engine, raw: redis.Redis) -> None:
    lanes = tuple(Lane(name, False) for name in "abcq")
    assert engine.takes.take(Wanted(lanes, 1)) == []
    raw.flushall()

    assert engine.takes.take(Wanted(lanes, 1)) == []
