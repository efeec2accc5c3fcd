"""The example for fal's Python client, and the lines of its README, do what they say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clients import ROOT, python_of
from tests.support.installation import TOKEN, Installation
from tests.support.own_target import Call, OwnTarget
from tests.support.program import clean_environment
from tests.support.server import RedisServer

PAGE = "examples/fal/README.md"


@pytest.mark.timeout(240)
def test_the_lines_of_the_readme_run_and_print_what_it_shows() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/run_readme.py", "--venv", str(Path(sys.executable).parents[1]), PAGE, "Python"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=220,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    printed = re.findall(r"^    \| (.*)$", done.stdout, re.M)
    requests = [line for line in printed if re.fullmatch(r"request [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", line)]
    answers = [line for line in printed if re.match(r"pos|neg", line)]
    assert len(set(requests)) == len(answers) == printed.count("done") == 2, done.stdout
    assert answers[0] in shown() and answers[1].endswith("%: The soup was cold.")
    assert set(printed) - {*requests, *answers} <= set(shown())


def shown() -> list[str]:
    """What the README says is printed."""
    (text,) = re.findall(r"^```text\n(.*?)^```$", (ROOT / PAGE).read_text(), re.M | re.S)
    return str(text).splitlines()


@pytest.fixture(scope="module")
def target() -> Iterator[OwnTarget]:
    made = OwnTarget()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def installation(target: OwnTarget) -> Iterator[Installation]:
    server = RedisServer().start()
    try:
        with Installation(server.url, target.url) as made:
            made.start("web", ["gunicorn", "app:app"])
            made.worker()
            made.await_web()
            yield made
    finally:
        server.stop()


def run(installation: Installation, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python_of("fal_client")), "examples/fal/python_client.py", *arguments],
        cwd=ROOT,
        env=clean_environment() | {"QUEUE_URL": installation.url} | env,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_logs_of_the_target_are_printed_once_each(installation: Installation, target: OwnTarget) -> None:
    def act(call: Call) -> tuple[int, bytes]:
        assert call.path == "/api/predict/local.sentiment"
        assert call.report(logs=[{"message": "reads"}, {"message": "thinks"}]) == 204
        return 200, json.dumps({"label": "pos", "probability": 0.934, **json.loads(call.body)}).encode()

    target.act = act

    done = run(installation, "Good", "people.", FAL_KEY=TOKEN)

    assert (done.returncode, done.stderr) == (0, "")
    printed = done.stdout.splitlines()
    assert [line for line in printed if "log: " in line] == ["  log: reads", "  log: thinks"]
    assert printed[0].startswith("request ")
    assert printed[-2:] == ["done", "pos, 93%: Good people."]


def test_a_key_that_is_missing_or_wrong_is_named(installation: Installation) -> None:
    missing, wrong = run(installation), run(installation, FAL_KEY="of-nobody-at-all")

    assert (missing.returncode, missing.stdout) == (wrong.returncode, wrong.stdout) == (1, "")
    assert missing.stderr.startswith("FAL_KEY is not set")
    assert re.fullmatch(r"401: .+\n", wrong.stderr)
