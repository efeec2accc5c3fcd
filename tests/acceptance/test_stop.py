"""SIGTERM ends every process in bounded time, also while Redis is away and Celery's own stop would wait for ever."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import requests
from celery import Celery

from eas_queue.worker import ending
from tests.acceptance.test_celery_view import FLOWER_LOGIN, start_flower
from tests.acceptance.test_make_run import is_alive
from tests.support.installation import Installation, await_condition
from tests.support.server import RedisServer
from tests.support.target_client import Target


def _children(pid: int) -> list[int]:
    shown = subprocess.run(["ps", "-e", "-o", "ppid=,pid="], capture_output=True, text=True, check=True).stdout
    return [int(child) for parent, child in map(str.split, shown.splitlines()) if int(parent) == pid]


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """One that the test may kill."""
    server = RedisServer().start()
    yield server
    server.stop()


@pytest.mark.parametrize(("pool", "concurrency"), [("gevent", 50), ("prefork", 2), ("threads", 4)])
def test_a_worker_that_owes_a_reply_to_a_dead_redis_ends(
    own_server: RedisServer, target: Target, pool: str, concurrency: int
) -> None:
    with Installation(own_server.url, target.url, stop_grace_s=30) as installation:
        worker = installation.worker(pool, concurrency, app="tests.support.slow_reply")

        def has_begun() -> bool:  # a worker says that it is ready before it listens to broadcasts
            client.control.broadcast("slow_reply", reply=True, timeout=0.1)
            return "slow_reply begins" in worker.log

        with Celery(broker=own_server.url) as client:
            await_condition(has_begun, timeout_s=20, what="slow_reply begins")
        own_server.kill()
        stopped_at = time.monotonic()

        assert worker.stop(timeout_s=25) == 0
        assert time.monotonic() - stopped_at < 2 * 1.0 + ending.IDLE_S + 3, "nothing ran, so no grace is waited for"


def test_a_worker_whose_result_can_not_be_written_ends_after_its_grace(own_server: RedisServer, target: Target) -> None:
    """The result in its hands is lost with it: the lease lapses, and the request runs again."""
    with Installation(own_server.url, target.url, stop_grace_s=1, lease_s=60) as installation:
        installation.web()
        worker = installation.worker("prefork", 2)
        installation.submit(delay_s=1)
        target.wait_for(lambda calls: len(calls) == 1)
        own_server.kill()
        stopped_at = time.monotonic()
        children = _children(worker.pid)

        code = worker.stop(timeout_s=25)

        assert time.monotonic() - stopped_at < 1 + ending.LATE_S + 3
        assert (code, "worker_stop_cut seats=1" in worker.log) == (1, True), worker.log[-2000:]
        assert len(children) == 2
        await_condition(lambda: not any(map(is_alive, children)), what="its children end with it")


def test_flower_ends_while_a_thread_of_its_tries_to_reach_redis(own_server: RedisServer, target: Target) -> None:
    with Installation(own_server.url, target.url) as installation:
        url = start_flower(installation)
        flower = installation.processes[-1]
        own_server.kill()

        def refresh() -> None:
            with suppress(requests.RequestException):
                requests.get(f"{url}/api/workers", params={"refresh": "1"}, auth=FLOWER_LOGIN, timeout=10)

        asking = threading.Thread(target=refresh)
        asking.start()
        time.sleep(1)  # it asks all workers at once, in threads that Python waits for at exit
        stopped_at = time.monotonic()

        flower.stop(timeout_s=25)
        asking.join()

        assert time.monotonic() - stopped_at < 5
