"""Watching: what is asked, what is told to the queue, and what becomes of a broken connection."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from eas_queue.stream import watching
from tests.stream.conftest import TOKEN, Call
from tests.support.installation import ROOT, await_condition
from tests.support.queue_stub import Answer, Asked, Pusher, QueueStub

GO_LOG = re.compile(r"[IW]\d{4} \d\d:\d\d:\d\d\.\d{6} [ \d]{7} watch\.py:\d+\] ")
START = "[INFO] Start to watch: index: 0, indexOnly: false, autoCommit: {}, window: 10\n"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "RECONNECT_S", 0.02)


def pushing(*items: tuple[int, bytes], end: Callable[[Pusher], object] = Pusher.close) -> Callable[[Pusher], None]:
    def push(pusher: Pusher) -> None:
        for index, data in items:
            pusher.push(index, data, requestId=f"r{index}")
        end(pusher)

    return push


def told(stub: QueueStub) -> list[tuple[str, str, bytes]]:
    """What the queue was told of items: commit or negative, index, body."""
    return [
        ("negative" if "_negative_" in asked.query else "commit", asked.query["_indexes_"], asked.body)
        for asked in stub.asked
        if asked.method == "PUT"
    ]


def without_log(stderr: str) -> str:
    return "".join(line for line in stderr.splitlines(keepends=True) if not GO_LOG.match(line))


def test_it_asks_as_the_sdks_do(call_stub: Call, stub: QueueStub) -> None:
    call_stub("watch", "-k", "--rear", "--window", "3", "--index", "-1", "--index-only", "--tags", "foo=b r")

    (asked,) = stub.asked
    assert asked.path == "/api/predict/demo/sink"
    assert asked.query == {
        "foo": "b r",
        "_watch_": "true",
        "_index_": "-1",
        "_window_": "3",
        "_index_only_": "true",
        "_auto_commit_": "false",
    }
    assert asked.headers["authorization"] == TOKEN
    assert asked.headers["accept"] == "application/vnd.google.protobuf"
    assert asked.headers["x-eas-queueservice-gid"] == "default_group"
    assert asked.headers["x-eas-queueservice-access-rear"] == "true"


def test_with_auto_commit_each_item_is_a_row(call_stub: Call, stub: QueueStub) -> None:
    stub.pushes = [pushing((5, b"data5"), (6, b"\x1b[2J"))]

    done = call_stub("watch", "--auto-commit")

    assert done.stdout == START.format("true") + (
        "[OK] [0 - 5] tags[requestId=r5] data5\n[OK] [1 - 6] tags[requestId=r6] \\x1b[2J\n"
    )
    assert GO_LOG.sub("", done.stderr).startswith("watch via websocket\n")
    assert told(stub) == []


def test_each_item_is_committed_rejected_or_neither_as_one_says(call_stub: Call, stub: QueueStub) -> None:
    items = [(index, f"data{index}".encode()) for index in (4, 5, 6, 7)]
    stub.pushes = [pushing(*items, end=Pusher.await_end)]  # 7: the answers are over, as at Ctrl-D

    done = call_stub("watch", "--negative-code", "Busy", "--negative-reason", "a & b", input="y\nn\ny\nn\nn\n")

    assert done.exit_code == 0
    assert done.stdout == START.format("false") + "".join(
        f"[OK] [{i} - {i + 4}] tags[requestId=r{i + 4}] data{i + 4}\n" for i in range(4)
    )
    assert without_log(done.stderr) == (
        "commit: 4 ? [Y/n]y\ncommit: 5 ? [Y/n]n\nnegative: 5 ? [Y/n]y\ncommit: 6 ? [Y/n]n\nnegative: 6 ? [Y/n]n\n"
        "commit: 7 ? [Y/n]\n"
    )
    assert told(stub) == [("commit", "4", b""), ("negative", "5", b"_code_=Busy&_reason_=a+%26+b")]


def test_programs_read_nothing_but_items(call_stub: Call, stub: QueueStub) -> None:
    stub.pushes = [pushing((4, b"data4"), (5, b"\xff"))]

    lines = call_stub("watch", "--json", input="\n\n").stdout.splitlines()

    assert [json.loads(line) for line in lines] == [
        {"received": 0, "index": 4, "tags": {"requestId": "r4"}, "text": "data4"},
        {"received": 1, "index": 5, "tags": {"requestId": "r5"}, "base64": "/w=="},
    ]
    assert [index for _, index, _ in told(stub)] == ["4", "5"]


def test_a_broken_connection_is_told_and_made_anew(call_stub: Call, stub: QueueStub) -> None:
    stub.pushes = [
        pushing((5, b"a")),
        Answer(409, b"still there"),
        Answer(503, b"restarting"),
        pushing((6, b"b"), end=lambda pusher: None),
        Answer(403, b"no more"),
    ]

    done = call_stub("watch", "--auto-commit")

    assert done.exit_code == 4
    assert done.stdout.splitlines()[1:] == ["[OK] [0 - 5] tags[requestId=r5] a", "[OK] [1 - 6] tags[requestId=r6] b"]
    lines = [GO_LOG.sub("", line) for line in done.stderr.splitlines()]
    assert lines[:4] == [
        "watch via websocket",
        "the queue closed the connection; connecting again",
        "watch via websocket",
        "the connection broke (Connection to remote host was lost.); connecting again",
    ]
    assert lines[4] == f"[ERROR] watch {stub.url}: the queue answered 403: no more"


def test_after_a_break_only_what_the_queue_pushes_again_is_asked_about(call_stub: Call, stub: QueueStub) -> None:
    """4 was committed and comes again, as the queue pushed it before it heard; 5 was waiting here when it broke."""
    broken = threading.Event()
    first_told: list[str] = []

    def first(pusher: Pusher) -> None:
        pusher.push(4, b"a")
        pusher.push(5, b"b")
        pusher.close()
        broken.set()

    def answer(asked: Asked) -> Answer:
        if not first_told:
            first_told.append("4")
            await_condition(lambda: not stub.pushes, what="it connects again while the commit is on its way")
        return Answer()

    stub.answer = answer
    stub.pushes = [first, pushing((4, b"a"), (5, b"b"))]

    done = call_stub("watch", input="y\ny\n")

    assert [line[:13] for line in done.stdout.splitlines()[1:]] == ["[OK] [0 - 4] ", "[OK] [1 - 5] "]
    assert [index for _, index, _ in told(stub)] == ["4", "5"]


def test_a_rejected_item_may_come_again(call_stub: Call, stub: QueueStub) -> None:
    stub.pushes = [pushing((4, b"a"), (4, b"a"))]

    done = call_stub("watch", input="n\ny\ny\n")

    assert [line[:13] for line in done.stdout.splitlines()[1:]] == ["[OK] [0 - 4] ", "[OK] [1 - 4] "]


def test_a_commit_that_the_queue_refuses_ends_it(call_stub: Call, stub: QueueStub) -> None:
    stub.answer = lambda asked: Answer(403, b"may only read")
    stub.pushes = [pushing((4, b"a"), end=Pusher.await_end)]

    done = call_stub("watch", input="y\ny\n")

    assert done.exit_code == 4
    assert f"[ERROR] commit 4 of {stub.url}: the queue answered 403: may only read" in done.stderr


@pytest.mark.parametrize(("status", "code"), [(401, 4), (403, 4), (404, 3), (409, 1), (400, 1), (503, 1), (302, 1)])
def test_a_refusal_at_the_start_is_final(call_stub: Call, stub: QueueStub, status: int, code: int) -> None:
    stub.pushes = [Answer(status, b"because")]

    done = call_stub("watch")

    assert done.exit_code == code
    assert f"watch {stub.url}" in done.stderr
    assert len(stub.asked) == 1


def test_what_opens_no_websocket_is_refused(call_stub: Call, stub: QueueStub) -> None:
    stub.pushes = [Answer(200, b"hello")]

    assert call_stub("watch").exit_code == 1


def test_silence_is_a_broken_connection(call_stub: Call, stub: QueueStub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "SILENCE_S", 0.2)
    stub.pushes = [pushing((4, b"a"), end=Pusher.await_end)]

    done = call_stub("watch", "--auto-commit")

    assert "the queue was silent for 0.2 s; connecting again" in done.stderr


def test_it_pings_while_one_thinks(call_stub: Call, stub: QueueStub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "PING_S", 0.02)
    received: list[bytes] = []
    stub.pushes = [pushing((4, b"a"), (5, b"b"), end=lambda pusher: received.append(pusher.await_end()))]

    def answer(asked: Asked) -> Answer:
        time.sleep(0.3)
        return Answer()

    stub.answer = answer

    call_stub("watch", input="y\n")

    await_condition(lambda: received)
    assert received[0].count(b"\x89\x80") > 3, "empty pings, masked"
    assert received[0][-8:-6] == b"\x88\x82", "and a close frame at the end"


@pytest.mark.parametrize("garbage", [b"\x08", b"", b"\xff" * 40])
def test_frames_that_are_no_items_break_the_connection_or_mean_nothing(
    call_stub: Call, stub: QueueStub, garbage: bytes
) -> None:
    def push(pusher: Pusher) -> None:
        pusher.send(b"text", opcode=1)
        pusher.send(garbage)
        pusher.close()

    stub.pushes = [push]

    done = call_stub("watch", "--auto-commit")

    assert done.exit_code == 3
    assert "Traceback" not in done.output


@pytest.mark.parametrize("code", ["lower", "A" * 21, "Two words"])
def test_a_code_that_the_queue_would_not_take_is_wrong_usage(call_stub: Call, stub: QueueStub, code: str) -> None:
    assert call_stub("watch", "--negative-code", code).exit_code == 2
    assert stub.asked == []


@pytest.mark.parametrize("options", [["--auto-commit"], []])
def test_ctrl_c_ends_it_with_0_and_says_goodbye(stub: QueueStub, home: Path, options: list[str]) -> None:
    ended: list[bytes] = []
    stub.pushes = [pushing((4, b"data4"), end=lambda pusher: ended.append(pusher.await_end()))]
    read_end, write_end = os.pipe()  # a stdin on which nothing comes
    process = subprocess.Popen(
        [sys.executable, "-m", "eas_queue.stream", "watch", *options, "--url", stub.url],
        cwd=ROOT,
        env=os.environ | {"HOME": str(home)},
        stdin=read_end,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == START.format(str(bool(options)).lower())
        assert process.stdout.readline() == "[OK] [0 - 4] tags[requestId=r4] data4\n"
        time.sleep(0.1)  # so that it is in the question
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
        os.close(read_end)
        os.close(write_end)

    assert (process.returncode, rest) == (0, "")
    assert "Traceback" not in errors
    assert ended
    assert b"\x88\x82" in ended[0]
