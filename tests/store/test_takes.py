"""Takers: what a take leases, what ends it, and what brings it back."""

from __future__ import annotations

from typing import Any

import pytest

from eas_queue.engine.retry import Answer, ended
from eas_queue.store.shapes import Seen
from eas_queue.store.takes import Lane, NotPulled, Taken
from tests.support.drive import Driver

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
HIGH, NORMAL = 101, 100
OK = ended(Answer(200, (("content-type", "application/json"),), b'{"a": 1}'))
BAD = ended(Answer(500, (), b"no"))


def lanes(*names: str) -> list[Lane]:
    """Of `s:0`, high priority, and `s:1`, the rest."""
    return [Lane(name[:-2], name.endswith(":0")) for name in names]


def take(drive: Driver, *names: str, **options: Any) -> list[str]:
    return [each.request_id for each in taken(drive, *names, **options)]


def taken(
    drive: Driver, *names: str, most: int = 1, strategy: str = "fifo", lease_ms: int = 0, **more: Any
) -> list[Taken]:
    return drive.store.takes.take(lanes(*names), strategy, most, lease_ms=lease_ms, **more)


def look(drive: Driver, request_id: str, service: str = "s") -> Seen:
    found = drive.store.look(service, request_id)
    assert found is not None
    return found


def put(drive: Driver, service: str = "s", level: int = 1, **changes: Any) -> str:
    if service not in drive.numbers:
        drive.register(service, pull=True)
    return drive.submit(service, priority_class=NORMAL if level else HIGH, **changes)


def put_by(drive: Driver, deadline_in_ms: int, **changes: Any) -> str:
    """One that must be answered by its deadline."""
    return put(drive, deadline_in_ms=deadline_in_ms, own=[("answer_by", "1")], **changes)


def test_a_take_gives_what_was_put_and_all_that_is_known_of_it(drive: Driver) -> None:
    request_id = put(drive, body=b'{"n": 1}', own=[("about", "x"), ("answer_by", "1")], deadline_in_ms=HOUR_MS)
    now_ms = look(drive, request_id).now_ms

    [found] = taken(drive, "s:1", taker="one")

    assert (found.lane, found.request_id, found.attempt) == (0, request_id, 1)
    assert (found.body, found.about, found.endpoint) == (b'{"n": 1}', "x", "")
    assert abs(found.submitted_ms - now_ms) < 1000
    assert found.deadline_ms == found.lease_ends_ms == found.submitted_ms + HOUR_MS
    assert look(drive, request_id).fields["state"] == "running"
    assert take(drive, "s:1", "s:0") == []


def test_a_lane_is_half_of_a_queue(drive: Driver) -> None:
    low = put(drive, level=1)
    high = put(drive, level=0)

    assert take(drive, "s:0", most=5) == [high]
    assert take(drive, "s:1", most=5) == [low]


def test_a_service_that_is_forwarded_gives_nothing_nor_do_the_others(drive: Driver) -> None:
    mine = put(drive, "s")
    drive.register("pushed")

    for names in (["s:1", "pushed:1"], ["s:1", "unknown:1"]):
        with pytest.raises(NotPulled) as caught:
            take(drive, *names, most=5)
        assert caught.value.lane == 1
    assert take(drive, "s:1", "s:1", most=5) == [mine]


def test_fifo_goes_by_the_time_of_submission_whatever_the_lane(drive: Driver) -> None:
    drive.register("a", pull=True)
    drive.register("b", pull=True)
    order = []
    for service, level in [("b", 1), ("a", 0), ("a", 1), ("b", 0)]:
        order.append(put(drive, service, level))
        drive.pass_time(1)

    assert take(drive, "a:0", "a:1", "b:0", "b:1", most=10) == order


def test_active_passive_empties_the_first_lane_first(drive: Driver) -> None:
    passive = [put(drive, level=1) for _ in range(2)]
    active = [put(drive, level=0) for _ in range(2)]

    assert take(drive, "s:0", "s:1", most=3, strategy="active_passive") == [*active, passive[0]]


def test_round_robin_goes_on_where_it_ended(drive: Driver) -> None:
    a = [put(drive, "a") for _ in range(3)]
    b = [put(drive, "b") for _ in range(3)]

    def one(turn: str) -> list[str]:
        return take(drive, "a:1", "b:1", strategy="round_robin", turn=turn)

    assert [*one("t"), *one("t"), *one("t")] == [a[0], b[0], a[1]]
    assert one("another") == [a[2]]
    assert take(drive, "a:1", "b:1", most=5, strategy="round_robin", turn="t") == b[1:]


def test_sequential_gives_one_of_each_lane_and_no_second_one_while_that_is_out(drive: Driver) -> None:
    a, b = [put(drive, "a") for _ in range(3)], [put(drive, "b") for _ in range(2)]

    def all_of_them() -> list[str]:
        return take(drive, "a:1", "b:1", most=5, strategy="sequential")

    assert all_of_them() == [a[0], b[0]]
    assert all_of_them() == []
    drive.store.takes.complete("a", a[0], OK)
    assert all_of_them() == [a[1]]
    drive.store.cancel("a", a[1])
    assert all_of_them() == [a[2]]


def test_the_first_who_completes_it_ends_it_lease_or_not(drive: Driver) -> None:
    never_taken, given = put(drive), put(drive)
    assert drive.store.takes.complete("s", never_taken, BAD) is True
    assert take(drive, "s:1", most=5) == [given]

    assert drive.store.takes.complete("s", given, OK, about="{}") is True
    assert drive.store.takes.complete("s", given, BAD) is False

    fields = look(drive, given).fields
    assert (fields["state"], fields["status_code"]) == ("succeeded", "200")
    assert drive.store.answer("s", given) == (b'{"a": 1}', b"{}")
    assert look(drive, never_taken).fields["state"] == "failed"


def test_a_complete_that_is_sent_twice_says_the_same(drive: Driver) -> None:
    request_id = put(drive)
    assert [drive.store.takes.complete("s", request_id, OK, nonce="n") for _ in range(2)] == [True, True]


def test_what_is_forwarded_is_not_completed(drive: Driver) -> None:
    request_id = drive.submit("pushed")
    assert drive.store.takes.complete("pushed", request_id, OK) is None
    assert drive.store.takes.complete("pushed", request_id[:-1] + "x", OK) is False


def test_a_lease_that_lapses_brings_it_back_to_the_head(drive: Driver) -> None:
    first, second = put(drive), put(drive)
    assert take(drive, "s:1", lease_ms=1000) == [first]
    drive.pass_time(1001)
    drive.sweep()

    [again] = taken(drive, "s:1", lease_ms=1000)
    assert (again.request_id, again.attempt) == (first, 2)
    assert take(drive, "s:1") == [second]


def test_deliveries_are_limited_by_the_latest_take(drive: Driver) -> None:
    request_id = put(drive)
    for attempt in range(1, 4):
        assert take(drive, "s:1", lease_ms=1000, deliveries_most=3) == [request_id]
        drive.pass_time(1001)
        drive.sweep()
        assert look(drive, request_id).fields["state"] == ("queued" if attempt < 3 else "failed")
    assert look(drive, request_id).fields["error_type"] == "TakerLost"


def test_a_service_that_sends_once_does_so_whatever_a_taker_says(drive: Driver) -> None:
    drive.register("once", pull=True, max_attempts=1)
    request_id = put(drive, "once")
    take(drive, "once:1", lease_ms=1000, deliveries_most=-1)
    drive.pass_time(1001)
    drive.sweep()
    assert look(drive, request_id, "once").fields["state"] == "failed"


def test_a_deadline_of_the_answer_ends_what_a_taker_has(drive: Driver) -> None:
    swept, completed = put_by(drive, 2000), put_by(drive, 2000)
    assert len(take(drive, "s:1", most=2, lease_ms=HOUR_MS, deliveries_most=-1)) == 2
    drive.pass_time(2001)

    assert drive.store.takes.complete("s", completed, OK) is False
    drive.sweep()
    for request_id in (swept, completed):
        assert look(drive, request_id).fields["state"] == "expired"


def test_a_deadline_of_the_start_is_met_by_a_take(drive: Driver) -> None:
    request_id = put(drive, deadline_in_ms=2000)
    [found] = taken(drive, "s:1")
    assert found.lease_ends_ms >= found.submitted_ms + DAY_MS
    drive.pass_time(2001)
    drive.sweep()
    assert drive.store.takes.complete("s", request_id, OK) is True


def test_what_has_expired_is_passed_over(drive: Driver) -> None:
    put_by(drive, 1000)
    good = put(drive)
    drive.pass_time(1001)
    assert take(drive, "s:1") == [good]


def test_what_is_too_young_stays_and_hides_nothing_older(drive: Driver) -> None:
    old = put(drive, level=0)
    drive.pass_time(5000)
    young = drive.submit("s", priority_class=HIGH + 3)

    assert take(drive, "s:0", most=5, min_age_ms=4000) == [old]
    assert take(drive, "s:0", most=5, min_age_ms=4000) == []
    assert take(drive, "s:0", most=5) == [young]


def test_a_lane_gives_no_more_than_it_is_asked_for(drive: Driver) -> None:
    a, b = [put(drive, "a") for _ in range(3)], [put(drive, "b") for _ in range(3)]
    some = drive.store.takes.take([Lane("a", False, 1), Lane("b", False)], "active_passive", 3, lease_ms=0)
    assert [each.request_id for each in some] == [a[0], *b[:2]]
    assert [each.lane for each in some] == [0, 1, 1]


def test_a_paused_service_gives_nothing(drive: Driver) -> None:
    request_id = put(drive)
    drive.store.pause("s", True)
    assert take(drive, "s:1") == []
    drive.store.pause("s", False)
    assert take(drive, "s:1") == [request_id]


def test_a_take_that_is_sent_twice_gives_the_same_once(drive: Driver) -> None:
    ids = [put(drive) for _ in range(4)]
    assert [take(drive, "s:1", most=2, nonce="n") for _ in range(2)] == [ids[:2], ids[:2]]
    assert take(drive, "s:1", most=5) == ids[2:]


def test_a_taker_extends_its_lease_and_no_other(drive: Driver) -> None:
    request_id = put(drive)
    assert drive.store.takes.extend("s", request_id, lease_ms=1000) is False
    take(drive, "s:1", lease_ms=1000, taker="one")
    drive.pass_time(900)
    assert drive.store.takes.extend("s", request_id, lease_ms=1000, taker="two") is False
    assert drive.store.takes.extend("s", request_id, lease_ms=1000, taker="one") is True
    drive.pass_time(900)
    drive.sweep()
    assert look(drive, request_id).fields["state"] == "running"
    assert drive.store.takes.extend("s", request_id, lease_ms=1000) is True
    drive.pass_time(1001)
    drive.sweep()
    assert drive.store.takes.extend("s", request_id, lease_ms=1000, taker="one") is False


def test_a_taker_says_how_far_it_is(drive: Driver) -> None:
    request_id = put(drive)

    def say(taker: str) -> bool:
        return drive.store.progress("s", request_id, "", progress='{"p": 1}', lines=[("info", "x")], taker=taker)

    assert not say("")
    take(drive, "s:1", taker="one")
    assert [say("two"), say("one"), say("")] == [False, True, True]
    assert look(drive, request_id).fields["progress"] == '{"p": 1}'


def test_a_service_is_enrolled_once_and_stays_so(drive: Driver) -> None:
    assert drive.store.takes.enroll("q", "/v1/x") is None
    drive.register("q", listed=False)
    assert drive.store.takes.enroll("q", "/v1/x") == ("/v1/x", True)
    assert drive.store.takes.enroll("q", "/v1/y") == ("/v1/x", True)
    drive.register("q", listed=False)  # by a process that knows it by its name only
    drive.pulls.add("q")
    request_id = drive.submit("q")
    [found] = taken(drive, "q:1")
    assert (found.request_id, found.endpoint) == (request_id, "/v1/x")


def test_the_settings_go_before_what_a_client_has_enrolled(drive: Driver) -> None:
    drive.register("q", listed=False)
    drive.store.takes.enroll("q", "/v1/x")
    drive.register("q")
    with pytest.raises(NotPulled):
        take(drive, "q:1")


def test_a_lane_counts_what_went_through_it(drive: Driver) -> None:
    ids = [put(drive), put(drive), put(drive, level=0)]
    take(drive, "s:1", most=2)
    drive.store.takes.complete("s", ids[0], OK)
    drive.store.takes.complete("s", ids[0], OK)

    normal, high = (drive.store.takes.standing("s", is_high=is_high) for is_high in (False, True))
    assert normal is not None
    assert high is not None
    assert (normal.put, normal.taken, normal.done) == (2, 2, 1)
    assert (high.put, high.taken, high.done) == (1, 0, 0)
    assert drive.store.takes.standing("unknown", is_high=False) is None


def test_what_is_only_for_takers_is_not_put_where_requests_are_forwarded(drive: Driver) -> None:
    drive.register("s")
    assert drive.submit_reply("s", only_pull=True)[1] == [-4]
    drive.register("s", pull=True)
    assert drive.submit_reply("s", only_pull=True)[1][0] == 1


def test_a_copy_of_an_empty_take_that_comes_late_leases_nothing(drive: Driver) -> None:
    """It was sent again because its connection broke, and the first copy was still on its way."""
    drive.register("s", pull=True)
    arguments = ("n", "fifo", 1, 0, -1, 0, "", "")
    assert drive.store.scripts.call("take", *arguments, 1, "s", 0, 1) == []
    request_id = put(drive)

    assert drive.store.scripts.call("take", *arguments, 0, "s", 0, 1) == []
    assert take(drive, "s:1") == [request_id]
