"""Commit, negative, delete and truncate."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from tests.dialects.eas.conftest import Lone
from tests.support.eas_client import Queue
from tests.support.front import Front
from tests.support.installation import await_condition

Services = Callable[[str], str]
QueueOf = Callable[..., Queue]


class TestDelete:
    @pytest.mark.parametrize("query", ["_index_=2", "_indexes_=2", "_index_=2&_trunc_=false", "_indexes_=%202,"])
    def test_one(self, each: Queue, query: str) -> None:
        each.puts(3)

        answer = each.call("DELETE", query)

        assert (answer.status, answer.body) == (200, b"OK")
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert each.indexes == [1, 3]

    def test_several_by_a_quoted_comma(self, each: Queue) -> None:
        each.puts(4)

        assert each.call("DELETE", "_indexes_=1%2C3%2C4").body == b"OK"

        assert each.indexes == [2]

    def test_what_is_not_there_is_no_matter(self, each: Queue) -> None:
        each.puts(1)

        for _ in range(2):
            each.delete(1, 0, 77)

        assert each.length == 0

    def test_truncate_keeps_the_index_that_it_names(self, each: Queue) -> None:
        each.puts(3)

        each.truncate(3)
        assert each.indexes == [3]
        each.truncate(3)
        assert each.indexes == [3]

    @pytest.mark.parametrize("below", [0, 1, 2**63, 2**64 - 1])
    def test_an_empty_queue_can_be_truncated(self, each: Queue, below: int) -> None:
        each.truncate(below)

        assert each.put() == 1

    def test_it_is_for_all_groups_and_frees_their_windows(self, each: Queue) -> None:
        each.puts(2)
        with each.watching(window_=1) as one, each.as_("bob", "others").watching(window_=1) as other:
            assert one.indexes(1) == other.indexes(1) == [1]

            each.delete(1)

            assert one.indexes(1) == other.indexes(1) == [2]
            each.truncate(3)
            assert each.put() == 3
            assert one.indexes(1) == other.indexes(1) == [3]

    @pytest.mark.parametrize("how", ["delete", "get", "truncate"])
    def test_a_request_that_is_removed_is_cancelled(
        self, front: Front, fresh: Services, queue_of: QueueOf, how: str
    ) -> None:
        service = fresh("single")
        queue = queue_of(service)
        running, waiting = (queue.call("POST", "hang=1", b"{}").headers["X-Eas-Queueservice-Request-Id"] for _ in "ab")
        front.await_status(running, service, "STARTED")

        if how == "delete":
            queue.delete(1, 2)
        elif how == "truncate":
            queue.truncate(3)
        else:
            queue.get(length_=2)

        assert [front.look(each, service).json["status"] for each in (running, waiting)] == ["REVOKED"] * 2
        assert queue.length == queue.sink.length == 0


class TestCommit:
    def test_it_deletes_before_the_answer_comes(self, each: Queue) -> None:
        each.puts(3)
        with each.watching() as watch:
            watch.take(3)

            each.commit(1, 3)

            assert (each.indexes, each.length) == ([2], 1)

    def test_twice_or_of_what_is_not_held_is_harmless(self, each: Queue) -> None:
        each.puts(2)
        with each.watching(window_=1) as watch:
            assert watch.next().index == 1
            for _ in range(2):
                each.commit(1, 0, 99)

            assert watch.next().index == 2
            assert each.indexes == [2]

    def test_one_that_was_never_given_to_anybody_stays(self, each: Queue) -> None:
        each.puts(1)

        each.commit(1)

        assert each.indexes == [1]

    def test_of_another_group_it_is_no_commit(self, each: Queue) -> None:
        each.puts(1)
        with each.watching() as watch, each.as_("bob", "others").watching(window_=1):
            watch.next()
            each.as_("eve", "strangers").commit(1)

            assert each.indexes == [1]
            assert each.consumer("eas.alice")["Pending"] == "1"

    def test_without_a_group_it_is_one_in_every_group_that_holds_it(self, each: Queue) -> None:
        each.puts(1)
        with each.watching() as one, each.as_("bob", "others").watching() as other:
            one.next(), other.next()

            each.as_(None, None).commit(1)

            assert each.length == 0

    def test_an_item_leaves_when_every_group_has_committed_it(self, each: Queue) -> None:
        each.puts(1)
        with each.watching() as one, each.as_("bob", "others").watching() as other:
            assert one.next().tags["requestId"] == other.next().tags["requestId"]
            each.commit(1)
            assert each.indexes == [1]

            each.as_("bob", "others").commit(1)

            assert each.length == 0

    def test_another_user_of_the_group_may_commit(self, each: Queue) -> None:
        each.puts(1)
        with each.watching() as watch:
            watch.next()

            each.as_("bob").commit(1)

            assert each.length == 0

    def test_one_that_comes_after_its_item_went_to_another_counts(self, each: Queue) -> None:
        each.puts(1)
        watch = each.watch()
        watch.next()
        with each.as_("bob").watching(window_=3) as other:
            watch.close()
            assert other.next().index == 1

            each.commit(1)

            assert each.length == 0
            await_condition(lambda: each.consumer("eas.bob")["Slots"] == "3")


class TestNegative:
    def test_it_comes_again_at_once_before_all_others(self, each: Queue) -> None:
        each.puts(3)
        with each.watching(window_=1) as watch:
            first = watch.next()
            each.refuse(1, code="Bad.Input", reason="no: such & tensor 张")

            again = watch.next()

            assert (again.index, again.data) == (1, first.data)
            assert (again.tags["lastCode"], again.tags["lastReason"]) == ("Bad.Input", "no: such & tensor 张")
            each.commit(1)
            assert watch.next().tags.get("lastCode") is None

    @pytest.mark.parametrize("queue", ["input", "tap", "sink"])
    @pytest.mark.parametrize("code", ["", "Bad"])
    def test_another_consumer_of_the_group_goes_first(self, lone: Lone, queue: str, code: str) -> None:
        found = lone.queue()
        if queue == "input":
            found = found.as_("alice", found.path.rpartition("/")[2])
        if queue == "sink":
            found = found.sink
        with found.watching(window_=1) as one, found.as_("bob", found.group).watching(window_=1) as other:
            found.puts(1)
            holder, rest = (one, other) if found.search(1)["ConsumerId"].endswith(".alice") else (other, one)
            assert holder.next().index == 1

            found.refuse(1, code=code)

            assert rest.next().index == 1
            found.refuse(1, code=code)
            assert holder.next().index == 1

    def test_with_shutdown_it_goes_to_another_wherever_that_is_connected(self, each: Queue) -> None:
        with contextlib.ExitStack() as stack:
            users = {f"u{i}": each.as_(f"u{i}") for i in range(6)}  # among two processes
            watches = {f"eas.{user}": stack.enter_context(users[user].watching(window_=1)) for user in users}
            each.puts(1)
            for _ in range(3):
                name = await_condition(lambda: each.search(1)["IsPending"] and each.search(1)["ConsumerId"])
                assert watches.pop(name).next().index == 1
                each.refuse(1, code="Shutdown")

    def test_each_delivery_counts_and_after_too_many_it_is_in_the_rear(
        self, fresh: Services, queue_of: QueueOf
    ) -> None:
        for queue in (queue_of(fresh("brief")), queue_of(fresh("brief")).sink):
            service = queue.path.split("/")[3]
            queue.put(b"poison", "a=b")
            queue.put(b"other")
            group = queue.as_("w", service)
            with group.watching(window_=1) as watch:
                for _ in range(2):
                    assert watch.next().data == b"poison"
                    group.refuse(1)
                assert watch.next().data == b"other"

            [dead] = queue.rear.peek()
            assert (dead.index, dead.data, dead.tags["a"]) == (1, b"poison", "b")
            assert queue.indexes == [2]

    def test_with_shutdown_the_consumer_is_given_nothing_more_and_the_delivery_does_not_count(
        self, fresh: Services, queue_of: QueueOf
    ) -> None:
        for queue in (queue_of(fresh("brief")), queue_of(fresh("brief")).sink):
            group = queue.as_("w", queue.path.split("/")[3])
            queue.puts(1)
            for _ in range(4):  # more than it may be delivered
                watch = group.watch()
                assert watch.next().index == 1
                group.refuse(1, code="Shutdown")
                assert watch.is_quiet(0.1)
                watch.await_gone()

            assert queue.length == 1
            assert queue.rear.length == 0

    @pytest.mark.parametrize("code", ["", "Shutdown", "Bad", "BadInput", "BadInput.Tensor", "503", "A" * 20])
    def test_codes_of_the_go_client(self, sink: Queue, code: str) -> None:
        sink.puts(1)
        with sink.watching() as watch:
            watch.next()

            sink.refuse(1, code=code, reason="why")

    @pytest.mark.parametrize("code", ["bad", "A" * 21, "Bad Input!", "-1", "50x", "٣"])
    def test_other_codes_are_refused_and_nothing_changes(self, sink: Queue, code: str) -> None:
        sink.puts(1)
        with sink.watching() as watch:
            watch.next()
            body = f"_code_={code}&_reason_=".encode()
            kind = {"Content-Type": "application/x-www-form-urlencoded"}

            assert sink.call("PUT", "_indexes_=1&_negative_=true", body, kind).status == 400

            assert sink.consumer("eas.alice")["Pending"] == "1"

    def test_a_body_need_not_be_there(self, sink: Queue) -> None:
        sink.puts(1)
        with sink.watching() as watch:
            watch.next()

            assert sink.call("PUT", "_indexes_=1&_negative_=true").body == b"OK"

            again = watch.next()
            assert (again.index, again.tags.get("lastCode")) == (1, None)

    def test_of_what_is_not_held_it_is_harmless(self, each: Queue) -> None:
        each.puts(2)
        with each.watching(window_=1) as watch:
            watch.next()
            each.commit(1)
            each.refuse(1, 0, 99, code="Bad")

            item = watch.next()
            assert (item.index, item.tags.get("lastCode")) == (2, None)
            each.as_("eve", "strangers").refuse(2, code="Bad")
            assert each.consumer("eas.alice")["Pending"] == "1"
            assert watch.is_quiet(0.1)

    def test_it_may_be_false(self, each: Queue) -> None:
        each.puts(1)
        with each.watching() as watch:
            watch.next()

            assert each.call("PUT", "_indexes_=1&_negative_=false").body == b"OK"

            assert each.length == 0


class TestPull:
    """Services whose requests only consumers work on."""

    def test_nothing_is_forwarded(self, front: Front, input_: Queue) -> None:
        service = input_.path.rpartition("/")[2]
        request_id = input_.call("POST", "", b"{}").headers["X-Eas-Queueservice-Request-Id"]
        assert not [key for key in input_.attributes if key.startswith("consumers.list")]

        with input_.as_("w", service).watching() as watch:
            item = watch.next()
            assert front.look(request_id, service).json["status"] == "STARTED"

        assert item.tags["requestId"] == request_id
        assert not front.target.calls(request_id=request_id)

    @pytest.mark.parametrize("group", ["service", "eas"])
    def test_a_commit_is_success(self, front: Front, input_: Queue, group: str) -> None:
        service = input_.path.rpartition("/")[2]
        worker = input_.as_("w", service if group == "service" else group)
        request_id = input_.call("POST", "", b"{}").headers["X-Eas-Queueservice-Request-Id"]
        with worker.watching() as watch:
            watch.next()

            worker.commit(1)

        status = front.look(request_id, service)
        assert (status.json["status"], status.json["result"]["target_status_code"]) == ("SUCCESS", 200)
        assert input_.length == input_.sink.length == 0

    @pytest.mark.parametrize("group", ["service", "eas"])
    @pytest.mark.parametrize("named", [True, False])
    def test_what_is_put_into_the_sink_with_its_request_id_is_the_result(
        self, front: Front, input_: Queue, group: str, named: bool
    ) -> None:
        service = input_.path.rpartition("/")[2]
        worker = input_.as_("w", service if group == "service" else group)
        answer = front.post(service, b"{}") if not named else input_.call("POST", "requestId=mine", b"{}")
        with worker.watching() as watch:
            item = watch.next()
            tags = {key: value for key, value in item.tags.items() if not key.startswith("Header:")}

            worker.sink.put(b'{"y": 1}', tags, {"Content-Type": "application/json"})
            worker.commit(item.index)

        [result] = input_.sink.get(requestId=item.tags["requestId"])
        assert result.data == b'{"y": 1}'
        assert result.tags["ts@source"] == item.tags["ts@source"] <= result.tags["ts@sink"]
        assert (input_.length, input_.sink.length) == (0, 0)
        if not named:
            status = front.look(answer.request_id, service).json
            assert (status["status"], status["result"]["body"]) == ("SUCCESS", {"y": 1})

    def test_a_result_with_another_code_is_a_failure(self, front: Front, input_: Queue) -> None:
        service = input_.path.rpartition("/")[2]
        request_id = front.submit(service)
        with input_.as_("w", service).watching() as watch:
            watch.next()

            input_.sink.put(b"no", {"requestId": request_id, "lastCode": 422})

        status = front.look(request_id, service).json
        assert (status["status"], status["result"]["target_status_code"]) == ("FAILURE", 422)
        assert input_.length == 0

    def test_a_request_whose_consumer_refused_it_too_often_has_failed(
        self, front: Front, fresh: Services, queue_of: QueueOf
    ) -> None:
        service = fresh("brief")
        queue = queue_of(service).as_("w", service)
        request_id = front.submit(service)
        with queue.watching() as watch:
            for _ in range(2):
                watch.next()
                queue.refuse(1, code="BadInput", reason="why")

        found = front.await_status(request_id, service, "FAILURE").json
        assert "BadInput" in found["error_info"]["detail"]
        assert [item.tags["requestId"] for item in queue.rear.peek()] == [request_id]
