"""What `_attrs_` tells of a queue, its consumers and its groups."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from eas_queue.dialects.eas import frames_pb2
from tests.dialects.eas.conftest import Lone
from tests.support.eas_client import PROTOBUF, Queue
from tests.support.front import MAX_PAYLOAD_BYTES
from tests.support.installation import await_condition

Services = Callable[[str], str]
QueueOf = Callable[..., Queue]
GO_DURATION = re.compile(r"(\d+h)?(\d+m)?(\d+(\.\d{1,3})?s|\d+ms)|0s")


class TestQueue:
    def test_every_key_that_clients_and_tools_read_is_there(self, each: Queue) -> None:
        assert each.attributes == {
            "consumers.stats.total": "0",
            "consumers.status.total": "0",
            "meta.backend": "redis",
            "meta.header.group": "X-EAS-QueueService-Gid",
            "meta.header.groupIdentifyHeader": "X-EAS-QueueService-Gid",
            "meta.header.priority": "X-EAS-QueueService-Priority",
            "meta.header.user": "X-EAS-QueueService-Uid",
            "meta.header.userIdentifyHeader": "X-EAS-QueueService-Uid",
            "meta.maxPayloadBytes": str(MAX_PAYLOAD_BYTES),
            "meta.name": each.attributes["meta.name"],
            "meta.state": "Normal",
            "stream.approxMaxLength": "100000",
            "stream.firstEntry": "0",
            "stream.lastEntry": "0",
            "stream.length": "0",
            "stream.maxPayloadBytes": str(MAX_PAYLOAD_BYTES),
        }

    def test_the_four_queues_have_names_of_their_own(self, input_: Queue) -> None:
        service = input_.path.rpartition("/")[2]

        names = [queue.attributes["meta.name"] for queue in (input_, input_.sink, input_.rear, input_.sink.rear)]

        assert names == [service, f"{service}/sink", f"{service}/rear", f"{service}/sink/rear"]

    def test_protobuf_says_the_same_to_who_accepts_it(self, each: Queue) -> None:
        each.puts(1)
        with each.watching() as watch:
            watch.next()
            answer = each.call("GET", "_attrs_=true", headers={"Accept": PROTOBUF})
            plain = each.attributes

        assert (answer.status, answer.headers["Content-Type"]) == (200, PROTOBUF)
        found = dict(frames_pb2.AttributesProto.FromString(answer.body).attributes)
        assert set(found) == set(plain)
        assert {k: v for k, v in found.items() if ".list." not in k} == {
            k: v for k, v in plain.items() if ".list." not in k
        }

    @pytest.mark.parametrize("accept", [None, "*/*", "application/json"])
    def test_all_others_get_a_flat_json_object_of_texts(self, each: Queue, accept: str | None) -> None:
        answer = each.call("GET", "_attrs_=true", headers={} if accept is None else {"Accept": accept})

        assert answer.headers["Content-Type"] == "application/json"
        assert answer.body.endswith(b"}\n")
        assert {type(value) for value in answer.json.values()} == {str}

    def test_length_and_entries_are_exact_at_every_moment(self, each: Queue) -> None:
        def standing() -> tuple[str, ...]:
            found = each.attributes
            return tuple(found[f"stream.{name}"] for name in ("length", "firstEntry", "lastEntry"))

        each.puts(4)
        assert standing() == ("4", "1", "4")
        each.delete(1)
        assert standing() == ("3", "2", "4")
        each.truncate(4)
        assert standing() == ("1", "4", "4")
        each.get()
        assert standing() == ("0", "0", "0")

    def test_items_that_are_being_worked_on_count(self, each: Queue) -> None:
        each.puts(2)
        with each.watching(window_=1) as watch:
            watch.next()

            assert each.length == 2

    def test_a_full_queue_says_so(self, fresh: Services, queue_of: QueueOf) -> None:
        queue = queue_of(fresh("small"))
        assert queue.attributes["stream.approxMaxLength"] == "2"
        for some in (queue, queue.sink):
            some.puts(2)

            assert some.attributes["meta.state"] == "Full"
            some.get()
            assert some.attributes["meta.state"] == "Normal"

    def test_what_runs_leaves_the_input_room(self, fresh: Services, queue_of: QueueOf) -> None:
        service = fresh("small")
        queue = queue_of(service)
        queue.puts(2)
        with queue.as_("a", service).watching() as watch:
            watch.take(2)

            assert queue.attributes["meta.state"] == "Normal"
            queue.put()


class TestConsumers:
    def test_a_consumer_in_the_words_of_the_documentation(self, each: Queue) -> None:
        each.puts(3)
        with each.watching(window_=2) as watch:
            watch.take(2)

            line = each.attributes["consumers.list.[0]"]
            assert re.fullmatch(
                r"Id: eas\.alice, Index: 2, Pending: 2, Status: Running, "
                r"Idle: \S+, Window: 2, Slots: 0, AutoCommit: false",
                line,
            )
            assert GO_DURATION.fullmatch(each.consumer("eas.alice")["Idle"])
            each.commit(1)
            assert watch.next().index == 3
            assert each.attributes["consumers.stats.total"] == each.attributes["consumers.status.total"] == "1"

    def test_slots_are_what_is_left_of_the_window(self, each: Queue) -> None:
        with each.watching(window_=5) as watch:
            assert each.consumer("eas.alice")["Slots"] == "5"
            each.puts(2)
            watch.take(2)
            found = each.consumer("eas.alice")

            assert (found["Window"], found["Slots"], found["Pending"]) == ("5", "3", "2")

    def test_one_that_commits_by_itself_has_no_window(self, each: Queue) -> None:
        with each.watching(auto_commit_="true", window_=5):
            found = each.consumer("eas.alice")

        assert (found["Window"], found["Slots"], found["AutoCommit"]) == ("0", "0", "true")

    def test_tags_are_listed_where_a_watch_had_some(self, each: Queue) -> None:
        with each.watching(foo="bar", a="1"), each.as_("bob", "others").watching():
            lines = [value for key, value in each.attributes.items() if key.startswith("consumers.list")]

        assert sum(line.endswith(", Tags: tags[a=1 foo=bar]") for line in lines) == 1
        assert sum("Tags" in line for line in lines) == 1

    def test_idle_is_the_time_since_the_last_delivery_or_commit(self, lone: Lone) -> None:
        queue = lone.queue().sink
        with queue.watching() as watch:
            await_condition(lambda: queue.consumer("eas.alice")["Idle"] != "0s")
            before = queue.consumer("eas.alice")["Idle"]
            queue.puts(1)
            watch.next()
            queue.commit(1)

            assert _ms(queue.consumer("eas.alice")["Idle"]) < _ms(before) + 100

    def test_one_that_has_gone_is_leaving_then_exited_and_after_an_hour_forgotten(self, lone: Lone) -> None:
        queue = lone.queue().sink
        queue.puts(1)
        queue.watch().await_gone()
        assert queue.consumer("eas.alice")["Status"] == "Leaving"
        assert queue.attributes["consumers.stats.total"] == "0"

        lone.pass_time(61_000)
        assert queue.consumer("eas.alice")["Status"] == "Exit"

        lone.pass_time(3_600_000)
        await_condition(lambda: not queue.consumer("eas.alice"), what="it is forgotten")

    def test_one_that_has_gone_and_left_nothing_is_complete(self, each: Queue) -> None:
        each.puts(1)
        watch = each.watch()
        watch.next()
        each.commit(1)
        watch.await_gone()

        assert each.consumer("eas.alice")["Status"] == "Complete"

    def test_the_forwarder_stands_among_them(self, fresh: Services, queue_of: QueueOf) -> None:
        service = fresh("wide")
        queue = queue_of(service)
        for _ in range(2):
            queue.put(b"{}", "hang=1")
        name = f"{service}.forwarder"

        await_condition(lambda: queue.consumer(name)["Pending"] == "2")

        found = queue.consumer(name)
        del found["Idle"]
        assert found == {
            "Id": name,
            "Index": "2",
            "Pending": "2",
            "Status": "Running",
            "Window": "7",
            "Slots": "5",
            "AutoCommit": "false",
        }
        group = queue.in_group(service)
        assert (group["Pending"], group["Delivered"], group["Consumers"]) == ("2", "2", "1")
        assert "consumers.list.[0]" not in queue.sink.attributes
        queue.truncate(3)


class TestGroups:
    def test_a_group_in_the_words_of_the_documentation(self, each: Queue) -> None:
        each.puts(3)
        with each.watching(window_=1), each.as_("bob").watching(window_=1):
            await_condition(lambda: each.in_group("eas").get("Pending") == "2")

            assert each.attributes["groups.list.[0]"] == "Id: eas, Index: 2, Pending: 2, Delivered: 2, Consumers: 2"

    def test_each_group_is_listed(self, each: Queue) -> None:
        with each.watching(), each.as_("bob", "others").watching():
            assert each.in_group("eas")["Consumers"] == each.in_group("others")["Consumers"] == "1"


def _ms(text: str) -> float:
    return float(text[:-2]) if text.endswith("ms") else float(text[:-1]) * 1000
