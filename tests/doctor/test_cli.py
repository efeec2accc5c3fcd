"""`eas-queue doctor` as people call it, on a whole installation and on ones that lack something."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from eas_queue import cli
from eas_queue.doctor.result import Result, Status, fail, ok, warn
from tests.support.installation import ROOT, TOKEN, Installation
from tests.support.server import RedisServer, free_port

PASSWORD = "ann:s3cret-of-flower"


def call(program: Path, installation: Installation, *arguments: str) -> subprocess.CompletedProcess[str]:
    """From a folder that has a config.py of its own, which must not be taken for ours."""
    elsewhere = installation.folder / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / "config.py").write_text("raise SystemExit('the wrong config.py')")
    done = subprocess.run(
        [str(program), *arguments], cwd=elsewhere, env=installation.env, capture_output=True, text=True, timeout=60
    )
    for secret in (TOKEN, "test-password", "s3cret"):
        assert secret not in done.stdout + done.stderr
    return done


def doctor(installation: Installation) -> tuple[int, dict[str, Any]]:
    done = call(ROOT / "eas-queue", installation, "doctor", "--json")
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert [set(check) for check in found["checks"]] == [{"name", "status", "fact", "mend"}] * len(found["checks"])
    assert all((check["mend"] is None) == (check["status"] == "OK") for check in found["checks"])
    return done.returncode, found


def not_ok(found: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["status"] for check in found["checks"] if check["status"] != "OK"}


def test_a_whole_installation_is_well_and_says_so_by_link_and_in_both_forms(installation: Installation) -> None:
    installation.env |= {"FLOWER_BASIC_AUTH": PASSWORD, "WORKER_CONCURRENCY": "100"}
    installation.worker()
    installation.web("-w", "1")
    link = installation.folder / "link-to-it"
    link.symlink_to(ROOT / "eas-queue")

    code, found = doctor(installation)
    assert (code, found["ok"], not_ok(found)) == (0, True, {})

    done = call(link, installation, "doctor")
    assert done.returncode == 0
    assert done.stdout.endswith("\nAll is well.\n")
    assert "\x1b" not in done.stdout
    assert {line.split()[0] for line in done.stdout.splitlines()[:-2]} == {"OK"}


def test_without_worker_and_target_it_fails_and_names_both(server: RedisServer) -> None:
    with Installation(server.url, f"http://127.0.0.1:{free_port()}", flower_basic_auth=PASSWORD) as installation:
        code, found = doctor(installation)

    assert code == 1
    assert not found["ok"]
    assert {name: status for name, status in not_ok(found).items() if name != "open files"} == {
        "workers": "FAIL",
        "web": "WARN",
        "target any name": "FAIL",
    }


def test_a_server_that_says_nothing_does_not_keep_it_from_the_rest(installation: Installation) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        installation.env["REDIS_URL"] = f"redis://:s3cret@127.0.0.1:{listener.getsockname()[1]}/0"
        began_s = time.monotonic()
        code, found = doctor(installation)
        took_s = time.monotonic() - began_s

    assert code == 1
    assert took_s < 15
    assert not_ok(found)["redis"] == "FAIL"
    assert not_ok(found)["workers"] == "WARN"
    assert "target any name" in {check["name"] for check in found["checks"]}


def test_wrong_settings_are_all_shown_without_a_traceback(installation: Installation) -> None:
    installation.env |= {"PORT": "eighty", "LEASE_S": "0", "FLOWER_BASIC_AUTH": "s3cret"}

    done = call(ROOT / "eas-queue", installation, "doctor")

    assert done.returncode == 1
    assert done.stderr == ""
    for name in ("PORT", "LEASE_S", "FLOWER_BASIC_AUTH"):
        assert f"{name}: " in done.stdout
        assert f"correct {name} in the environment" in done.stdout


def test_wrong_usage_exits_with_2(installation: Installation) -> None:
    assert call(ROOT / "eas-queue", installation, "doctor", "--no-such-option").returncode == 2
    assert call(ROOT / "eas-queue", installation, "docter").returncode == 2


def test_it_is_the_module_too(installation: Installation) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "eas_queue", "--help"], cwd=ROOT, env=installation.env, capture_output=True, text=True
    )

    assert done.returncode == 0
    assert "doctor" in done.stdout


# ---------------------------------------------------------------------------------------------------------- report
COMMAND = "a-command --that must not --be torn apart, --because it is to be copied"
RESULTS = [
    ok("redis", "127.0.0.1:6379/0 answers"),
    warn(
        "disk",
        "nearly full " * 20,
        "free space\n  a-command --that must not --be torn apart, --because it is to be copied",
    ),
    fail("workers", "none", "start one"),
]


def report(results: list[Result] = RESULTS, *, width: int | None = None, is_coloured: bool = False) -> list[str]:
    return list(cli.report(results, width=width, is_coloured=is_coloured))


def test_a_fact_stays_on_its_line_in_a_file_and_fits_a_terminal() -> None:
    assert len([line for line in report() if "nearly full" in line]) == 1

    on_terminal = report(width=72)
    assert [line.strip() for line in on_terminal if "--" in line] == [COMMAND]
    assert max(len(line) for line in on_terminal[:-1] if "--" not in line) <= 72


def test_colours_only_where_asked_for() -> None:
    assert not any("\x1b" in line for line in report())
    assert any("\x1b[31m" in line for line in report(is_coloured=True))


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ((Status.OK,), "All is well."),
        ((Status.OK, Status.WARN), "Works; worth a look: check 1."),
        ((Status.FAIL, Status.WARN, Status.FAIL), "Does not work as it should: check 0, check 2. Mend from the top"),
    ],
)
def test_the_last_line_says_it_all(statuses: tuple[Status, ...], expected: str) -> None:
    results = [Result(f"check {i}", status, "fact", "mend") for i, status in enumerate(statuses)]

    assert report(results)[-1].startswith(expected)
