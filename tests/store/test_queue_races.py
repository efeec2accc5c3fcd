"""The scripts of queues against themselves and their rivals: threads leave a barrier together. See test_races.py."""

from __future__ import annotations

import pytest

from eas_queue.store.shapes import fresh_id
from tests.store.test_races import THREADS, races
from tests.support.desk import PROCESS_LEASE_MS, Desk
from tests.support.drive import SUCCEEDED, Driver, race


@pytest.fixture
def sink(drive: Driver) -> Desk:
    drive.register()
    return Desk(drive)


@races("put")
def test_puts_at_once_have_an_index_each_and_one_sent_twice_has_one(sink: Desk) -> None:
    item_id = fresh_id()

    replies = race(THREADS, lambda i: sink.put_reply(item_id=item_id if i % 2 else ""))

    assert sorted(index for _, index in replies)[-1] == THREADS // 2 + 1
    assert len({replies[i][1] for i in range(1, THREADS, 2)}) == 1
    assert len(sink.there()) == THREADS // 2 + 1


@races("put")
def test_a_result_that_is_put_and_a_commit_end_a_request_once(drive: Driver) -> None:
    drive.register(pull=True)
    request_id = drive.submit()
    desk, sink = Desk(drive, "input"), Desk(drive)
    desk.join("s/a")
    desk.pull("s/a")

    race(THREADS, lambda i: desk.commit("s", 1) if i % 2 else sink.put(b"answer", name=request_id))

    assert drive.state(request_id) == "succeeded"
    assert len(sink.there()) == THREADS // 2


@races("fetch")
def test_an_item_that_many_get_with_auto_delete_goes_to_one(sink: Desk) -> None:
    for _ in range(4):
        sink.put()

    found = race(THREADS, lambda _: sink.store.fetch("s", "sink", start=0, most=1, removes=True)[2])

    assert sorted(row.at for rows in found for row in rows) == [1, 2, 3, 4]


@races("remove")
def test_removing_frees_a_window_once_whoever_else_settles_it(sink: Desk) -> None:
    sink.join("g/a", window=1)
    sink.put()
    sink.put()
    sink.pull("g/a")

    def act(i: int) -> int:
        return sink.store.remove("s", "sink", [1]) if i % 2 else sink.commit("g", 1)

    counts = race(THREADS, act)

    assert counts.count(1) == 1
    assert sink.indexes("g/a") == [2]


@races("join")
def test_of_many_consumers_of_one_name_one_joins(sink: Desk) -> None:
    codes = race(THREADS, lambda i: sink.join("g/a", token=f"t{i}"))

    assert sorted(codes) == [0] * (THREADS - 1) + [1]
    assert len(sink.standing().consumers) == 1


@races("leave")
def test_a_consumer_leaves_once_and_what_it_held_is_there_once(sink: Desk) -> None:
    sink.join("g/a")
    for _ in range(3):
        sink.put()
    sink.pull("g/a")
    sink.join("g/b")
    token = sink.tokens["g/a"]

    left = race(THREADS, lambda _: sink.store.leave("s", "sink", "g/a", token, ()))

    assert left.count(True) == 1
    assert sink.indexes("g/b") == [1, 2, 3]


@races("holds")
def test_a_process_that_is_alive_keeps_its_consumers_while_others_sweep(sink: Desk) -> None:
    sink.join("g/a")
    sink.drive.pass_time(PROCESS_LEASE_MS - 1_000)

    race(THREADS, lambda i: sink.drive.sweep() if i % 4 else sink.store.holds("p", PROCESS_LEASE_MS))
    sink.drive.pass_time(PROCESS_LEASE_MS - 1_000)
    sink.drive.sweep()

    assert sink.standing().consumers[0].left_ms == 0


@races("pull")
def test_each_item_goes_to_one_of_those_who_pull_at_once(sink: Desk) -> None:
    for i in range(THREADS):
        sink.join(f"g/u{i}", window=2, process=f"p{i}")
    for _ in range(THREADS):
        sink.put()

    found = race(THREADS, lambda i: sink.indexes(f"g/u{i}"))

    assert sorted(index for indexes in found for index in indexes) == list(range(1, THREADS + 1))


@races("pull")
def test_a_pull_and_its_copy_give_the_same(sink: Desk) -> None:
    sink.join("g/a", window=2)
    for _ in range(5):
        sink.put()
    call = {"caller": "c", "nonce": fresh_id()}

    found = race(THREADS, lambda _: sink.indexes("g/a", **call))

    assert all(indexes == [1, 2] for indexes in found)


@races("pull")
def test_forwarder_and_watchers_never_start_the_same_request(drive: Driver) -> None:
    drive.register(max_concurrency=6)
    for _ in range(10):
        drive.submit()
    desk = Desk(drive, "input")
    for i in range(THREADS):
        desk.join(f"s/u{i}", window=1)

    found = race(THREADS, lambda i: desk.pull(f"s/u{i}") if i % 2 else drive.start())

    started = [each.item if hasattr(each, "item") else each.request_id for some in found for each in some]
    assert len(started) == len(set(started)) == 6


@races("settle")
def test_of_many_commits_and_refusals_one_counts(sink: Desk) -> None:
    sink.join("g/a")
    sink.put()
    sink.pull("g/a")

    counts = race(THREADS, lambda i: sink.commit("g", 1) if i % 2 else sink.refuse("g", 1))

    assert sum(counts) in (1, 2)  # a refusal, and a commit that came after it
    assert sink.there() in ([], [1])


@races("settle")
def test_a_commit_and_the_forwarders_end_are_one_end(drive: Driver) -> None:
    drive.register()
    request_id = drive.submit()
    [work] = drive.start()
    desk = Desk(drive, "input")

    race(THREADS, lambda i: desk.commit("s", 1) if i % 2 else drive.finish(work, SUCCEEDED))

    assert drive.state(request_id) == "succeeded"
    assert desk.there() == []


@races("search")
@races("count")
@races("attributes")
@races("pulse")
def test_looks_agree_with_themselves_while_items_come_and_go(sink: Desk) -> None:
    sink.join("g/a", window=THREADS)

    def act(i: int) -> None:
        if i % 2:
            index = sink.put()
            sink.pull("g/a")
            sink.commit("g", index)
            return
        for _ in range(10):
            length, first, last, *_ = sink.standing()
            assert (length == 0) == (first == 0) == (last == 0)
            assert length <= last - first + 1
            assert sink.store.count("s", "sink", None) <= THREADS // 2
            found = sink.search(last, "g/a") if last else None
            assert found is None or found[2] <= THREADS
            assert sink.store.pulse([("s", "sink")])[0] >= last

    race(THREADS, act)
