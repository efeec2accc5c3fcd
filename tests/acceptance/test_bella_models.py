"""Every answer of the take API parses with the models that bella-openapi publishes; so do its takes and completes.

tests/clients/bella_common.py parses, strictly: each task of each take of these tests, with nothing that no model knows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.bella_sdk import STRATEGIES, Bella, bella
from tests.support.installation import await_condition

LEASE_S = 1


@pytest.fixture(scope="module")
def place() -> Iterator[Bella]:
    with bella() as made:
        yield made


def status_by_id(found: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    return {task["task_id"]: task["status"] for tasks in found.values() for task in tasks}


def test_the_event_bus_parses_and_is_nobodys_address(place: Bella) -> None:
    found = place.models.call("eventbus")

    assert found == {"url": "redis://eventbus.invalid:6379/0", "topic": "eventbus-off:"}


def test_first_and_second_deliveries_parse_in_every_strategy_at_both_levels(place: Bella) -> None:
    queues = {strategy: place.register() for strategy in STRATEGIES}
    lists = {strategy: (f"{queue}:0", f"{queue}:1") for strategy, queue in queues.items()}
    put = {strategy: [place.put(queue, level=level) for level in (0, 1)] for strategy, queue in queues.items()}
    asked: dict[str, Any] = {"size": 2, "process_timeout": LEASE_S, "process_max_retries": -1}

    first = {strategy: place.take(*lists[strategy], strategy=strategy, **asked) for strategy in STRATEGIES}
    again: dict[str, dict[str, str]] = {strategy: {} for strategy in STRATEGIES}

    def all_are_back() -> bool:
        for strategy in STRATEGIES:
            again[strategy] |= status_by_id(place.take(*lists[strategy], strategy=strategy, **asked))
        return all(len(found) == 2 for found in again.values())

    await_condition(all_are_back, timeout_s=5, what=f"all come back: {again}")
    for strategy in STRATEGIES:
        assert tuple(first[strategy]) == lists[strategy]
        assert status_by_id(first[strategy]) == dict.fromkeys(put[strategy], "waiting")
        assert again[strategy] == dict.fromkeys(put[strategy], "queued")


def test_what_a_redelivery_says_is_what_the_first_one_said(place: Bella) -> None:
    queue = place.register()
    place.put(queue, {"deep": [{"n": 1.5, "ü": None}, [], True]}, trace_id="t", endpoint="/v1/embeddings")
    first = place.take_one(f"{queue}:1", process_timeout=LEASE_S, process_max_retries=1)
    taken_at_s = time.monotonic()

    again = place.await_task(f"{queue}:1")

    assert again == first | {"status": "queued"}
    assert first["endpoint"] == "/v1/embeddings"
    assert LEASE_S - 0.1 < time.monotonic() - taken_at_s < LEASE_S + 2


def test_tasks_of_every_mode_parse_and_are_completed(place: Bella) -> None:
    queue = place.register()
    waiting = [place.begin_put(queue, mode, timeout=20) for mode in ("blocking", "streaming")]
    for mode in ("callback", "batch"):
        for level in (0, 1):
            place.put(queue, response_mode=mode, level=level)

    tasks: list[dict[str, Any]] = []
    while len(tasks) < 6:
        found = place.take(f"{queue}:0", f"{queue}:1", wait=5)
        assert found, tasks
        tasks += [task for some in found.values() for task in some]
    for task in tasks:
        place.complete(task["task_id"], {"of": task["response_mode"]})

    assert sorted((task["response_mode"], task["level"]) for task in tasks) == [
        ("batch", 0),
        ("batch", 1),
        ("blocking", 0),
        ("callback", 0),
        ("callback", 1),
        ("streaming", 0),
    ]
    assert [each.result(timeout=10).status for each in waiting] == [200, 200]
    for task in tasks:
        assert ("instance_id" in task, "batch_id" in task) == (task["level"] == 0, task["level"] == 1)
        found_task = place.task(task["task_id"])
        assert found_task["status"] == "succeeded"
        assert found_task["result"] == {
            "status_code": 200,
            "request_id": task["task_id"],
            "body": {"of": task["response_mode"]},
        }


def test_a_request_with_the_models_defaults_is_ten_of_the_oldest(place: Bella) -> None:
    first, second = place.register(), place.register()
    put = []
    for n in range(12):
        put.append(place.put((first, second)[n % 2]))
        time.sleep(0.002)  # the order between queues goes by milliseconds

    found = place.take(f"{second}:1", f"{first}:1")

    assert {name: [task["task_id"] for task in tasks] for name, tasks in found.items()} == {
        f"{second}:1": put[1:10:2],
        f"{first}:1": put[0:10:2],
    }


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_of_each_strategy_so_many_come(place: Bella, strategy: str) -> None:
    queues = [place.register() for _ in range(2)]
    for queue in queues:
        for _ in range(8):
            place.put(queue)

    found = place.take(*(f"{queue}:1" for queue in queues), size=12, strategy=strategy)

    counts = [len(found.get(f"{queue}:1", [])) for queue in queues]
    expected = {"fifo": [8, 2], "round_robin": [6, 6], "active_passive": [8, 4], "sequential": [1, 1]}
    assert counts == expected[strategy]
