"""What queues promise: order, windows, groups, redelivery, and what becomes of requests that consumers work on."""

from __future__ import annotations

import pytest

from eas_queue.engine import tags
from eas_queue.store import keys, queues
from eas_queue.store.shapes import fresh_id
from tests.support.desk import PROCESS_LEASE_MS, Desk
from tests.support.drive import DEAD, SUCCEEDED, Driver


@pytest.fixture
def sink(drive: Driver) -> Desk:
    drive.register()
    return Desk(drive)


@pytest.fixture
def input_(drive: Driver) -> Desk:
    drive.register(pull=True, max_concurrency=2)
    return Desk(drive, "input")


class TestPut:
    def test_indexes_grow_from_1_and_are_never_given_twice(self, sink: Desk) -> None:
        assert [sink.put() for _ in range(3)] == [1, 2, 3]
        sink.store.truncate("s", "sink", 100)

        assert sink.put() == 4

    def test_the_same_put_sent_twice_is_one_item(self, sink: Desk) -> None:
        item_id = fresh_id()

        assert sink.put_reply(item_id=item_id) == sink.put_reply(item_id=item_id) == [1, 1]
        assert sink.there() == [1]

    def test_of_a_full_sink_the_oldest_leave(self, drive: Driver) -> None:
        drive.register(max_sink_length=2)
        sink = Desk(drive)
        sink.join("g/a")
        for _ in range(2):
            sink.put()
        assert sink.indexes("g/a") == [1, 2]

        sink.put()

        assert sink.there() == [2, 3]
        assert sink.indexes("g/a") == [3]

    def test_a_full_sink_that_holds_refuses_and_has_room_again_after_a_commit(self, drive: Driver) -> None:
        drive.register(max_sink_length=1, hold=True)
        sink = Desk(drive)
        sink.put()
        waiting = drive.submit()

        assert sink.put_reply() == [0, 1]
        assert drive.start() == []
        sink.join("g/a")
        sink.pull("g/a")
        sink.commit("g", 1)

        assert [work.request_id for work in drive.start()] == [waiting]

    def test_what_nobody_fetches_leaves_after_the_result_ttl(self, drive: Driver) -> None:
        drive.register(ttl_ms=1_000)
        sink = Desk(drive)
        sink.put(name="mine")
        sink.put(priority_class=101)
        drive.raw.pexpire(next(drive.raw.scan_iter(match="*:i:*")), 1)
        for key in drive.raw.scan_iter(match="*:i:*"):
            drive.raw.delete(key)
        drive.pass_time(1_001)

        drive.sweep()

        assert sink.there() == []


class TestFetch:
    def fetch(self, desk: Desk, **changes: object) -> list[int]:
        options = {"start": 0, "most": 1} | changes
        return [row.at for row in desk.store.fetch("s", desk.queue, **options)[2]]  # type: ignore[arg-type]

    def test_from_an_index_on_whatever_its_priority(self, sink: Desk) -> None:
        for i in range(5):
            sink.put(priority_class=100 + i % 2)

        assert self.fetch(sink, start=3, most=2) == [3, 4]
        assert self.fetch(sink) == [1]
        assert self.fetch(sink, start=-1) == [5]
        assert self.fetch(sink, start=6) == []

    def test_by_the_name_that_a_client_chose_the_lowest_index_first(self, sink: Desk) -> None:
        for name in ("a", "b", "a", "aa"):
            sink.put(name=name)

        assert self.fetch(sink, name="a", most=10) == [1, 3]
        assert self.fetch(sink, name="a", start=2, most=10) == [3]
        assert self.fetch(sink, name="", most=10) == [1, 2, 3, 4]

    def test_by_its_own_id_a_request_is_found_in_input_and_sink(self, drive: Driver) -> None:
        drive.register()
        request_id = drive.submit()
        assert self.fetch(Desk(drive, "input"), name=request_id) == [1]
        [work] = drive.start()
        drive.finish(work)

        assert self.fetch(Desk(drive, "input"), name=request_id) == []
        assert self.fetch(Desk(drive), name=request_id) == [1]

    def test_a_client_can_not_pass_its_item_off_as_another_request(self, drive: Driver) -> None:
        drive.register()
        request_id = drive.submit(name="other", tags=tags.packed({"requestId": "other"}))

        assert self.fetch(Desk(drive, "input"), name=request_id) == []
        assert self.fetch(Desk(drive, "input"), name="other") == [1]

    def test_tags_must_all_be_equal(self, sink: Desk) -> None:
        sink.put(a="1", b="2")
        sink.put(a="1")
        sink.put(b"x", 100, "", **{"a": "11", "k&=": "v v/"})

        assert self.fetch(sink, filter=tags.as_filter({"a": "1"}), most=9) == [1, 2]
        assert self.fetch(sink, filter=tags.as_filter({"b": "2", "a": "1"}), most=9) == [1]
        assert self.fetch(sink, filter=tags.as_filter({"k&=": "v v/"}), most=9) == [3]
        assert self.fetch(sink, filter=tags.as_filter({"a": ""}), most=9) == []

    def test_of_a_name_that_many_have_the_rest_is_told_of(self, sink: Desk) -> None:
        for _ in range(queues.FETCH_LOOKS_MOST + 1):
            sink.put(name="a")

        reached, has_more, rows = sink.store.fetch("s", "sink", start=0, most=10_000, name="a")

        assert (reached, has_more, len(rows)) == (queues.FETCH_LOOKS_MOST, True, queues.FETCH_LOOKS_MOST)
        assert self.fetch(sink, start=reached + 1, most=10_000, name="a") == [queues.FETCH_LOOKS_MOST + 1]

    def test_of_a_name_whose_items_are_large_the_rest_is_told_of(self, sink: Desk) -> None:
        for _ in range(3):
            sink.put(b"x" * 2_100_000, name="a")

        reached, has_more, rows = sink.store.fetch("s", "sink", start=0, most=10, name="a")

        assert (reached, has_more, [row.at for row in rows]) == (2, True, [1, 2])

    def test_the_more_groups_there_are_the_fewer_items_one_script_truncates(self, sink: Desk) -> None:
        for i in range(48):
            sink.join(f"g{i}/a")
        for _ in range(queues.REMOVED_MOST):
            sink.put()

        assert sink.store.truncate("s", "sink", 1_000) == (queues.REMOVED_MOST // 4, True)

    def test_removed_items_are_gone_for_groups_too_and_free_their_window(self, sink: Desk) -> None:
        sink.join("g/a", window=1)
        for _ in range(2):
            sink.put()
        assert sink.indexes("g/a") == [1]

        assert self.fetch(sink, removes=True) == [1]

        assert sink.indexes("g/a") == [2]

    def test_an_answer_stops_at_its_bytes_but_brings_one_item_at_least(
        self, sink: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("eas_queue.store.queues.BYTES_MOST", 10)
        for size in (30, 4, 7, 1):
            sink.put(b"x" * size)

        assert self.fetch(sink, most=4) == [1]
        assert self.fetch(sink, start=2, most=4) == [2, 3]


class TestGroups:
    def test_each_item_goes_to_one_consumer_of_a_group_and_to_every_group(self, sink: Desk) -> None:
        for consumer in ("g/a", "g/b", "h/a"):
            assert sink.join(consumer) == 1
        for _ in range(4):
            sink.put()

        both = sink.indexes("g/a") + sink.indexes("g/b")

        assert sorted(both) == [1, 2, 3, 4]
        assert sink.indexes("h/a") == [1, 2, 3, 4]

    def test_an_item_leaves_when_every_group_has_committed_it(self, sink: Desk) -> None:
        for consumer in ("g/a", "h/a"):
            sink.join(consumer)
        sink.put()
        sink.pull("g/a")
        sink.pull("h/a")

        assert sink.commit("g", 1) == 1
        assert sink.there() == [1]
        assert sink.indexes("g/a") == []
        assert sink.commit("h", 1) == 1

        assert sink.there() == []

    @pytest.mark.parametrize("index", [0, 1, 2, 3, 999])
    def test_what_is_not_held_is_passed_over(self, sink: Desk, index: int) -> None:
        sink.join("g/a", window=1)
        sink.join("h/a")
        for _ in range(2):
            sink.put()
        sink.pull("g/a")
        sink.commit("g", 1)

        assert sink.commit("g", index) == 0
        assert sink.commit("nobody", index) == 0
        assert sink.refuse("g", index) == 0
        assert sink.there() == [1, 2]

    def test_without_a_group_it_is_settled_for_all_that_hold_it(self, sink: Desk) -> None:
        for consumer in ("g/a", "h/a"):
            sink.join(consumer)
        sink.put()
        sink.pull("g/a")
        sink.pull("h/a")

        assert sink.commit("", 1) == 1
        assert sink.there() == []

    def test_a_window_is_refilled_by_commits(self, sink: Desk) -> None:
        sink.join("g/a", window=2)
        for _ in range(4):
            sink.put()

        assert sink.indexes("g/a") == [1, 2]
        assert sink.indexes("g/a") == []
        sink.commit("g", 1)
        assert sink.indexes("g/a") == [3]

    def test_higher_priorities_come_first_and_each_is_first_in_first_out(self, sink: Desk) -> None:
        sink.join("g/a")
        for priority_class in (100, 101, 99, 100, 105, 101):
            sink.put(priority_class=priority_class)

        assert sink.indexes("g/a", most=2) == [5, 2]
        late = sink.put(priority_class=104)
        assert sink.indexes("g/a") == [late, 6, 1, 4, 3]

    def test_the_one_with_the_most_room_is_given_the_next(self, sink: Desk) -> None:
        sink.join("g/a", window=3)
        sink.join("g/b", window=1)
        for _ in range(4):
            sink.put()

        found = sink.pull("g/b", "g/a")

        assert [pulled.consumer for pulled in found] == [1, 1, 0, 1]

    def test_auto_commit_ends_what_was_had_and_only_that(self, sink: Desk) -> None:
        sink.join("g/a", is_auto=True)
        for _ in range(3):
            sink.put()
        first = sink.pull("g/a", most=2)
        assert sink.there() == [1, 2, 3]

        second = sink.pull("g/a", done=[pulled.item for pulled in first])
        assert [pulled.row.at for pulled in second] == [3]
        assert sink.there() == [3]
        sink.leave("g/a")

        assert sink.there() == [3]

    def test_what_was_had_before_the_end_is_committed_with_the_leave(self, sink: Desk) -> None:
        sink.join("g/a", is_auto=True)
        for _ in range(3):
            sink.put()
        found = sink.pull("g/a")

        sink.leave("g/a", found[0].item)

        assert sink.there() == [2, 3]

    def test_a_late_commit_counts_though_another_holds_it(self, sink: Desk) -> None:
        sink.join("g/a")
        sink.put()
        sink.pull("g/a")
        sink.leave("g/a")
        sink.join("g/b")
        assert sink.indexes("g/b") == [1]

        assert sink.commit("g", 1) == 1
        assert sink.there() == []

    def test_the_rest_goes_when_a_group_is_no_longer_waited_for(self, sink: Desk) -> None:
        for consumer in ("g/a", "h/a"):
            sink.join(consumer)
        for _ in range(3):
            sink.put()
        sink.pull("g/a")
        sink.commit("g", 1, 2)
        sink.leave("h/a")
        assert sink.there() == [1, 2, 3]
        sink.drive.pass_time(60_001)
        sink.join("g/x")  # another call keeps the process alive

        sink.drive.sweep()

        assert sink.there() == [3]
        sink.join("h/a")
        assert sink.indexes("h/a") == [3]

    def test_a_group_that_nobody_uses_is_forgotten(self, sink: Desk) -> None:
        sink.join("g/a")
        sink.put()
        sink.leave("g/a")
        for _ in range(3):
            sink.drive.pass_time(3_600_001)
            sink.drive.sweep()

        assert sink.standing().groups == []
        assert sink.standing().consumers == []

    def test_a_queue_has_room_for_so_many_groups(self, sink: Desk) -> None:
        codes = [sink.join(f"g{i}/a") for i in range(257)]

        assert codes == [1] * 256 + [-3]
        assert sink.join("g7/b") == 1
        sink.leave("g9/a")
        assert sink.join("more/a") == -3  # it is waited for
        sink.drive.pass_time(60_001)
        sink.store.holds("p", PROCESS_LEASE_MS)
        sink.drive.sweep()
        assert sink.join("more/a") == 1

    def test_an_unknown_service_is_said(self, drive: Driver) -> None:
        assert Desk(drive, service="nobody").join("g/a") == -1


class TestStarts:
    def test_one_that_starts_further_on_leaves_what_lies_before_to_others(self, sink: Desk) -> None:
        for _ in range(5):
            sink.put()
        sink.join("g/late", start=4)
        assert sink.indexes("g/late") == [4, 5]

        sink.join("g/all")

        assert sink.indexes("g/all") == [1, 2, 3]

    def test_the_newest_means_what_arrives_from_now_on(self, sink: Desk) -> None:
        sink.put()
        sink.join("g/a", start=-1)
        assert sink.indexes("g/a") == []
        sink.put()
        assert sink.indexes("g/a") == [2]
        sink.commit("g", 2)

        sink.join("g/b")

        assert sink.indexes("g/b") == [1]

    def test_what_it_commits_leaves_at_once(self, sink: Desk) -> None:
        for _ in range(4):
            sink.put()
        sink.join("g/late", start=3)
        sink.pull("g/late")

        sink.commit("g", 3, 4)

        assert sink.there() == [1, 2]

    def test_what_it_committed_comes_to_nobody_else_of_its_group(self, sink: Desk) -> None:
        sink.join("h/pin")
        for _ in range(4):
            sink.put()
        sink.join("g/late", start=3)
        assert sink.indexes("g/late") == [3, 4]
        sink.commit("g", 3, 4)
        assert sink.there() == [1, 2, 3, 4]

        sink.join("g/all")

        assert sink.indexes("g/all") == [1, 2]

    def test_a_known_group_goes_on_where_it_was(self, sink: Desk) -> None:
        sink.join("g/a")
        sink.join("h/a")
        for _ in range(3):
            sink.put()
        sink.pull("g/a", most=2)
        sink.commit("g", 1)
        sink.leave("g/a")

        sink.join("g/a")

        assert sink.indexes("g/a") == [2, 3]


class TestFilters:
    def test_only_items_with_all_tags_are_pushed_and_others_are_no_bother(self, sink: Desk) -> None:
        sink.join("g/a", filter=tags.as_filter({"kind": "cat"}))
        for kind in ("dog", "cat", "dog", "cat"):
            sink.put(kind=kind)

        assert sink.indexes("g/a") == [2, 4]
        sink.commit("g", 2, 4)

        assert sink.there() == [1, 3]

    def test_consumers_of_a_group_name_the_same_tags(self, sink: Desk) -> None:
        sink.join("g/a", filter="kind=cat")

        assert sink.join("g/b", filter="kind=dog") == -2
        assert sink.join("g/b", filter="kind=cat") == 1
        assert sink.join("h/b", filter="kind=dog") == 1

    def test_with_other_tags_a_group_begins_again(self, sink: Desk) -> None:
        sink.join("g/a", filter="kind=cat")
        sink.put(kind="dog")
        sink.put(kind="cat")
        assert sink.indexes("g/a") == [2]
        sink.leave("g/a")

        assert sink.join("g/a", filter="kind=dog") == 1
        assert 1 in sink.indexes("g/a")


class TestRedelivery:
    def test_what_a_consumer_held_goes_to_others_at_once_in_order(self, sink: Desk) -> None:
        sink.join("g/a", window=3)
        sink.join("g/b")
        for _ in range(5):
            sink.put()
        assert sink.indexes("g/a") == [1, 2, 3]
        sink.commit("g", 2)

        sink.leave("g/a")

        assert sink.indexes("g/b") == [1, 3, 4, 5]

    def test_a_refused_item_comes_again_before_others_with_code_and_reason(self, sink: Desk) -> None:
        sink.join("g/a")
        for _ in range(3):
            sink.put()
        sink.pull("g/a", most=2)

        assert sink.refuse("g", 2, code="Bad.Input", reason=tags.quoted("no such thing")) == 1

        [again, _] = sink.pull("g/a")
        found = tags.unpacked(again.row.tags)
        assert again.row.at == 2
        assert (found["lastCode"], found["lastReason"]) == ("Bad.Input", "no such thing")

    def test_what_comes_again_waits_for_what_has_a_higher_priority(self, sink: Desk) -> None:
        sink.join("g/a", window=9)
        sink.put()
        sink.pull("g/a")
        sink.refuse("g", 1)
        high, normal, low = (sink.put(priority_class=each) for each in (101, 100, 99))

        assert sink.indexes("g/a") == [high, 1, normal, low]

    def test_who_refused_it_is_asked_last(self, sink: Desk) -> None:
        sink.join("g/a", window=10)
        sink.join("g/b", window=1)
        sink.put()
        sink.pull("g/a")
        sink.refuse("g", 1, code="Bad")

        [pulled] = sink.pull("g/a", "g/b")

        assert pulled.consumer == 1

    def test_with_shutdown_the_consumer_is_given_nothing_more_and_the_delivery_does_not_count(self, sink: Desk) -> None:
        sink.join("g/a")
        sink.put()
        for _ in range(5):  # max_attempts is 3
            sink.join("g/a")
            assert sink.indexes("g/a") == [1]
            sink.refuse("g", 1, code="Shutdown")
            assert sink.indexes("g/a") == []

        assert sink.there() == [1]

    def test_too_many_deliveries_end_in_the_rear(self, sink: Desk) -> None:
        sink.join("g/a")
        sink.put(b"poison", kind="cat", name="mine")
        for _ in range(3):
            assert sink.indexes("g/a") == [1]
            sink.refuse("g", 1)

        assert sink.indexes("g/a") == []
        assert sink.there() == []
        [row] = sink.store.fetch("s", "sink_rear", start=0, most=9, name="mine")[2]
        assert (row.data, tags.unpacked(row.tags)["kind"]) == (b"poison", "cat")

    def test_a_result_can_be_a_dead_letter_of_the_sink(self, drive: Driver) -> None:
        drive.register()
        request_id = drive.submit()
        [work] = drive.start()
        drive.finish(work, SUCCEEDED)
        sink = Desk(drive)
        sink.join("g/a")
        for _ in range(3):
            sink.pull("g/a")
            sink.refuse("g", 1)

        [row] = sink.store.fetch("s", "sink_rear", start=0, most=1, name=request_id)[2]
        assert row.data == b"done"

    def test_of_a_window_only_the_first_counts_as_delivered_when_its_consumer_dies(self, sink: Desk) -> None:
        for _ in range(3):
            sink.put()
        for _ in range(3):
            sink.join("g/a", window=3)
            sink.pull("g/a")
            sink.leave("g/a")

        sink.join("g/a", window=3)
        assert sink.there("sink_rear") == [1]
        assert sink.indexes("g/a") == [2, 3]

    @pytest.mark.parametrize("consumer", ["s/a", "g/a"])
    def test_of_a_window_what_is_to_be_given_once_is_not_given_again(self, input_: Desk, consumer: str) -> None:
        once = [("attempts_most", "1")]
        first, second, third = (input_.drive.submit(own=own) for own in (once, [], once))
        input_.join(consumer)
        assert input_.indexes(consumer) == [1, 2, 3]

        input_.leave(consumer)

        assert [input_.drive.state(each) for each in (first, second, third)] == ["failed", "queued", "failed"]
        assert input_.there("rear") == [1, 2]

    def test_what_is_to_be_given_once_is_refused_once(self, input_: Desk) -> None:
        request_id = input_.drive.submit(own=[("attempts_most", "1")])
        input_.join("g/a")
        input_.pull("g/a")

        input_.refuse("g", 1)

        assert input_.drive.state(request_id) == "failed"

    def test_consumers_of_a_dead_process_are_released_by_the_sweep(self, sink: Desk) -> None:
        sink.join("g/a", process="dead")
        sink.put()
        sink.pull("g/a")
        sink.drive.pass_time(PROCESS_LEASE_MS - 3_000)
        sink.drive.sweep()
        sink.join("g/b", process="alive")
        assert sink.indexes("g/b") == []
        sink.drive.pass_time(3_001)
        sink.store.holds("alive", PROCESS_LEASE_MS)

        sink.drive.sweep()

        assert sink.indexes("g/b") == [1]
        assert sink.pull_reply("g/a")[2] == [0]

    def test_the_answer_to_a_pull_can_be_asked_for_again(self, sink: Desk) -> None:
        sink.join("g/a", window=2)
        for _ in range(3):
            sink.put()
        call = {"caller": "c", "nonce": fresh_id()}
        first = sink.pull("g/a", **call)
        sink.commit("g", 1)

        again = sink.pull("g/a", **call)

        assert [pulled.row.at for pulled in first] == [1, 2]
        assert [pulled.row.at for pulled in again] == [2]


class TestNames:
    def test_a_living_consumer_is_not_pushed_aside(self, sink: Desk) -> None:
        sink.join("g/a")

        assert sink.join("g/a", token="other") == 0
        assert sink.join("g/a") == 1  # itself, again

    def test_one_of_a_dead_process_is_and_what_it_held_is_free(self, sink: Desk) -> None:
        sink.join("g/a", process="dead")
        sink.put()
        sink.pull("g/a")
        sink.drive.pass_time(PROCESS_LEASE_MS + 1)

        assert sink.join("g/a", token="other", process="alive") == 1
        assert sink.indexes("g/a") == [1]

    def test_the_same_user_may_be_in_two_groups(self, sink: Desk) -> None:
        assert (sink.join("g/a"), sink.join("h/a")) == (1, 1)


class TestSearch:
    def test_how_many_are_pushed_before_it(self, sink: Desk) -> None:
        for priority_class in (100, 100, 101, 99, 100, 105):
            sink.put(priority_class=priority_class)
        ahead = [sink.search(i, "g/a") for i in range(1, 7)]
        assert [found and found[2] for found in ahead] == [2, 3, 1, 5, 4, 0]
        sink.join("g/a", window=2)
        sink.pull("g/a")

        assert [sink.search(i, "g/a") for i in (1, 2, 4, 5)] == [
            (False, "g/a", 0),
            (False, "g/a", 1),
            (False, "g/a", 3),
            (False, "g/a", 2),
        ]
        assert sink.search(6, "g/a") == (True, "g/a", 0)
        assert sink.search(6, "other/b") == (True, "g/a", 0)
        assert sink.search(7, "g/a") is None

    def test_the_forwarder_is_a_consumer_of_the_input(self, drive: Driver) -> None:
        drive.register(max_concurrency=1)
        drive.submit()
        drive.submit()
        drive.start()
        desk = Desk(drive, "input")

        assert desk.search(1, "s/me") == (True, "s/forwarder", 0)
        assert desk.search(2, "s/me") == (False, "s/me", 0)


class TestTheLane:
    """Watchers of the input in the group that is named like the service work on its requests."""

    def test_one_that_begins_further_on_is_not_kept_from_it_by_what_waits_before(self, input_: Desk) -> None:
        for i in range(150):
            input_.drive.submit(priority_class=100 + i % 2)
        input_.join("s/a", start=-1)
        assert input_.indexes("s/a") == []

        input_.drive.submit()
        input_.drive.submit(priority_class=101)

        assert input_.indexes("s/a") == [152, 151]

    def test_a_pull_ends_only_so_many_that_are_past_their_deadline(self, input_: Desk) -> None:
        for _ in range(510):
            input_.drive.submit(deadline_in_ms=1_000)
        input_.drive.submit()
        input_.drive.pass_time(1_001)
        input_.join("s/a")

        code, found, _, _ = input_.pull_reply("s/a")

        assert (code, found) == (queues.MAYBE_MORE, [])
        assert input_.indexes("s/a") == [511]

    def test_a_pull_service_is_not_forwarded(self, input_: Desk) -> None:
        input_.drive.submit()

        assert input_.drive.start() == []

    def test_max_concurrency_does_not_bind_pull_services(self, input_: Desk) -> None:
        for _ in range(4):
            input_.drive.submit()
        input_.join("s/a")

        assert input_.indexes("s/a") == [1, 2, 3, 4]

    def test_a_commit_is_success_and_puts_nothing_into_the_sink(self, input_: Desk) -> None:
        request_id = input_.drive.submit()
        input_.join("s/a")
        input_.pull("s/a")
        assert input_.drive.state(request_id) == "running"

        assert input_.commit("s", 1) == 1
        assert input_.commit("s", 1) == 0

        assert input_.drive.state(request_id) == "succeeded"
        assert (input_.there(), input_.there("sink")) == ([], [])

    def test_an_item_put_into_the_sink_with_its_request_id_is_its_result(self, input_: Desk) -> None:
        request_id = input_.drive.submit()
        input_.join("s/a")
        input_.pull("s/a")

        Desk(input_.drive).put(b"the answer", name=request_id)

        assert input_.drive.state(request_id) == "succeeded"
        assert input_.drive.raw.hget(keys.record_key("s", request_id), "result") == b"the answer"
        assert (input_.there(), input_.there("sink")) == ([], [1])
        assert input_.commit("s", 1) == 0

    def test_also_by_a_request_id_that_the_client_chose(self, input_: Desk) -> None:
        request_id = input_.drive.submit(name="mine", tags=tags.packed({"requestId": "mine"}))

        Desk(input_.drive).put(b"the answer", name="mine")

        assert input_.drive.state(request_id) == "succeeded"

    def test_what_is_forwarded_is_not_ended_by_a_put(self, drive: Driver) -> None:
        drive.register()
        request_id = drive.submit()
        drive.start()

        Desk(drive).put(b"not the answer", name=request_id)

        assert drive.state(request_id) == "running"

    def test_forwarder_and_watchers_share_the_requests_of_a_push_service(self, drive: Driver) -> None:
        drive.register(max_concurrency=2)
        for _ in range(3):
            drive.submit()
        desk = Desk(drive, "input")
        desk.join("s/a", window=1)
        assert desk.indexes("s/a") == [1]

        [work] = drive.start(3)

        assert desk.indexes("s/a") == []
        drive.finish(work)
        desk.commit("s", 1)
        assert len(drive.start(3)) + len(desk.indexes("s/a")) == 1

    def test_when_a_watcher_goes_its_request_is_startable_at_once(self, drive: Driver) -> None:
        drive.register(max_concurrency=1)
        request_id = drive.submit()
        desk = Desk(drive, "input")
        desk.join("s/a")
        desk.pull("s/a")
        assert drive.start() == []

        desk.leave("s/a")

        [work] = drive.start()
        assert (work.request_id, work.attempt) == (request_id, 2)

    def test_a_refusal_counts_as_an_attempt_and_the_last_one_fails_the_request(self, input_: Desk) -> None:
        request_id = input_.drive.submit()
        input_.join("s/a")
        for _ in range(3):
            assert input_.indexes("s/a") == [1]
            input_.refuse("s", 1, code="Bad")

        assert input_.indexes("s/a") == []
        assert input_.drive.state(request_id) == "failed"
        assert (input_.there(), input_.there("rear")) == ([], [1])

    def test_a_late_commit_counts_though_its_delivery_does_not(self, input_: Desk) -> None:
        first, second = input_.drive.submit(), input_.drive.submit()
        input_.join("s/a")
        input_.pull("s/a")
        input_.leave("s/a")

        assert input_.commit("s", 2) == 1

        assert (input_.drive.state(first), input_.drive.state(second)) == ("queued", "succeeded")

    def test_a_commit_ends_what_the_forwarder_runs(self, drive: Driver) -> None:
        drive.register()
        request_id = drive.submit()
        [work] = drive.start()

        Desk(drive, "input").commit("s", 1)

        assert drive.state(request_id) == "succeeded"
        assert drive.finish(work)[0] is False

    def test_cancelling_takes_it_out_of_the_window(self, input_: Desk) -> None:
        request_id = input_.drive.submit()
        input_.join("s/a", window=1)
        input_.pull("s/a")
        input_.drive.submit()

        assert input_.drive.store.cancel("s", request_id) == "running"

        assert input_.indexes("s/a") == [2]

    def test_deadlines_hold_for_watchers_too(self, input_: Desk) -> None:
        input_.drive.submit(deadline_in_ms=1_000)
        kept = input_.drive.submit()
        input_.drive.pass_time(1_001)
        input_.join("s/a")

        assert input_.indexes("s/a") == [2]
        assert input_.drive.state(kept) == "running"

    def test_a_paused_service_gives_nothing(self, input_: Desk) -> None:
        input_.drive.submit()
        input_.join("s/a")
        input_.drive.store.pause("s", True)

        assert input_.indexes("s/a") == []

    def test_removing_an_item_of_the_input_cancels_its_request(self, input_: Desk) -> None:
        waiting, running = input_.drive.submit(), input_.drive.submit()
        input_.join("s/a", window=1)
        input_.pull("s/a")

        assert input_.store.remove("s", "input", [1, 2, 7]) == 2

        assert {input_.drive.state(waiting), input_.drive.state(running)} == {"cancelled"}

    def test_watchers_hear_of_whatever_makes_a_request_startable(self, drive: Driver) -> None:
        drive.register(pull=True)
        heard = drive.raw.pubsub()
        heard.subscribe(keys.note_channel(keys.queue_topic("s", "input")))
        heard.get_message(timeout=2)

        def notes() -> list[bytes]:
            found = []
            while (message := heard.get_message(timeout=0.2)) is not None:
                found.append(message["data"])
            return found

        request_id = drive.submit()
        assert notes() == [b"put " + request_id.encode()]
        drive.store.pause("s", True)
        assert notes() == []
        drive.store.pause("s", False)
        assert notes() == [b"room s"]
        desk = Desk(drive, "input")
        desk.join("s/a")
        desk.pull("s/a")
        notes()
        desk.refuse("s", 1)
        assert b"room s" in notes()
        drive.register()
        assert notes() == [b"room s"]


class TestTaps:
    """Any other group of the input reads along."""

    def test_a_tap_never_touches_a_request_that_is_forwarded(self, drive: Driver) -> None:
        drive.register()
        request_id = drive.submit(body=b"hello")
        tap = Desk(drive, "input")
        tap.join("tap/a")
        [pulled] = tap.pull("tap/a")
        assert pulled.row.data == b"hello"

        tap.commit("tap", 1)

        assert drive.state(request_id) == "queued"
        assert tap.there() == [1]
        [work] = drive.start()
        drive.finish(work)
        assert tap.there() == []

    def test_an_ended_request_stays_until_the_tap_has_had_it(self, drive: Driver) -> None:
        drive.register()
        drive.submit(body=b"hello")
        tap = Desk(drive, "input")
        tap.join("tap/a")
        [work] = drive.start()
        drive.finish(work)
        assert tap.there() == [1]

        [pulled] = tap.pull("tap/a")
        assert pulled.row.data == b"hello"
        tap.commit("tap", 1)

        assert tap.there() == []
        assert drive.raw.hget(keys.record_key("s", work.request_id), "body") is None

    def test_nothing_of_a_brief_one_stays_for_a_tap(self, drive: Driver) -> None:
        drive.register()
        drive.submit(own=[("brief_ms", "60000")])
        tap = Desk(drive, "input")
        tap.join("tap/a")
        [work] = drive.start()
        drive.finish(work)

        assert tap.there() == tap.indexes("tap/a") == []

    def test_what_no_tap_reads_goes_with_its_record(self, drive: Driver) -> None:
        drive.register(ttl_ms=1_000)
        drive.submit()
        tap = Desk(drive, "input")
        tap.join("tap/a")
        [work] = drive.start()
        drive.finish(work)
        drive.pass_time(1_001)

        drive.sweep()

        assert tap.there() == []

    def test_in_a_pull_service_a_request_is_done_when_every_group_has_committed_it(self, input_: Desk) -> None:
        request_id = input_.drive.submit()
        for consumer in ("g/a", "h/a"):
            input_.join(consumer)
            input_.pull(consumer)

        input_.commit("g", 1)
        assert input_.drive.state(request_id) == "queued"
        input_.commit("h", 1)

        assert input_.drive.state(request_id) == "succeeded"
        assert input_.there() == []

    def test_in_a_pull_service_what_every_group_refuses_is_a_dead_letter(self, input_: Desk) -> None:
        request_id = input_.drive.submit()
        for consumer in ("g/a", "h/a"):
            input_.join(consumer)
        for group in ("g", "h"):
            for _ in range(3):
                assert input_.drive.state(request_id) == "queued"
                assert input_.indexes(f"{group}/a") == [1]
                input_.refuse(group, 1)

        assert input_.drive.state(request_id) == "failed"
        assert (input_.there(), input_.there("rear")) == ([], [1])

    def test_too_many_deliveries_to_a_tap_only_end_its_asking(self, drive: Driver) -> None:
        drive.register()
        request_id = drive.submit()
        tap = Desk(drive, "input")
        tap.join("tap/a")
        for _ in range(3):
            tap.pull("tap/a")
            tap.refuse("tap", 1)

        assert tap.indexes("tap/a") == []
        assert drive.state(request_id) == "queued"


class TestViews:
    def test_tags_of_a_result(self, drive: Driver) -> None:
        drive.register()
        request_id = drive.submit(tags=tags.packed({"user": "me"}))
        [work] = drive.start()
        drive.finish(work, DEAD)

        [row] = Desk(drive).store.fetch("s", "sink", start=0, most=1)[2]

        found = tags.unpacked(row.tags)
        assert set(found) == {"user", "requestId", "ts@source", "ts@sink", "lastCode"}
        assert (found["requestId"], found["user"], found["lastCode"]) == (request_id, "me", "502")
        assert row.data == b"refused"

    def test_attributes_of_a_queue(self, sink: Desk) -> None:
        assert sink.standing()[:3] == (0, 0, 0)
        for _ in range(3):
            sink.put()
        sink.join("g/a", window=2)
        sink.pull("g/a")

        standing = sink.standing()

        assert standing[:3] == (3, 1, 3)
        [consumer], [group] = standing.consumers, standing.groups
        assert (consumer.consumer, consumer.window, consumer.held, consumer.last) == ("g/a", 2, 2, 2)
        assert (group.group, group.held, group.last, group.consumers, group.unread) == ("g", 2, 2, 1, 1)

    def test_counts_by_class(self, sink: Desk) -> None:
        for priority_class in (100, 101, 101, 102):
            sink.put(priority_class=priority_class)

        assert [sink.store.count("s", "sink", each) for each in (None, 101, 102, 103)] == [4, 2, 1, 0]
