"""What the command says to wrong usage, and when a queue gives it no tasks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from eas_queue.pull.command import pull_command
from tests.pull.conftest import FUNCTIONS, Place
from tests.support.front import ROLE_TOKENS
from tests.support.installation import ROOT, TOKEN
from tests.support.own_target import OwnTarget


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing argument 'QUEUE:LEVEL...'"),
        (["demo", "--function", "a:b"], "'demo' is not a queue and its level"),
        (["demo:x", "--function", "a:b"], "'demo:x' is not a queue and its level"),
        (["demo:1"], "Give one of --call URL and --function MODULE:FUNCTION"),
        (["demo:1", "--call", "http://127.0.0.1:9", "--function", "a:b"], "Give one of --call URL and --function"),
        (["demo:1", "--call", "127.0.0.1:9"], "it looks like http://HOST:PORT"),
        (["demo:1", "--call", "http://user:secret@host"], "'http://****@host' is not such a URL"),
        (["demo:1", "--call", "http://host/?a=1"], "'http://host/' is not such a URL"),
        (["demo:1", "--function", "nothing"], "'nothing' does not look like module:function"),
        (["demo:1", "--function", "nosuch.module:f"], "there is no module 'nosuch'"),
        (["demo:1", "--function", f"{FUNCTIONS}:nosuch"], "has no function 'nosuch'"),
        (["demo:1", "--function", "asyncio:sleep"], "must be a plain function"),
        (["demo:1", "--function", f"{FUNCTIONS}:echo", "--wait", "6"], "6.0 is not in the range 0<=x<=5"),
        (["demo:1", "--function", f"{FUNCTIONS}:echo", "--strategy", "lifo"], "'lifo' is not one of 'fifo'"),
        (["demo:1", "--function", f"{FUNCTIONS}:echo", "--token", "x"], "No such option"),
    ],
)
def test_wrong_usage_ends_with_2_and_a_sentence(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(pull_command, arguments)

    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
    assert "secret" not in done.output


def test_a_token_that_fits_no_header_is_not_quoted() -> None:
    done = CliRunner().invoke(
        pull_command, ["demo:1", "--function", f"{FUNCTIONS}:echo"], env={"EAS_QUEUE_PULL_TOKEN": "a\nb"}
    )

    assert done.exit_code == 2
    assert "the token may hold printable ASCII characters only" in done.output


@pytest.mark.parametrize(
    ("queue", "token", "said"),
    [
        ("nosuch:1", TOKEN, ["answered 400: Queue not registered: nosuch", "-> correct what it says"]),
        ("pushed:1", TOKEN, ["answered 400: Queue not registered: pushed", "-> correct what it says"]),
        ("{queue}:7", TOKEN, ["answered 400: Unknown queue level: 7", "-> correct what it says"]),
        ("{queue}:1", "not-a-token-of-this-queue", ["answered 401", "-> give a token that the queue knows"]),
        ("{queue}:1", "", ["answered 401", "-> no token was sent: give one in EAS_QUEUE_PULL_TOKEN"]),
        ("{queue}:1", ROLE_TOKENS["read"], ["answered 403", "it needs the role `consume`"]),
    ],
)
def test_a_queue_that_gives_no_tasks_ends_it_with_2(place: Place, queue: str, token: str, said: list[str]) -> None:
    arguments = [queue.format(queue=place.queue()), "--function", f"{FUNCTIONS}:echo"]
    worker = place.start(arguments, EAS_QUEUE_PULL_TOKEN=token)

    assert worker.ended() == 2
    assert [each for each in said if each not in worker.log] == [], worker.log
    assert not token or token not in worker.log


def test_what_is_no_queue_is_told(place: Place, target: OwnTarget) -> None:
    target.act = lambda call: (404, b"<html>nothing here</html>")
    worker = place.start(["demo:1", "--function", f"{FUNCTIONS}:echo"], EAS_QUEUE_PULL_SERVER=target.url)

    assert worker.ended() == 2
    assert f"take from {target.url}: the queue answered 404\n-> check the URL of --server" in worker.log


def test_the_token_of_the_stream_command_will_do(place: Place) -> None:
    queue = place.queue()
    task_id = place.put(queue, {"a": 1})
    worker = place.worker(
        queue, "--function", f"{FUNCTIONS}:echo", EAS_QUEUE_PULL_TOKEN="", EAS_QUEUE_STREAM_TOKEN=TOKEN
    )

    assert place.result(task_id) == {"status_code": 200, "body": {"a": 1}}
    assert TOKEN not in worker.log


def test_it_runs_from_its_folder_alone_with_a_function_of_the_folder_it_is_called_in(
    place: Place, tmp_path: Path
) -> None:
    """As on another host: nothing of the project is there but this package."""
    library, own = tmp_path / "library", tmp_path / "own"
    (library / "eas_queue").mkdir(parents=True)
    (library / "eas_queue" / "pull").symlink_to(ROOT / "eas_queue" / "pull")
    own.mkdir()
    (own / "config.py").write_text("def f(data):\n    return {'mine': data}\n")
    queue = place.queue()
    task_id = place.put(queue, {})

    place.worker(queue, "--function", "config:f", cwd=own, PYTHONPATH=str(library), PYTHONSAFEPATH="1")

    assert place.result(task_id) == {"status_code": 200, "body": {"mine": {}}}


def test_it_is_a_command_of_eas_queue() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "eas_queue", "pull", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert "QUEUE:LEVEL..." in done.stdout


def test_it_needs_click_and_requests_only() -> None:
    code = "import sys, eas_queue.pull.worker, eas_queue.pull.url, eas_queue.pull.function, eas_queue.pull.command\n"
    code += "print(sorted({'redis', 'flask', 'celery', 'gevent', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
