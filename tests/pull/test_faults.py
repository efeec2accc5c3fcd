"""Targets and queues that are away: nothing is called in vain, and no result is lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.pull.conftest import FUNCTIONS, Place
from tests.support.installation import await_condition
from tests.support.own_target import Call, OwnTarget
from tests.support.proxy import Proxy
from tests.support.server import free_port

Files = Callable[..., dict[str, str]]


class Restarted(OwnTarget):
    """A target at the port of one that is gone."""

    allow_reuse_address = True

    def __init__(self, port: int) -> None:
        self._port = port
        super().__init__()

    def server_bind(self) -> None:
        self.server_address = ("127.0.0.1", self._port)
        super().server_bind()


@pytest.fixture
def proxy(place: Place) -> Iterator[Proxy]:
    """Between a worker and the queue."""
    with Proxy("127.0.0.1", place.installation.port) as made:
        yield made


# ---------------------------------------------------------------------------------------------------------- targets
def test_nothing_is_taken_while_the_target_is_away(place: Place) -> None:
    queue, port = place.queue(), free_port()
    task_id = place.put(queue, {})
    worker = place.worker(queue, "--call", f"http://127.0.0.1:{port}")

    worker.await_event("target_away", target=f"http://127.0.0.1:{port}")
    before = place.status(task_id)
    target = Restarted(port)
    try:
        assert place.result(task_id)["status_code"] == 200
    finally:
        target.stop()

    assert before == "waiting"
    assert len(worker.events("target_away")) == len(worker.events("target_back")) == 1


def test_a_target_that_goes_while_it_works_gives_its_tasks_back(place: Place) -> None:
    """And is asked again when it is there again: the task was delivered twice."""
    queue, port = place.queue(), free_port()
    received, attempts = threading.Event(), []

    def hang(call: Call) -> tuple[int, bytes]:
        received.set()
        attempts.append(call.headers.get("x-request-attempt"))
        gone.wait(10)
        raise ConnectionAbortedError

    gone = threading.Event()
    target = Restarted(port)
    target.act = hang
    task_id = place.put(queue, {})
    worker = place.worker(queue, "--call", f"http://127.0.0.1:{port}")
    assert received.wait(10)
    target.stop()
    gone.set()

    worker.await_event("task_given_back", task_id=task_id, reason="no_answer")
    worker.await_event("target_away")
    target = Restarted(port)
    try:
        assert place.result(task_id)["status_code"] == 200
    finally:
        target.stop()
    assert attempts == ["1"]
    assert len(worker.events("task_taken", task_id=task_id)) == 2


# ----------------------------------------------------------------------------------------------------------- queues
def test_a_result_waits_for_a_queue_that_is_away(place: Place, files: Files, proxy: Proxy) -> None:
    queue = place.queue()
    data = files("begun", "go")
    task_id = place.put(queue, data)
    worker = place.worker(
        queue, "--function", f"{FUNCTIONS}:slow", EAS_QUEUE_PULL_SERVER=f"http://127.0.0.1:{proxy.port}"
    )
    await_condition(Path(data["begun"]).exists)

    proxy.reset()
    Path(data["go"]).touch()
    worker.await_event("complete_failed", task_id=task_id, count=2)
    before = place.status(task_id)
    proxy.pass_on()

    assert before == "queued"
    assert place.result(task_id) == {"status_code": 200, "body": {"by": "slow"}}
    assert len(worker.events("task_taken")) == 1


def test_a_queue_that_was_away_is_taken_from_again(place: Place, proxy: Proxy) -> None:
    queue = place.queue()
    url = f"http://127.0.0.1:{proxy.port}"
    worker = place.worker(queue, "--function", f"{FUNCTIONS}:echo", EAS_QUEUE_PULL_SERVER=url)

    proxy.reset()
    worker.await_event("take_failed", count=3)
    proxy.pass_on()

    assert place.result(place.put(queue, {"a": 1})) == {"status_code": 200, "body": {"a": 1}}


def test_a_task_that_was_lost_while_the_queue_was_away_is_abandoned(place: Place, files: Files, proxy: Proxy) -> None:
    queue = place.queue()
    data = files("begun", "note")
    task_id = place.put(queue, data)
    url = f"http://127.0.0.1:{proxy.port}"
    options = ("--function", f"{FUNCTIONS}:patient", "--process-timeout", "1", "--retries", "0")
    worker = place.worker(queue, *options, EAS_QUEUE_PULL_SERVER=url)
    await_condition(Path(data["begun"]).exists)

    proxy.reset()
    worker.await_event("renew_failed", task_id=task_id)
    assert place.ended(task_id)["status"] == "timeout"
    proxy.pass_on()

    worker.await_event("task_abandoned", task_id=task_id)
    assert Path(data["note"]).read_text() == "abandoned"
    assert worker.events("task_completed") == []


def test_events_gather_while_the_queue_is_away(place: Place, files: Files, proxy: Proxy) -> None:
    queue = place.queue()
    paths = files("begun", "go")
    data = {"events": 2500, **paths}  # more than may gather: the function waits
    url = f"http://127.0.0.1:{proxy.port}"
    worker = place.worker(queue, "--function", f"{FUNCTIONS}:streams", EAS_QUEUE_PULL_SERVER=url)
    asked = json.dumps({"queue": queue, "endpoint": "/v1/x", "data": data, "response_mode": "streaming"})

    with ThreadPoolExecutor() as pool:
        stream = pool.submit(place.front.call, "POST", "/v1/queue/put", asked, {"Content-Type": "application/json"})
        await_condition(Path(paths["begun"]).exists)
        proxy.reset()
        Path(paths["go"]).touch()
        worker.await_event("report_failed", count=2)
        proxy.pass_on()
        lines = stream.result(20).body.decode().splitlines()

    assert [int(line[5:]) for line in lines if line.startswith("data:")] == list(range(2500))
    worker.await_event("task_completed", status_code=200)


def test_a_queue_that_says_later_is_asked_later(place: Place, target: OwnTarget) -> None:
    """Whatever it has to say: 429, 503, and a page of a proxy that answers 200."""
    answers = iter([(429, b"{}", {"Retry-After": "0"}), (503, b'{"message": "soon"}', {}), (200, b"<html>", {})])
    target.act = lambda call: next(answers, (200, b"{}", {}))
    worker = place.start(["demo:1", "--function", f"{FUNCTIONS}:echo", "--wait", "0"], EAS_QUEUE_PULL_SERVER=target.url)

    lines = worker.await_event("take_failed", count=3)

    assert [line.partition("error=")[2] for line in lines] == [
        "'429: {}'",
        "'503: soon'",
        "'the answer is none of a queue'",
    ]
    worker.stop()
