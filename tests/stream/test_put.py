"""Items from files and from stdin: what is counted, and how it goes on after a refusal."""

from __future__ import annotations

import io
import itertools
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from eas_queue.stream.progress import Progress
from tests.stream.conftest import Call
from tests.support.installation import ROOT
from tests.support.queue_stub import Answer, Asked, QueueStub


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "test.data"
    made.write_bytes(b"one\ntwo\r\n\nb\xffn\nlast")
    return made


def number(stub: QueueStub, refusals: dict[bytes, Answer]) -> None:
    """Items get the indexes 1, 2, ...; those in *refusals* their answer."""
    indexes = itertools.count(1)

    def answer(asked: Asked) -> Answer:
        return refusals.get(asked.body) or Answer(body=str(next(indexes)).encode())

    stub.answer = answer


def test_each_line_is_an_item_and_empty_ones_are_none(call_stub: Call, stub: QueueStub, file: Path) -> None:
    number(stub, {})

    lines = call_stub("put", "-f", str(file)).stdout.splitlines()

    assert [asked.body for asked in stub.asked] == [b"one", b"two", b"b\xffn", b"last"]
    assert lines[0] == f"[INFO] Opening data file: {file}"
    assert lines[1:6] == ["[OK] 1", "[OK] 2", "[OK] 3", "[OK] 4", "[INFO] Put data done."]
    assert lines[7:] == ["Total size: 13.00 B", "Total: 4, success: 4, failed: 0"]


def test_a_dash_is_stdin(call_stub: Call, stub: QueueStub) -> None:
    number(stub, {})

    done = call_stub("put", "-f", "-", "--json", input=b"a\n\xff\n")

    assert [asked.body for asked in stub.asked] == [b"a", b"\xff"]
    assert [json.loads(line).get("index") for line in done.stdout.splitlines()] == [1, 2, None]


def test_a_line_that_is_refused_is_told_and_the_next_ones_follow(call_stub: Call, stub: QueueStub, file: Path) -> None:
    number(stub, {b"two": Answer(413, b"too large")})

    done = call_stub("put", "-f", str(file))

    assert done.exit_code == 1
    assert (
        f"[ERROR] line 2: put to {stub.url}: the queue answered 413: too large\n-> make the item smaller" in done.stderr
    )
    assert done.stdout.endswith("Total size: 10.00 B\nTotal: 4, success: 3, failed: 1\n")

    refused = [json.loads(line) for line in call_stub("put", "-f", str(file), "--json").stdout.splitlines()][1]
    assert (refused["line"], refused["status"]) == (2, 413)


@pytest.mark.parametrize(("status", "code"), [(429, 1), (503, 1), (401, 4), (404, 3)])
def test_a_refusal_of_more_than_the_line_ends_it_and_says_how_to_go_on(
    call_stub: Call, stub: QueueStub, file: Path, status: int, code: int
) -> None:
    number(stub, {b"b\xffn": Answer(status, b"no")})

    done = call_stub("put", "-f", str(file))

    assert done.exit_code == code
    assert f"[ERROR] line 4: put to {stub.url}: the queue answered {status}" in done.stderr
    assert f"the lines before 4 were put, go on by `tail -n +4 {file} | eas-queue stream put -f -`" in done.stderr
    assert done.stdout.endswith("Total: 3, success: 2, failed: 1\n")


def test_an_interrupt_sums_up_and_says_where(
    call_stub: Call, stub: QueueStub, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number(stub, {})
    calls = itertools.count()

    def interrupted(*_: object) -> None:
        if next(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "update", interrupted)

    done = call_stub("put", "-f", str(file))

    assert done.exit_code == 1
    assert "[INFO] Stopped: the lines before 2 were put, 2 perhaps; go on by `tail -n +3 " in done.stderr
    assert done.stdout.endswith("Total: 2, success: 2, failed: 0\n")


def test_on_a_terminal_a_bar_shows_how_far_it_is_and_elsewhere_nothing(
    call_stub: Call, stub: QueueStub, file: Path, home: Path
) -> None:
    number(stub, {})
    assert call_stub("put", "-f", str(file)).stderr == ""

    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "eas_queue.stream", "put", "-f", str(file), "--url", stub.url],
        cwd=ROOT,
        env=os.environ | {"HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=theirs,
        timeout=30,
    )
    os.close(theirs)
    shown = os.read(ours, 65_536).decode()
    os.close(ours)

    assert done.returncode == 0
    assert b"\x1b" not in done.stdout
    assert "[" in shown
    assert "1 items" in shown
    assert shown.endswith("\r\x1b[K")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_makes_room_for_lines_of_its_own_terminal_only() -> None:
    bar = _Terminal()
    progress = Progress(bar, _Terminal(), 10)
    progress.update(1, 5)
    assert bar.getvalue() == "\r\x1b[K[###############               ]  50%  1 items"
    progress.make_room()
    assert bar.getvalue().endswith("items\r\x1b[K")

    bar = _Terminal()
    progress = Progress(bar, io.StringIO(), None)
    progress.update(2, 2048)
    progress.make_room()
    progress.update(3, 4096)
    assert bar.getvalue() == "\r\x1b[K2 items, 2.00 KiB"
