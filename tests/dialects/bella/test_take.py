"""What a take gives: by strategy, size, age, capacity, and with a wait; nothing is taken that is not handed out."""

from __future__ import annotations

import contextlib
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.dialects.bella.conftest import Bella, assert_refused, request_id_of
from tests.support.front import ROLE_TOKENS
from tests.support.installation import TOKEN, await_condition

STRATEGIES = ["fifo", "round_robin", "active_passive", "sequential"]


class TestAnswer:
    def test_nothing_is_an_empty_object(self, bella: Bella, queue: str) -> None:
        for strategy in STRATEGIES:
            answer = bella.post_take(f"{queue}:0", f"{queue}:1", size=10, strategy=strategy)

            assert (answer.status, answer.json) == (200, {})
            assert answer.headers["Content-Type"] == "application/json"
            assert answer.headers["Cache-Control"] == "no-cache"

    def test_a_queue_without_tasks_has_no_key(self, bella: Bella, queue: str, other: str) -> None:
        task_id = bella.put(other)

        taken = bella.take(f"{queue}:1", f"{other}:1", f"{other}:0", size=5)
        assert {name: [task["task_id"] for task in tasks] for name, tasks in taken.items()} == {f"{other}:1": [task_id]}

    def test_the_oldest_goes_first_in_a_queue(self, bella: Bella, queue: str) -> None:
        tasks = [bella.put(queue, {"n": number}) for number in range(5)]

        assert bella.taken_ids(f"{queue}:1", size=3) == tasks[:3]
        assert bella.taken_ids(f"{queue}:1", size=3) == tasks[3:]

    def test_a_queue_may_stand_twice(self, bella: Bella, queue: str) -> None:
        for strategy in STRATEGIES:
            task_id = bella.put(queue)

            assert bella.taken_ids(f"{queue}:1", f"{queue}:1", size=9, strategy=strategy) == [task_id]
            bella.complete(task_id)

    def test_an_endpoint_filters_nothing(self, bella: Bella, queue: str) -> None:
        task_id = bella.put(queue, endpoint="/v1/one")

        assert bella.taken_ids(f"{queue}:1", endpoint="/v1/another") == [task_id]

    def test_no_task_is_handed_out_twice(self, bella: Bella, queue: str, other: str) -> None:
        put = [bella.put(name, level=level) for name in (queue, other) for level in (0, 1) for _ in range(10)]

        names = [f"{name}:{level}" for name in (queue, other) for level in (0, 1)]
        with ThreadPoolExecutor(4) as pool:
            takes = [
                pool.submit(bella.taken_ids, *names, size=3, strategy=strategy)
                for _ in range(7)
                for strategy in STRATEGIES[:3]
            ]
        assert sorted(task_id for take in takes for task_id in take.result()) == sorted(put)


class TestSize:
    def test_none_is_taken_for_0(self, bella: Bella, queue: str) -> None:
        task_id = bella.put(queue)

        for strategy in STRATEGIES:
            assert bella.take(f"{queue}:1", size=0, strategy=strategy) == {}
        assert bella.taken_ids(f"{queue}:1") == [task_id]

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_more_than_there_can_be_is_as_many_as_there_are(self, bella: Bella, queue: str, strategy: str) -> None:
        task_id = bella.put(queue)

        assert bella.taken_ids(f"{queue}:1", size=2**63, strategy=strategy) == [task_id]

    def test_fifo_gives_ten_at_most(self, bella: Bella, queue: str) -> None:
        tasks = [bella.put(queue) for _ in range(12)]

        assert bella.taken_ids(f"{queue}:1", size=12) == tasks[:10]

    @pytest.mark.parametrize("strategy", ["active_passive", "round_robin"])
    def test_others_give_what_was_asked_for(self, bella: Bella, queue: str, strategy: str) -> None:
        tasks = [bella.put(queue) for _ in range(12)]

        assert bella.taken_ids(f"{queue}:1", size=12, strategy=strategy) == tasks


class TestStrategies:
    def test_fifo_takes_the_oldest_of_all(self, bella: Bella, queue: str, other: str) -> None:
        order = [(queue, 1), (other, 0), (queue, 0), (other, 1), (queue, 1)]
        tasks = [bella.put_apart(name, level=level) for name, level in order]
        names = [f"{queue}:0", f"{queue}:1", f"{other}:0", f"{other}:1"]

        assert [bella.taken_ids(*names, strategy="fifo") for _ in tasks] == [[task_id] for task_id in tasks]

    def test_fifo_is_what_is_meant_where_nothing_is_said(self, bella: Bella, queue: str, other: str) -> None:
        first, second = bella.put_apart(other), bella.put_apart(queue)

        assert bella.taken_ids(f"{queue}:1", f"{other}:1") == [first]
        assert bella.taken_ids(f"{queue}:1", f"{other}:1") == [second]

    def test_active_passive_goes_down_the_list(self, bella: Bella, queue: str, other: str) -> None:
        passive = [bella.put(other) for _ in range(3)]
        active = [bella.put(queue) for _ in range(2)]
        names = (f"{queue}:1", f"{other}:1")

        assert bella.taken_ids(*names, size=1, strategy="active_passive") == active[:1]
        assert bella.taken_ids(*names, size=2, strategy="active_passive") == [active[1], passive[0]]
        assert bella.taken_ids(*names, size=9, strategy="active_passive") == passive[1:]

    def test_round_robin_takes_one_of_each_in_turn(self, bella: Bella, queue: str, other: str) -> None:
        first, second = ([bella.put(name) for _ in range(3)] for name in (queue, other))

        taken = bella.take(f"{queue}:1", f"{other}:1", size=3, strategy="round_robin")
        assert [task["task_id"] for task in taken[f"{queue}:1"]] == first[:2]
        assert [task["task_id"] for task in taken[f"{other}:1"]] == second[:1]

    def test_round_robin_goes_on_where_it_stopped(self, bella: Bella, queue: str, other: str) -> None:
        names, third = (f"{queue}:1", f"{other}:1", f"{queue}:0"), f"{queue}:0"
        assert bella.take(*names, strategy="round_robin") == {}
        for _ in range(2):
            bella.put(queue)
            bella.put(other)
            bella.put(queue, level=0)

        given = [list(bella.take(*names, strategy="round_robin")) for _ in range(6)]
        assert given == [[f"{queue}:1"], [f"{other}:1"], [third]] * 2
        bella.put(other)
        assert list(bella.take(*names, strategy="round_robin")) == [f"{other}:1"]
        assert bella.take(*names, strategy="round_robin") == {}  # and changes nothing
        bella.put(queue)
        bella.put(queue, level=0)
        assert list(bella.take(*names, strategy="round_robin")) == [third]

    def test_round_robin_is_apart_for_each_token_and_list(self, bella: Bella, queue: str, other: str) -> None:
        for name in (queue, other):
            for _ in range(4):
                bella.put(name)
        names, consumer = (f"{queue}:1", f"{other}:1"), ROLE_TOKENS["consume"]

        assert list(bella.take(*names, strategy="round_robin")) == [f"{queue}:1"]
        assert list(bella.take(*names, strategy="round_robin", token=consumer)) == [f"{queue}:1"]
        assert list(bella.take(*names, f"{queue}:0", strategy="round_robin")) == [f"{queue}:1"]
        assert list(bella.take(*names, strategy="round_robin")) == [f"{other}:1"]

    def test_sequential_gives_one_of_each(self, bella: Bella, queue: str, other: str) -> None:
        first, second = ([bella.put(name) for _ in range(2)] for name in (queue, other))
        names = (f"{queue}:1", f"{other}:1")

        assert bella.taken_ids(*names, size=1, strategy="sequential") == [first[0]]
        assert bella.taken_ids(*names, size=9, strategy="sequential") == [second[0]]
        assert bella.taken_ids(*names, size=9, strategy="sequential") == []

    def test_levels_are_busy_each_by_itself(self, bella: Bella, queue: str) -> None:
        tasks = [bella.put(queue, level=0), bella.put(queue)]

        assert bella.taken_ids(f"{queue}:0", f"{queue}:1", size=9, strategy="sequential") == tasks

    @pytest.mark.parametrize("way", ["complete", "fail", "cancel", "lapse", "expire", "natively"])
    def test_sequential_goes_on_when_its_task_is_over_in_whichever_way(
        self, bella: Bella, queue: str, way: str
    ) -> None:
        first = bella.put(queue, **({"timeout": 1} if way == "expire" else {}))
        second = bella.put(queue)
        lease = {"process_timeout": 1} if way == "lapse" else {}
        assert bella.taken_ids(f"{queue}:1", strategy="sequential", **lease) == [first]
        if way in ("complete", "fail"):
            bella.complete(first, {"status_code": 200 if way == "complete" else 500})
        elif way == "cancel":
            bella.cancel(first)
        elif way == "natively":
            bella.front.delete(request_id_of(first), queue)

        started = time.monotonic()
        assert bella.take_one(f"{queue}:1", strategy="sequential")["task_id"] == second
        assert time.monotonic() - started < 3

    def test_others_neither_see_nor_leave_the_mark(self, bella: Bella, queue: str) -> None:
        tasks = [bella.put(queue) for _ in range(5)]

        assert bella.taken_ids(f"{queue}:1", strategy="sequential") == tasks[:1]
        for number, strategy in enumerate(STRATEGIES[:3], 1):
            assert bella.taken_ids(f"{queue}:1", strategy=strategy) == [tasks[number]]
        assert bella.taken_ids(f"{queue}:1", strategy="sequential") == []
        bella.complete(tasks[0])
        assert bella.taken_ids(f"{queue}:1", strategy="sequential") == tasks[4:]


class TestNothingIsLost:
    @pytest.mark.parametrize("strategy", STRATEGIES)
    @pytest.mark.parametrize(
        ("bad", "words"),
        [
            ("nobody:1", "Queue not registered: nobody"),
            ("demo:0", "Queue not registered: demo"),
            ("{queue}:2", "Unknown queue level: 2"),
            ("{queue}", ""),
        ],
    )
    def test_a_bad_name_anywhere_takes_nothing(
        self, bella: Bella, queue: str, strategy: str, bad: str, words: str
    ) -> None:
        task_id = bella.put(queue)

        name = bad.format(queue=queue)
        for names in ((f"{queue}:1", name), (name, f"{queue}:1")):
            assert_refused(bella.post_take(*names, size=9, strategy=strategy), 400, words)
        assert bella.get(task_id)["status"] == "waiting"
        assert bella.taken_ids(f"{queue}:1", strategy=strategy) == [task_id]

    def test_a_taker_that_has_hung_up_takes_nothing(self, bella: Bella, queue: str) -> None:
        body = f'{{"queues": ["{queue}:1"], "size": 1, "wait": 5}}'
        head = f"POST /v1/queue/take HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", bella.port)) as connection:
            connection.sendall((head + body).encode())
            connection.settimeout(0.3)
            with contextlib.suppress(TimeoutError):
                assert not connection.recv(1)
        task_id = bella.put(queue)

        await_condition(lambda: bella.taken_ids(f"{queue}:1") == [task_id], timeout_s=2)


class TestAge:
    def test_younger_ones_stay(self, bella: Bella, queue: str) -> None:
        task_id = bella.put(queue)
        for strategy in STRATEGIES:
            assert bella.take(f"{queue}:1", strategy=strategy, min_age_seconds=3600) == {}

        def taken() -> list[str]:
            return bella.taken_ids(f"{queue}:1", min_age_seconds=1)

        assert await_condition(taken) == [task_id]
        assert time.time_ns() // 1_000_000 - bella.get(task_id)["start_time"] >= 1000


class TestWorker:
    @pytest.mark.parametrize("strategy", STRATEGIES[:3])
    def test_capacities_bound_what_a_queue_gives(self, bella: Bella, queue: str, other: str, strategy: str) -> None:
        first, second = ([bella.put_apart(name) for _ in range(3)] for name in (queue, other))
        worker = {"id": "w1", "capacities": {f"{queue}:1": 1, f"{other}:1": 2, "nobody:1": 7}}

        taken = bella.take(f"{queue}:1", f"{other}:1", size=9, strategy=strategy, worker=worker)
        assert [task["task_id"] for task in taken[f"{queue}:1"]] == first[:1]
        assert [task["task_id"] for task in taken[f"{other}:1"]] == second[:2]

    def test_none_of_a_queue_without_capacity(self, bella: Bella, queue: str, other: str) -> None:
        bella.put(queue)
        task_id = bella.put(other)
        worker = {"capacities": {f"{queue}:1": 0}}

        assert bella.taken_ids(f"{queue}:1", f"{other}:1", size=9, worker=worker) == [task_id]

    def test_a_queue_that_stands_twice_has_its_capacity_once(self, bella: Bella, queue: str) -> None:
        tasks = [bella.put(queue) for _ in range(4)]
        worker = {"capacities": {f"{queue}:1": 3}}

        taken = bella.taken_ids(f"{queue}:1", f"{queue}:1", size=9, strategy="round_robin", worker=worker)
        assert taken == tasks[:3]


class TestWait:
    def test_it_ends_with_the_first_task(self, bella: Bella, queue: str) -> None:
        with ThreadPoolExecutor(1) as pool:
            started = time.monotonic()
            waiting = pool.submit(bella.taken_ids, f"{queue}:0", f"{queue}:1", size=5, wait=5)
            time.sleep(0.2)  # it is about a wait that has begun
            task_id = bella.put(queue)

            assert waiting.result() == [task_id]
            assert 0.2 <= time.monotonic() - started < 2

    def test_it_is_over_at_its_end(self, bella: Bella, queue: str) -> None:
        started = time.monotonic()

        assert bella.take(f"{queue}:1", wait=0.3) == {}
        assert 0.3 <= time.monotonic() - started < 2

    def test_of_several_that_wait_one_gets_it(self, bella: Bella, queue: str) -> None:
        with ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(bella.taken_ids, f"{queue}:1", wait=0.5) for _ in range(4)]
            task_id = bella.put(queue)

        assert sorted(each.result() for each in waiting) == [[], [], [], [task_id]]

    @pytest.mark.parametrize("wait", [0, 1e9, 5, 0.001, None])
    def test_who_finds_something_does_not_wait(self, bella: Bella, queue: str, wait: float | None) -> None:
        task_id = bella.put(queue)

        assert bella.taken_ids(f"{queue}:1", wait=wait) == [task_id]

    @pytest.mark.parametrize("way", ["complete", "cancel"])
    def test_one_of_a_busy_queue_ends_when_it_is_free(self, bella: Bella, queue: str, way: str) -> None:
        first, second = bella.put(queue), bella.put(queue)
        assert bella.taken_ids(f"{queue}:1", strategy="sequential") == [first]
        with ThreadPoolExecutor(1) as pool:
            started = time.monotonic()
            waiting = pool.submit(bella.taken_ids, f"{queue}:1", strategy="sequential", wait=5)
            time.sleep(0.2)  # it is about a wait that has begun
            getattr(bella, way)(first)

            assert waiting.result() == [second]
            assert time.monotonic() - started < 2

    def test_for_none_nobody_waits(self, bella: Bella, queue: str) -> None:
        started = time.monotonic()

        assert bella.take(f"{queue}:1", size=0, wait=5) == {}
        assert time.monotonic() - started < 2
