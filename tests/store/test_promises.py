"""What the scripts promise clients and targets beside order: keys, rates, progress, sinks that hold, dead letters."""

from __future__ import annotations

from typing import Any

import pytest

from eas_queue.engine.engine import Engine
from eas_queue.engine.eta import eta_s
from eas_queue.engine.letters import BATCH_MOST, Choice
from eas_queue.store import keys
from eas_queue.store.shapes import Leased
from tests.support.drive import DEAD, FAILED, LEASE_MS, RETRY, SUCCEEDED, Driver


class TestIdempotency:
    def test_a_used_key_answers_the_request_of_that_time_also_when_the_queue_is_full(self, drive: Driver) -> None:
        first = drive.submit(idempotency=("key", "body"))

        _, reply = drive.submit_reply(idempotency=("key", "body"), max_queue_length=1)

        assert (reply[0], reply[4].decode(), reply[5]) == (1, first, 1)
        assert drive.submit_reply(max_queue_length=1)[1] == [0, 1]

    def test_another_body_under_a_used_key_is_refused(self, drive: Driver) -> None:
        drive.submit(idempotency=("key", "body"))

        assert drive.submit_reply(idempotency=("key", "other"))[1] == [-3]
        assert len(drive.members("s", "wait")) == 1

    def test_the_key_lives_as_long_as_its_record(self, drive: Driver) -> None:
        drive.register(ttl_ms=50_000)
        drive.submit(idempotency=("key", "body"))
        name = keys.idempotency_key("s", "key")
        assert drive.raw.ttl(name) == -1, "however long the request waits or runs"

        drive.finish(drive.start()[0])

        assert 0 < drive.raw.pttl(name) <= 50_000

    def test_a_key_whose_record_is_gone_is_free(self, drive: Driver) -> None:
        first = drive.submit(idempotency=("key", "body"))
        drive.finish(drive.start()[0])
        drive.raw.delete(keys.record_key("s", first))

        _, reply = drive.submit_reply(idempotency=("key", "other"))

        assert (reply[0], reply[5]) == (1, 0)

    def test_keys_of_services_are_apart(self, drive: Driver) -> None:
        assert drive.submit("a", idempotency=("key", "body")) != drive.submit("b", idempotency=("key", "body"))


class TestRates:
    def test_after_a_burst_one_comes_per_interval(self, drive: Driver) -> None:
        drive.set_time(1_800_000_000_000)
        replies = [drive.submit_reply(rate=("token", 100_000.0, 3))[1] for _ in range(4)]

        assert [reply[0] for reply in replies] == [1, 1, 1, -2]
        assert replies[3][1] == pytest.approx(100_000, abs=1000)
        assert self.at(drive, 90_000) == [-2, pytest.approx(10_000, abs=1000)]
        assert self.at(drive, 101_000)[0] == 1
        assert self.at(drive, 101_000)[0] == -2

    @pytest.mark.parametrize("rate", [0.001, 0.3, 0.6, 0.7, 1, 1.5, 3, 6, 7, 11, 13, 1000 / 3, 999_999])
    def test_an_empty_bucket_of_one_lets_one_pass_at_every_rate(self, drive: Driver, rate: float) -> None:
        for burst in (1, 2):
            for _ in range(3):
                assert drive.submit_reply(rate=(f"token{burst}", 1000 / rate, burst))[1][0] == 1
                drive.pass_time(int(2 * 1000 / rate) + 2)

    def test_a_clock_that_was_set_back_stops_nobody_for_long(self, drive: Driver) -> None:
        drive.submit(rate=("token", 1000, 2))
        drive.pass_time(-3_600_000)

        refused = drive.submit_reply(rate=("token", 1000, 2))[1]

        assert refused[0] == -2
        assert refused[1] <= 1000

    def test_a_refused_submit_costs_nothing(self, drive: Driver) -> None:
        drive.submit()

        for _ in range(5):
            assert drive.submit_reply(rate=("token", 60_000, 1), max_queue_length=1)[1] == [0, 1]
        assert drive.submit_reply(rate=("token", 60_000, 1))[1][0] == 1

    def test_a_replay_costs_nothing(self, drive: Driver) -> None:
        options: dict[str, Any] = {"rate": ("token", 60_000, 1), "idempotency": ("key", "body")}

        assert [drive.submit_reply(**options)[1][0] for _ in range(3)] == [1, 1, 1]

    def test_the_bucket_leaves_when_it_is_full(self, drive: Driver) -> None:
        drive.submit(rate=("token", 60_000, 5))

        assert 0 < drive.raw.pttl(keys.RATE_PREFIX + "token") <= 60_000

    def at(self, drive: Driver, ms: int) -> list[Any]:
        drive.set_time(1_800_000_000_000 + ms)
        _, reply = drive.submit_reply(rate=("token", 100_000.0, 3))
        return list(reply)


class TestProgress:
    def running(self, drive: Driver) -> Leased:
        drive.submit()
        return drive.start()[0]

    def test_progress_and_lines_are_seen_while_it_runs(self, drive: Driver) -> None:
        work = self.running(drive)

        assert drive.progress(work, '{"step": 1}', ("info", "first line"), ("error", "second"))

        found = drive.store.look("s", work.request_id)
        assert found is not None
        assert (found.fields["progress"], found.fields["log_n"], found.fields["events"]) == ('{"step": 1}', "2", "4")
        lines = drive.store.logs("s", work.request_id)
        assert [(line.event, line.level, line.message) for line in lines] == [
            (2, "info", "first line"),
            (3, "error", "second"),
        ]

    def test_only_the_running_attempt_may(self, drive: Driver) -> None:
        work = self.running(drive)
        assert not drive.progress(work._replace(token="1.0.guess"))

        drive.finish(work, RETRY)
        assert not drive.progress(work)
        drive.pass_time(RETRY.delay_ms)
        drive.sweep()
        (again,) = drive.start()
        assert not drive.progress(work), "the attempt before is over"
        assert drive.progress(again)

        drive.store.cancel("s", work.request_id)
        assert not drive.progress(again), "a target learns that nobody wants its work"

    def test_the_lease_token_does_not_serve_as_progress_token(self, drive: Driver) -> None:
        work = self.running(drive)

        assert not drive.store.progress("s", work.request_id, work.token, progress="", lines=[])

    def test_the_latest_lines_are_kept_and_all_are_counted(self, drive: Driver) -> None:
        work = self.running(drive)

        for i in range(6):
            drive.progress(work, "", *[("info", f"{i}-{j}") for j in range(100)])

        lines = drive.store.logs("s", work.request_id)
        assert (len(lines), lines[0].message, lines[-1].message) == (500, "1-0", "5-99")
        found = drive.store.look("s", work.request_id)
        assert found is not None
        assert found.fields["log_n"] == "600"

    def test_lines_of_earlier_attempts_stay_and_go_with_the_record(self, drive: Driver) -> None:
        drive.register(ttl_ms=50_000)
        work = self.running(drive)
        drive.progress(work, "", ("info", "first attempt"))
        drive.finish(work, RETRY)
        drive.pass_time(RETRY.delay_ms)
        drive.sweep()
        (again,) = drive.start()
        drive.progress(again, "", ("info", "second attempt"))
        name = keys.log_key("s", work.request_id)
        assert drive.raw.ttl(name) == -1

        drive.finish(again)

        assert [line.message for line in drive.store.logs("s", work.request_id)] == ["first attempt", "second attempt"]
        assert 0 < drive.raw.pttl(name) <= 50_000


class TestHoldingSink:
    def test_a_full_sink_holds_its_service_and_loses_nothing(self, drive: Driver) -> None:
        drive.register(max_concurrency=10, max_sink_length=2, hold=True)
        first, second, third = (drive.submit() for _ in range(3))

        works = drive.start(10)
        assert [work.request_id for work in works] == [first, second], "what runs will need room too"
        for work in works:
            drive.finish(work, FAILED)
        assert drive.start(10) == []
        drive.check()
        overview = drive.store.overview("s")
        assert overview is not None
        assert (overview.held, overview.sink, overview.startable) == (True, 2, 1)

        drive.raw.delete(keys.record_key("s", first))  # past its time
        drive.pass_time(3_600_001)
        drive.sweep()

        assert [work.request_id for work in drive.start(10)] == [third]

    def test_a_smaller_sink_holds_what_it_has(self, drive: Driver) -> None:
        drive.register(max_concurrency=10, max_sink_length=3, hold=True)
        for _ in range(2):
            drive.submit()
        first, second = drive.start(2)
        drive.finish(first)
        drive.register(max_concurrency=10, max_sink_length=1, hold=True)

        drive.finish(second)

        assert len(drive.members("s", "sink")) == 2

    def test_what_is_cancelled_needs_no_room(self, drive: Driver) -> None:
        drive.register(max_concurrency=10, max_sink_length=1, hold=True)
        first, second = drive.submit(), drive.submit()
        drive.start(10)

        drive.store.cancel("s", first)

        assert [work.request_id for work in drive.start(10)] == [second]

    def test_a_sink_that_is_off_holds_nothing(self, drive: Driver) -> None:
        drive.register(max_concurrency=10, max_sink_length=1, hold=True, sink=False)
        for _ in range(3):
            drive.submit()

        assert len(drive.start(10)) == 3


class TestDeadLetters:
    def letter(self, drive: Driver, **options: Any) -> str:
        request_id = drive.submit(**options)
        drive.finish(drive.start()[0], DEAD)
        return request_id

    def test_a_redriven_letter_is_a_new_request_and_the_old_one_stays_as_it_ended(self, drive: Driver) -> None:
        old = self.letter(drive, body=b"the body", meta='{"path":"p"}', priority_class=101)

        ((_, new),) = drive.redrive(old, deadline_in_ms=60_000)

        (work,) = drive.start()
        assert (work.request_id, work.body, work.meta, work.attempt) == (new, b"the body", b'{"path":"p"}', 1)
        assert work.deadline_ms > work.submitted_ms
        assert drive.state(old) == "failed"
        drive.finish(work)
        assert drive.members("s", "rear") == {}

    def test_what_is_no_letter_and_what_finds_no_room_stay_as_they_are(self, drive: Driver) -> None:
        first, second = self.letter(drive), self.letter(drive)
        done = drive.submit()
        drive.finish(drive.start()[0], SUCCEEDED)

        rows = drive.redrive(first, done, "unknown", second, max_queue_length=1)

        assert [row[1] == "" for row in rows] == [False, True, True, False]
        assert rows[3] == (second, "-")
        assert list(drive.members("s", "rear")) == [second]

    def test_pages_are_in_order_and_go_on_behind_an_index(self, drive: Driver) -> None:
        letters = [self.letter(drive) for _ in range(5)]

        count, reached, page = drive.store.letters("s", after=0, most=3)
        _, _, rest = drive.store.letters("s", after=reached, most=3)

        assert count == 5
        assert [letter.request_id for letter in page + rest] == letters
        assert page[0].fields["error_type"] == "TargetUnreachable"

    def test_letters_behind_a_page_of_those_that_are_gone_are_found(self, drive: Driver, engine: Engine) -> None:
        letters = [self.letter(drive) for _ in range(BATCH_MOST + 1)]
        for gone in letters[:-1]:
            drive.raw.delete(keys.record_key("s", gone))

        done = engine.redrive("s", Choice())

        assert [old for old, _ in done.requests] == letters[-1:]

    def test_a_discarded_letter_keeps_its_record_without_the_body(self, drive: Driver) -> None:
        old = self.letter(drive)

        assert drive.store.discard("s", [old, old, "unknown"]) == [old]

        assert drive.state(old) == "failed"
        assert drive.raw.hget(keys.record_key("s", old), "body") is None
        assert drive.redrive(old) == [(old, "")]

    def test_large_bodies_are_sent_again_in_several_steps(self, drive: Driver) -> None:
        letters = [self.letter(drive, body=b"x" * 2_000_000) for _ in range(4)]

        rows = drive.redrive(*letters)

        assert [new == "+" for _, new in rows] == [False, False, False, True]
        assert list(drive.members("s", "rear")) == letters[3:]


class TestSweeps:
    def test_a_sweep_is_bounded_over_all_services_and_the_next_one_goes_on(self, drive: Driver) -> None:
        for service in ("a", "b", "c"):
            drive.register(service, max_concurrency=1)
            for _ in range(500):
                drive.submit(service, deadline_in_ms=1000)
        drive.pass_time(2000)

        first = drive.store.sweep(every_ms=60_000, process="test")
        second = drive.store.sweep(every_ms=60_000, process="test")
        third = drive.store.sweep(every_ms=60_000, process="test")

        assert (first.expired, first.more_is_due) == (1000, True)
        assert (second.was_our_turn, second.expired, second.more_is_due) == (True, 500, False)
        assert not third.was_our_turn
        drive.check()


class TestEstimates:
    def run_some(self, drive: Driver, count: int, ms: int) -> None:
        for _ in range(count):
            drive.submit()
            (work,) = drive.start()
            drive.pass_time(ms)
            drive.finish(work)

    def eta(self, drive: Driver, request_id: str) -> float | None:
        found = drive.store.look("s", request_id)
        assert found is not None
        return eta_s(found)

    def test_nothing_is_said_before_five_runs_or_while_nothing_runs(self, drive: Driver) -> None:
        self.run_some(drive, 4, 2000)
        request_id = drive.submit()
        assert self.eta(drive, request_id) is None
        drive.start()
        assert self.eta(drive, request_id) is None

        drive.store.cancel("s", request_id)
        self.run_some(drive, 1, 2000)
        waiting = drive.submit()
        assert self.eta(drive, waiting) is None, "it waits and nobody works"

    def test_slots_become_free_in_their_order_round_and_round(self, drive: Driver) -> None:
        drive.register(max_concurrency=2)
        self.run_some(drive, 5, 2000)
        first, second = drive.submit(), drive.submit()
        drive.start()
        drive.pass_time(1000)
        drive.start()
        waiting = [drive.submit() for _ in range(4)]

        expected = {first: 1.0, second: 2.0} | dict(zip(waiting, (3.0, 4.0, 5.0, 6.0), strict=True))

        for request_id, seconds in expected.items():
            assert self.eta(drive, request_id) == pytest.approx(seconds, abs=0.3)

    def test_a_run_that_is_longer_than_runs_are_a_pause_and_a_retry_have_none(self, drive: Driver) -> None:
        drive.register(max_concurrency=1)
        self.run_some(drive, 5, 2000)
        running, waiting = drive.submit(), drive.submit()
        (work,) = drive.start()
        drive.pass_time(2500)
        assert self.eta(drive, running) is None
        assert self.eta(drive, waiting) == pytest.approx(2.0, abs=0.3)

        drive.store.pause("s", True)
        assert self.eta(drive, waiting) is None
        drive.finish(work, RETRY)
        assert self.eta(drive, running) is None

    def test_behind_runs_that_last_much_longer_than_runs_do_nothing_is_said(self, drive: Driver) -> None:
        drive.register(max_concurrency=1)
        self.run_some(drive, 5, 1000)
        drive.submit()
        drive.start()
        waiting = drive.submit()

        drive.pass_time(1_500)
        assert self.eta(drive, waiting) == pytest.approx(1.0, abs=0.3)
        drive.pass_time(1_500)
        assert self.eta(drive, waiting) is None

    def test_a_service_that_is_held_has_none(self, drive: Driver) -> None:
        drive.register(max_concurrency=2, max_sink_length=7, hold=True)
        self.run_some(drive, 6, 1000)
        drive.submit()
        drive.start()

        assert self.eta(drive, drive.submit()) is None

    def test_the_mean_follows_the_latest_runs(self, drive: Driver) -> None:
        self.run_some(drive, 10, 1000)
        self.run_some(drive, 100, 4000)

        overview = drive.store.overview("s")
        assert overview is not None
        assert 3700 < overview.mean_run_ms < 4200

    def test_attempts_that_were_not_answered_do_not_count_as_runs(self, drive: Driver) -> None:
        drive.register(max_attempts=100)
        drive.submit()
        for _ in range(3):
            (work,) = drive.start()
            drive.finish(work, RETRY)
            drive.pass_time(RETRY.delay_ms)
            drive.sweep()
        drive.finish(drive.start()[0], DEAD)

        overview = drive.store.overview("s")
        assert overview is not None
        assert overview.runs == 0


def test_processes_that_were_not_heard_of_for_a_minute_are_forgotten(drive: Driver) -> None:
    drive.store.sweep(every_ms=1, process="gone")
    drive.pass_time(61_000)
    drive.sweep()

    _, found = drive.store.alive()

    assert [process.name for process in found] == ["test"]


def test_a_lapsed_lease_is_no_run(drive: Driver) -> None:
    drive.submit()
    drive.start()
    drive.pass_time(LEASE_MS + 1)
    drive.sweep()

    assert drive.members("s", "run") == {}
