"""Redis is killed, frozen or deaf: every route says 503 in about a second, nobody hangs, nothing needs a restart."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from eas_queue.store import keys
from tests.support.installation import TOKEN, Installation, await_condition
from tests.support.server import RedisServer
from tests.support.target_client import Target

ANSWERED_WITHIN_S = 2.5  # about a second, on a busy machine
ID = "0001aaaa-bbbb-8ccc-9ddd-eeeeeeeeeeee"
ROUTES = [
    ("POST", "/api/predict/demo", {}),
    ("POST", "/api/predict/demo/v1/x", {"Prefer": "wait=30"}),
    ("GET", f"/api/predict/demo/sink?request_id={ID}", {}),
    ("GET", f"/api/predict/demo/requests/{ID}", {}),
    ("GET", f"/api/predict/demo/requests/{ID}/result", {}),
    ("DELETE", f"/api/predict/demo/requests/{ID}", {}),
    ("GET", f"/api/predict/demo/sink?request_id={ID}&_timeout_=30s", {}),
    ("GET", f"/api/predict/demo/requests/{ID}/events", {}),
    ("GET", "/api/services/demo", {}),
    ("POST", "/api/services/demo/pause", {}),
    ("GET", "/api/services/demo/rear", {}),
    ("DELETE", f"/api/services/demo/rear/{ID}", {}),
]


@dataclass
class Timed:
    response: requests.Response
    elapsed_s: float


def call(url: str, method: str, path: str, headers: dict[str, str] | None = None) -> Timed:
    began = time.monotonic()
    with requests.Session() as session:
        session.trust_env = False
        response = session.request(
            method, url + path, headers={"Authorization": f"Bearer {TOKEN}"} | (headers or {}), timeout=60
        )
    return Timed(response, time.monotonic() - began)


def call_all(url: str, times: int = 1) -> list[Timed]:
    """Every route *times* times, all at once."""
    with concurrent.futures.ThreadPoolExecutor(len(ROUTES) * times) as pool:
        calls = [pool.submit(call, url, *route) for route in ROUTES for _ in range(times)]
        return [each.result() for each in calls]


def assert_unavailable(answers: list[Timed]) -> None:
    for answer in answers:
        problem: dict[str, Any] = answer.response.json()
        assert answer.response.status_code == 503
        assert answer.response.headers["Content-Type"] == "application/problem+json"
        assert answer.response.headers["Retry-After"] == "1"
        assert (problem["type"], problem["status"]) == ("urn:eas-queue:error:unavailable", 503)
        assert "Redis" in problem["detail"]
        assert "test-password" not in answer.response.text
    assert max(answer.elapsed_s for answer in answers) < ANSWERED_WITHIN_S


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    server = RedisServer().start()
    yield server
    server.stop()


@pytest.fixture
def one_web(own_server: RedisServer, target: Target) -> Iterator[Installation]:
    """One web process, so that whoever answers has seen Redis leave and return."""
    with Installation(own_server.url, target.url, sweep_s=0.2) as installation:
        installation.web("-w", "1", "-b", f"127.0.0.1:{installation.port}")
        yield installation


def await_back(installation: Installation) -> None:
    def is_back() -> bool:
        return call(installation.url, "GET", "/healthz").response.status_code == 200

    await_condition(is_back, what="the web finds Redis again")


def assert_same_web_process(installation: Installation) -> None:
    [web] = [process for process in installation.processes if process.name == "web"]
    assert web.popen.poll() is None
    assert web.log.count("Booting worker") == 1


def test_a_killed_server_is_503_on_every_route_and_its_return_needs_no_restart(
    own_server: RedisServer, one_web: Installation
) -> None:
    before = one_web.submit()
    own_server.await_on_disk()

    own_server.kill()
    away = call_all(one_web.url, times=3)
    health = call(one_web.url, "GET", "/healthz")
    stranger = call(one_web.url, "POST", "/api/predict/demo", {"Authorization": "Bearer nobody"})
    own_server.start()
    await_back(one_web)

    assert_unavailable(away)
    assert (health.response.status_code, health.response.json()["status"]) == (503, "unavailable")
    assert stranger.response.status_code == 401
    assert one_web.status(before)["status"] == "PENDING"
    assert one_web.status(one_web.submit())["position"] == 1
    assert_same_web_process(one_web)


def test_a_frozen_server_is_503_on_every_route_and_its_thaw_needs_no_restart(
    own_server: RedisServer, one_web: Installation
) -> None:
    before = one_web.submit()
    with own_server.client() as client:
        pid = int(client.info("server")["process_id"])

    os.kill(pid, signal.SIGSTOP)
    try:
        away = call_all(one_web.url, times=3)
    finally:
        os.kill(pid, signal.SIGCONT)
    await_back(one_web)

    assert_unavailable(away)
    assert one_web.status(before)["status"] == "PENDING"
    assert_same_web_process(one_web)


def test_a_server_that_accepts_and_never_answers_is_503_on_every_route(target: Target) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as deaf:
        url = f"redis://127.0.0.1:{deaf.getsockname()[1]}/0"
        with Installation(url, target.url) as installation:
            installation.start("web", ["gunicorn", "-w", "1", "-b", f"127.0.0.1:{installation.port}", "app:app"])

            def listens() -> bool:
                try:
                    return bool(call(installation.url, "GET", "/healthz").response.status_code)
                except requests.ConnectionError:
                    return False

            await_condition(listens, timeout_s=20)

            assert_unavailable(call_all(installation.url, times=3))


def test_clients_that_wait_while_the_server_is_killed_and_restarted_get_their_results(
    own_server: RedisServer, one_web: Installation, target: Target
) -> None:
    one_web.worker()
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        path = "/api/predict/demo?delay_s=1.5"
        waiting = [pool.submit(call, one_web.url, "POST", path, {"Prefer": "wait=30"}) for _ in range(5)]
        found = target.wait_for(lambda calls: len(calls) == 5)
        urls = [f"/api/predict/demo/requests/{each['request_id']}" for each in found]
        waiting += [pool.submit(call, one_web.url, "GET", f"{url}?_timeout_=30s") for url in urls]
        streams = [pool.submit(call, one_web.url, "GET", f"{url}/events") for url in urls]
        await_condition(
            lambda: call(one_web.url, "GET", "/healthz").response.json()["waiting_clients"] == 15, what="all wait"
        )
        own_server.await_on_disk()

        own_server.kill()
        target.wait_for(lambda calls: all(each["outcome"] for each in calls))
        own_server.start()
        answers = [each.result() for each in waiting]
        followed = [each.result() for each in streams]

    assert [answer.response.status_code for answer in answers + followed] == [200] * 15
    assert [answer.response.json()["status"] for answer in answers] == ["SUCCESS"] * 10
    assert all('"SUCCESS"' in answer.response.text.split("\n\n")[-2] for answer in followed), "streams go on"
    assert max(answer.elapsed_s for answer in answers) < 15
    assert len(target.calls()) == 5
    assert_same_web_process(one_web)


def test_a_client_that_waits_while_the_server_stays_away_gets_its_id_when_its_time_is_up(
    own_server: RedisServer, one_web: Installation
) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool, own_server.client() as client:
        waiting = pool.submit(call, one_web.url, "POST", "/api/predict/demo", {"Prefer": "wait=2"})
        pattern = f"{keys.NOTE_PREFIX}0*"
        [channel] = await_condition(lambda: client.pubsub_channels(pattern), what="the client's wait has begun")
        request_id = channel.decode().removeprefix(keys.NOTE_PREFIX)
        assert one_web.status(request_id)["status"] == "PENDING"  # and so the waiter has looked, too
        own_server.await_on_disk()

        own_server.kill()
        answer = waiting.result()
        own_server.start()
    await_back(one_web)

    assert answer.response.status_code == 200
    assert answer.response.text == answer.response.headers["X-Eas-Queueservice-Request-Id"] == request_id
    assert 2 <= answer.elapsed_s < 2 + ANSWERED_WITHIN_S
    assert one_web.status(request_id)["status"] == "PENDING"
