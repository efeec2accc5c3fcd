"""The commands on a real installation: what the document of eascmd does not show."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stream.conftest import Call
from tests.support.front import digest
from tests.support.installation import ROOT, TOKEN, Installation, await_condition
from tests.support.server import RedisServer

READER = "may-read-and-nothing-else"


@pytest.fixture(scope="module")
def shared() -> Iterator[Installation]:
    services = f"""
        [services]
        pulled = {{ mode = "pull", max_attempts = 2, max_queue_length = 5 }}
        [tokens]
        "{digest(READER)}" = {{ roles = ["read"] }}
        "{digest(TOKEN)}" = {{}}
    """
    server = RedisServer().start()
    try:
        with Installation(server.url, "http://127.0.0.1:9", services_toml=services, MAX_PAYLOAD_BYTES=4096) as made:
            made.web("-w", "2", "-b", f"127.0.0.1:{made.port}")
            yield made
    finally:
        server.stop()


class Queue:
    """The commands for a queue that is empty at first."""

    def __init__(self, call: Call, installation: Installation) -> None:
        self._call = call
        self.env = {
            "EAS_QUEUE_STREAM_URL": f"{installation.url}/api/predict/pulled",
            "EAS_QUEUE_STREAM_TOKEN": TOKEN,
        }

    def __call__(self, *arguments: str, input: str = "", code: int = 0) -> Any:
        done = self._call(*arguments, input=input, env=self.env)
        assert done.exit_code == code, done.output
        return done

    def json(self, *arguments: str, input: str = "") -> list[Any]:
        return [json.loads(line) for line in self(*arguments, "--json", input=input).stdout.splitlines()]

    def put(self, *arguments: str) -> int:
        index: int = self.json("put", *arguments)[0]["index"]
        return index

    def start_watch(self, *options: str, asks: bool = False) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "eas_queue.stream", "watch", "--json", *options]
        return subprocess.Popen(
            command if asks else [*command, "--auto-commit"],
            cwd=ROOT,
            env=os.environ | self.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def queue(call: Call, shared: Installation) -> Queue:
    made = Queue(call, shared)
    made("trunc", "999999999", "-y")
    made("trunc", "999999999", "-y", "--rear")
    return made


def stopped(watch: subprocess.Popen[str]) -> tuple[list[Any], str]:
    watch.send_signal(signal.SIGINT)
    out, err = watch.communicate(timeout=10)
    assert watch.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()], err


def test_get_leaves_an_item_where_it_is_unless_it_is_told_otherwise(queue: Queue) -> None:
    index = queue.put("-d", "x")

    assert [item["index"] for item in queue.json("get")] == [index]
    assert [item["index"] for item in queue.json("get", "--timeout=0", "--auto-delete")] == [index]
    assert "nothing is there" in queue("get", "--timeout=0", code=3).stderr


def test_any_bytes_and_any_tags_come_back_as_they_were(queue: Queue, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"\x00\xff\x1b[2J\n")

    queue("put", "-f", str(tmp_path / "data"), "--tags", '"größe=ü, € &=",x=1')

    (item,) = queue.json("get", "--tags", "x=1")
    assert item["base64"] == "AP8bWzJK"
    assert item["tags"] | {"größe": "ü, € &=", "x": "1"} == item["tags"]


def test_higher_priority_is_pushed_first(queue: Queue) -> None:
    normal, high = queue.put("-d", "normal"), queue.put("-d", "high", "--priority", "1")

    assert queue.json("count", "--priority", "1") == [{"count": 1}]
    assert queue.json("search", str(normal))[0]["WaitCount"] == 1
    assert [item["index"] for item in queue.json("watch", input="y\n")] == [high, normal]
    assert queue.json("count") == [{"count": 1}]


def test_what_is_rejected_too_often_is_in_the_rear(queue: Queue) -> None:
    queue.put("-d", "bad")
    queue.put("-d", "good")
    options = ("--group", "pulled", "--window", "1", "--negative-code", "Busy", "--negative-reason", "later")

    first, again, next_one = queue.json("watch", *options, input="n\ny\nn\ny\n")

    assert (first["text"], again["text"], next_one["text"]) == ("bad", "bad", "good")
    assert (again["tags"]["lastCode"], again["tags"]["lastReason"]) == ("Busy", "later")
    assert [item["text"] for item in queue.json("get", "--rear")] == ["bad"]


def test_a_line_that_is_too_large_is_counted_and_a_full_queue_ends_it(queue: Queue, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("\n".join(["1", "x" * 5000, "2", "3", "4", "5", "6", "7"]))

    done = queue("put", "-f", str(tmp_path / "data"), code=1)

    assert "line 2: put to" in done.stderr
    assert "the queue answered 413" in done.stderr
    assert "line 7: put to" in done.stderr
    assert "the queue answered 429" in done.stderr
    assert "Total: 7, success: 5, failed: 2\n" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["info", "--token", "wrong"], 4),
        (["info", "--token", READER], 0),
        (["get", "--auto-delete", "--token", READER], 4),
        (["put", "-d", "x", "--token", READER], 4),
        (["delete", "1", "-y", "--token", READER], 4),
        (["watch", "--token", READER], 4),
        (["watch", "--token", "wrong"], 4),
        (["search", "999999999"], 3),
        (["get", "--index", "999999999", "--timeout", "0"], 3),
        (["delete", "999999999", "-y"], 0),
    ],
)
def test_exit_codes_are_those_of_the_help(queue: Queue, arguments: list[str], code: int) -> None:
    queue(*arguments, code=code)


@pytest.mark.parametrize("arguments", [["info"], ["put", "-d", "x"], ["watch"], ["get"], ["delete", "3", "-y"]])
def test_a_service_that_is_not_there_is_3(queue: Queue, arguments: list[str]) -> None:
    queue.env["EAS_QUEUE_STREAM_URL"] = queue.env["EAS_QUEUE_STREAM_URL"].replace("pulled", "nothing")

    assert "'nothing' is not served here" in queue(*arguments, code=3).stderr


def test_the_same_user_twice_is_refused_and_another_one_is_not(queue: Queue) -> None:
    watch = queue.start_watch()
    await_condition(lambda: queue.json("info")[0]["consumers.status.total"] == "1", what="it watches")

    refused = queue("watch", code=1)
    assert (
        "a consumer is connected as default_group.default_user: end it, or be another one by --user" in refused.stderr
    )

    queue.put("-d", "x")
    await_condition(lambda: queue.json("count") == [{"count": 0}], what="it is committed")
    queue.put("-d", "y", "--tags", "for=ann")
    other = queue.start_watch("--user", "ann", "--index-only")
    await_condition(lambda: queue.json("info")[0]["consumers.status.total"] == "2", what="both watch")
    assert [item["text"] for item in stopped(watch)[0]] == ["x", "y"]
    assert stopped(other)[0] == []


def test_a_watch_outlives_the_service_and_asks_about_each_item_once(queue: Queue, shared: Installation) -> None:
    """The web is killed while one thinks about an item, and started again: the item comes again, and is committed."""
    queue.put("-d", "before")
    watch = queue.start_watch(asks=True)
    assert watch.stdin is not None
    assert watch.stdout is not None
    assert json.loads(watch.stdout.readline())["text"] == "before"

    shared.processes[-1].kill()
    shared.web("-w", "2", "-b", f"127.0.0.1:{shared.port}")

    def is_back() -> bool:
        """The item is at a consumer again."""
        return ", Pending: 1, Status: Running" in queue.json("info")[0].get("consumers.list.[0]", "")

    await_condition(is_back, timeout_s=20, what="it watches again")
    watch.stdin.write("y\n")
    watch.stdin.flush()
    await_condition(lambda: queue.json("count") == [{"count": 0}], what="it is committed")
    queue.put("-d", "after")
    assert json.loads(watch.stdout.readline())["text"] == "after"

    _, err = stopped(watch)
    assert "; connecting again\n" in err
    assert err.count("watch via websocket\n") == 2
