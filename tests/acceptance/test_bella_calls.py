"""The calls of the take API beside put and take: register, metadata, get, cancel, complete, stats, renew, progress."""

from __future__ import annotations

import datetime
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.bella_sdk import ENDPOINT, Bella, bella, request_id_of
from tests.support.installation import await_condition

STATS = {
    "id": int,
    "queue": str,
    "level": int,
    "last_wrote_sharding_key": str,
    "last_wrote_id": int,
    "last_scanned_sharding_key": str,
    "last_scanned_id": int,
    "total_put_cnt": int,
    "total_loaded_cnt": int,
    "total_completed_cnt": int,
    "cuid": int,
    "muid": int,
    "cu_name": str,
    "mu_name": str,
    "ctime": str,
    "mtime": str,
}


@pytest.fixture(scope="module")
def place() -> Iterator[Bella]:
    with bella() as made:
        yield made


@pytest.fixture
def queue(place: Bella) -> str:
    return place.register()


# ---------------------------------------------------------------------------------------------------------- register


def test_registering_answers_the_name_as_json_and_so_does_the_same_again(place: Bella) -> None:
    name = f"A_z-{uuid.uuid4().hex}"

    for _ in range(2):
        answer = place.call("POST", "register", {"queue": name, "endpoint": ENDPOINT})
        assert (answer.status, answer.body.strip()) == (200, f'"{name}"'.encode())

    assert place.told("GET", f"{name}/metadata") == {"endpoint": ENDPOINT, "queue": name}


def test_another_endpoint_is_refused_and_changes_nothing(place: Bella, queue: str) -> None:
    assert place.call("POST", "register", {"queue": queue, "endpoint": "/v1/other"}).status == 400

    assert place.told("GET", f"{queue}/metadata")["endpoint"] == ENDPOINT


def test_a_queue_registered_by_many_at_once_has_one_endpoint(place: Bella) -> None:
    name = f"t{uuid.uuid4().hex}"
    asked = [{"queue": name, "endpoint": f"/v1/{n % 2}"} for n in range(8)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda content: place.call("POST", "register", content), asked))

    endpoint = place.told("GET", f"{name}/metadata")["endpoint"]
    assert [answer.status for answer in answers] == [200 if each["endpoint"] == endpoint else 400 for each in asked]


# --------------------------------------------------------------------------------------------------------------- get


@pytest.mark.parametrize("level", [0, 1])
def test_a_task_is_shown_from_put_to_complete(place: Bella, queue: str, level: int) -> None:
    task_id = place.put(queue, {"a": [1]}, level=level, trace_id="t")
    waiting = place.task(task_id)
    taken = place.take_one(f"{queue}:{level}")
    held = place.task(task_id)
    place.complete(task_id, {"text": "done"})
    ended = place.task(task_id)

    assert taken == waiting
    assert held == taken | {"status": "queued"}
    assert ended["result"] == {"status_code": 200, "request_id": task_id, "body": {"text": "done"}}
    assert ended["completed_time"] - ended["start_time"] == ended["running_time"] >= 0
    changed = {name: ended[name] for name in ("result", "completed_time", "running_time", "data")}  # input may be gone
    assert ended == held | {"status": "succeeded"} | changed


def test_a_task_is_found_by_its_request_id_too(place: Bella, queue: str) -> None:
    task_id = place.put(queue)

    assert place.task(request_id_of(task_id))["task_id"] == task_id


# ------------------------------------------------------------------------------------------------- complete, cancel


def test_the_first_complete_counts_and_those_after_it_do_nothing(place: Bella, queue: str) -> None:
    task_id = place.put(queue)
    place.take(f"{queue}:1")

    for n in range(3):
        place.complete(task_id, {"n": n}, status_code=200 + n)

    assert place.task(task_id)["result"] == {"status_code": 200, "request_id": task_id, "body": {"n": 0}}


def test_any_key_may_complete_what_it_never_took(place: Bella, queue: str) -> None:
    task_id = place.put(queue)

    place.complete(task_id, {"by": "another"})

    assert place.take(f"{queue}:1") == {}
    assert place.task(task_id)["status"] == "succeeded"


def test_a_taker_that_lost_its_lease_may_still_complete(place: Bella, queue: str) -> None:
    task_id = place.put(queue)
    place.take(f"{queue}:1", process_timeout=1, process_max_retries=-1)
    assert place.await_task(f"{queue}:1", process_timeout=60)["task_id"] == task_id

    place.complete(task_id, {"by": "the first one"})

    assert place.task(task_id)["result"]["body"] == {"by": "the first one"}


@pytest.mark.parametrize("is_taken", [False, True])
def test_a_cancel_is_202_and_the_end(place: Bella, queue: str, is_taken: bool) -> None:
    task_id = place.put(queue)
    if is_taken:
        place.take(f"{queue}:1")

    for _ in range(2):
        assert place.told("POST", f"{task_id}/cancel", status=202) == task_id

    place.complete(task_id, {"late": True})
    ended = place.task(task_id)
    assert (ended["status"], "result" in ended) == ("cancelled", False)
    assert place.take(f"{queue}:1") == {}


def test_cancel_and_complete_of_nobodys_task_do_nothing(place: Bella, queue: str) -> None:
    unknown = place.put(queue)[:-8] + "00000000"

    assert place.told("POST", f"{unknown}/cancel", status=202) == unknown
    place.complete(unknown, {})
    assert place.call("GET", unknown).status == 404


# ------------------------------------------------------------------------------------------------------------- stats


@pytest.mark.parametrize("level", [0, 1])
def test_stats_have_every_field_of_the_row_and_count(place: Bella, queue: str, level: int) -> None:
    ids = [place.put(queue, level=level) for _ in range(3)]
    place.put(queue, level=1 - level)
    place.take(f"{queue}:{level}", size=2)
    place.complete(ids[0])

    def row() -> bool:
        found = place.told("GET", f"{queue}:{level}/stats")
        counts = [found[f"total_{name}_cnt"] for name in ("put", "loaded", "completed")]
        return counts == [3, 2, 1]

    await_condition(row, timeout_s=5, what="the counts are 3, 2, 1")
    found = place.told("GET", f"{queue}:{level}/stats")
    assert {name: type(value) for name, value in found.items()} == STATS
    assert (found["queue"], found["level"]) == (queue, level)
    assert (found["last_wrote_sharding_key"], found["last_scanned_sharding_key"]) == ("", "")
    for name in ("ctime", "mtime"):
        assert datetime.datetime.strptime(found[name], "%Y-%m-%dT%H:%M:%S")


# ------------------------------------------------------------------------------------------- wait, renew, progress


def test_a_take_that_waits_has_the_task_when_it_is_put(place: Bella, queue: str) -> None:
    with ThreadPoolExecutor(1) as threads:
        content = {"queues": [f"{queue}:0", f"{queue}:1"], "size": 1, "wait": 5}
        waiting = threads.submit(place.call, "POST", "take", content)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.3)
        task_id = place.put(queue)
        put_at_s = time.monotonic()
        found = waiting.result(timeout=10).json

    assert [task["task_id"] for task in found[f"{queue}:1"]] == [task_id]
    assert time.monotonic() - put_at_s < 2


def test_a_take_waits_no_longer_than_it_says(place: Bella, queue: str) -> None:
    began_s = time.monotonic()

    assert place.take(f"{queue}:1", wait=0.3) == {}

    assert 0.3 <= time.monotonic() - began_s < 2


def test_a_renewed_lease_lasts_and_progress_is_shown_where_it_was_submitted(place: Bella, queue: str) -> None:
    task_id = place.put(queue)
    place.take(f"{queue}:1", process_timeout=1, process_max_retries=-1, worker={"id": "w1"})
    renewed_at_s = time.monotonic()

    assert place.told("POST", f"{task_id}/renew", {"process_timeout": 60, "worker": {"id": "w1"}}) == task_id
    progress = {"progress": {"done": 0.5}, "logs": [{"message": "half", "level": "INFO"}], "worker": {"id": "w1"}}
    assert place.told("POST", f"{task_id}/progress", progress) == task_id

    shown = place.installation.status(request_id_of(task_id), queue)
    assert (shown["status"], shown["progress"]) == ("STARTED", {"done": 0.5})
    assert [line["message"] for line in shown["logs"]] == ["half"]
    await_condition(lambda: time.monotonic() > renewed_at_s + 1.5)  # the first lease would be over
    assert place.is_held(task_id, queue)
    assert place.take(f"{queue}:1") == {}


def test_a_workers_capacity_bounds_what_it_gets_of_a_queue(place: Bella, queue: str) -> None:
    other = place.register()
    for name in (queue, other):
        for _ in range(3):
            place.put(name)
    names = [f"{queue}:1", f"{other}:1"]

    found = place.take(*names, worker={"id": "w1", "capacities": {names[0]: 1}})

    assert {name: len(tasks) for name, tasks in found.items()} == {names[0]: 1, names[1]: 3}
