"""A worker that has lost its broker without noticing is back at work within 30 s; one with a good reason to take
nothing is left alone.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from eas_queue.worker.watchdog import FROZEN_S
from tests.support.installation import Installation, Process, await_condition
from tests.support.proxy import Proxy
from tests.support.standing import Standing, standing
from tests.support.target_client import Target

APP = "tests.support.fragile_broker"
STALLED_S = 1.5  # where workers are to be left alone
SHORT: dict[str, object] = {"STALLED_S": STALLED_S}
POOLS = [("gevent", 4), ("prefork", 2)]


@pytest.fixture(scope="module")
def place(shared_target: Target) -> Iterator[Standing]:
    with standing(shared_target.url) as made:
        yield made


@contextlib.contextmanager
def installation_behind_proxy(place: Standing, **env: object) -> Iterator[tuple[Installation, Proxy]]:
    """The workers' connection to the broker goes through the proxy."""
    installation = place.emptied()
    with Proxy("127.0.0.1", place.server.port) as proxy:
        broker = place.server.url.replace(f":{place.server.port}/", f":{proxy.port}/")
        installation.env |= {"BROKER_URL_OF_TEST": broker} | {name: str(value) for name, value in env.items()}
        try:
            yield installation, proxy
        finally:
            place.alone()


class Supervisor:
    """Starts the worker again whenever it has failed; one that ends with 0 is taken at its word."""

    def __init__(self, installation: Installation, pool: str, concurrency: int) -> None:
        self._arguments = installation, pool, concurrency
        self.workers: list[Process] = []
        self._start()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _start(self) -> None:
        installation, pool, concurrency = self._arguments
        self.workers.append(installation.worker(pool, concurrency, app=APP))

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            if self.workers[-1].popen.poll():
                self._start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


# Only one of them waits for as long as in production, to save time.
@pytest.mark.parametrize(("pool", "concurrency", "env"), [(*POOLS[0], {}), (*POOLS[1], SHORT), ("threads", 4, SHORT)])
def test_a_worker_whose_broker_connection_is_dead_is_back_at_work_within_30_s(
    place: Standing, target: Target, pool: str, concurrency: int, env: dict[str, object]
) -> None:
    with installation_behind_proxy(place, **env) as (installation, proxy):
        supervisor = Supervisor(installation, pool, concurrency)
        try:
            assert installation.await_end(installation.submit())["status"] == "SUCCESS"
            running = installation.submit(delay_s=25)
            target.wait_for(lambda calls: len(calls) == 2)
            proxy.strand()
            lost_at = time.monotonic()
            made = [installation.submit() for _ in range(3)]

            for request_id in made:
                assert installation.await_end(request_id, timeout_s=40)["status"] == "SUCCESS"

            took_s = time.monotonic() - lost_at
            print(f"{pool}: at work again after {took_s:.1f} s")
            assert took_s < 30
            log = supervisor.workers[0].log
            assert "worker_stalled waiting=" in log, log[-2000:]
            assert "receives none, and Redis answers on another connection" in log
            assert len(supervisor.workers) == 2
            assert installation.status(running)["attempts"] == 1, "it was handed back, which does not count"
        finally:
            supervisor.end()


def assert_left_alone(worker: Process, seconds: float = 1.5 * STALLED_S) -> None:
    until = time.monotonic() + seconds
    await_condition(lambda: time.monotonic() > until or worker.popen.poll() is not None)
    assert worker.popen.poll() is None, worker.log[-3000:]
    assert "worker_stalled" not in worker.log


@pytest.mark.parametrize(("pool", "concurrency"), POOLS)
def test_a_worker_that_is_idle_or_was_frozen_or_is_full_is_left_alone(
    place: Standing, target: Target, pool: str, concurrency: int
) -> None:
    with installation_behind_proxy(place, **SHORT) as (installation, _):
        worker = installation.worker(pool, concurrency, app=APP)
        assert_left_alone(worker)

        worker.popen.send_signal(signal.SIGSTOP)
        made = [installation.submit() for _ in range(5)]
        frozen_until = time.monotonic() + FROZEN_S + 0.5
        await_condition(lambda: time.monotonic() > frozen_until)
        worker.popen.send_signal(signal.SIGCONT)
        for request_id in made:
            assert installation.await_end(request_id)["status"] == "SUCCESS"

        target.clear()
        for _ in range(concurrency + 20):
            installation.submit(hang=1)
        target.wait_for(lambda calls: len(calls) == concurrency)
        assert_left_alone(worker)


def test_a_worker_beside_one_that_takes_the_kicks_is_left_alone(place: Standing, target: Target) -> None:
    with installation_behind_proxy(place, **SHORT) as (installation, _):
        full = installation.worker("prefork", 1, name="full", app=APP)
        installation.submit(hang=1)
        target.wait_for(lambda calls: len(calls) == 1)
        has_room = installation.worker("prefork", 2, name="room", app=APP)
        until = time.monotonic() + 1.5 * STALLED_S
        while time.monotonic() < until:
            installation.submit()

        for worker in (full, has_room):
            assert_left_alone(worker, 0.5)
        assert len(target.calls()) > 50


def test_a_worker_whose_redis_is_away_is_left_alone_and_goes_on(place: Standing, target: Target) -> None:
    server, installation = place.server, place.emptied()
    installation.env["STALLED_S"] = str(STALLED_S)
    worker = installation.worker("prefork", 2, app=APP)
    waiting = [installation.submit(hang=1) for _ in range(2)] + [installation.submit() for _ in range(5)]
    target.wait_for(lambda calls: len(calls) == 2)
    server.await_on_disk()
    server.kill()
    assert_left_alone(worker)
    server.start()
    for request_id in waiting[:2]:
        installation.cancel(request_id)
    for request_id in waiting[2:]:
        assert installation.await_end(request_id, timeout_s=40)["status"] == "SUCCESS"
    assert_left_alone(worker, 0)
