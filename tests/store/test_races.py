"""Each script against itself or its rival: threads leave a barrier together, and exactly one of them wins.

``test_every_script_has_a_race_test`` fails for a script without one here.
"""

from __future__ import annotations

import inspect
import sys

import pytest
import redis

from eas_queue.engine import ids
from eas_queue.store import keys, scripts
from eas_queue.store.store import fresh_id
from tests.support.drive import DEAD, LEASE_MS, RETRY, SUCCEEDED, Driver, race

THREADS = 16


def races(name: str) -> pytest.MarkDecorator:
    """Marks the race test of script *name*."""
    return pytest.mark.race_of(name)


@races("register")
def test_services_that_register_at_once_get_one_number_each(drive: Driver) -> None:
    names = [f"s{i % 4}" for i in range(THREADS)]

    numbers = race(THREADS, lambda i: drive.register(names[i]))

    by_name = {name: {n for n, other in zip(numbers, names, strict=True) if other == name} for name in set(names)}
    assert all(len(found) == 1 for found in by_name.values())
    assert sorted(numbers)[0] == 1
    assert len({n for found in by_name.values() for n in found}) == 4


@races("submit")
def test_one_id_submitted_by_many_is_stored_once_and_answered_alike(drive: Driver) -> None:
    drive.register(max_concurrency=1)
    request_id = ids.new_id(drive.numbers["s"])

    replies = race(THREADS, lambda _: drive.submit_reply(request_id=request_id)[1])

    assert {reply[0] for reply in replies} == {1}
    assert len({int(reply[1]) for reply in replies}) == 1
    assert list(drive.members("s", "wait")) == [request_id]


@races("submit")
def test_the_last_free_place_of_a_queue_goes_to_one_submit(drive: Driver) -> None:
    drive.register(max_concurrency=1)
    drive.submit()

    replies = race(THREADS, lambda _: drive.submit_reply(max_queue_length=2)[1])

    assert [reply[0] for reply in replies].count(1) == 1
    assert len(drive.members("s", "wait")) == 2


@races("submit")
def test_indexes_of_concurrent_submits_differ(drive: Driver) -> None:
    drive.register()

    replies = race(THREADS, lambda _: drive.submit_reply()[1])

    assert sorted(int(reply[1]) for reply in replies) == list(range(1, THREADS + 1))


@races("start")
def test_each_waiting_request_is_leased_to_one_caller_and_the_cap_holds(drive: Driver) -> None:
    drive.register(max_concurrency=5)
    for _ in range(8):
        drive.submit()

    leased = race(THREADS, lambda _: drive.start())

    started = [work.request_id for works in leased for work in works]
    assert len(started) == len(set(started)) == 5


@races("start")
def test_a_start_sent_twice_at_once_leases_once(drive: Driver) -> None:
    drive.register(max_concurrency=10)
    for _ in range(8):
        drive.submit()
    nonce, caller = fresh_id(), drive.caller()

    replies = race(4, lambda _: drive.store.scripts.call("start", "", 2, caller, nonce, LEASE_MS))

    assert len({tuple(row[1] for row in reply) for reply in replies}) == 1
    assert len(drive.members("s", "lease")) == 2


@races("finish")
def test_one_of_many_ends_of_the_same_attempt_is_taken(drive: Driver) -> None:
    drive.submit()
    (work,) = drive.start()
    impostors = [work._replace(token=f"1.{fresh_id()}") for _ in range(THREADS - 1)]

    answers = race(THREADS, lambda i: drive.finish([work, *impostors][i], SUCCEEDED if i == 0 else DEAD)[0])

    assert answers == [True] + [False] * (THREADS - 1)
    assert drive.state(work.request_id) == "succeeded"


@races("finish")
def test_an_end_sent_twice_at_once_is_written_once_and_claims_once(drive: Driver) -> None:
    drive.register(max_concurrency=1)
    first, second, third = drive.submit(), drive.submit(), drive.submit()
    (work,) = drive.start()
    nonce, caller = fresh_id(), drive.caller()

    answers = race(4, lambda _: drive.finish(work, SUCCEEDED, 1, nonce=nonce, caller=caller))

    assert all(taken for taken, _ in answers)
    assert {works[0].request_id for _, works in answers} == {second}
    assert drive.raw.zcard(keys.service_key("s", "sink")) == 1
    assert (drive.state(first), drive.state(third)) == ("succeeded", "queued")


@races("finish")
def test_a_copy_of_an_end_that_comes_late_leases_nothing(drive: Driver) -> None:
    """Its connection was given up and the same call went through on another; the network delivers the first as well."""
    ended, was_cancelled = drive.submit(), drive.submit()
    works = drive.start(2)
    drive.store.cancel("s", was_cancelled)
    calls = [{"nonce": fresh_id(), "caller": drive.caller()} for _ in works]
    heard = [drive.finish(work, SUCCEEDED, 1, **call) for work, call in zip(works, calls, strict=True)]
    later = drive.submit()

    late = [drive.finish(work, SUCCEEDED, 1, **call) for work, call in zip(works, calls, strict=True)]

    assert heard == late == [(True, []), (False, [])]
    assert (drive.state(ended), drive.state(later)) == ("succeeded", "queued"), "nobody would run what it leased"


@races("cancel")
def test_cancel_and_finish_of_a_running_request_have_one_winner(drive: Driver) -> None:
    for _ in range(20):
        request_id = drive.submit()
        (work,) = drive.start()

        cancelled, (taken, _) = race(
            2,
            lambda i, work=work: drive.store.cancel("s", work.request_id) if i == 0 else drive.finish(work),
        )

        assert (cancelled == "running") != taken
        assert drive.state(request_id) == ("succeeded" if taken else "cancelled")
        drive.finish(work, None)  # the holder closes its call


@races("cancel")
def test_cancel_and_start_of_a_waiting_request_never_lose_it(drive: Driver) -> None:
    for _ in range(20):
        request_id = drive.submit()

        was, works = race(
            2,
            lambda i, request_id=request_id: drive.store.cancel("s", request_id) if i == 0 else drive.start(),
        )

        assert drive.state(request_id) == "cancelled"
        assert (was == "queued" and not works) or (was == "running" and len(works) == 1)
        if works:
            assert not drive.finish(works[0])[0]


@races("cancel")
def test_one_of_many_cancels_does_it(drive: Driver) -> None:
    request_id = drive.submit()

    answers = race(THREADS, lambda _: drive.store.cancel("s", request_id))

    assert sorted(answers) == ["cancelled"] * (THREADS - 1) + ["queued"]


@races("renew")
def test_renew_and_sweep_of_a_lapsed_lease_agree_on_its_owner(drive: Driver) -> None:
    for _ in range(20):
        drive.submit()
        (work,) = drive.start()
        drive.pass_time(LEASE_MS + 1)

        lost, swept = race(
            2,
            lambda i, work=work: (
                drive.store.renew([(work.service, work.request_id, work.token)], lease_ms=LEASE_MS)
                if i == 0
                else drive.sweep()
            ),
        )

        assert len(lost) == swept.lapsed
        still_his, _ = drive.finish(work)
        assert still_his == (not lost)
        if lost:
            drive.store.cancel("s", work.request_id)


@races("sweep")
def test_sweep_and_finish_of_a_lapsed_attempt_have_one_winner(drive: Driver) -> None:
    drive.register(max_attempts=1)
    for _ in range(20):
        request_id = drive.submit()
        (work,) = drive.start()
        drive.pass_time(LEASE_MS + 1)

        swept, (taken, _) = race(2, lambda i, work=work: drive.sweep() if i == 0 else drive.finish(work))

        assert (swept.lapsed == 1) != taken
        assert drive.state(request_id) == ("succeeded" if taken else "failed")


@races("sweep")
def test_one_of_many_sweeps_runs(drive: Driver) -> None:
    drive.submit()
    drive.raw.delete(keys.SWEEP_LOCK)

    answers = race(THREADS, lambda _: drive.store.sweep(every_ms=60_000, process="test"))

    assert len([answer for answer in answers if answer.was_our_turn]) == 1


@races("sweep")
def test_a_deadline_that_passes_while_the_request_is_claimed_has_one_outcome(drive: Driver) -> None:
    for _ in range(20):
        request_id = drive.submit(deadline_in_ms=1000)
        drive.pass_time(1000)

        _, works = race(2, lambda i: drive.sweep() if i == 0 else drive.start())

        assert works == []
        assert drive.state(request_id) == "expired"


@races("pause")
def test_pause_and_start_leave_the_service_paused_and_the_request_somewhere(drive: Driver) -> None:
    for _ in range(20):
        request_id = drive.submit()

        changed, works = race(2, lambda i: drive.store.pause("s", True) if i == 0 else drive.start())

        assert changed is True
        assert drive.start() == []
        assert drive.state(request_id) == ("running" if works else "queued")
        drive.store.cancel("s", request_id)
        for work in works:
            drive.finish(work, None)
        drive.store.pause("s", False)


@races("pause")
def test_one_of_many_pauses_changes_something(drive: Driver) -> None:
    drive.register()

    answers = race(THREADS, lambda _: drive.store.pause("s", True))

    assert answers.count(True) == 1


@races("look")
def test_a_look_during_a_claim_sees_a_place_or_a_run_never_both(drive: Driver) -> None:
    for _ in range(20):
        request_id = drive.submit()

        found, _ = race(
            2,
            lambda i, request_id=request_id: drive.store.look("s", request_id) if i == 0 else drive.start(),
        )

        position, depth, fields = found.position, found.depth, found.fields
        assert (fields["state"], position, depth) in (("queued", 0, 1), ("running", -1, 0))
        drive.store.cancel("s", request_id)
        drive.raw.delete(keys.service_key("s", "ghost"))
        drive.register()


@races("epoch")
def test_one_of_many_processes_that_meet_a_new_server_moves_the_indexes(drive: Driver) -> None:
    drive.submit()
    source = scripts.source("epoch")

    answers = race(THREADS, lambda _: drive.raw.eval(source, 0, "another-run-id", keys.LAYOUT, scripts.INDEX_JUMP))

    assert sorted(answers) == [0] * (THREADS - 1) + [1]
    _, reply = drive.submit_reply()
    assert int(reply[1]) == 1 + scripts.INDEX_JUMP + 1


@races("submit")
def test_one_idempotency_key_from_fifty_threads_is_one_request(drive: Driver) -> None:
    drive.register(max_concurrency=1)

    replies = race(50, lambda _: drive.submit_reply(idempotency=("key", "body"))[1])

    assert {reply[0] for reply in replies} == {1}
    assert len({reply[4] for reply in replies}) == len({int(reply[1]) for reply in replies}) == 1
    assert sorted(reply[5] for reply in replies) == [0] + [1] * 49
    assert [name.encode() for name in drive.members("s", "wait")] == [replies[0][4]]


@races("submit")
def test_a_bucket_of_five_lets_five_of_many_pass(drive: Driver) -> None:
    drive.register()
    drive.raw.script_flush()

    replies = race(THREADS, lambda _: drive.submit_reply(rate=("token", 60_000, 5))[1])

    assert sorted(reply[0] for reply in replies) == [-2] * (THREADS - 5) + [1] * 5


@races("progress")
def test_progress_and_the_end_of_its_attempt_have_an_order(drive: Driver) -> None:
    for _ in range(20):
        request_id = drive.submit()
        (work,) = drive.start()

        noted, (taken, _) = race(
            2,
            lambda i, work=work: drive.progress(work, "{}", ("info", "line")) if i == 0 else drive.finish(work),
        )

        assert taken
        assert len(drive.store.logs("s", request_id)) == noted
        assert not noted or drive.raw.ttl(keys.log_key("s", request_id)) > 0, "the log goes with its record"


@races("progress")
def test_lines_of_many_reports_are_numbered_once_each(drive: Driver) -> None:
    request_id = drive.submit()
    (work,) = drive.start()

    race(THREADS, lambda i: drive.progress(work, "", ("info", f"{i}a"), ("info", f"{i}b")))

    lines = drive.store.logs("s", request_id)
    events = [line.event for line in lines]
    assert events == sorted(set(events))
    assert [line.message[:-1] for line in lines[::2]] == [line.message[:-1] for line in lines[1::2]], "kept together"


@races("logs")
def test_lines_up_to_a_change_are_the_same_while_more_are_written(drive: Driver) -> None:
    request_id = drive.submit()
    (work,) = drive.start()
    for i in range(3):
        drive.progress(work, "", *[("info", f"{i}{j}") for j in range(50)])
    upto = drive.store.logs("s", request_id)[-1].event
    expected = [line.message for line in drive.store.logs("s", request_id)][-60:]

    found, _ = race(
        2,
        lambda i: (
            drive.store.logs("s", request_id, upto=upto, most=60)
            if i == 0
            else drive.progress(work, "", *[("info", "later")] * 100)
        ),
    )

    assert [line.message for line in found] == expected


@races("redrive")
def test_one_of_many_redrives_takes_a_dead_letter(drive: Driver) -> None:
    request_id = dead_letter(drive)

    answers = race(THREADS, lambda _: drive.redrive(request_id))

    new = [rows[0][1] for rows in answers if rows[0][1]]
    assert len(new) == 1
    assert list(drive.members("s", "wait")) == new
    assert drive.raw.hget(keys.record_key("s", request_id), "redriven_as").decode() == new[0]


@races("discard")
def test_a_dead_letter_is_redriven_or_discarded_never_both(drive: Driver) -> None:
    for _ in range(20):
        request_id = dead_letter(drive)

        rows, gone = race(
            2,
            lambda i, request_id=request_id: (
                drive.redrive(request_id) if i == 0 else drive.store.discard("s", [request_id])
            ),
        )

        assert bool(rows[0][1]) != bool(gone)
        drive.store.cancel("s", rows[0][1])
        assert drive.members("s", "rear") == {}


@races("rear")
def test_a_page_of_dead_letters_is_of_one_moment(drive: Driver) -> None:
    for _ in range(20):
        letters = [dead_letter(drive) for _ in range(3)]

        (count, _, page), _ = race(
            2,
            lambda i, letters=letters: (
                drive.store.letters("s", after=0, most=10) if i == 0 else drive.store.discard("s", letters)
            ),
        )

        assert (count, [letter.request_id for letter in page]) in ((3, letters), (0, []))


@races("overview")
def test_an_overview_counts_each_request_once(drive: Driver) -> None:
    for _ in range(20):
        drive.submit()

        found, works = race(2, lambda i: drive.store.overview("s") if i == 0 else drive.start())

        assert found.startable + found.running == 1
        drive.finish(works[0])


@races("peek")
def test_a_peek_during_a_claim_sees_the_change_or_the_place(drive: Driver) -> None:
    for _ in range(20):
        request_id = drive.submit()

        found, works = race(
            2,
            lambda i, request_id=request_id: drive.store.peek("s", [request_id]) if i == 0 else drive.start(),
        )

        ((changes, place),) = found
        assert (changes, place.position) in ((0, 0), (1, -1))
        drive.finish(works[0])


@races("moves")
def test_a_stamp_that_is_asked_for_during_a_claim_is_that_before_or_after(drive: Driver) -> None:
    for _ in range(20):
        drive.submit()
        (before,) = drive.store.moves(["s"])

        (stamp,), works = race(2, lambda i: drive.store.moves(["s"]) if i == 0 else drive.start())

        (after,) = drive.store.moves(["s"])
        assert before != after
        assert stamp in (before, after)
        drive.finish(works[0])


@races("alive")
def test_the_processes_that_sweep_at_once_are_all_alive_and_one_sweep_is_noted(drive: Driver) -> None:
    drive.submit()

    race(THREADS, lambda i: drive.store.sweep(every_ms=60_000, process=f"p{i}", about=f'{{"i": {i}}}'))

    age_ms, found = drive.store.alive()
    assert age_ms is not None
    assert age_ms < 5000
    assert {process.name: process.about for process in found} == {f"p{i}": f'{{"i": {i}}}' for i in range(THREADS)}


@races("clone")
def test_copies_of_a_client_that_come_at_once_get_a_number_each(drive: Driver) -> None:
    first = drive.store.clone()

    numbers = race(THREADS, lambda _: drive.store.clone())

    assert sorted(numbers) == list(range(first + 1, first + 1 + THREADS))


def dead_letter(drive: Driver) -> str:
    request_id = drive.submit()
    (work,) = drive.start()
    drive.finish(work, DEAD)
    return request_id


@races("finish")
def test_a_retry_and_a_cancel_have_one_winner(drive: Driver) -> None:
    for _ in range(20):
        request_id = drive.submit()
        (work,) = drive.start()

        was, (taken, _) = race(
            2,
            lambda i, work=work: drive.store.cancel("s", work.request_id) if i == 0 else drive.finish(work, RETRY),
        )

        assert drive.state(request_id) == "cancelled"
        assert was == ("queued" if taken else "running")
        drive.finish(work, None)


def test_every_script_has_a_race_test() -> None:
    from tests.store import test_hook_races, test_queue_races, test_take_races

    tested = {
        mark.args[0]
        for module in (sys.modules[__name__], test_queue_races, test_hook_races, test_take_races)
        for _, function in inspect.getmembers(module, inspect.isfunction)
        for mark in getattr(function, "pytestmark", [])
        if mark.name == "race_of"
    }
    assert tested == set(scripts.NAMES)


def test_scripts_are_the_only_writers(raw: redis.Redis) -> None:
    """The store's plain reads are reads."""
    import eas_queue.store.store as module

    text = inspect.getsource(module)
    assert [
        line
        for line in text.splitlines()
        if ".client.redis." in line and not any(read in line for read in (".hget", ".hmget", ".lrange", ".ping"))
    ] == []
