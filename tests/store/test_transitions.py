"""What each script does, one behaviour at a time; races and histories are tested beside this file."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
import redis

from eas_queue.store import errors, keys, scripts
from eas_queue.store.client import Client
from eas_queue.store.store import Store, fresh_id
from tests.support.drive import (
    DEAD,
    FAILED,
    HAND_BACK,
    KICKS_MAX,
    LEASE_MS,
    RETRY,
    SUCCEEDED,
    Driver,
)
from tests.support.server import RedisServer


def ids_of(works: list[Any]) -> list[str]:
    return [work.request_id for work in works]


class TestOrder:
    def test_high_priority_starts_first_and_each_class_is_first_in_first_out(self, drive: Driver) -> None:
        drive.register(max_concurrency=100)
        normal = [drive.submit() for _ in range(8)]
        low = drive.submit(priority_class=99)
        high = [drive.submit(priority_class=101) for _ in range(3)]

        assert ids_of(drive.start(100)) == [*high, *normal, low]

    def test_position_counts_what_will_start_before(self, drive: Driver) -> None:
        normal = [drive.submit() for _ in range(3)]
        high = drive.submit(priority_class=101)

        looks = [drive.store.look("s", request_id) for request_id in [high, *normal]]

        assert [found[:2] for found in looks if found] == [(0, 4), (1, 4), (2, 4), (3, 4)]

    def test_a_retry_that_is_due_starts_before_what_came_later(self, drive: Driver) -> None:
        drive.register(max_concurrency=1)
        first, _second = drive.submit(), drive.submit()
        (work,) = drive.start()
        drive.finish(work, RETRY)
        drive.pass_time(RETRY.delay_ms)
        drive.sweep()

        assert ids_of(drive.start(2)) == [first]

    def test_services_get_starts_by_weight_when_workers_are_short(self, drive: Driver) -> None:
        for name, weight in (("a", 3), ("b", 1)):
            drive.register(name, weight=weight, max_concurrency=100)
            for _ in range(40):
                drive.submit(name)

        started = [drive.start(1)[0].service for _ in range(40)]

        assert started.count("a") == 30

    def test_a_service_that_was_idle_earns_no_credit(self, drive: Driver) -> None:
        for name in ("a", "b"):
            drive.register(name, max_concurrency=100)
        for _ in range(30):
            drive.submit("a")
        drive.start(20)
        for _ in range(20):
            drive.submit("b")

        started = [drive.start(1)[0].service for _ in range(10)]

        assert started.count("b") in (5, 6)

    def test_high_priority_of_one_service_does_not_starve_another(self, drive: Driver) -> None:
        for name in ("a", "b"):
            drive.register(name, max_concurrency=1000)
        drive.submit("b")
        for _ in range(100):
            drive.submit("a", priority_class=101)

        started = [drive.start(1)[0].service for _ in range(32)]

        assert "b" in started

    def test_a_flood_of_high_priority_does_not_put_newcomers_behind_a_backlog(self, drive: Driver) -> None:
        for name in ("a", "b", "c"):
            drive.register(name, max_concurrency=1000)
        for _ in range(60):
            drive.submit("b")
            drive.submit("a", priority_class=101)
        for _ in range(62):
            drive.start(1)
        newcomer = drive.submit("c")

        assert newcomer in ids_of([drive.start(1)[0] for _ in range(3)])

    def test_a_finish_asks_for_the_best_work_of_all_services(self, drive: Driver) -> None:
        drive.submit("a")
        drive.submit("a")
        (work,) = drive.start()
        urgent = drive.submit("b", priority_class=101)

        _, works = drive.finish(work, SUCCEEDED, 1)

        assert ids_of(works) == [urgent]


class TestKicks:
    def test_submits_announce_work_at_most_64_times(self, drive: Driver) -> None:
        drive.register(max_concurrency=1000)
        for _ in range(200):
            drive.submit()

        assert drive.raw.llen(keys.QUEUE_NORMAL) == KICKS_MAX

    def test_nothing_is_announced_that_could_not_start(self, drive: Driver) -> None:
        drive.register(max_concurrency=1)
        drive.submit()
        drive.start(1, kick_id=drive.take_kick() or "")

        drive.submit()

        assert drive.take_kick() is None

    def test_a_start_takes_its_kick_and_announces_what_it_leaves(self, drive: Driver) -> None:
        for _ in range(3):
            drive.submit()
        drive.raw.delete(keys.KICKS, keys.QUEUE_NORMAL)
        drive.sweep()
        only = drive.take_kick()
        assert drive.take_kick() is None

        drive.start(1, kick_id=only or "")

        assert drive.take_kick() not in (None, only)
        assert drive.raw.zscore(keys.KICKS, only) is None

    def test_a_finish_announces_what_it_does_not_take(self, drive: Driver) -> None:
        drive.register(max_concurrency=1)
        drive.submit()
        (work,) = drive.start(1, kick_id=drive.take_kick() or "")
        drive.submit()
        assert drive.take_kick() is None

        drive.finish(work, SUCCEEDED, 0)

        assert drive.take_kick() is not None

    def test_when_every_message_is_lost_all_are_forgotten(self, drive: Driver) -> None:
        drive.register(max_concurrency=1000)
        for _ in range(100):
            drive.submit()
        drive.raw.delete(keys.QUEUE_NORMAL)
        drive.pass_time(1_100)

        drive.sweep()

        assert drive.raw.zcard(keys.KICKS) == 1
        assert drive.take_kick() is not None

    def test_a_resumed_service_is_announced(self, drive: Driver) -> None:
        drive.register()
        drive.store.pause("s", True)
        drive.submit()
        assert drive.take_kick() is None

        drive.store.pause("s", False)

        assert drive.take_kick() is not None

    def test_a_lost_message_is_replaced_by_the_sweep(self, drive: Driver) -> None:
        drive.submit()
        drive.take_kick()
        drive.pass_time(1_100)

        drive.sweep()

        assert drive.take_kick() is not None

    def test_hours_without_workers_add_no_messages(self, drive: Driver) -> None:
        for _ in range(100):
            drive.submit()
        before = drive.raw.llen(keys.QUEUE_NORMAL)

        for _ in range(50):
            drive.pass_time(600_000)
            drive.sweep()

        assert drive.raw.llen(keys.QUEUE_NORMAL) == before

    def test_high_priority_work_is_announced_on_its_own_queue(self, drive: Driver) -> None:
        drive.submit(priority_class=101)

        assert drive.raw.llen(keys.QUEUE_HIGH) == 1
        assert drive.raw.llen(keys.QUEUE_NORMAL) == 0


class TestEnds:
    @pytest.mark.parametrize(("length", "comes_along"), [(0, True), (65_536, True), (65_537, False)])
    def test_a_look_brings_a_short_answer_along(self, drive: Driver, length: int, comes_along: bool) -> None:
        request_id, answer = drive.submit(), b"x" * length
        assert (before := drive.store.look("s", request_id)) is not None
        drive.finish(drive.start()[0], SUCCEEDED._replace(body=answer))

        after = drive.store.look("s", request_id)

        assert before.body is None
        assert after is not None
        assert after.body == (answer if comes_along else None)
        assert drive.store.result_body("s", request_id) == answer

    def test_a_success_keeps_the_answer_and_drops_the_body(self, drive: Driver) -> None:
        request_id = drive.submit(body=b"in")
        drive.finish(drive.start()[0])

        assert drive.store.result_body("s", request_id) == b"done"
        assert not drive.raw.hexists(keys.record_key("s", request_id), "body")

    def test_a_failure_keeps_the_body_because_it_may_be_sent_again(self, drive: Driver) -> None:
        request_id = drive.submit(body=b"in")
        drive.finish(drive.start()[0], DEAD)

        assert drive.raw.hget(keys.record_key("s", request_id), "body") == b"in"
        assert list(drive.members("s", "rear")) == [request_id]

    @pytest.mark.parametrize("end", [SUCCEEDED, DEAD])
    def test_nothing_of_a_brief_one_is_kept_longer(self, drive: Driver, end: Any) -> None:
        request_id = drive.submit(own=[("brief_ms", "60000")], idempotency=("key", "print"))
        [work] = drive.start()
        drive.progress(work, "", ("info", "a line"))
        drive.finish(work, end)

        assert not drive.raw.hexists(keys.record_key("s", request_id), "body")
        assert drive.members("s", "sink") == drive.members("s", "rear") == drive.members("s", "input") == {}
        left = [key for key in drive.raw.scan_iter(count=1000) if request_id.encode() in key or b"idem" in key]
        assert len(left) == 4
        assert all(0 < drive.raw.pttl(key) <= 60_000 for key in left)

    def test_a_final_answer_is_no_dead_letter(self, drive: Driver) -> None:
        drive.submit()
        drive.finish(drive.start()[0], FAILED)

        assert drive.members("s", "rear") == {}
        assert len(drive.members("s", "sink")) == 1

    def test_sink_indexes_grow_and_the_oldest_leave_a_full_sink(self, drive: Driver) -> None:
        drive.register(max_sink_length=3, max_concurrency=10)
        made = [drive.submit() for _ in range(5)]
        for work in drive.start(5):
            drive.finish(work)

        assert drive.members("s", "sink") == {made[2]: 3, made[3]: 4, made[4]: 5}
        assert drive.state(made[0]) == "succeeded"

    def test_a_sink_that_is_off_lists_nothing(self, drive: Driver) -> None:
        drive.register(sink=False)
        drive.submit()
        drive.finish(drive.start()[0])

        assert drive.members("s", "sink") == {}

    def test_the_sweep_drops_sink_items_whose_request_is_gone(self, drive: Driver) -> None:
        drive.register(ttl_ms=60_000)
        request_id = drive.submit()
        drive.finish(drive.start()[0])
        drive.raw.delete(keys.record_key("s", request_id))  # as its TTL would
        drive.pass_time(60_001)

        drive.sweep()

        assert drive.members("s", "sink") == {}
        assert drive.raw.zscore(keys.DUE, "s") is None

    def test_a_sweep_drops_no_more_at_once_than_it_is_told(self, drive: Driver) -> None:
        drive.register(ttl_ms=60_000, max_concurrency=20)
        for _ in range(20):
            drive.submit()
        for work in drive.start(20):
            drive.finish(work)
            drive.raw.delete(keys.record_key("s", work.request_id))  # as its TTL would
        drive.pass_time(60_001)
        left = []
        for _ in range(3):
            drive.raw.delete(keys.SWEEP_LOCK)
            drive.store.scripts.call("sweep", 1000, fresh_id(), 8, 0, "test", "{}")
            left.append(len(drive.members("s", "sink")))

        assert left == [12, 4, 0]

    def test_celery_is_told_in_its_own_words(self, drive: Driver) -> None:
        good, bad, cancelled = drive.submit(), drive.submit(), drive.submit()
        first, second = drive.start(2)
        drive.finish(first, SUCCEEDED)
        drive.finish(second, FAILED)
        drive.store.cancel("s", cancelled)

        records = [json.loads(drive.raw.get(keys.celery_result_key(i))) for i in (good, bad, cancelled)]

        assert [record["status"] for record in records] == ["SUCCESS", "FAILURE", "REVOKED"]
        assert all(set(r) == {"status", "result", "traceback", "children", "date_done", "task_id"} for r in records)
        assert records[2]["result"] == {
            "exc_type": "TaskRevokedError",
            "exc_message": ["cancelled"],
            "exc_module": "celery.exceptions",
        }


class TestLeases:
    def test_a_lapsed_lease_goes_back_and_counts_the_attempt(self, drive: Driver) -> None:
        request_id = drive.submit()
        (old,) = drive.start()
        drive.pass_time(LEASE_MS + 1)
        drive.sweep()

        (new,) = drive.start()

        assert (new.request_id, new.attempt) == (request_id, 2)
        assert drive.finish(old)[0] is False
        assert drive.finish(new)[0] is True

    def test_a_request_whose_workers_die_each_time_becomes_a_dead_letter(self, drive: Driver) -> None:
        request_id = drive.submit()
        for _ in range(3):
            assert len(drive.start()) == 1
            drive.pass_time(LEASE_MS + 1)
            drive.sweep()

        found = drive.store.look("s", request_id)

        assert found is not None
        assert (found.fields["state"], found.fields["error_type"]) == ("failed", "WorkerLost")
        assert list(drive.members("s", "rear")) == [request_id]

    def test_a_request_of_one_attempt_is_never_sent_twice(self, drive: Driver) -> None:
        drive.register(max_attempts=1)
        request_id = drive.submit()
        drive.start()
        drive.pass_time(LEASE_MS + 1)
        drive.sweep()

        assert drive.state(request_id) == "failed"

    def test_a_submit_may_say_how_often_it_is_sent_at_most(self, drive: Driver) -> None:
        once, often = (drive.submit(own=[("attempts_most", most)]) for most in ("1", "4"))
        drive.start(2)
        drive.pass_time(LEASE_MS + 1)
        drive.sweep()
        assert (drive.state(once), drive.state(often)) == ("failed", "queued")
        for _ in range(3):
            assert drive.state(often) == "queued"
            drive.start()
            drive.pass_time(LEASE_MS + 1)
            drive.sweep()
        assert drive.state(often) == "failed"

        [(_, again)] = drive.redrive(once)
        drive.start()
        drive.pass_time(LEASE_MS + 1)
        drive.sweep()

        assert drive.state(again) == "failed"

    def test_a_renewed_lease_does_not_lapse(self, drive: Driver) -> None:
        drive.submit()
        (work,) = drive.start()
        for _ in range(5):
            drive.pass_time(LEASE_MS // 2)
            assert drive.store.renew([(work.service, work.request_id, work.token)], lease_ms=LEASE_MS) == []
            drive.sweep()

        assert drive.finish(work)[0]

    def test_a_hand_back_keeps_the_place_and_does_not_count(self, drive: Driver) -> None:
        drive.register(max_concurrency=1)
        first, _ = drive.submit(), drive.submit()
        (work,) = drive.start()

        drive.finish(work, HAND_BACK)

        (again,) = drive.start()
        assert (again.request_id, again.attempt) == (first, 1)


class TestFence:
    @pytest.mark.parametrize("end", [SUCCEEDED, FAILED, DEAD, RETRY, HAND_BACK])
    def test_the_end_of_a_lost_attempt_changes_nothing(self, drive: Driver, end: Any) -> None:
        request_id = drive.submit()
        (old,) = drive.start()
        drive.pass_time(LEASE_MS + 1)
        drive.sweep()
        (new,) = drive.start()
        before = drive.raw.hgetall(keys.record_key("s", request_id))

        assert drive.finish(old, end)[0] is False
        assert drive.raw.hgetall(keys.record_key("s", request_id)) == before
        drive.finish(new)
        ended = drive.raw.hgetall(keys.record_key("s", request_id))
        assert drive.finish(old, end)[0] is False
        assert drive.raw.hgetall(keys.record_key("s", request_id)) == ended


class TestCancel:
    def test_a_cancelled_run_keeps_its_slot_until_its_holder_has_closed_it(self, drive: Driver) -> None:
        drive.register(max_concurrency=1)
        drive.submit()
        following = drive.submit()
        (work,) = drive.start()

        assert drive.store.cancel("s", work.request_id) == "running"
        assert drive.start() == []
        _, works = drive.finish(work, None, 1)

        assert ids_of(works) == [following]

    def test_a_slot_whose_holder_died_after_a_cancel_is_freed_in_time(self, drive: Driver) -> None:
        drive.register(max_concurrency=1)
        drive.submit()
        following = drive.submit()
        (work,) = drive.start()
        drive.store.cancel("s", work.request_id)

        drive.pass_time(10_001)
        drive.sweep()

        assert ids_of(drive.start()) == [following]

    def test_a_waiting_retry_can_be_cancelled(self, drive: Driver) -> None:
        request_id = drive.submit()
        drive.finish(drive.start()[0], RETRY)

        assert drive.store.cancel("s", request_id) == "queued"
        assert drive.members("s", "delay") == {}


class TestDeadlines:
    def test_what_waits_too_long_expires_and_is_never_started(self, drive: Driver) -> None:
        request_id = drive.submit(deadline_in_ms=1000)
        drive.pass_time(1000)

        assert drive.start() == []
        assert drive.state(request_id) == "expired"

    def test_a_retry_keeps_its_deadline(self, drive: Driver) -> None:
        request_id = drive.submit(deadline_in_ms=3000)
        drive.finish(drive.start()[0], RETRY)
        drive.pass_time(3000)
        drive.sweep()

        assert drive.state(request_id) == "expired"

    def test_a_deadline_does_not_bound_a_run(self, drive: Driver) -> None:
        drive.submit(deadline_in_ms=1000)
        (work,) = drive.start()
        drive.pass_time(2000)
        drive.sweep()

        assert drive.finish(work)[0]


class TestUnseenEnds:
    def test_ends_that_no_worker_saw_are_handed_to_whoever_reports_though_others_sweep(self, drive: Driver) -> None:
        cancelled = drive.submit()
        drive.store.cancel("s", cancelled)
        expired = drive.submit(deadline_in_ms=10)
        drive.pass_time(10)
        drive.sweep()

        others_turn = drive.store.sweep(every_ms=60_000, process="test", report_most=10)

        assert not others_turn.was_our_turn
        assert others_turn.unreported == [("s", cancelled, "cancelled"), ("s", expired, "expired")]
        assert drive.store.sweep(every_ms=60_000, process="test", report_most=10).unreported == []

    def test_a_cancel_whose_holder_has_died_is_left_to_others(self, drive: Driver) -> None:
        request_id = drive.submit()
        drive.start()
        drive.store.cancel("s", request_id)
        drive.pass_time(10_001)
        drive.sweep()

        assert drive.store.sweep(every_ms=60_000, process="test", report_most=10).unreported == [
            ("s", request_id, "cancelled")
        ]

    def test_an_end_that_a_worker_saw_is_not_left_to_others(self, drive: Driver) -> None:
        drive.submit()
        drive.finish(drive.start()[0])
        drive.submit()
        (work,) = drive.start()
        drive.store.cancel("s", work.request_id)
        drive.finish(work, None)

        assert drive.raw.llen(keys.UNREPORTED) == 0


class TestConfiguration:
    def test_a_larger_cap_starts_more_at_once(self, drive: Driver) -> None:
        drive.register(max_concurrency=1)
        drive.submit()
        drive.submit()
        drive.start()
        drive.take_kick()

        drive.register(max_concurrency=2)

        assert drive.take_kick() is not None
        assert len(drive.start()) == 1

    def test_a_paused_service_starts_nothing_and_accepts(self, drive: Driver) -> None:
        drive.register()
        drive.store.pause("s", True)
        request_id = drive.submit()

        assert drive.start() == []
        drive.store.pause("s", False)
        assert ids_of(drive.start()) == [request_id]

    def test_registering_again_does_not_end_a_pause(self, drive: Driver) -> None:
        drive.register()
        drive.store.pause("s", True)
        drive.register()
        drive.submit()

        assert drive.start() == []

    def test_a_large_claim_stops_after_some_megabytes(self, drive: Driver) -> None:
        drive.register(max_concurrency=100)
        for _ in range(12):
            drive.submit(body=b"x" * 1_000_000)

        assert len(drive.start(100)) == 5

    def test_a_service_that_redis_lost_must_be_registered_again(self, drive: Driver) -> None:
        drive.register()
        drive.raw.flushall()

        _, reply = drive.submit_reply()

        assert reply == [-1]
        drive.numbers.clear()


class TestServer:
    def test_indexes_jump_when_the_server_has_crashed(self, drive: Driver, redis_server: RedisServer) -> None:
        drive.submit()
        redis_server.await_on_disk()
        redis_server.kill()
        redis_server.start()

        _, reply = drive.submit_reply()

        assert int(reply[1]) == 1 + scripts.INDEX_JUMP + 1
        assert len(drive.members("s", "wait")) == 2

    def test_forgotten_scripts_alone_move_no_index(self, drive: Driver) -> None:
        drive.submit()
        drive.raw.script_flush()

        _, reply = drive.submit_reply()

        assert int(reply[1]) == 2

    def test_data_of_another_layout_is_refused(self, drive: Driver) -> None:
        drive.submit()
        drive.raw.hset(keys.SYS, "layout", keys.LAYOUT + 1)
        drive.raw.script_flush()

        with pytest.raises(errors.LayoutMismatch, match="another key layout"):
            drive.submit()

        drive.raw.hset(keys.SYS, "layout", keys.LAYOUT)

    def test_a_full_server_that_has_restarted_refuses_submits_as_well(self, drive: Driver) -> None:
        drive.register()
        drive.raw.script_flush()
        drive.raw.config_set("maxmemory", 1)
        try:
            with pytest.raises(errors.StoreFull):
                drive.submit()
        finally:
            drive.raw.config_set("maxmemory", 1_073_741_824)

    def test_a_full_server_refuses_submits_whole_and_still_finishes(self, drive: Driver) -> None:
        drive.register(max_concurrency=1)
        request_id = drive.submit()
        other = drive.submit()
        (work,) = drive.start()
        drive.raw.config_set("maxmemory", 1)
        try:
            with pytest.raises(errors.StoreFull):
                drive.submit()
            taken, works = drive.finish(work, SUCCEEDED, 1)
            cancelled = drive.store.cancel("s", other)
            swept = drive.sweep()
        finally:
            drive.raw.config_set("maxmemory", 1_073_741_824)

        assert taken
        assert ids_of(works) == [other]
        assert cancelled == "running"
        assert swept.was_our_turn
        assert drive.state(request_id) == "succeeded"
        assert len(drive.members("s", "wait")) == 0

    def test_an_absent_server_is_reported_at_once(self) -> None:
        store = Store(Client("redis://127.0.0.1:1/0"))

        with pytest.raises(errors.StoreUnavailable):
            store.cancel("s", "x")

    @pytest.mark.timeout(10)
    def test_a_subscription_to_a_server_that_says_nothing_fails_in_time(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            client = Client(f"redis://:password@127.0.0.1:{silent.getsockname()[1]}/0")
            subscriber = client.subscriber()
            with pytest.raises(redis.RedisError):
                subscriber.subscribe("x")
            subscriber.close()
            client.close()

    def test_a_broken_connection_is_replaced_once(self, drive: Driver) -> None:
        drive.submit()
        drive.raw.client_kill_filter(_type="normal", skipme=True)

        drive.submit()

        assert len(drive.members("s", "wait")) == 2

    def test_a_defect_in_a_script_is_not_taken_for_an_absent_server(self, drive: Driver) -> None:
        drive.register()
        drive.raw.set(keys.service_key("s", "wait"), "not a sorted set")

        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            drive.submit()

        drive.raw.flushall()
        drive.numbers.clear()


def test_a_copy_of_a_client_gets_a_number_that_grows_and_is_never_less_than_the_clock(drive: Driver) -> None:
    seconds = int(drive.raw.time()[0])
    first = drive.store.clone()
    assert seconds <= first <= seconds + 60

    drive.raw.hset(keys.SYS, "clones", seconds + 1000)
    assert drive.store.clone() == seconds + 1001
    assert drive.store.clone() == seconds + 1002

    drive.raw.hdel(keys.SYS, "clones")  # as after a loss of all data
    assert drive.store.clone() >= first
