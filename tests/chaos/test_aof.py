"""The reader and the rules, on a real server: what it keeps is read as it is, and each rule can be broken."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis

from eas_queue.store import keys
from tests.chaos.history import History
from tests.support.drive import DEAD, RETRY, SUCCEEDED, Driver
from tests.support.server import RedisServer

RECORD = keys.record_key("s", "")


@pytest.fixture(scope="module")
def kept() -> Iterator[RedisServer]:
    """A server that never writes its file anew."""
    made = RedisServer(more=("auto-aof-rewrite-percentage 0",)).start()
    yield made
    made.stop()


@pytest.fixture
def driver(kept: RedisServer) -> Iterator[Driver]:
    with kept.client() as client:
        client.flushall()
        client.script_flush()
    made = Driver(kept.url)
    made.register()
    yield made
    made.store.client.close()


@pytest.fixture
def raw(kept: RedisServer, driver: Driver) -> Iterator[redis.Redis]:
    with kept.client() as client:
        yield client


@pytest.fixture
def history(kept: RedisServer, driver: Driver) -> History:
    """What comes now; earlier tests broke rules of their own."""
    made = History(kept.folder).read()
    made.breaches.clear()
    return made


def kinds(server: RedisServer, history: History) -> list[str]:
    server.await_on_disk()
    return [breach.kind for breach in history.read().breaches]


def test_a_history_of_every_way_through_the_engine_is_read_without_a_breach(
    kept: RedisServer, driver: Driver, history: History
) -> None:
    ended = driver.submit(body=b'{"n": 7}')
    driver.finish(driver.start()[0])
    dead = driver.submit()
    driver.finish(driver.start()[0], DEAD)
    retried = driver.submit()
    driver.finish(driver.start()[0], RETRY)
    driver.pass_time(6_000)
    driver.sweep()
    lapsed = driver.start()[0]
    driver.pass_time(31_000)
    driver.sweep()
    driver.finish(lapsed)  # too late
    driver.finish(driver.start()[0])
    cancelled = driver.submit()
    driver.store.cancel("s", cancelled)
    expired = driver.submit(deadline_in_ms=1_000)
    driver.pass_time(2_000)
    driver.sweep()
    driver.check()
    kept.await_on_disk()

    assert history.read().breaches == []
    assert {request_id: history.requests[request_id].state for request_id in (ended, dead, retried)} == {
        ended: "succeeded",
        dead: "failed",
        retried: "succeeded",
    }
    assert (history.requests[cancelled].state, history.requests[expired].state) == ("cancelled", "expired")
    assert history.requests[ended].number == 7
    claims = history.requests[retried].claims
    assert [(claim.attempt, claim.closed, claim.lapsed) for claim in claims] == [
        (1, "TargetFailed", False),
        (2, "WorkerLost", True),
        (3, "end", False),
    ]
    assert {claim.process for claim in claims} == {"test"}


def test_when_a_worker_asked_for_work_is_known_though_there_was_none(
    kept: RedisServer, driver: Driver, history: History
) -> None:
    before_ms = time.time() * 1000
    driver.start(caller="4711-abc.0")
    driver.submit()
    [work] = driver.start(caller="4711-abc.1")
    driver.finish(work, caller="4712-def.0")  # an end that takes nothing new is no sign of life
    kept.await_on_disk()

    asked_ms = history.read().asked_ms

    assert (len(asked_ms[4711]), asked_ms.get(4712)) == (2, None)
    assert all(before_ms - 1000 <= at <= time.time() * 1000 + 1000 for at in asked_ms[4711])


def test_what_is_new_is_read_once_and_a_server_that_was_killed_goes_on_in_the_same_history(
    kept: RedisServer, driver: Driver, history: History
) -> None:
    first = driver.submit()
    kept.await_on_disk()
    kept.kill()
    assert first in history.read().requests
    steps = history.transactions

    kept.start()
    second = driver.submit()
    kept.await_on_disk()

    assert {first, second} <= set(history.read().requests)
    assert history.transactions - steps >= 2, "the epoch and the second submit"
    assert history.breaches == []


def test_an_end_over_an_end_is_twice(kept: RedisServer, driver: Driver, raw: redis.Redis, history: History) -> None:
    request_id = driver.submit()
    driver.finish(driver.start()[0], SUCCEEDED)
    raw.hset(RECORD + request_id, mapping={"state": "failed", "finished_ms": 1})

    assert kinds(kept, history) == ["twice"]


def test_a_result_of_the_holder_of_an_old_lease_is_unfenced(
    kept: RedisServer, driver: Driver, raw: redis.Redis, history: History
) -> None:
    request_id = driver.submit()
    driver.start()
    raw.hset(RECORD + request_id, mapping={"won": "an old one", "result": "late"})

    assert kinds(kept, history) == ["unfenced"]


def test_a_result_that_nobody_answers_for_is_unfenced(
    kept: RedisServer, driver: Driver, raw: redis.Redis, history: History
) -> None:
    request_id = driver.submit()
    raw.hset(RECORD + request_id, "result", "from nowhere")

    assert kinds(kept, history) == ["unfenced"]


def test_a_lease_that_is_taken_away_before_its_end_is_illegal(
    kept: RedisServer, driver: Driver, raw: redis.Redis, history: History
) -> None:
    request_id = driver.submit()
    driver.start()
    with raw.pipeline() as step:
        step.zrem(keys.service_key("s", "lease"), request_id)
        step.hdel(RECORD + request_id, "token")
        step.hset(RECORD + request_id, mapping={"state": "queued", "error_type": "WorkerLost"})
        step.zadd(keys.service_key("s", "wait"), {request_id: 1})
        step.execute()

    assert kinds(kept, history) == ["illegal"]


def test_a_skipped_state_a_wrong_place_and_work_without_a_kick_are_illegal(
    kept: RedisServer, driver: Driver, raw: redis.Redis, history: History
) -> None:
    request_id = driver.submit()
    raw.hset(RECORD + request_id, mapping={"state": "succeeded", "finished_ms": 1})
    assert kinds(kept, history) == ["illegal", "illegal"], "queued -> succeeded, and it still waits"

    raw.delete(keys.KICKS)
    assert kinds(kept, history) == ["illegal"] * 3


def test_a_claim_above_the_cap_is_illegal(
    kept: RedisServer, driver: Driver, raw: redis.Redis, history: History
) -> None:
    request_id = driver.submit()
    raw.zadd(keys.service_key("s", "ghost"), {f"{n}/token": 1 for n in range(driver.caps["s"])})
    with raw.pipeline() as step:
        step.zrem(keys.service_key("s", "wait"), request_id)
        step.hset(RECORD + request_id, mapping={"state": "running", "token": "t", "attempt": 1, "started_ms": 1})
        step.zadd(keys.service_key("s", "lease"), {request_id: 1})
        step.execute()

    assert kinds(kept, history) == ["illegal"]
