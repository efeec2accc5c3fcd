"""What is imported when."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support.installation import ROOT


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
