"""The official SDK gives a request up after 5 s, repeats it, and reconnects for ever: it loses and doubles nothing."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from tests.support.eas_sdk import Frame, Sdk, SdkError, requests_in
from tests.support.installation import Installation, Process, await_condition
from tests.support.proxy import Proxy
from tests.support.server import RedisServer
from tests.support.target_client import Target

SOCKET_TIMEOUT_S = 5.0  # the SDK's own
both_queues = pytest.mark.parametrize("queue_name", ["demo", "demo/sink"])


def restart(installation: Installation, web: Process, signum: signal.Signals) -> Process:
    if signum is signal.SIGKILL:
        web.kill()
    else:
        assert web.stop() == 0
    return installation.web()


def test_a_long_poll_is_answered_before_the_socket_gives_up(installation: Installation) -> None:
    web = installation.web("--access-logfile", "-")
    names = ["demo", "demo/sink"]
    with Proxy("127.0.0.1", installation.port) as proxy, Sdk(installation, proxy.port) as sdk:
        queues = [sdk.queue(name, alone=True) for name in names]
        began = time.monotonic()

        for queue in queues:
            queue.begin("get", timeout="5s")

        assert [queue.got() for queue in queues] == [[], []]
        assert SOCKET_TIMEOUT_S - 1 < time.monotonic() - began < SOCKET_TIMEOUT_S
        assert proxy.accepted == 2  # after its timeout the SDK would have connected anew
    assert [requests_in(web.log, "GET", f"/api/predict/{name}") for name in names] == [1, 1]


@both_queues
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_put_answered_is_stored_once_though_the_web_restarts(
    installation: Installation, queue_name: str, signum: signal.Signals
) -> None:
    web = installation.web()
    with Sdk(installation) as sdk:
        puts = sdk.program("eas_put", queue_name, "--count", 300, "--pause-s", 0.005, "--again")
        told = [puts.hear() for _ in range(100)]

        restart(installation, web, signum)
        told += puts.rest(timeout_s=30)

        stored = sdk.queue(queue_name).all()
    acknowledged = {line["put"]: (line["index"], line["request_id"]) for line in told if "put" in line}
    failed = {line["failed"] for line in told if "failed" in line}
    found = {frame.data.decode(): (frame.index, frame.tags["requestId"]) for frame in stored}
    assert len(acknowledged) == 300
    assert failed, "the restart was not noticed"
    assert len(found) == len(stored), "an item is there twice"
    assert acknowledged.items() <= found.items()
    assert found.keys() - acknowledged.keys() <= failed


def test_a_get_across_a_frozen_web_takes_each_item_out_once(server: RedisServer, target: Target) -> None:
    clients = 4
    asks = {"waits": {}, "comes": {}, "polls": {"timeout": "0s"}}  # by service: when or how its clients ask
    with (
        Installation(server.url, target.url, web_concurrency=2) as installation,
        Installation(server.url, target.url) as other,
        Sdk(installation) as sdk,
        Sdk(other) as other_sdk,
    ):
        web, _ = installation.web(), other.web()
        fronts = {service: other_sdk.queue(f"{service}/sink") for service in asks}
        queues = {service: [sdk.queue(f"{service}/sink", alone=True) for _ in range(clients)] for service in asks}
        putter = sdk.queue("puts/sink", alone=True)
        for queue in queues["waits"]:
            queue.begin("get")
        time.sleep(0.5)  # all of them wait in the web by then

        os.killpg(web.pid, signal.SIGSTOP)
        try:
            for front in fronts.values():
                for n in range(clients):
                    front.put(f"{n}")
            for service in ("comes", "polls"):
                for queue in queues[service]:
                    queue.begin("get", **asks[service])
            putter.begin("put", "x")
            time.sleep(SOCKET_TIMEOUT_S + 1)  # by then every client has given its first request up
        finally:
            os.killpg(web.pid, signal.SIGCONT)

        for service in asks:
            answers = [queue.got(timeout_s=30) for queue in queues[service]]
            assert [len(frames) for frames in answers] == [1] * clients, service
            assert sorted(frame.data for (frame,) in answers) == [b"%d" % n for n in range(clients)], service
            assert fronts[service].length() == 0, service
        with pytest.raises(SdkError) as caught:  # a put is not repeated by the SDK: it can't know whether it arrived
            putter.answer()
        assert caught.value.code == 502
        assert other_sdk.queue("puts/sink").length() <= 1


@pytest.mark.parametrize(
    ("committed_by", "signum"),
    [("client", signal.SIGTERM), ("client", signal.SIGKILL), ("server", signal.SIGTERM)],
)
def test_a_watcher_sees_every_item_though_the_web_restarts(
    installation: Installation, committed_by: str, signum: signal.Signals
) -> None:
    installation.env["WEB_CONCURRENCY"] = "2"
    web = installation.web()
    with (
        Sdk(installation) as sdk,
        sdk.watcher("demo/sink", "--commit" if committed_by == "client" else "--auto") as watcher,
    ):
        puts = sdk.program("eas_put", "demo/sink", "--count", 300, "--pause-s", 0.005, "--again")
        told = [puts.hear() for _ in range(100)]

        restart(installation, web, signum)
        told += puts.rest(timeout_s=30)

        queue = sdk.queue("demo/sink")
        await_condition(lambda: queue.length() == 0, what="all is committed")
        seen = watcher.until_silent(1)
        assert "try to reconnect" in watcher.errors
    frames = [Frame.of(line["frame"]) for line in seen if "frame" in line]
    assert {line["put"] for line in told if "put" in line} <= {frame.data.decode() for frame in frames}
    firsts = sorted({frame.index for frame in frames})
    if committed_by == "client":
        assert {line["committed"] for line in seen if "committed" in line} == set(firsts)
        assert not redelivered_after_commit(seen)
    else:
        assert [frame.index for frame in frames] == firsts


def redelivered_after_commit(seen: list[dict[str, Any]]) -> set[int]:
    committed: set[int] = set()
    again: set[int] = set()
    for line in seen:
        if "frame" in line and line["frame"]["index"] in committed:
            again.add(line["frame"]["index"])
        if "committed" in line:
            committed.add(line["committed"])
    return again
