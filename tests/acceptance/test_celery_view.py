"""What Celery's own tools see: AsyncResult, inspect, Flower. Requests look like tasks, each under its own id."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from celery import Celery
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult

from eas_queue.engine.errors import TargetFailed
from tests.support.installation import Installation, await_condition
from tests.support.server import RedisServer, free_port
from tests.support.standing import Standing, standing
from tests.support.target_client import Target

SERVICES = """
[defaults]
allow_unlisted = true
[services]
two-slots = { max_concurrency = 2, max_attempts = 1 }
full = { max_concurrency = 2 }
again = { max_attempts = 2, retry_delay_s = 0 }
"""
NOTICE_S = 1.5
FLOWER_LOGIN = ("admin", "flower-password")


def start_flower(installation: Installation) -> str:
    """Its URL, once it answers and knows the workers."""
    port = free_port()
    installation.env |= {"FLOWER_PORT": str(port), "FLOWER_BASIC_AUTH": ":".join(FLOWER_LOGIN)}
    installation.start("flower", ["celery", "-A", "app.celery_app", "flower"])
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return requests.get(f"{url}/api/workers", auth=FLOWER_LOGIN, timeout=2).status_code == 200
        except requests.RequestException:
            return False

    await_condition(answers, timeout_s=20, what="Flower answers")
    return url


def tasks_in_flower(url: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = requests.get(f"{url}/api/tasks", auth=FLOWER_LOGIN, timeout=10).json()
    return found


@pytest.fixture(scope="module")
def place(shared_target: Target) -> Iterator[Standing]:
    with standing(shared_target.url, services_toml=SERVICES, sweep_s=0.1) as made:
        yield made


@pytest.fixture(scope="module")
def flower(place: Standing) -> str:
    """Its URL. It stays beside the web, and remembers the requests of all tests."""
    url = start_flower(place.installation)
    place.keep()
    return url


@pytest.fixture(scope="module")
def unheard_place(shared_target: Target) -> Iterator[Standing]:
    with standing(shared_target.url) as made:
        yield made


@pytest.fixture
def unheard(unheard_place: Standing) -> Iterator[Installation]:
    """Where no Flower listens."""
    yield unheard_place.emptied()
    unheard_place.alone()


@pytest.fixture
def installation(place: Standing) -> Iterator[Installation]:
    yield place.installation
    place.alone()


@pytest.fixture
def server(place: Standing) -> RedisServer:
    return place.server


@pytest.mark.parametrize(("pool", "concurrency"), [("prefork", 2), ("gevent", 50)])
def test_flower_lists_every_request_and_async_result_agrees(
    server: RedisServer, installation: Installation, flower: str, pool: str, concurrency: int
) -> None:
    installation.worker(pool, concurrency)
    before = set(tasks_in_flower(flower))
    server.forget_commands()
    installation.set_paused("two-slots", True)  # so that slots are busy from the first request on
    made = [installation.submit("two-slots", _priority_=int(i % 10 == 0)) for i in range(200)]
    installation.set_paused("two-slots", False)
    for request_id in made:
        assert installation.await_end(request_id, "two-slots", timeout_s=30)["status"] == "SUCCESS"

    def all_listed() -> dict[str, dict[str, Any]] | None:
        found = {request_id: task for request_id, task in tasks_in_flower(flower).items() if request_id not in before}
        return found if set(made) <= set(found) and all(found[i]["state"] == "SUCCESS" for i in made) else None

    listed = await_condition(all_listed, timeout_s=10, what="Flower lists all 200 as SUCCESS")
    assert set(listed) == set(made), "nothing but requests is listed"
    assert all(task["runtime"] > 0 and task["worker"].startswith("w1@") for task in listed.values())
    assert server.commands("lpush") < 200, "a busy slot took requests without a message of their own"
    app = Celery(broker=server.url, backend=server.url)
    assert all(AsyncResult(request_id, app=app).state == "SUCCESS" for request_id in made)
    assert AsyncResult(made[0], app=app).get(timeout=1) == {
        "status": "success",
        "target_status_code": 200,
        "content_type": "application/json",
    }
    queues = app.control.inspect(timeout=5).active_queues()
    assert {queue["name"] for queue in next(iter(queues.values()))} == {"celery", "high_priority"}
    app.close()


def test_flower_and_async_result_know_failed_cancelled_and_retried_requests(
    server: RedisServer, installation: Installation, flower: str, target: Target
) -> None:
    cancelled = installation.submit("two-slots")
    installation.cancel(cancelled, "two-slots")
    installation.worker()
    failed = installation.submit("two-slots", status=500)
    retried = installation.submit("again", fail_first=1)
    running = installation.submit("two-slots", hang=1)
    target.wait_for(lambda calls: running in {call["request_id"] for call in calls})
    installation.cancel(running, "two-slots")
    installation.await_end(failed, "two-slots")
    installation.await_end(retried, "again")

    expected = {failed: "FAILURE", retried: "SUCCESS", running: "REVOKED", cancelled: "REVOKED"}

    def in_flower() -> dict[str, Any]:
        found = tasks_in_flower(flower)
        return {request_id: found.get(request_id, {}).get("state") for request_id in expected}

    with contextlib.suppress(AssertionError):
        await_condition(lambda: in_flower() == expected, timeout_s=10)
    assert in_flower() == expected
    app = Celery(broker=server.url, backend=server.url)
    assert {i: AsyncResult(i, app=app).state for i in expected} == expected
    with pytest.raises(TargetFailed, match="the target answered 500"):
        AsyncResult(failed, app=app).get(timeout=1)
    with pytest.raises(TaskRevokedError):
        AsyncResult(running, app=app).get(timeout=1)
    app.close()


def test_get_returns_when_the_request_ends(installation: Installation) -> None:
    installation.worker()
    app = Celery(broker=installation.env["REDIS_URL"], backend=installation.env["REDIS_URL"])
    request_id = installation.submit(delay_s=0.5)
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(AsyncResult(request_id, app=app).get(timeout=10)))

    waiting.start()
    waiting.join(10)

    assert answers == [{"status": "success", "target_status_code": 200, "content_type": "application/json"}]
    app.close()


@pytest.mark.parametrize(("pool", "concurrency"), [("gevent", 50), ("prefork", 4)])
def test_revoke_and_terminate_from_flower_cancel_that_request_only(
    installation: Installation, flower: str, target: Target, pool: str, concurrency: int
) -> None:
    installation.worker(pool, concurrency)
    terminated, others = installation.submit(hang=1), [installation.submit(delay_s=1.5) for _ in range(3)]
    target.wait_for(lambda calls: len(calls) == 4)

    answer = requests.post(
        f"{flower}/api/task/revoke/{terminated}", params={"terminate": "true"}, auth=FLOWER_LOGIN, timeout=10
    )

    assert answer.status_code == 200, answer.text
    assert installation.await_end(terminated)["status"] == "REVOKED"
    (call,) = target.wait_for(lambda calls: calls[0]["ended_at"] is not None, request_id=terminated)
    assert call["outcome"] == "closed_before_headers"
    for request_id in others:
        status = installation.await_end(request_id)
        assert (status["status"], status["attempts"]) == ("SUCCESS", 1)


def test_a_waiting_request_can_be_revoked_from_flower(installation: Installation, flower: str, target: Target) -> None:
    installation.worker()
    hanging = [installation.submit("full", hang=1) for _ in range(2)]
    target.wait_for(lambda calls: len(calls) == 2)
    waiting = installation.submit("full")

    requests.post(f"{flower}/api/task/revoke/{waiting}", auth=FLOWER_LOGIN, timeout=10)

    assert installation.await_end(waiting, "full")["status"] == "REVOKED"
    assert len(target.calls()) == 2
    for request_id in hanging:
        installation.cancel(request_id, "full")


@pytest.mark.parametrize(("pool", "concurrency"), [("prefork", 2), ("gevent", 50), ("threads", 4)])
def test_flower_started_while_requests_run_lists_every_later_one(
    unheard: Installation, pool: str, concurrency: int
) -> None:
    unheard.worker(pool, concurrency)
    ended = threading.Event()

    def submit_on() -> None:
        while not ended.wait(0.02):
            unheard.submit("other")

    busy = threading.Thread(target=submit_on)
    busy.start()
    try:
        flower = start_flower(unheard)
        # It answers a little before it listens; from then on each process of the worker may take a second to notice.
        await_condition(lambda: tasks_in_flower(flower), what="Flower hears of requests")
        noticed_s = time.monotonic() + NOTICE_S
        await_condition(lambda: time.monotonic() > noticed_s)
        made = [unheard.submit() for _ in range(50)]
        for request_id in made:  # behind those of the other service, where the machine is busy
            assert unheard.await_end(request_id, timeout_s=40)["status"] == "SUCCESS"

        def all_listed() -> bool:
            found = tasks_in_flower(flower)
            return all(found.get(i, {}).get("state") == "SUCCESS" for i in made)

        await_condition(all_listed, timeout_s=10, what="Flower lists all that came after it")
    finally:
        ended.set()
        busy.join()
    found = tasks_in_flower(flower)
    assert {task["name"] for task in found.values()} == {"tasks.forward"}, "also of those it heard only the end of"


@pytest.mark.parametrize("mode", ["all", "off"])
def test_flower_is_told_always_or_never(installation: Installation, flower: str, mode: str) -> None:
    installation.env["WORKER_EVENTS"] = mode
    installation.worker()
    made = installation.submit()
    assert installation.await_end(made)["status"] == "SUCCESS"

    if mode == "all":
        await_condition(lambda: made in tasks_in_flower(flower))
    else:
        with pytest.raises(AssertionError, match="not so after"):
            await_condition(lambda: made in tasks_in_flower(flower), timeout_s=1.5)
