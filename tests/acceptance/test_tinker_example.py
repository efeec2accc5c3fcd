"""The examples for Tinker's clients, and the lines of their README, do what they say."""

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
from tests.support.own_target import Call, OwnTarget, Reply
from tests.support.program import clean_environment
from tests.support.server import RedisServer

PAGE = "examples/tinker/README.md"
REQUEST = re.compile(r"request [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
WAITING = re.compile(r"waiting, \d before it, \d in all(, done in about \d s)?")
PROCESSING = re.compile(r"processing, \d in all(, \d+ of 40 tokens)?(, done in about \d s)?")
ONE_AT_A_TIME = """
    [defaults]
    allow_unlisted = true
    max_concurrency = 1
"""


@pytest.mark.timeout(240)
def test_the_lines_of_the_readme_run_and_print_what_it_shows() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/run_readme.py", "--venv", str(Path(sys.executable).parents[1]), PAGE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=220,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    printed = re.findall(r"^    \| (.*)$", done.stdout, re.M)
    sampled, queued = shown()
    assert printed[: len(sampled)] == sampled
    told, others = printed[len(sampled) : -6], printed[-6:]
    for lines in (queued, told):  # both have all the kinds, in their order
        kinds = [kind for kind in map(kind_of, lines) if kind]
        assert len(kinds) == len(lines), lines
        assert sorted(set(kinds), key=kinds.index) == ["request", "waiting", "processing", "done"]
    assert any("tokens" in line for line in told)
    assert all(re.fullmatch(r"A lovely.*  \((stop|length), -\d+\.\d\)", line) for line in others), others


def kind_of(line: str) -> str:
    if REQUEST.fullmatch(line) or WAITING.fullmatch(line) or PROCESSING.fullmatch(line):
        return re.split("[ ,]", line)[0]
    return "done" if line.startswith(("done: 'The soup was", 'done: "The soup was')) else ""


def shown() -> list[list[str]]:
    """What the README says is printed, block by block."""
    found = re.findall(r"^```text\n(.*?)^```$", (ROOT / PAGE).read_text(), re.M | re.S)
    return [str(text).splitlines() for text in found]


def test_every_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / PAGE).read_text())

    assert links
    assert [link for link in links if not (ROOT / PAGE).parent.joinpath(link).exists()] == []


@pytest.fixture(scope="module")
def target() -> Iterator[OwnTarget]:
    made = OwnTarget()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def installation(target: OwnTarget) -> Iterator[Installation]:
    server = RedisServer().start()
    try:
        with Installation(server.url, target.url, services_toml=ONE_AT_A_TIME) as made:
            made.start("web", ["gunicorn", "app:app"])
            made.worker()
            made.await_web()
            yield made
    finally:
        server.stop()


def run(installation: Installation, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    program, *others = arguments
    return subprocess.run(
        [str(python_of("tinker")), f"examples/tinker/{program}", *others],
        cwd=ROOT,
        env=clean_environment() | {"TINKER_BASE_URL": installation.url, "TINKER_TELEMETRY": "0"} | env,
        capture_output=True,
        text=True,
        timeout=40,
    )


def answer(call: Call) -> Reply:
    count = json.loads(call.body)["num_samples"]
    sequence = {"tokens": list(b" cold.\n"), "logprobs": [-0.5] * 7, "stop_reason": "stop"}
    return 200, json.dumps({"sequences": [sequence] * count}).encode()


def test_the_sampling_client_prints_what_the_target_answers(installation: Installation, target: OwnTarget) -> None:
    calls: list[Call] = []

    def act(call: Call) -> Reply:
        calls.append(call)
        return answer(call)

    target.act = act

    done = run(installation, "sample.py", "It was", "--samples", "2", "--model", "a/b", TINKER_API_KEY=TOKEN)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "It was cold.  (stop, -3.5)\n" * 2
    (call,) = calls
    assert (call.path, call.headers["x-tinker-model"]) == ("/api/predict/a.b", "a/b")
    asked = json.loads(call.body)
    assert asked["prompt"]["chunks"][0]["tokens"] == list(b"It was")
    assert (asked["sampling_params"]["max_tokens"], asked["sampling_params"]["temperature"]) == (60, 0.7)


def test_the_delay_reaches_the_target_and_an_error_ends_the_script(
    installation: Installation, target: OwnTarget
) -> None:
    calls: list[Call] = []

    def act(call: Call) -> Reply:
        calls.append(call)
        return 422, b'{"error": "no"}'

    target.act = act

    done = run(installation, "queue_status.py", "It was", "--token-delay-s", "0.25", TINKER_API_KEY=TOKEN)

    assert done.returncode == 1
    assert done.stderr == 'failed, user: service Qwen.Qwen3-0.6B: the target answered 422: {"error": "no"}\n'
    assert [call.headers["x-token-delay-s"] for call in calls] == ["0.25"]


@pytest.mark.parametrize("program", ["sample.py", "queue_status.py"])
def test_a_key_that_is_missing_or_wrong_and_a_model_that_is_not_there_are_named(
    installation: Installation, program: str
) -> None:
    missing = run(installation, program)
    wrong = run(installation, program, TINKER_API_KEY="tml-of-nobody-at-all")
    nowhere = run(installation, program, "--model", "a/b/c/d", TINKER_API_KEY=TOKEN)

    assert (missing.returncode, wrong.returncode, nowhere.returncode) == (1, 1, 1)
    assert "TINKER_API_KEY" in missing.stderr
    assert wrong.stderr.startswith("AuthenticationError: ")
    assert nowhere.stderr.startswith("NotFoundError: ")
    assert "'a/b/c/d' is not served here" in nowhere.stderr
