"""Processes die; nothing that was acknowledged is lost, and each result is written once."""

from __future__ import annotations

import collections
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from eas_queue.store import keys
from eas_queue.store.client import Client
from eas_queue.store.store import Store
from eas_queue.worker.broker import RETRY_MOST_S
from tests.support.installation import Installation, await_condition
from tests.support.server import RedisServer
from tests.support.standing import Standing, standing
from tests.support.target_client import Target

SERVICES = """
[defaults]
allow_unlisted = true
[services.many]
max_concurrency = 2000
[services.one-attempt]
max_attempts = 1
"""


@pytest.fixture(scope="module")
def place(shared_target: Target) -> Iterator[Standing]:
    """Its web stays, whatever happens to workers and to the server."""
    with standing(shared_target.url, services_toml=SERVICES, sweep_s=0.1) as made:
        yield made


@pytest.fixture
def installation(place: Standing) -> Iterator[Installation]:
    yield place.emptied()
    place.alone()


@pytest.fixture
def server(place: Standing) -> RedisServer:
    return place.server


@pytest.fixture
def raw(server: RedisServer) -> Iterator[redis.Redis]:
    with server.client() as client:
        yield client


def results_written(client: redis.Redis, service: str = "demo") -> collections.Counter[str]:
    listed: Any = client.zrange(keys.service_key(service, "sink"), 0, -1)
    return collections.Counter(member.decode() for member in listed)


@pytest.mark.parametrize(("pool", "concurrency", "delay_s"), [("gevent", 100, 1), ("prefork", 8, 0.5)])
def test_requests_of_killed_workers_are_finished_by_the_next_ones(
    installation: Installation, target: Target, raw: redis.Redis, pool: str, concurrency: int, delay_s: float
) -> None:
    running, submitted = (60, 20) if pool == "gevent" else (8, 20)
    installation.env["LEASE_S"] = "5"
    worker = installation.worker(pool, concurrency)
    made = [installation.submit(delay_s=delay_s) for _ in range(running)]
    target.wait_for(lambda calls: len(calls) == running)
    worker.kill()
    made += [installation.submit(delay_s=delay_s) for _ in range(submitted)]

    restarted_at = time.monotonic()
    installation.worker(pool, concurrency, name="w2")
    for request_id in made:
        assert installation.await_end(request_id, timeout_s=60)["status"] == "SUCCESS"

    assert time.monotonic() - restarted_at < 60
    assert results_written(raw) == collections.Counter(made)
    assert max(collections.Counter(call["request_id"] for call in target.calls()).values()) <= 2


def test_what_was_acknowledged_a_second_before_the_server_died_is_finished(
    server: RedisServer, installation: Installation, target: Target
) -> None:
    installation.worker()
    running = [installation.submit(delay_s=3) for _ in range(20)]
    waiting = [installation.submit("other") for _ in range(20)]
    target.wait_for(lambda calls: len(calls) >= 20)
    acknowledged_at = time.monotonic()
    await_condition(lambda: time.monotonic() - acknowledged_at > 1)
    server.await_on_disk()  # a busy disk may take longer

    server.kill()
    server.start()

    for request_id in running:
        assert installation.await_end(request_id, timeout_s=30)["status"] == "SUCCESS"
    for request_id in waiting:
        assert installation.await_end(request_id, "other", timeout_s=30)["status"] == "SUCCESS"
    after = installation.submit()
    assert installation.await_end(after, timeout_s=15)["status"] == "SUCCESS"
    assert [process.popen.poll() for process in installation.processes] == [None, None], "the web and the worker"
    assert max(collections.Counter(call["request_id"] for call in target.calls()).values()) == 1


@pytest.mark.parametrize(("pool", "concurrency"), [("gevent", 10), ("threads", 4), ("prefork", 2)])
def test_a_worker_works_while_celery_waits_to_reach_its_broker_again(
    server: RedisServer, installation: Installation, target: Target, pool: str, concurrency: int
) -> None:
    pause = f"Trying again in {RETRY_MOST_S:.2f} seconds"
    worker = installation.worker(pool, concurrency)
    request_id = installation.submit(delay_s=0.3)
    target.wait_for(lambda calls: len(calls) == 1)
    server.await_on_disk()
    server.kill()
    worker.await_log(pause)
    server.start()

    assert installation.await_end(request_id, timeout_s=RETRY_MOST_S)["status"] == "SUCCESS"
    assert "Connected to" not in worker.log.partition(pause)[2], "it was Celery's time"


def test_a_long_absence_of_workers_leaves_no_flood_of_messages(
    server: RedisServer, installation: Installation, target: Target, raw: redis.Redis
) -> None:
    server.forget_commands()
    made = [installation.submit() for _ in range(200)]
    for _ in range(20):  # an hour passes, twenty times over
        raw.hincrby(keys.SYS, "skew_ms", 3_600_000)
        raw.delete(keys.SWEEP_LOCK)
        await_condition(lambda: raw.exists(keys.SWEEP_LOCK))

    messages: Any = raw.llen(keys.QUEUE_NORMAL)
    installation.worker()
    for request_id in made:
        installation.await_end(request_id)

    assert messages <= 64
    assert len(target.calls()) == 200
    assert server.commands("lpush") <= 64 + 20  # and a few later ones


@pytest.mark.parametrize(("pool", "concurrency"), [("prefork", 4), ("gevent", 50), ("threads", 8), ("solo", 1)])
def test_a_stopped_worker_finishes_short_requests_and_hands_long_ones_back(
    installation: Installation, target: Target, raw: redis.Redis, pool: str, concurrency: int
) -> None:
    installation.env["STOP_GRACE_S"] = "2"
    worker = installation.worker(pool, concurrency)
    alone = pool == "solo"
    short = installation.submit(delay_s=1)
    target.wait_for(lambda calls: len(calls) == 1)
    long = None if alone else installation.submit(hang=1)
    target.wait_for(lambda calls: len(calls) == (1 if alone else 2))

    stopped_at = time.monotonic()
    assert worker.stop(timeout_s=15) == 0
    assert time.monotonic() - stopped_at < 8

    assert installation.status(short)["status"] == "SUCCESS"
    if long is not None:
        status = installation.status(long)
        assert (status["status"], status["attempts"]) == ("PENDING", 0)
        assert target.calls(request_id=long)[0]["outcome"] == "closed_before_headers"


def test_a_request_of_one_attempt_is_not_sent_again_when_its_worker_is_stopped(
    installation: Installation, target: Target
) -> None:
    installation.env["STOP_GRACE_S"] = "1"
    worker = installation.worker()
    request_id = installation.submit("one-attempt", hang=1)
    target.wait_for(lambda calls: len(calls) == 1)

    assert worker.stop() == 0
    installation.worker(name="w2")
    status = installation.await_end(request_id, "one-attempt")

    assert (status["status"], status["error_info"]["type"]) == ("FAILURE", "WorkerStopped")
    assert len(target.calls()) == 1


def test_what_its_client_wants_sent_once_is_not_sent_again_when_its_worker_is_stopped(
    installation: Installation, target: Target
) -> None:
    installation.env["STOP_GRACE_S"] = "0.5"
    worker = installation.worker()
    own = {
        "once": {"X-Fal-No-Retry": "1"},
        "after answers": {"X-Fal-Retry-Config": '{"server_error": {"retries": 0}}'},
    }
    made = {}
    for name, headers in own.items():
        url = f"{installation.url}/fal/local/demo?hang=1"
        made[name] = installation.session.post(url, data="{}", headers=headers, timeout=5).json()["request_id"]
    target.wait_for(lambda calls: len(calls) == 2)

    assert worker.stop() == 0
    installation.worker(name="w2")
    target.wait_for(lambda calls: len(calls) == 3)
    status = installation.await_end(made["once"], "local.demo")

    assert (status["status"], status["error_info"]["type"]) == ("FAILURE", "WorkerStopped")
    assert len(target.calls(request_id=made["once"])) == 1
    assert len(target.calls(request_id=made["after answers"])) == 2


def test_workers_drain_a_queue_while_the_server_is_at_its_memory_limit(
    installation: Installation, target: Target, raw: redis.Redis
) -> None:
    installation.worker("gevent", 4)
    made = [installation.submit(delay_s=0.2) for _ in range(50)]
    raw.config_set("maxmemory", 1)
    try:
        refused = installation.session.post(f"{installation.url}/api/predict/demo", data=b"{}", timeout=5)
        for request_id in made:
            assert installation.await_end(request_id)["status"] == "SUCCESS"
    finally:
        raw.config_set("maxmemory", 1_073_741_824)

    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert installation.await_end(installation.submit())["status"] == "SUCCESS"


def test_a_server_that_takes_no_writes_for_a_while_costs_no_result(
    installation: Installation, target: Target, raw: redis.Redis
) -> None:
    installation.worker()
    request_id = installation.submit(delay_s=0.5)
    target.wait_for(lambda calls: len(calls) == 1)
    raw.config_set("min-replicas-to-write", 1)
    try:
        target.wait_for(lambda calls: calls[0]["ended_at"] is not None)
        ended_at = time.monotonic()
        await_condition(lambda: time.monotonic() - ended_at > 1)
    finally:
        raw.config_set("min-replicas-to-write", 0)

    status = installation.await_end(request_id)

    assert (status["status"], status["attempts"]) == ("SUCCESS", 1)
    assert len(target.calls()) == 1


def test_a_worker_frozen_beyond_its_lease_can_not_write_its_result(installation: Installation, target: Target) -> None:
    installation.env["LEASE_S"] = "2"
    frozen = installation.worker("gevent", 10, name="w1")
    request_id = installation.submit(delay_s=1)
    target.wait_for(lambda calls: len(calls) == 1)
    frozen.popen.send_signal(signal.SIGSTOP)
    installation.worker("gevent", 10, name="w2")

    status = installation.await_end(request_id, timeout_s=20)
    finished_at = status["finished_at"]
    frozen.popen.send_signal(signal.SIGCONT)
    frozen.await_log(f"request_lost request_id={request_id}")

    assert (status["status"], status["attempts"]) == ("SUCCESS", 2)
    assert installation.status(request_id)["finished_at"] == finished_at


def test_two_thousand_slow_calls_run_at_once_in_one_worker_process(
    server: RedisServer, installation: Installation, target: Target, raw: redis.Redis
) -> None:
    """All are submitted before the first may start, so none has a head start. Prints what it measures."""
    count = 2000
    worker = installation.worker("gevent", 2000)
    store = Store(Client(server.url))
    assert installation.await_end(installation.submit("many"), "many")["status"] == "SUCCESS"
    store.pause("many", True)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: installation.submit("many", delay_s=1), range(count)))

    resumed_at = time.monotonic()
    store.pause("many", False)
    store.client.close()
    await_condition(lambda: target.stats()["answered"] == count + 1, timeout_s=30)
    for request_id in made[-50:]:
        installation.await_end(request_id, "many")
    took_s = time.monotonic() - resumed_at

    status = Path(f"/proc/{worker.pid}/status").read_text()
    memory_mb = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    most = target.stats()["max_running"]
    print(f"2,000 x 1 s: {took_s:.2f} s from the release to the end, {memory_mb:.0f} MB peak, {most} at once")
    with raw.pipeline(transaction=False) as pipe:
        for request_id in made:
            pipe.hget(keys.record_key("many", request_id), "state")
        assert set(pipe.execute()) == {b"succeeded"}
    assert most > 400, "far more at once than a message each could start"
    assert memory_mb < 400
