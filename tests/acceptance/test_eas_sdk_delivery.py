"""Thousands of items through the official SDK: each arrives once, and none is lost where watchers are killed."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

from tests.support.eas_sdk import REAR, Frame, Program, Sdk
from tests.support.installation import Installation, await_condition
from tests.support.server import RedisServer
from tests.support.target_client import Target

ITEMS = 2000
KILLS = 50
SEED = 20_260_401
# A watcher's death counts as a delivery of what it worked on: several on one item must not make it a dead letter here.
SERVICES = "[services.demo]\nmax_attempts = 20\n"


def test_2000_items_reach_a_watcher_once_each_and_in_order(installation: Installation) -> None:
    installation.web("-w", "2")
    with Sdk(installation) as sdk, sdk.watcher("demo/sink", "--auto", "--count", ITEMS) as watcher:
        puts = sdk.program("eas_put", "demo/sink", "--count", ITEMS).rest(timeout_s=60)

        *seen, end = watcher.rest(timeout_s=30)

        assert end == {"closed": True}
        assert [line["index"] for line in puts] == list(range(1, ITEMS + 1))
        frames = [Frame.of(line["frame"]) for line in seen]
        assert [(frame.data.decode(), frame.index, frame.tags["requestId"]) for frame in frames] == [
            (line["put"], line["index"], line["request_id"]) for line in puts
        ]
        queue = sdk.queue("demo/sink")
        await_condition(lambda: queue.length() == 0, timeout_s=1)


def test_with_auto_commit_only_what_the_connection_took_is_gone(installation: Installation) -> None:
    items, size = 40, 1_000_000
    buffered_most = 20  # what both ends' systems may hold for a reader that does not read, generously
    installation.web("-w", "2")
    with Sdk(installation) as sdk:
        queue, reader = sdk.queue("demo/sink"), sdk.queue("demo/sink", alone=True)
        for n in range(1, items + 1):
            queue.put(f"{n:0{size}}")
        reader.watch(auto_commit=True)
        had = [frame.index for frame in reader.next()]
        time.sleep(1)  # all would be gone by now if nothing held them back

        reader.program.kill()
        assert queue.length() >= items - buffered_most
        queue.watch(auto_commit=True)
        rest = queue.next(queue.length())

        assert had == [1]
        assert [frame.index for frame in rest] == list(range(items - len(rest) + 1, items + 1))
        assert all(frame.data == b"%0*d" % (size, frame.index) for frame in rest)
        queue.close()
        await_condition(lambda: queue.length() == 0, timeout_s=1)


def test_every_item_is_committed_though_its_watchers_are_killed(server: RedisServer, target: Target) -> None:
    with Installation(server.url, target.url, services_toml=SERVICES) as installation, Sdk(installation) as sdk:
        installation.web("-w", "2")
        queue = sdk.queue("demo/sink")
        puts = sdk.program("eas_put", "demo/sink", "--count", ITEMS, "--pause-s", 0.004)
        watchers = sdk.program("eas_killed", "demo/sink", "--kills", KILLS, "--seed", SEED)

        put = {line["index"] for line in puts.rest(timeout_s=60)}
        said = _until_the_last(watchers)
        await_condition(lambda: queue.length() == 0, timeout_s=20, what="the last watcher commits the rest")
        said += watchers.until_silent(0.5)
        buried = {frame.index for frame in sdk.queue("demo/sink", add_extra_headers=REAR).all()}

    assert put == set(range(1, ITEMS + 1))
    assert buried == set()
    assert [line for line in said if "error" in line] == []  # a watcher that comes back is taken at once
    assert {line["commits"] for line in said if "commits" in line} == put
    assert len({line["life"] for line in said if "committed" in line}) > KILLS / 2, "most died before they did anything"
    lives: defaultdict[int, list[int]] = defaultdict(list)
    committed: set[int] = set()
    for line in said:
        if "got" in line:
            assert line["got"] not in committed, f"{line} was committed before"
            lives[line["life"]].append(line["got"])
        if "committed" in line:
            committed.add(line["committed"])
    assert len(put - committed) <= KILLS  # died between commit and its answer: the queue is empty, so these arrived
    for got in lives.values():
        # Not always in order: a stranger may come before the web has seen the death of whom it follows.
        assert len(got) == len(set(got)), "a watcher got an item twice"


def _until_the_last(watchers: Program) -> list[dict[str, Any]]:
    """All that they say until the one that is not killed has begun."""
    found = [watchers.hear()]
    while "last" not in found[-1]:
        found.append(watchers.hear())
    return found
