"""Watch: the handshake, what is pushed to whom and when, and what becomes of it when a connection ends."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import pytest

from tests.dialects.eas.conftest import Lone
from tests.support.eas_client import Queue, Watch
from tests.support.installation import await_condition
from tests.support.raw_websocket import ACCEPTED, KEY

Services = Callable[[str], str]
QueueOf = Callable[..., Queue]


class TestHandshake:
    def test_the_answer_is_exactly_what_the_go_client_compares(self, each: Queue) -> None:
        watch = Watch(each, {}, {"Sec-WebSocket-Key": KEY, "Origin": f"http://127.0.0.1:{each.port}"})

        with contextlib.closing(watch):
            assert watch.head == (
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Accept: {ACCEPTED}\r\n\r\n"
            )

    def test_no_extension_and_no_subprotocol_is_agreed_on(self, sink: Queue) -> None:
        offered = {"Sec-WebSocket-Extensions": "permessage-deflate", "Sec-WebSocket-Protocol": "chat"}

        with contextlib.closing(Watch(sink, {}, offered)) as watch:
            assert set(watch.headers) == {"upgrade", "connection", "sec-websocket-accept"}

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"Sec-WebSocket-Version": "8"}, 426),
            ({"Sec-WebSocket-Key": "short"}, 400),
            ({"Connection": "keep-alive"}, 400),
        ],
    )
    def test_one_that_is_wrong_is_an_http_answer_and_no_consumer(
        self, sink: Queue, headers: dict[str, str], status: int
    ) -> None:
        watch = Watch(sink, {}, headers)

        assert watch.status == status
        assert watch.body.count(b"\n") == 1
        assert ("sec-websocket-version" in watch.headers) == (status == 426)
        assert not sink.consumer("eas.alice")


class TestFrames:
    def test_each_item_is_one_unfragmented_binary_message(self, each: Queue) -> None:
        data = [b"", b"a" * 100, bytes(range(256)) * 4, b"x" * 70_000]
        for some in data:
            each.put(some, "a=b")

        with each.watching() as watch:
            items = watch.take(4)  # Watch.frame looks at the bits

        assert [item.data for item in items] == data
        assert [item.index for item in items] == [1, 2, 3, 4]
        assert {item.tags["a"] for item in items} == {"b"}
        assert all(item.tags["requestId"] for item in items)

    @pytest.mark.parametrize("payload", [b"", b"ping", b"x" * 125])
    def test_every_ping_has_its_pong(self, sink: Queue, payload: bytes) -> None:
        with sink.watching() as watch:
            assert watch.ping(payload) == payload

    def test_index_only_leaves_the_data_out(self, each: Queue) -> None:
        each.put(b"data", "a=b")

        with each.watching(index_only_="true") as watch:
            item = watch.next()

        assert (item.index, item.data, item.tags["a"]) == (1, b"", "b")

    def test_a_goodbye_is_answered_and_the_connection_closed(self, sink: Queue) -> None:
        with sink.watching() as watch:
            assert watch.goodbye() == 1000
            assert watch.is_closed()

    def test_items_from_before_and_after_the_start_come_once_and_in_order(self, each: Queue) -> None:
        before = each.puts(20)
        with each.watching(auto_commit_="true") as watch:
            after = each.puts(20)

            assert watch.indexes(40) == before + after
            await_condition(lambda: each.length == 0)
            assert watch.is_quiet(0.1)


class TestWindow:
    def test_so_many_are_out_and_a_commit_makes_room_for_one(self, each: Queue) -> None:
        each.puts(4)
        with each.watching(window_=2) as watch:
            assert watch.indexes(2) == [1, 2]
            assert watch.is_quiet()

            each.commit(2)
            assert watch.next().index == 3
            assert watch.is_quiet(0.1)

    @pytest.mark.parametrize(("window", "shown"), [(None, "10"), ("0", "1"), ("1", "1"), ("99999999", "5000")])
    def test_missing_it_is_ten_and_never_unlimited(self, sink: Queue, window: str | None, shown: str) -> None:
        with sink.watching(**({} if window is None else {"window_": window})):
            assert sink.consumer("eas.alice")["Window"] == shown

    def test_with_auto_commit_it_does_not_count_and_what_was_sent_is_gone(self, each: Queue) -> None:
        each.puts(30)
        with each.watching(window_=1, auto_commit_="true") as watch:
            assert watch.indexes(30) == list(range(1, 31))
            await_condition(lambda: each.length == 0, timeout_s=1)

    def test_high_priority_is_pushed_first_and_each_is_first_in_first_out(self, each: Queue) -> None:
        for priority in (0, 1, 0, 7, 1):
            each.put(b"", f"_priority_={priority}")
        with each.watching(window_=1) as watch:
            found = []
            for _ in range(5):
                found.append(watch.next().index)
                each.commit(found[-1])

        assert found == [4, 2, 5, 1, 3]


class TestStart:
    def test_from_an_index_on_the_rest_stays_for_others(self, each: Queue) -> None:
        each.puts(3)
        with each.watching(index_=2) as watch:
            assert watch.indexes(2) == [2, 3]
            each.commit(2)
            with each.as_("bob").watching() as other:
                assert other.next().index == 1
            assert each.indexes == [1, 3]

    @pytest.mark.parametrize("newest", ["-1", "18446744073709551615"])
    def test_from_now_on(self, each: Queue, newest: str) -> None:
        each.puts(2)
        with each.watching(index_=newest) as watch:
            each.puts(1)

            assert watch.next().index == 3
            each.commit(3)
            assert each.indexes == [1, 2]

    def test_zero_means_all_that_the_group_has_not_committed(self, each: Queue) -> None:
        each.puts(3)
        with each.watching() as watch:
            watch.take(2)
            each.commit(1)
            watch.await_gone()
        with each.watching(index_=0) as watch:
            assert watch.indexes(2) == [2, 3]

    def test_a_new_group_gets_all_that_is_there_whoever_works_on_it(self, each: Queue) -> None:
        each.puts(2)
        with each.watching() as watch:
            watch.take(2)
            with each.as_("bob", "others").watching() as other:
                assert other.indexes(2) == [1, 2]


class TestTags:
    def test_only_items_with_all_of_them_are_pushed(self, each: Queue) -> None:
        each.put(b"", "a=1&b=2")
        each.put(b"", "a=1")
        each.put(b"", "a=1&b=2&c=3")
        with each.watching(a="1", b="2") as watch:
            assert watch.indexes(2) == [1, 3]
            assert watch.is_quiet(0.1)
            each.commit(1, 3)

        assert each.indexes == [2]

    def test_consumers_of_a_group_name_the_same_ones(self, each: Queue) -> None:
        with each.watching(a="1"):
            refused = each.as_("bob").watch(a="2")
            assert (refused.status, refused.body.count(b"\n")) == (409, 1)
            with each.as_("bob", "others").watching(a="2"), each.as_("carol").watching(a="1"):
                assert each.in_group("eas")["Consumers"] == "2"

    def test_a_group_whose_tags_do_not_match_keeps_no_item(self, each: Queue) -> None:
        each.put(b"", "a=1")
        with each.watching() as watch, each.as_("bob", "others").watching(a="2"):
            watch.next()
            each.commit(1)

            assert each.length == 0


class TestGroups:
    def test_in_a_group_each_item_goes_to_one_and_every_group_gets_all(self, each: Queue) -> None:
        with contextlib.ExitStack() as stack:
            watches = [stack.enter_context(each.as_(f"u{i}").watching(window_=2)) for i in range(3)]
            other = stack.enter_context(each.as_("x", "others").watching())
            each.puts(6)

            found = [watch.indexes(2) for watch in watches]

            assert sorted(index for some in found for index in some) == list(range(1, 7))
            assert other.indexes(6) == list(range(1, 7))

    def test_the_one_with_the_most_free_slots_is_next(self, lone: Lone) -> None:
        queue = lone.queue().sink
        with queue.watching(window_=1) as small, queue.as_("bob").watching(window_=4) as large:
            queue.puts(4)
            await_condition(lambda: queue.in_group("eas")["Pending"] == "4")

            given = large.indexes(3)  # the fourth is the other's if it came while these were on their way
            assert given == sorted(given)
            last = (large if small.is_quiet(0.1) else small).next().index
            assert {*given, last} == {1, 2, 3, 4}

    def test_what_was_pushed_already_is_not_taken_away_when_another_comes(self, each: Queue) -> None:
        each.puts(3)
        with each.watching(window_=3) as watch:
            await_condition(lambda: each.consumer("eas.alice")["Pending"] == "3")
            with each.as_("bob").watching() as other:
                assert other.is_quiet()
            assert watch.indexes(3) == [1, 2, 3]

    def test_the_same_user_may_watch_in_two_groups_and_two_queues(self, each: Queue, sink: Queue) -> None:
        with each.watching(), each.as_("alice", "others").watching(), sink.as_("alice", "third").watching():
            assert int(each.attributes["consumers.stats.total"]) >= 2

    def test_a_group_without_consumers_is_waited_for_a_minute(self, lone: Lone) -> None:
        queue = lone.queue().sink
        with queue.watching() as watch:
            queue.as_("bob", "others").watch().await_gone()
            queue.puts(2)
            assert watch.next().index == 1
            queue.commit(1)
            assert queue.indexes == [1, 2]

            lone.pass_time(61_000)

            await_condition(lambda: queue.indexes == [2])
            assert watch.next().index == 2
            queue.commit(2)
            assert queue.indexes == []


class TestRedelivery:
    def test_what_a_connection_had_not_committed_comes_to_another_at_once_and_in_order(self, each: Queue) -> None:
        each.puts(4)
        with contextlib.closing(each.watch(window_=3)) as watch:
            watch.take(3)
            each.commit(2)
            assert watch.next().index == 4  # Before anybody else is there to whom it might go.
            with each.as_("bob").watching(window_=5) as other:
                each.puts(1)
                assert other.next().index == 5
                since_s = time.monotonic()

                watch.close()

                assert other.indexes(3) == [1, 3, 4]
                assert time.monotonic() - since_s < 1

    @pytest.mark.parametrize("end", ["close", "reset", "goodbye"])
    def test_the_same_user_may_come_back_at_once(self, each: Queue, end: str) -> None:
        each.puts(2)
        watch = each.watch(window_=1)
        watch.next()
        getattr(watch, end)()
        watch.close()

        with each.watching(window_=1) as again:
            assert again.next().index == 1
            each.commit(1)
            assert again.next().index == 2

    def test_after_too_many_deliveries_it_is_in_the_rear_and_can_be_worked_on_there(
        self, fresh: Services, queue_of: QueueOf
    ) -> None:
        for queue in (queue_of(fresh("brief")), queue_of(fresh("brief")).sink):
            group = queue.as_("w", queue.path.split("/")[3])
            queue.put(b"poison", "a=b&requestId=mine")
            for _ in range(2):
                watch = group.watch()
                assert watch.next().data == b"poison"
                watch.await_gone()

            assert queue.length == 0
            with group.rear.watching() as watch:
                item = watch.next()
                assert (item.index, item.data, item.tags["a"], item.tags["requestId"]) == (1, b"poison", "b", "mine")
                group.rear.commit(1)
            assert queue.rear.length == 0

    def test_of_a_window_only_the_head_counts_as_delivered(self, fresh: Services, queue_of: QueueOf) -> None:
        queue = queue_of(fresh("brief")).sink
        queue.puts(3)
        for _ in range(2):
            watch = queue.watch(window_=3)
            watch.take(3)
            watch.await_gone()

        assert queue.indexes == [2, 3]
        assert len(queue.rear.indexes) == 1

    def test_a_rear_is_not_followed_by_another(self, fresh: Services, queue_of: QueueOf) -> None:
        rear = queue_of(fresh("brief")).rear
        rear.puts(1)
        for _ in range(2):
            watch = rear.watch()
            watch.next()
            watch.await_gone()

        assert rear.length == 0


class TestDoubles:
    def test_a_living_one_is_not_pushed_aside(self, each: Queue) -> None:
        with each.watching() as watch:
            watch.ping()
            since_s = time.monotonic()
            refused = each.watch()

            assert refused.status == 409
            assert "Retry-After" not in refused.head
            assert 1 < time.monotonic() - since_s < 3.5
            each.puts(1)
            assert watch.next().index == 1

    def test_one_that_has_fallen_silent_is_taken_over(self, sink: Queue) -> None:
        sink.puts(1)
        with sink.watching() as silent:
            silent.next()
            silent.ping()

            def taken_over() -> Watch | None:
                found = sink.watch()
                return found if found.status == 101 else None

            again = await_condition(taken_over, timeout_s=12)
            with contextlib.closing(again):
                assert again.next().index == 1
                assert silent.is_closed()

    def test_it_is_let_in_when_the_other_goes_meanwhile(self, sink: Queue) -> None:
        with sink.watching() as watch:
            timer = threading.Timer(0.5, watch.close)
            timer.start()

            with sink.watching():
                timer.join()


class TestLiveness:
    def test_ten_seconds_without_a_ping_end_one_that_has_pinged(self, sink: Queue) -> None:
        sink.puts(1)
        with sink.watching() as watch:
            watch.next()
            watch.ping()
            since_s = time.monotonic()

            assert watch.is_closed()

            assert 9.5 < time.monotonic() - since_s < 14
            assert sink.consumer("eas.alice")["Status"] == "Leaving"


class TestChunks:
    def test_without_an_upgrade_items_come_as_chunks(self, each: Queue) -> None:
        each.put(b"first", "a=b")
        with each.chunks(window_=1) as chunks:
            assert chunks.status == 200
            assert chunks.headers["transfer-encoding"] == "chunked"
            item = chunks.next()
            assert (item.index, item.data, item.tags["a"]) == (1, b"first", "b")
            each.put(b"")
            assert chunks.is_quiet(0.1)
            each.commit(1)
            assert chunks.next().index == 2

    def test_the_answer_begins_at_once_though_nothing_is_there(self, sink: Queue) -> None:
        since_s = time.monotonic()
        with sink.chunks() as chunks:
            assert chunks.status == 200
            assert time.monotonic() - since_s < 1
            sink.puts(1)
            assert chunks.next().index == 1

    def test_one_that_hangs_up_leaves_what_it_had(self, sink: Queue) -> None:
        sink.puts(1)
        with sink.chunks() as chunks:
            chunks.next()
        with sink.as_("bob").watching() as watch:
            assert watch.next().index == 1

    def test_auto_commit(self, sink: Queue) -> None:
        sink.puts(3)
        with sink.chunks(auto_commit_="true") as chunks:
            assert [chunks.next().index for _ in range(3)] == [1, 2, 3]
            await_condition(lambda: sink.length == 0)
