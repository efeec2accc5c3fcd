"""Workers that take as those of bella-queue's clients do, in processes of their own: tests/clients/bella_worker.py."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.bella_sdk import Bella, bella
from tests.support.installation import await_condition


@pytest.fixture(scope="module")
def place() -> Iterator[Bella]:
    with bella() as made:
        yield made


def tasks_in(said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line["task"] for line in said if "task" in line]


def looks_of(said: list[dict[str, Any]], task_id: str) -> list[dict[str, Any]]:
    return [line for line in said if "task" in line and line["task"]["task_id"] == task_id]


def test_a_scheduled_worker_asks_for_the_bus_and_takes_one_every_100_ms(place: Bella) -> None:
    queue = place.register()
    with place.worker(f"{queue}:1", count=3) as worker:
        assert worker.hear() == {"eventbus": {"url": "redis://eventbus.invalid:6379/0", "topic": "eventbus-off:"}}
        put = [place.put(queue, {"n": n}) for n in range(2)]
        said = [worker.hear() for _ in range(4)]
        put.append(place.put(queue, {"answer": {"status_code": 422, "body": {"error": "no such model"}}}))
        said += worker.rest(timeout_s=10)

    assert [task["task_id"] for task in tasks_in(said)] == put
    assert [line["completed"] for line in said if "completed" in line] == put
    ended = [place.task(task_id) for task_id in put]
    assert [task["status"] for task in ended] == ["succeeded", "succeeded", "failed"]
    assert ended[1]["result"] == {"status_code": 200, "request_id": put[1], "body": {"said": {"n": 1}}}
    assert ended[2]["result"] == {"status_code": 422, "request_id": put[2], "body": {"error": "no such model"}}
    for task in ended:
        assert task["completed_time"] >= task["start_time"]
        assert task["running_time"] == task["completed_time"] - task["start_time"]


def test_a_worker_of_both_levels_has_blocking_calls_first(place: Bella) -> None:
    queue = place.register()
    offline = [place.put(queue, {"offline": n}) for n in range(3)]
    online = place.begin_put(queue, "blocking", {"online": 1}, timeout=20)
    await_condition(lambda: place.told("GET", f"{queue}:0/stats")["total_put_cnt"], what="the blocking put is there")

    with place.worker(f"{queue}:0", f"{queue}:1", strategy="active_passive", busy_s=0.005, count=4) as worker:
        said = worker.rest(timeout_s=15)

    assert [task["level"] for task in tasks_in(said)] == [0, 1, 1, 1]
    assert [task["task_id"] for task in tasks_in(said)[1:]] == offline
    answer = online.result(timeout=10)
    assert (answer.status, answer.json) == (200, {"said": {"online": 1}})


def test_min_age_leaves_the_young_ones(place: Bella) -> None:
    queue = place.register()
    options: dict[str, Any] = {"strategy": "active_passive", "min_age_seconds": 1, "idle_s": 0.05, "count": 1}
    with place.worker(f"{queue}:0", f"{queue}:1", **options) as worker:
        worker.hear()
        task_id = place.put(queue)
        assert place.take(f"{queue}:1", size=1, min_age_seconds=1) == {}
        said = worker.rest(timeout_s=10)

    [task] = tasks_in(said)
    ended = place.task(task_id)
    assert task["task_id"] == task_id
    assert 1000 <= ended["completed_time"] - task["start_time"] < 4000


def test_workers_that_back_off_share_a_backlog_without_a_double(place: Bella) -> None:
    queues = [place.register() for _ in range(2)]
    put = [place.put(queues[n % 2], {"n": n}) for n in range(60)]
    names = [f"{queue}:1" for queue in queues]

    with (
        place.worker(*names, size=10, idle_s="0.02,0.04,0.1", busy_s=0.005) as first,
        place.worker(*names, size=10, idle_s="0.02,0.04,0.1", busy_s=0.005) as second,
    ):
        await_condition(lambda: all(place.task(put[n])["status"] == "succeeded" for n in (59, 58)), what="the last end")
        for worker in (first, second):
            assert worker.popen.stdin is not None
            worker.popen.stdin.close()
        said = first.rest(timeout_s=10) + second.rest(timeout_s=10)

    assert sorted(task["task_id"] for task in tasks_in(said)) == sorted(put)
    assert {place.task(task_id)["status"] for task_id in put} == {"succeeded"}


def test_a_poller_is_called_back_by_its_leases_until_it_completes(place: Bella) -> None:
    queue = place.register()
    options: dict[str, Any] = {"size": 10, "process_timeout": 1, "process_max_retries": -1, "idle_s": 0.05}
    slow = [place.put(queue, {"job": n}) for n in range(2)]
    with place.worker(f"{queue}:1", looks=3, count=2, **options) as poller:
        poller.hear()
        said = [poller.hear(), poller.hear()]  # both are polled from now on
        assert [place.task(task_id)["status"] for task_id in slow] == ["queued", "queued"]
        said += poller.rest(timeout_s=15)

    for task_id in slow:
        looks = looks_of(said, task_id)
        assert [line["task"]["status"] for line in looks] == ["waiting", "queued", "queued"]
        assert len({line["task"]["start_time"] for line in looks}) == 1
        pauses = [after["at_s"] - before["at_s"] for before, after in itertools.pairwise(looks)]
        assert all(0.9 < pause < 3 for pause in pauses), pauses
        assert place.task(task_id)["status"] == "succeeded"


def test_what_comes_back_is_before_what_has_waited_meanwhile(place: Bella) -> None:
    queue = place.register()
    first, second = place.put(queue), place.put(queue)
    assert place.take_one(f"{queue}:1", process_timeout=1, process_max_retries=-1)["task_id"] == first
    third = place.put(queue)
    await_condition(lambda: not place.is_held(first, queue), timeout_s=5, what="the first one is back")

    [found] = place.take(f"{queue}:1", process_timeout=60).values()

    assert [(task["task_id"], task["status"]) for task in found] == [
        (first, "queued"),
        (second, "waiting"),
        (third, "waiting"),
    ]


def test_what_a_killed_worker_held_another_one_completes(place: Bella) -> None:
    queue = place.register()
    put = [place.put(queue, {"n": n}) for n in range(3)]
    options: dict[str, Any] = {"size": 3, "process_timeout": 1, "process_max_retries": 1, "idle_s": 0.05}
    with place.worker(f"{queue}:1", looks=2, **options) as victim:
        said = [victim.hear() for _ in range(4)]
        victim.kill()
    assert [task["task_id"] for task in tasks_in(said)] == put

    with place.worker(f"{queue}:1", count=3, **options) as heir:
        said = heir.rest(timeout_s=10)

    assert [(task["task_id"], task["status"]) for task in tasks_in(said)] == [(task_id, "queued") for task_id in put]
    assert [place.task(task_id)["status"] for task_id in put] == ["succeeded"] * 3
