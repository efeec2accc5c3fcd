"""What is imported when."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stream.conftest import Call
from tests.support.installation import ROOT
from tests.support.queue_stub import Answer, Pusher, QueueStub, items_json


def imported_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys; print(json.dumps(list(sys.modules)))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    names: list[str] = json.loads(done.stdout)
    return set(names)


def test_other_commands_import_none_of_its_own() -> None:
    modules = imported_by("import eas_queue.cli")

    assert {name for name in modules if name.startswith(("eas_queue.stream", "websocket"))} == {
        "eas_queue.stream",
        "eas_queue.stream.group",
    }


def test_it_runs_where_nothing_but_its_own_packages_is_installed() -> None:
    modules = imported_by(
        "from eas_queue.stream.__main__ import stream\n"
        "for name in stream.list_commands(None): stream.get_command(None, name)"
    )

    roots = {name.partition(".")[0] for name in modules}
    assert {"click", "requests", "websocket"} <= roots
    assert not roots & {"redis", "celery", "flask", "gevent", "google", "config", "app", "tasks"}


def test_a_package_that_is_missing_is_named(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "eas_queue.stream.commands.watch", raising=False)
    monkeypatch.delitem(sys.modules, "eas_queue.stream.watching", raising=False)
    monkeypatch.setitem(sys.modules, "websocket", None)

    done = call("watch")

    assert done.exit_code == 1
    assert "the package websocket is not installed" in done.stderr


def test_a_terminal_that_lacks_a_letter_shows_its_number(stub: QueueStub, home: Path) -> None:
    stub.answer = lambda asked: Answer(body=items_json((1, "ü€".encode(), {})))

    done = subprocess.run(
        [sys.executable, "-m", "eas_queue.stream", "get", "--url", stub.url],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=True,
    )

    assert done.stdout == b"[OK] [0 - 1] tags[] \xfc\\u20ac\n"


def test_a_reader_that_has_seen_enough_ends_it_quietly(stub: QueueStub, home: Path) -> None:
    def push(pusher: Pusher) -> None:
        for index in range(1, 1000):
            pusher.push(index, b"x" * 1000)

    stub.pushes = [push]

    done = subprocess.run(
        f"{sys.executable} -m eas_queue.stream watch --auto-commit --url {stub.url} | head -n 2",
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert len(done.stdout.splitlines()) == 2
    assert "Traceback" not in done.stderr
