"""Webhooks: each script against itself or its rival, as in test_races.py, which fails for a script without a test."""

from __future__ import annotations

import pytest

from eas_queue.store import keys
from tests.store.test_hooks import ATTEMPTS_MOST, HOOK_LEASE_MS, ONE, TWO, ended, fields, hooked, ids, take
from tests.support.drive import Driver, race

THREADS = 16


def races(name: str) -> pytest.MarkDecorator:
    return pytest.mark.race_of(name)


@races("hook_take")
def test_each_delivery_is_taken_once(drive: Driver) -> None:
    wanted = [ended(drive, url) for url in (ONE, TWO) for _ in range(5)]

    taken = race(THREADS, lambda _: ids(take(drive)))

    assert sorted(each for some in taken for each in some) == sorted(wanted)


@races("hook_take")
def test_a_receiver_is_never_sent_more_than_it_may_get(drive: Driver) -> None:
    for _ in range(20):
        ended(drive)

    taken = race(THREADS, lambda _: ids(take(drive, 2)))

    assert sum(map(len, taken)) == 16


@races("hook_take")
def test_a_take_sent_twice_at_once_takes_once(drive: Driver) -> None:
    for _ in range(6):
        ended(drive)
    caller = drive.caller()

    answers = race(4, lambda _: take(drive, 2, caller=caller, nonce="nonce"))

    assert len({tuple(ids(taken)) for taken in answers}) == 1
    assert len(take(drive, 10)) == 4


@races("hook_take")
def test_a_request_that_ends_while_others_take_is_never_lost(drive: Driver) -> None:
    for _ in range(20):
        request_id = hooked(drive)

        _, taken = race(
            2, lambda i, request_id=request_id: drive.store.cancel("s", request_id) if i == 0 else take(drive)
        )

        (found,) = taken or take(drive)
        assert found.request_id == request_id
        drive.store.hooks.done(found, "delivered", status=200)


@races("hook_done")
def test_an_end_and_a_lapse_of_an_attempt_have_one_winner(drive: Driver) -> None:
    for _ in range(20):
        request_id = ended(drive)
        (taken,) = take(drive)
        drive.pass_time(HOOK_LEASE_MS + 1)

        noted, again = race(
            2, lambda i, taken=taken: drive.store.hooks.done(taken, "delivered", status=200) if i == 0 else take(drive)
        )

        assert noted != bool(again)
        assert fields(drive, request_id)["state"] == ("delivered" if noted else "pending")
        for each in again:
            drive.store.hooks.done(each, "delivered", status=200)


@races("hook_done")
def test_one_of_many_ends_of_an_attempt_counts(drive: Driver) -> None:
    request_id = ended(drive)
    (taken,) = take(drive)
    forged = [taken._replace(token=f"0.0.{i}") for i in range(THREADS - 1)]

    answers = race(
        THREADS, lambda i: drive.store.hooks.done([taken, *forged][i], "delivered" if i == 0 else "failed", error="x")
    )

    assert answers == [True] + [False] * (THREADS - 1)
    assert fields(drive, request_id)["state"] == "delivered"


@races("hook_resend")
def test_what_is_sent_anew_by_many_is_sent_once(drive: Driver) -> None:
    request_id = ended(drive)
    drive.store.hooks.done(take(drive)[0], "delivered", status=200)

    answers = race(THREADS, lambda _: drive.store.hooks.resend("s", [request_id]))

    assert answers == [[request_id]] * THREADS
    assert ids(take(drive, 5)) == [request_id]


@races("hook_resend")
def test_what_is_sent_anew_while_it_is_given_up_is_sent_once_more(drive: Driver) -> None:
    for _ in range(20):
        request_id = ended(drive)
        (taken,) = take(drive)

        race(
            2,
            lambda i, taken=taken: (
                drive.store.hooks.done(taken, "failed", error="gone")
                if i == 0
                else drive.store.hooks.resend("s", [taken.request_id])
            ),
        )

        (again,) = take(drive, 5)
        assert (again.request_id, again.attempt) == (request_id, 1)
        drive.store.hooks.done(again, "delivered", status=200)
        assert drive.raw.zcard(keys.service_key("s", "hooks_failed")) == 0


@races("hook_list")
def test_a_page_is_of_one_moment(drive: Driver) -> None:
    for _ in range(20):
        ended(drive)
        (taken,) = take(drive)

        (count, _, page), _ = race(
            2,
            lambda i, taken=taken: (
                drive.store.hooks.page("s", failed=True, after=0, most=10)
                if i == 0
                else drive.store.hooks.done(taken, "failed", error="gone")
            ),
        )

        assert count == len(page)
        assert all(row.fields["state"] == "failed" for row in page)
        drive.store.hooks.resend("s", [taken.request_id])
        drive.store.hooks.done(take(drive, attempts_most=ATTEMPTS_MOST)[0], "delivered", status=200)
