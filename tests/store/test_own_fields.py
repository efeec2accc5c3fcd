"""What a submit says of its own request instead of its service: how often it is delivered, how little of it stays."""

from __future__ import annotations

import pytest

from eas_queue.engine.request import Retries, Submission
from eas_queue.store import keys
from eas_queue.store.shapes import Leased
from tests.support.desk import Desk
from tests.support.drive import DEAD, FAILED, HAND_BACK, LEASE_MS, RETRY, SUCCEEDED, Driver

ONCE = [("attempts_most", "1")]
BRIEF_MS = 60_000
BRIEF = [("brief_ms", str(BRIEF_MS))]


def lose(drive: Driver) -> Leased:
    """Somebody takes it, and is not heard of again."""
    [work] = drive.start()
    drive.pass_time(LEASE_MS + 1)
    drive.sweep()
    return work


def error_type(drive: Driver, request_id: str) -> str:
    found = drive.store.look("s", request_id)
    assert found is not None
    return str(found.fields["error_type"])


def keeps(drive: Driver, request_id: str, field: str) -> bool:
    return bool(drive.raw.hexists(keys.record_key("s", request_id), field))


class TestFields:
    def test_only_what_was_said_is_kept(self) -> None:
        def own(**said: object) -> list[tuple[str, str]]:
            return Submission(b"", **said).own_fields()  # type: ignore[arg-type]

        assert own() == []
        assert own(deadline_s=0.0) == [("own_deadline", "1")]
        assert own(retries=Retries(timeout=0, server_error=0)) == []
        assert own(retries=Retries(connection_error=2)) == [("attempts_most", "3")]
        assert own(brief_s=0.5) == [("brief_ms", "500")]
        assert own(brief_s=60.0, retries=Retries(0, 0, 0), deadline_s=1.0) == [
            ("own_deadline", "1"),
            ("attempts_most", "1"),
            ("brief_ms", "60000"),
        ]

    def test_they_are_in_the_record_with_the_submit(self, drive: Driver) -> None:
        request_id = drive.submit(own=[("own_deadline", "1"), *ONCE])

        found = drive.store.look("s", request_id)
        assert found is not None and found.fields["own_deadline"] == "1"
        assert drive.raw.hget(keys.record_key("s", request_id), "attempts_most") == b"1"

    def test_a_submit_that_is_refused_leaves_nothing(self, drive: Driver) -> None:
        request_id, reply = drive.submit_reply(own=BRIEF, max_queue_length=0)

        assert reply[0] == 0
        assert not drive.raw.exists(keys.record_key("s", request_id))


class TestAttempts:
    def test_a_lapsed_lease_is_the_end_after_as_many_as_were_asked_for(self, drive: Driver) -> None:
        request_id = drive.submit(own=ONCE)
        lose(drive)

        assert (drive.state(request_id), error_type(drive, request_id)) == ("failed", "WorkerLost")
        assert list(drive.members("s", "rear")) == [request_id]

    def test_more_may_be_asked_for_than_the_service_has(self, drive: Driver) -> None:
        drive.register(max_attempts=2)
        request_id = drive.submit(own=[("attempts_most", "3")])

        assert [lose(drive).attempt for _ in range(3)] == [1, 2, 3]
        assert drive.state(request_id) == "failed"

    def test_a_service_that_sends_once_sends_once(self, drive: Driver) -> None:
        drive.register(max_attempts=1)
        request_id = drive.submit(own=[("attempts_most", "3")])
        lose(drive)

        assert drive.state(request_id) == "failed"

    def test_others_go_on_by_their_service(self, drive: Driver) -> None:
        drive.submit(own=ONCE)
        other = drive.submit()
        assert len(drive.start(2)) == 2
        drive.pass_time(LEASE_MS + 1)
        drive.sweep()

        assert [work.request_id for work in drive.start(2)] == [other]

    def test_what_a_watcher_refuses_or_leaves_counts_alike(self, drive: Driver) -> None:
        drive.register(pull=True)
        desk = Desk(drive, "input")
        refused, left = drive.submit(own=ONCE), drive.submit(own=ONCE)
        desk.join("s/a")
        assert desk.indexes("s/a") == [1, 2]

        desk.refuse("s", 1)
        desk.leave("s/a")

        assert (drive.state(refused), error_type(drive, refused)) == ("failed", "Refused")
        assert (drive.state(left), error_type(drive, left)) == ("failed", "WatcherLost")

    def test_what_does_not_count_does_not_end_it(self, drive: Driver) -> None:
        request_id = drive.submit(own=ONCE)
        [work] = drive.start()
        drive.finish(work, HAND_BACK)

        [again] = drive.start()
        assert (again.request_id, again.attempt) == (request_id, 1)

    def test_a_redriven_letter_keeps_them(self, drive: Driver) -> None:
        old = drive.submit(own=[("own_deadline", "1"), *ONCE], meta='{"retries": 1}')
        lose(drive)

        [(_, new)] = drive.redrive(old)

        assert not keeps(drive, new, "own_deadline"), "it is the service's that counts"
        assert lose(drive).meta == b'{"retries": 1}'
        assert drive.state(new) == "failed"


class TestBrief:
    @pytest.mark.parametrize("end", [SUCCEEDED, FAILED, DEAD])
    def test_it_is_in_no_list_its_body_goes_and_the_rest_a_while_later(self, drive: Driver, end: object) -> None:
        request_id = drive.submit(own=BRIEF)
        [work] = drive.start()
        drive.finish(work, end)  # type: ignore[arg-type]

        assert drive.members("s", "sink") == drive.members("s", "rear") == {}
        assert not keeps(drive, request_id, "body")
        assert keeps(drive, request_id, "result")
        assert 0 < drive.raw.pttl(keys.record_key("s", request_id)) <= BRIEF_MS

    @pytest.mark.parametrize("how", ["cancelled", "expired", "failed"])
    def test_so_do_ends_that_no_worker_brings_about(self, drive: Driver, how: str) -> None:
        request_id = drive.submit(own=BRIEF + ONCE, deadline_in_ms=10 if how == "expired" else 0)
        if how == "cancelled":
            drive.store.cancel("s", request_id)
        elif how == "expired":
            drive.pass_time(11)
            drive.sweep()
        else:
            lose(drive)

        assert drive.state(request_id) == how
        assert drive.members("s", "rear") == {}
        assert not keeps(drive, request_id, "body")
        assert 0 < drive.raw.pttl(keys.record_key("s", request_id)) <= BRIEF_MS

    def test_while_it_is_alive_nothing_goes(self, drive: Driver) -> None:
        request_id = drive.submit(own=BRIEF, body=b"in")
        [work] = drive.start()
        drive.finish(work, RETRY)
        drive.pass_time(RETRY.delay_ms)
        drive.sweep()

        [again] = drive.start()
        assert (again.request_id, again.attempt, again.body) == (request_id, 2, b"in")
        assert drive.raw.pttl(keys.record_key("s", request_id)) == -1

    def test_it_does_not_make_a_result_live_longer(self, drive: Driver) -> None:
        drive.register(ttl_ms=30_000)
        request_id = drive.submit(own=BRIEF)
        [work] = drive.start()
        drive.finish(work)

        assert 0 < drive.raw.pttl(keys.record_key("s", request_id)) <= 30_000

    def test_its_log_and_its_idempotency_key_go_with_it(self, drive: Driver) -> None:
        request_id = drive.submit(own=BRIEF, idempotency=("digest", "print"))
        [work] = drive.start()
        assert drive.progress(work, "", ("info", "a secret"))
        drive.finish(work)

        for key in (keys.log_key("s", request_id), keys.idempotency_key("s", "digest")):
            assert 0 < drive.raw.pttl(key) <= BRIEF_MS, key

    def test_a_tap_that_holds_it_goes_on_when_it_has_ended(self, drive: Driver) -> None:
        drive.register()
        desk = Desk(drive, "input")
        desk.join("tap/a", window=1)
        for _ in range(2):
            drive.submit(own=BRIEF, body=b"in")
        assert [pulled.row.data for pulled in desk.pull("tap/a")] == [b"in"]
        for work in drive.start(2):
            drive.finish(work)
        assert desk.there() == desk.indexes("tap/a") == []

        desk.commit("tap", 1)
        drive.submit(body=b"more")

        assert [pulled.row.data for pulled in desk.pull("tap/a")] == [b"more"]
