"""Every call of the official SDK's QueueClient, on the input and on the sink, answers what the SDK's users expect.

No worker runs here, so that what is put into an input stays there until a client of the queue takes it. Each test has
services of its own: any name is one.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.eas_sdk import REAR, Frame, Sdk, SdkError, SdkQueue, requests_in
from tests.support.installation import Installation, await_condition
from tests.support.server import RedisServer, free_port

MAX_PAYLOAD_BYTES = 100_000
SERVICES = """
    [defaults]
    allow_unlisted = true
    [services.narrow]
    max_queue_length = 2
    max_sink_length = 2
    sink_full = "hold"
    [services.box]
    mode = "pull"
    [services.fragile]
    max_attempts = 2
    [services.brittle]
    max_attempts = 2
"""
QUEUES = ("", "/sink")
both_queues = pytest.mark.parametrize("kind", QUEUES, ids=("input", "sink"))
ATTRIBUTES = {
    "meta.name",
    "meta.state",
    "meta.maxPayloadBytes",
    "meta.header.user",
    "meta.header.group",
    "meta.header.priority",
    "stream.maxPayloadBytes",
    "stream.approxMaxLength",
    "stream.firstEntry",
    "stream.lastEntry",
    "stream.length",
    "consumers.stats.total",
    "consumers.status.total",
}


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    server = RedisServer().start()
    target = f"http://127.0.0.1:{free_port()}"
    settings = {"services_toml": SERVICES, "max_payload_bytes": MAX_PAYLOAD_BYTES}
    try:
        with Installation(server.url, target, **settings) as made:
            made.web("-w", "2", "--access-logfile", "-")
            yield made
    finally:
        server.stop()


@pytest.fixture(scope="module")
def sdk(installation: Installation) -> Iterator[Sdk]:
    with Sdk(installation) as made:
        yield made


@pytest.fixture
def service() -> str:
    """A name that no other test uses."""
    return f"t{uuid.uuid4().hex}"


def group_for(service: str, kind: str) -> str:
    """The SDK's own in a sink. In an input it only reads along: the service's own group works there."""
    return "eas" if kind else service


def indexes(frames: list[Frame]) -> list[int]:
    return [frame.index for frame in frames]


def consumers(queue: SdkQueue) -> list[str]:
    found = queue.attributes()
    return [found[f"consumers.list.[{n}]"] for n in range(int(found["consumers.stats.total"]))]


# --------------------------------------------------------------------------------------------------------------- put


@both_queues
def test_put_gives_indexes_from_1_and_a_new_request_id_each(sdk: Sdk, service: str, kind: str) -> None:
    queue = sdk.queue(service + kind)

    receipts = [queue.put("[{}]") for _ in range(3)]

    assert [index for index, _ in receipts] == [1, 2, 3]
    assert len({uuid.UUID(request_id) for _, request_id in receipts}) == 3


@both_queues
def test_tags_come_back_with_those_of_the_queue(sdk: Sdk, service: str, kind: str) -> None:
    queue = sdk.queue(service + kind)
    before_ms = time.time() * 1000
    _, request_id = queue.put("data", tags={"colour": "deep blue", "n": 7, "naïve": "ü&="})

    (frame,) = queue.get()

    stamp = "ts@sink" if kind else "ts@source"
    assert before_ms - 1 <= int(frame.tags[stamp]) <= time.time() * 1000 + 1
    assert {name: value for name, value in frame.tags.items() if name != stamp} == {
        "colour": "deep blue",
        "n": "7",
        "naïve": "ü&=",
        "requestId": request_id,
        "Header:Content-Type": "text/plain; charset=utf-8",
    }
    assert (frame.data, frame.message) == (b"data", "")


@both_queues
def test_any_bytes_come_back_as_they_went(sdk: Sdk, service: str, kind: str) -> None:
    queue = sdk.queue(service + kind)
    payloads = [b"", b"\x00\xff\r\n", bytes(range(256)) * 300, "äöü".encode()]
    for payload in payloads:
        queue.put(payload)

    assert [frame.data for frame in queue.get(length=10, timeout="0s")] == payloads


@both_queues
def test_the_type_of_the_content_is_kept_as_a_tag(sdk: Sdk, service: str, kind: str) -> None:
    queue = sdk.queue(service + kind, content_type="application/json")
    queue.put("{}")

    (frame,) = queue.get()

    assert frame.tags["Header:Content-Type"] == "application/json"


@both_queues
def test_a_request_id_that_the_client_chose_is_echoed_and_found(sdk: Sdk, service: str, kind: str) -> None:
    queue = sdk.queue(service + kind)

    first = queue.put("first", tags={"requestId": "chosen by me"})
    second = queue.put("second", tags={"requestId": "chosen by me"})

    assert (first, second) == ((1, "chosen by me"), (2, "chosen by me"))
    assert [frame.data for frame in queue.get(request_id="chosen by me")] == [b"first"]
    assert [frame.data for frame in queue.get(request_id="chosen by me")] == [b"second"]


def test_a_path_suffix_is_the_same_input_queue(sdk: Sdk, service: str) -> None:
    through_path, plain = sdk.queue(service, path_suffix="v1/predict"), sdk.queue(service)

    index, request_id = through_path.put("data")

    assert plain.length() == through_path.length() == 1
    assert through_path.search(index)["WaitCount"] == 0
    assert [frame.tags["requestId"] for frame in through_path.get()] == [request_id]
    assert plain.length() == 0


# --------------------------------------------------------------------------------------------------------------- get


@both_queues
def test_get_takes_the_oldest_out_and_leaves_the_rest(sdk: Sdk, service: str, kind: str) -> None:
    queue = sdk.queue(service + kind)
    for n in range(3):
        queue.put(f"{n}")

    assert [frame.data for frame in queue.get()] == [b"0"]
    assert [frame.data for frame in queue.get(length=2)] == [b"1", b"2"]
    assert queue.length() == 0


@both_queues
def test_get_without_auto_delete_takes_nothing_out(sdk: Sdk, service: str, kind: str) -> None:
    queue = sdk.queue(service + kind)
    _, request_id = queue.put("data")

    for _ in range(2):
        assert [frame.data for frame in queue.get(auto_delete=False)] == [b"data"]
        assert [frame.data for frame in queue.get(request_id=request_id, auto_delete=False)] == [b"data"]
    assert queue.length() == 1


@both_queues
def test_get_begins_at_the_index_or_at_the_next_one_that_is_there(sdk: Sdk, service: str, kind: str) -> None:
    queue = sdk.queue(service + kind)
    for n in range(1, 7):
        queue.put(f"{n}")
    queue.delete(4)

    assert indexes(queue.get(index=3, length=2, auto_delete=False)) == [3, 5]
    assert indexes(queue.get(index=4, auto_delete=False)) == [5]
    assert indexes(queue.get(index=-1, auto_delete=False)) == [6]
    assert queue.get(index=7, timeout="0s") == []


@both_queues
def test_get_by_request_id_finds_that_item_only(sdk: Sdk, service: str, kind: str) -> None:
    queue = sdk.queue(service + kind)
    ids = [queue.put(f"{n}")[1] for n in range(5)]

    assert [frame.data for frame in queue.get(request_id=ids[3])] == [b"3"]
    assert queue.get(request_id=ids[3], timeout="0s") == []
    assert queue.get(request_id=str(uuid.uuid4()), timeout="0s") == []
    assert queue.get(request_id=ids[1], index=3, timeout="0s") == []  # the index is a lower bound here too
    assert queue.length() == 4


@both_queues
def test_get_by_tags_needs_all_of_them(sdk: Sdk, service: str, kind: str) -> None:
    queue = sdk.queue(service + kind)
    queue.put("1", tags={"a": "x"})
    queue.put("2", tags={"a": "x", "b": "y"})
    queue.put("3", tags={"a": "x", "b": "yy"})

    assert indexes(queue.get(length=3, tags={"a": "x", "b": "y"}, timeout="0s", auto_delete=False)) == [2]
    assert indexes(queue.get(length=3, tags={"a": "x"}, auto_delete=False)) == [1, 2, 3]
    assert queue.get(tags={"a": "z"}, timeout="0s") == []


@both_queues
def test_get_waits_for_what_is_not_there_yet(sdk: Sdk, service: str, kind: str) -> None:
    waits, puts = sdk.queue(service + kind, alone=True), sdk.queue(service + kind)
    waits.begin("get")
    time.sleep(0.5)  # it must wait by then, not find what was there

    puts.put("data")
    answered_within_s = 1.0

    assert [frame.data for frame in waits.got(timeout_s=answered_within_s)] == [b"data"]


@both_queues
def test_get_with_a_timeout_gives_what_there_is_by_then(sdk: Sdk, service: str, kind: str) -> None:
    queue = sdk.queue(service + kind)
    queue.put("data")
    began = time.monotonic()

    frames = queue.get(length=5, timeout="1s")

    assert [frame.data for frame in frames] == [b"data"]
    assert time.monotonic() - began < 1.5
    assert queue.get(timeout="0") == queue.get(timeout="100ms") == queue.get(timeout="0.1s") == []


# ------------------------------------------------------------------------------------------------ attributes, search


@both_queues
def test_attributes_are_complete_and_follow_what_happens(sdk: Sdk, service: str, kind: str) -> None:
    queue = sdk.queue(service + kind)
    seen = [queue.attributes()]
    for step in (
        lambda: [queue.put("x") for _ in range(3)],
        lambda: queue.delete(1),
        lambda: queue.get(length=2),
    ):
        step()
        seen.append(queue.attributes())

    counts = [tuple(found[f"stream.{name}"] for name in ("length", "firstEntry", "lastEntry")) for found in seen]
    assert counts == [("0", "0", "0"), ("3", "1", "3"), ("2", "2", "3"), ("0", "0", "0")]
    for found in seen:
        assert set(found) >= ATTRIBUTES
        assert all(type(value) is str for value in found.values())
        assert found["meta.state"] == "Normal"
        assert found["stream.maxPayloadBytes"] == found["meta.maxPayloadBytes"] == str(MAX_PAYLOAD_BYTES)
        assert int(found["stream.approxMaxLength"]) > 0
        assert found["meta.header.user"] == "X-EAS-QueueService-Uid"
        assert found["meta.header.group"] == "X-EAS-QueueService-Gid"
        assert found["meta.header.priority"] == "X-EAS-QueueService-Priority"


@both_queues
def test_search_tells_how_many_wait_before_an_item(sdk: Sdk, service: str, kind: str) -> None:
    queue = sdk.queue(service + kind)
    for _ in range(3):
        queue.put("x")

    found = [queue.search(index) for index in (1, 2, 3, "3")]

    assert [(entry["IsPending"], entry["WaitCount"]) for entry in found] == [(False, n) for n in (0, 1, 2, 2)]
    assert all(set(entry) == {"ConsumerId", "IsPending", "WaitCount"} for entry in found)
    queue.delete(2)
    assert queue.search(3)["WaitCount"] == 1
    assert queue.search(2) == queue.search(4) == {}


@both_queues
def test_search_names_the_consumer_that_works_on_an_item(sdk: Sdk, service: str, kind: str) -> None:
    group = group_for(service, kind)
    queue = sdk.queue(service + kind, uid="me", gid=group)
    for _ in range(3):
        queue.put("x")
    queue.watch(window=1)
    queue.next()

    assert queue.search(1) == {"ConsumerId": f"{group}.me", "IsPending": True, "WaitCount": 0}
    assert queue.search(3) == {"ConsumerId": f"{group}.me", "IsPending": False, "WaitCount": 1}
    queue.close()


# -------------------------------------------------------------------------------------------------- delete, truncate


@both_queues
def test_delete_takes_one_or_several_and_never_minds_those_that_are_gone(sdk: Sdk, service: str, kind: str) -> None:
    queue = sdk.queue(service + kind)
    for _ in range(5):
        queue.put("x")

    assert queue.delete(2) == "OK"
    assert queue.delete([1, 4]) == "OK"
    assert queue.delete(2) == queue.delete([4, 99, 5]) == "OK"

    assert indexes(queue.all()) == [3]


@both_queues
def test_truncate_takes_all_below_an_index_and_indexes_go_on(sdk: Sdk, service: str, kind: str) -> None:
    queue = sdk.queue(service + kind)
    assert queue.truncate(1) == "OK"  # there was never anything
    for _ in range(5):
        queue.put("x")

    assert queue.truncate(4) == "OK"
    assert indexes(queue.all()) == [4, 5]
    assert queue.truncate(6) == queue.truncate(6) == "OK"

    assert queue.length() == 0
    assert queue.put("x")[0] == 6


# ------------------------------------------------------------------------------------------------------ watch, commit


@both_queues
def test_a_watcher_gets_a_window_and_more_as_it_commits(sdk: Sdk, service: str, kind: str) -> None:
    group = group_for(service, kind)
    queue = sdk.queue(service + kind, uid="me", gid=group)
    ids = [queue.put(f"{n}")[1] for n in range(8)]

    with sdk.watcher(service + kind, "--uid", "me", "--gid", group, "--window", 3) as watcher:
        frames = [Frame.of(watcher.hear()["frame"]) for _ in range(3)]
        assert [frame.data for frame in frames] == [b"0", b"1", b"2"]
        assert [frame.tags["requestId"] for frame in frames] == ids[:3]
        assert watcher.until_silent(0.5) == []
        (described,) = consumers(queue)
        for part in (f"Id: {group}.me", "Pending: 3", "Status: Running", "Window: 3", "Slots: 0"):
            assert part in described
        assert queue.length() == 8

        assert queue.commit(2) == "OK"
        assert Frame.of(watcher.hear()["frame"]).index == 4
        assert watcher.until_silent(0.3) == []
        assert queue.length() == 7

        assert queue.commit([1, 3, 4]) == "OK"
        assert [Frame.of(watcher.hear()["frame"]).index for _ in range(3)] == [5, 6, 7]
        assert indexes(queue.all()) == [5, 6, 7, 8]


@both_queues
def test_commits_of_what_is_not_held_are_ok_and_change_nothing(sdk: Sdk, service: str, kind: str) -> None:
    queue = sdk.queue(service + kind, uid="me", gid=group_for(service, kind))
    for _ in range(3):
        queue.put("x")

    assert queue.commit(0) == queue.commit(2) == queue.commit([1, 99]) == "OK"  # nobody was given these yet
    queue.watch(window=1)
    assert indexes(queue.next()) == [1]
    assert [queue.commit(1) for _ in range(3)] == ["OK"] * 3

    assert indexes(queue.next()) == [2]
    queue.close()
    assert indexes(queue.all()) == [2, 3]


@both_queues
def test_a_watcher_with_auto_commit_leaves_nothing_behind(sdk: Sdk, service: str, kind: str) -> None:
    queue = sdk.queue(service + kind, gid=group_for(service, kind))
    for n in range(20):
        queue.put(f"{n}")
    queue.watch(auto_commit=True)

    frames = queue.next(20)

    assert [frame.data for frame in frames] == [b"%d" % n for n in range(20)]
    await_condition(lambda: queue.length() == 0, timeout_s=1)
    queue.put("later")
    assert [frame.data for frame in queue.next()] == [b"later"]
    queue.close()


@both_queues
def test_a_closed_watcher_is_gone_and_what_it_held_comes_again(sdk: Sdk, service: str, kind: str) -> None:
    queue = sdk.queue(service + kind, gid=group_for(service, kind))
    for _ in range(6):
        queue.put("x")
    queue.watch(window=3)
    assert indexes(queue.next(3)) == [1, 2, 3]
    queue.commit(2)

    queue.close()
    queue.watch(window=5)

    assert indexes(queue.next(5)) == [1, 3, 4, 5, 6]
    queue.commit([1, 3, 4, 5, 6])
    queue.close()
    assert queue.length() == 0

    def is_gone() -> bool:
        return not any("Status: Running" in described for described in consumers(queue))

    await_condition(is_gone, timeout_s=3)


@both_queues
def test_a_commit_counts_though_the_watcher_has_gone(sdk: Sdk, service: str, kind: str) -> None:
    queue = sdk.queue(service + kind, gid=group_for(service, kind))
    for _ in range(3):
        queue.put("x")
    queue.watch()
    assert indexes(queue.next(3)) == [1, 2, 3]
    queue.close()
    await_condition(lambda: not queue.search(2)["IsPending"], what="it waits for another consumer")

    assert queue.commit(2) == "OK"

    assert indexes(queue.all()) == [1, 3]
    queue.watch()
    assert indexes(queue.next(2)) == [1, 3]
    queue.close()


@both_queues
def test_one_client_has_one_watcher(sdk: Sdk, service: str, kind: str) -> None:
    queue = sdk.queue(service + kind)
    queue.put("x")
    queue.watch()
    queue.next()

    queue.watch()
    with pytest.raises(SdkError, match="Another watcher is already running"):
        queue.next()
    queue.close()


@both_queues
def test_index_only_frames_have_tags_and_no_data(sdk: Sdk, service: str, kind: str) -> None:
    queue = sdk.queue(service + kind, gid=group_for(service, kind))
    _, request_id = queue.put("data", tags={"a": "b"})
    queue.watch(index_only=True)

    (frame,) = queue.next()

    assert (frame.index, frame.data) == (1, b"")
    assert (frame.tags["requestId"], frame.tags["a"]) == (request_id, "b")
    assert [item.data for item in queue.get(index=frame.index, auto_delete=False)] == [b"data"]
    queue.commit(frame.index)
    queue.close()
    assert queue.length() == 0


def test_a_watcher_with_tags_gets_those_that_have_them_all(sdk: Sdk, service: str) -> None:
    queue = sdk.queue(f"{service}/sink")
    for n in range(6):
        queue.put(f"{n}", tags={"parity": str(n % 2), "third": str(n % 3)})
    queue.watch(tags={"parity": "1", "third": "0"})
    assert [frame.data for frame in queue.next()] == [b"3"]
    queue.commit(4)

    queue.put("late", tags={"third": "0", "parity": "1"})

    assert [frame.data for frame in queue.next()] == [b"late"]
    queue.commit(7)
    queue.close()
    assert indexes(queue.all()) == [1, 2, 3, 5, 6]


@both_queues
def test_a_watcher_that_begins_further_on_leaves_what_is_before(sdk: Sdk, service: str, kind: str) -> None:
    queue = sdk.queue(service + kind, gid=group_for(service, kind))
    for _ in range(4):
        queue.put("x")
    queue.watch(index=3)
    assert indexes(queue.next(2)) == [3, 4]
    queue.commit([3, 4])
    queue.close()
    assert indexes(queue.all()) == [1, 2]


@both_queues
def test_a_watcher_that_begins_at_the_end_gets_what_arrives_from_then_on(sdk: Sdk, service: str, kind: str) -> None:
    group = group_for(service, kind)
    queue = sdk.queue(service + kind)
    queue.put("before")

    with sdk.watcher(service + kind, "--index", -1, "--gid", group, "--commit") as watcher:
        await_condition(lambda: consumers(queue), what="it is connected")
        queue.put("after")

        assert watcher.hear()["frame"]["data"] == "after"
        assert watcher.hear() == {"committed": 2, "answer": "OK"}
        assert indexes(queue.all()) == [1]


@both_queues
def test_a_higher_priority_is_pushed_first_and_polled_by_index(sdk: Sdk, service: str, kind: str) -> None:
    queue = sdk.queue(service + kind, gid=group_for(service, kind))
    for data, priority in (("1", 0), ("2", 0), ("3", 1), ("4", 5), ("5", 1)):
        queue.put(data, tags={"_priority_": priority} if priority else None)

    assert [frame.data for frame in queue.get(length=9, timeout="0s", auto_delete=False)] == [
        b"1",
        b"2",
        b"3",
        b"4",
        b"5",
    ]
    queue.watch(auto_commit=True)
    assert b"".join(frame.data for frame in queue.next(5)) == b"43512"
    queue.close()


# ------------------------------------------------------------------------------------------------------------ groups


@both_queues
def test_consumers_of_a_group_share_what_there_is(sdk: Sdk, service: str, kind: str) -> None:
    group = group_for(service, kind)
    queue = sdk.queue(service + kind, gid=group)
    for _ in range(5):
        queue.put("x")
    options = ("--gid", group, "--window", 2)

    with sdk.watcher(service + kind, *options, "--uid", "a") as a:
        assert [a.hear()["frame"]["index"] for _ in range(2)] == [1, 2]
        with sdk.watcher(service + kind, *options, "--uid", "b") as b:
            assert [b.hear()["frame"]["index"] for _ in range(2)] == [3, 4]
            queue.commit(3)
            assert b.hear()["frame"]["index"] == 5

            a.kill()
            assert b.until_silent(0.5) == []  # its window is full
            queue.commit([4, 5])

            assert [b.hear()["frame"]["index"] for _ in range(2)] == [1, 2]


def test_groups_get_every_item_each_and_it_stays_until_all_have_committed(sdk: Sdk, service: str) -> None:
    one = sdk.queue(f"{service}/sink", gid="one", uid="same")
    other = sdk.queue(f"{service}/sink", gid="other", uid="same")
    for _ in range(3):
        one.put("x")
    one.watch()
    other.watch()
    assert indexes(one.next(3)) == indexes(other.next(3)) == [1, 2, 3]

    one.commit([1, 2, 3])
    assert one.length() == 3
    other.commit(2)

    assert indexes(one.all()) == [1, 3]
    one.close()
    other.close()


def test_a_group_that_reads_along_an_input_takes_nothing_from_its_service(sdk: Sdk, service: str) -> None:
    queue = sdk.queue(service)
    for _ in range(3):
        queue.put("x")
    queue.watch()

    assert indexes(queue.next(3)) == [1, 2, 3]
    assert queue.commit([1, 2, 3]) == "OK"

    assert indexes(queue.all()) == [1, 2, 3]
    queue.close()


def test_where_nothing_is_forwarded_a_commit_in_any_group_consumes(sdk: Sdk) -> None:
    queue = sdk.queue("box")
    for _ in range(3):
        queue.put("x")
    queue.watch()
    assert indexes(queue.next(3)) == [1, 2, 3]

    queue.commit([1, 3])

    assert indexes(queue.all()) == [2]
    queue.close()


# -------------------------------------------------------------------------------------------------------------- rear


@both_queues
def test_what_was_delivered_too_often_is_in_the_rear(sdk: Sdk, kind: str) -> None:
    service = "brittle" if kind else "fragile"  # what an input gave up on is listed in its sink too
    queue = sdk.queue(service + kind, gid=group_for(service, kind))
    rear = sdk.queue(service + kind, add_extra_headers=REAR)
    queue.put("poison")
    queue.put("sound")
    for _ in range(2):
        queue.watch(window=1)
        assert [frame.data for frame in queue.next()] == [b"poison"]
        queue.close()

    queue.watch(window=1)
    assert [frame.data for frame in queue.next()] == [b"sound"]
    queue.commit(2)
    queue.close()

    assert queue.length() == 0
    assert rear.attributes()["stream.length"] == "1"
    assert [frame.data for frame in rear.get()] == [b"poison"]
    assert rear.length() == 0


@both_queues
def test_the_rear_is_a_queue_of_its_own(sdk: Sdk, service: str, kind: str) -> None:
    queue, rear = sdk.queue(service + kind), sdk.queue(service + kind, add_extra_headers=REAR)
    queue.put("front")

    index, request_id = rear.put("behind")

    assert index == 1
    assert [frame.data for frame in queue.all()] == [b"front"]
    assert [frame.data for frame in rear.get(request_id=request_id, auto_delete=False)] == [b"behind"]
    rear.watch(auto_commit=True)
    assert [frame.data for frame in rear.next()] == [b"behind"]
    rear.close()
    await_condition(lambda: rear.length() == 0, timeout_s=1)
    assert queue.length() == 1


# ---------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("call", ["put", "get", "attributes", "delete", "truncate", "commit"])
def test_a_wrong_token_is_refused_after_six_requests(
    installation: Installation, sdk: Sdk, service: str, call: str
) -> None:
    queue = sdk.queue(service, token="nobody's")
    arguments: dict[str, list[Any]] = {"put": ["x"], "delete": [1], "truncate": [1], "commit": [1]}

    with pytest.raises(SdkError) as caught:
        queue._call(call, *arguments.get(call, []))

    assert (caught.value.name, caught.value.code) == ("PredictException", 401)
    method = {"put": "POST", "delete": "DELETE", "truncate": "DELETE", "commit": "PUT"}.get(call, "GET")
    (web,) = installation.processes
    await_condition(lambda: requests_in(web.log, method, f"/api/predict/{service}") == 6)


def test_a_watcher_with_a_wrong_token_is_told_so(sdk: Sdk, service: str) -> None:
    queue = sdk.queue(f"{service}/sink", token="nobody's")
    queue.watch()

    with pytest.raises(SdkError) as caught:
        queue.next()

    assert (caught.value.name, caught.value.code) == ("WebSocketBadStatusException", 401)


@both_queues
def test_a_full_queue_refuses_at_once_and_takes_again_when_there_is_room(sdk: Sdk, kind: str) -> None:
    queue = sdk.queue(f"narrow{kind}")
    queue.put("1")
    queue.put("2")
    began = time.monotonic()

    with pytest.raises(SdkError) as caught:
        queue.put("3")

    assert caught.value.code == 429
    assert time.monotonic() - began < 2  # an answer with Retry-After would make the SDK sleep
    assert indexes(queue.all()) == [1, 2]
    queue.get()
    index, _ = queue.put("4")
    assert index == 3
    queue.truncate(index + 1)


@both_queues
def test_too_large_an_item_is_refused_and_not_stored(sdk: Sdk, service: str, kind: str) -> None:
    queue = sdk.queue(service + kind)

    with pytest.raises(SdkError) as caught:
        queue.put("x" * (MAX_PAYLOAD_BYTES + 1))

    assert caught.value.code == 413
    assert queue.length() == 0
    assert queue.put("x" * MAX_PAYLOAD_BYTES)[0] == 1


@both_queues
@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("get", {"timeout": "soon"}),
        ("get", {"index": "first"}),
        ("get", {"length": "all"}),
        ("get", {"auto_delete": "perhaps"}),
        ("delete", {"index": "first"}),
        ("truncate", {"index": "first"}),
        ("commit", {"index": "first"}),
        ("put", {"data": "x", "tags": {"_priority_": "high"}}),
    ],
)
def test_what_no_value_can_be_is_a_bad_request(
    sdk: Sdk, service: str, kind: str, call: str, arguments: dict[str, Any]
) -> None:
    queue = sdk.queue(service + kind)

    with pytest.raises(SdkError) as caught:
        queue._call(call, **arguments)

    assert caught.value.code == 400
