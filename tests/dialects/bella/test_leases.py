"""How long a task belongs to its taker: process_timeout, further deliveries, renew; and progress, which needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tests.dialects.bella.conftest import UNKNOWN_ID, UNKNOWN_TASK, Bella, assert_refused, request_id_of


@dataclass(frozen=True)
class Scene:
    """Tasks of a queue each, and what became of them in two seconds. *deliveries*: of `once`, as they were taken.

    `younger` stands behind `elder`, in one queue.
    """

    never: str
    once: str
    again: str
    renamed: str
    cancelled: str
    completed: str
    late: str
    elder: str
    younger: str
    single: str
    deliveries: tuple[dict[str, Any], ...]


@pytest.fixture(scope="module")
def scene(bella: Bella) -> Scene:
    """Leases of a second lapse, once and twice."""
    names = ("never", "again", "once-more", "renamed", "cancelled", "completed", "late", "old-place")
    for name in names:
        assert bella.register(name).status == 200
    never = bella.held("never", process_timeout=1)
    again, renamed, cancelled, completed, late, elder, single = (
        bella.held(name, process_timeout=1, process_max_retries=-1)
        for name in ("again", "renamed", "cancelled", "completed", "late", "old-place", "once")
    )
    younger = bella.put_apart("old-place")
    assert _is_held(bella, elder)
    once = bella.put("once-more")
    first = bella.take_one("once-more:1", process_timeout=1, process_max_retries=1)
    bella.cancel(cancelled)
    bella.complete(completed)
    deliveries = first, bella.take_one("once-more:1", process_timeout=1, process_max_retries=1)
    assert bella.take_one("again:1", process_timeout=60)["task_id"] == again
    assert bella.take_one("renamed:1", process_timeout=1)["task_id"] == renamed  # and not once more
    assert not _is_held(bella, late)
    for task_id in (never, once, renamed, single):
        bella.await_status(task_id, "timeout")
    return Scene(never, once, again, renamed, cancelled, completed, late, elder, younger, single, deliveries)


class TestLapse:
    def test_it_comes_back_as_often_as_was_asked_for(self, bella: Bella, scene: Scene) -> None:
        first, second = scene.deliveries

        assert [task["task_id"] for task in scene.deliveries] == [scene.once] * 2
        assert [task["status"] for task in scene.deliveries] == ["waiting", "queued"]
        assert {**second, "status": "waiting"} == first
        assert bella.natively("once-more", scene.once)["attempts"] == 2
        assert bella.natively("never", scene.never)["attempts"] == 1
        assert bella.get(scene.again)["status"] == "queued"

    def test_then_it_ends_with_a_result_of_its_own(self, bella: Bella, scene: Scene) -> None:
        for name, task_id in (("never", scene.never), ("once-more", scene.once)):
            task = bella.get(task_id)
            assert task["result"] == {"status_code": 408, "request_id": task_id}
            assert task["completed_time"] > 0
            assert bella.take(f"{name}:1") == {}
            assert bella.natively(name, task_id)["status"] == "FAILURE"

    def test_of_several_takes_the_latest_counts(self, bella: Bella, scene: Scene) -> None:
        assert bella.natively("renamed", scene.renamed)["attempts"] == 2
        assert bella.take("renamed:1") == {}

    def test_what_has_ended_comes_back_no_more(self, bella: Bella, scene: Scene) -> None:
        assert bella.get(scene.cancelled)["status"] == "cancelled"
        assert bella.get(scene.completed)["status"] == "succeeded"
        assert bella.take("cancelled:1", "completed:1", size=9) == {}

    def test_a_second_delivery_is_no_second_task(self, bella: Bella, scene: Scene) -> None:
        assert bella.stats("once-more:1")["total_put_cnt"] == 1

    def test_at_its_old_place_and_reports_keep_it_no_longer(self, bella: Bella, scene: Scene) -> None:
        assert bella.taken_ids("old-place:1", size=9) == [scene.elder, scene.younger]

    def test_a_service_that_sends_once_sends_once(self, bella: Bella, scene: Scene) -> None:
        assert bella.natively("once", scene.single)["attempts"] == 1
        assert bella.take("once:1") == {}

    def test_who_comes_late_may_still_complete(self, bella: Bella, scene: Scene) -> None:
        bella.complete(scene.late, {"body": {"late": 1}})

        task = bella.get(scene.late)
        assert (task["status"], task["result"]) == ("succeeded", {"body": {"late": 1}})
        assert bella.take("late:1") == {}

    @pytest.mark.parametrize("members", [{}, {"process_timeout": 0}, {"process_timeout": 0, "process_max_retries": -1}])
    def test_without_a_time_it_belongs_to_its_taker(self, bella: Bella, queue: str, members: dict[str, Any]) -> None:
        task_id = bella.held(queue, **members)

        assert bella.take(f"{queue}:1", wait=0.3) == {}
        assert bella.renew(task_id).status == 200


def _is_held(bella: Bella, task_id: str) -> bool:
    return bella.progress(task_id, progress={}).status == 200


class TestRenew:
    def test_it_lapses_later_or_sooner(self, bella: Bella, queue: str, other: str) -> None:
        kept, lapsing = bella.put_apart(queue), bella.put(queue)
        assert bella.taken_ids(f"{queue}:1", size=2, process_timeout=1, process_max_retries=-1) == [kept, lapsing]
        sooner = bella.held(other, process_timeout=600, process_max_retries=-1)

        answers = [bella.renew(kept, 60), bella.renew(sooner, 1)]

        assert [(answer.status, answer.json) for answer in answers] == [(200, kept), (200, sooner)]
        assert bella.take_one(f"{queue}:1")["task_id"] == lapsing
        assert bella.take_one(f"{other}:1")["task_id"] == sooner
        assert bella.take(f"{queue}:1", f"{other}:1") == {}
        assert _is_held(bella, kept)

    def test_one_that_was_named_is_the_only_one(self, bella: Bella, queue: str) -> None:
        task_id = bella.held(queue, process_timeout=60, worker={"id": "w1"})

        assert bella.renew(task_id, worker={"id": "w1"}).json == task_id
        assert bella.renew(request_id_of(task_id), worker={"id": "w1"}).status == 200
        assert bella.renew(task_id).json == task_id
        assert_refused(bella.renew(task_id, worker={"id": "w2"}), 409)
        assert_refused(bella.progress(task_id, progress={}, worker={"id": "w2"}), 409)
        assert bella.progress(task_id, progress={}, worker={"id": "w1"}).json == task_id

    def test_what_is_not_held_is_409(self, bella: Bella, queue: str) -> None:
        ended, cancelled = bella.held(queue), bella.held(queue)
        bella.complete(ended)
        bella.cancel(cancelled)
        waiting = bella.put(queue)

        for task_id in (waiting, ended, cancelled, UNKNOWN_ID, UNKNOWN_TASK):
            assert_refused(bella.renew(task_id), 409)
            assert_refused(bella.progress(task_id, progress={}), 409)
        assert bella.taken_ids(f"{queue}:1", size=9) == [waiting]


class TestProgress:
    def test_progress_and_lines_are_seen_by_all_protocols(self, bella: Bella, aliased: str) -> None:
        task_id = bella.held(aliased, worker={"id": "w1"})
        answer = bella.progress(
            task_id, progress={"step": 3}, logs=[{"message": "loaded"}, {"message": "hot", "level": "warning"}]
        )
        assert (answer.status, answer.json) == (200, task_id)

        assert bella.natively(aliased, task_id)["progress"] == {"step": 3}
        path = f"/fal/acme/{aliased}/requests/{request_id_of(task_id)}/status?logs=1"
        lines = bella.front.call("GET", path).json["logs"]
        assert [(line["message"], line["level"]) for line in lines] == [("loaded", "INFO"), ("hot", "WARN")]

    @pytest.mark.parametrize(
        "event",
        [
            {"eventId": "1", "eventName": "n", "eventData": {"a": 1}},
            {"taskId": "any", "eventId": "1", "eventName": "n", "eventData": {"a": 1}},
            {"events": [{"eventId": "1", "eventName": "n", "eventData": {"a": 1}}]},
            {"events": [{"taskId": "any", "eventId": "1", "eventName": "n", "eventData": {"a": 1}}], "more": 1},
        ],
    )
    def test_an_event_has_several_forms(self, bella: Bella, queue: str, event: dict[str, Any]) -> None:
        with bella.streaming(queue) as stream:
            task_id = bella.take_one(f"{queue}:0")["task_id"]
            assert bella.progress(task_id, **event).json == task_id
            bella.complete(task_id)

            assert [(found["id"].strip(), found["event"].strip()) for found in stream] == [("1", "n")]

    def test_events_of_a_task_that_nobody_reads_are_nothing(self, bella: Bella, queue: str) -> None:
        task_id = bella.held(queue)

        assert bella.progress(task_id, eventId="1", eventName="n", eventData="x").json == task_id
