"""Slots, leases and stops: what a worker takes, keeps, gives back and finishes."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pull.conftest import FUNCTIONS, Place, Worker
from tests.support import tls
from tests.support.installation import await_condition
from tests.support.own_target import Call, OwnTarget
from tests.support.raw_target import RawTarget

Files = Callable[..., dict[str, str]]


def slow(place: Place, queue: str, *options: object) -> Worker:
    return place.worker(queue, "--function", f"{FUNCTIONS}:slow", *options)


def await_file(path: str) -> None:
    await_condition(Path(path).exists, what=path)


# ---------------------------------------------------------------------------------------------------- slots, leases
def test_it_takes_no_more_than_it_has_slots(place: Place, files: Files) -> None:
    queue = place.queue()
    data = files("begun", "go")
    task_ids = [place.put(queue, data) for _ in range(4)]

    worker = slow(place, queue, "--slots", 2)
    worker.await_event("task_taken", count=2)
    statuses = [place.get(task_id) for task_id in task_ids]
    Path(data["go"]).touch()

    assert [status["status"] for status in statuses] == ["queued", "queued", "waiting", "waiting"]
    assert [place.result(task_id)["status_code"] for task_id in task_ids] == [200] * 4


def test_what_runs_longer_than_its_lease_is_renewed_and_delivered_once(place: Place, files: Files) -> None:
    queue = place.queue()
    data = files("begun", "go")
    task_id = place.put(queue, data)
    first = slow(place, queue, "--process-timeout", 2)
    other = slow(place, queue, "--process-timeout", 2)
    await_file(data["begun"])

    # as long as a lease and more: another task's longer one lapses meanwhile
    lapsing = place.queue()
    place.put(lapsing, {})
    take = {"queues": [f"{lapsing}:1"], "size": 1, "process_timeout": 3, "process_max_retries": -1, "wait": 5}
    for _ in range(2):
        assert place.post("take", take), "nothing within five seconds"
    Path(data["go"]).touch()

    assert place.result(task_id)["status_code"] == 200
    assert len(first.events("task_taken") + other.events("task_taken")) == 1


def test_a_killed_workers_task_goes_to_another(place: Place, files: Files) -> None:
    queue = place.queue()
    data = files("begun", "go")
    task_id = place.put(queue, data)
    killed = slow(place, queue, "--process-timeout", 1)
    await_file(data["begun"])

    killed.process.kill()
    other = slow(place, queue, "--process-timeout", 1)
    Path(data["go"]).touch()

    assert place.result(task_id) == {"status_code": 200, "body": {"by": "slow"}}
    other.await_event("task_completed", task_id=task_id)


def test_without_retries_a_killed_workers_task_ends(place: Place, files: Files) -> None:
    queue = place.queue()
    data = files("begun", "go")
    task_id = place.put(queue, data)
    killed = slow(place, queue, "--process-timeout", 1, "--retries", 0)
    await_file(data["begun"])

    killed.process.kill()

    assert place.ended(task_id)["status"] == "timeout"


def test_a_cancelled_tasks_function_is_told(place: Place, files: Files) -> None:
    queue = place.queue()
    data = files("begun", "note")
    task_id = place.put(queue, data)
    worker = place.worker(queue, "--function", f"{FUNCTIONS}:patient", "--process-timeout", 1)
    await_file(data["begun"])

    place.cancel(task_id)

    worker.await_event("task_abandoned", task_id=task_id)
    assert Path(data["note"]).read_text() == "abandoned"
    assert worker.events("task_completed") == []
    assert place.status(task_id) == "cancelled"


@pytest.mark.parametrize("is_encrypted", [False, True])
def test_a_cancelled_tasks_call_is_hung_up(place: Place, tmp_path: Path, is_encrypted: bool) -> None:
    queue = place.queue()
    certificate, context = tls.made(tmp_path) if is_encrypted else ("", None)
    received, hung_up = threading.Event(), threading.Event()

    def handle(connection: socket.socket) -> None:
        target.read_request(connection)
        received.set()
        if connection.recv(1) == b"":
            hung_up.set()

    with RawTarget(handle, tls=context) as target:
        task_id = place.put(queue, {})
        options = ("--call", target.url, "--process-timeout", 1)
        worker = place.worker(queue, *options, SSL_CERT_FILE=str(certificate))
        assert received.wait(10)

        place.cancel(task_id)

        assert hung_up.wait(5)
        worker.await_event("task_abandoned", task_id=task_id)
        assert worker.events("task_completed") == worker.events("task_given_back") == []
        assert "Traceback" not in worker.log


# ------------------------------------------------------------------------------------------------------------ stops
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_finish_what_runs_and_takes_nothing_more(place: Place, files: Files, signum: int) -> None:
    queue = place.queue()
    data = files("begun", "go")
    running = place.put(queue, data)
    worker = slow(place, queue)
    await_file(data["begun"])

    worker.signal(signum)
    worker.await_event("stopping", signal=signal.Signals(signum).name, running=1)
    waiting = place.put(queue, data)
    Path(data["go"]).touch()

    assert worker.ended() == 0
    assert place.status(running) == "succeeded"
    assert place.status(waiting) == "waiting"
    worker.await_event("stopped", running=0)


def test_what_does_not_finish_in_time_is_given_back(place: Place, files: Files) -> None:
    queue = place.queue()
    data = files("begun", "go")
    task_id = place.put(queue, data)
    worker = slow(place, queue, "--drain-timeout", 0.3)
    await_file(data["begun"])

    worker.signal(signal.SIGTERM)

    assert worker.ended() == 0
    worker.await_event("task_given_back", task_id=task_id, reason="drain_timeout")
    Path(data["go"]).touch()
    slow(place, queue)  # its lease was of a minute
    assert place.result(task_id)["status_code"] == 200


def test_a_second_signal_ends_it_at_once(place: Place, files: Files) -> None:
    queue = place.queue()
    data = files("begun", "go")
    place.put(queue, data)
    worker = slow(place, queue)
    await_file(data["begun"])

    worker.signal(signal.SIGTERM)
    worker.await_event("stopping")
    worker.signal(signal.SIGTERM)

    assert worker.ended(5) == 128 + signal.SIGTERM
    assert worker.events("stopped") == []
    assert "stopped at once" in worker.log


def test_an_idle_worker_stops_within_its_wait(place: Place) -> None:
    worker = slow(place, place.queue())

    worker.signal(signal.SIGTERM)

    assert worker.ended(5) == 0


def test_what_a_take_brings_after_the_signal_is_worked_on(place: Place, files: Files) -> None:
    """A take that is open when the signal comes may still bring something: it must not wait for its lease to lapse."""
    queue = place.queue()
    data = files("begun", "go")
    Path(data["go"]).touch()
    worker = place.start([f"{queue}:1", "--function", f"{FUNCTIONS}:slow", "--wait", "5"])
    worker.await_event("started")
    first = place.put(queue, data)
    assert place.result(first)["status_code"] == 200  # so the next take is on its way

    worker.signal(signal.SIGTERM)
    worker.await_event("stopping", running=0)
    task_id = place.put(queue, data)

    assert worker.ended() == 0
    assert place.status(task_id) == ("succeeded" if worker.events("task_taken", task_id=task_id) else "waiting")


def test_many_tasks_of_many_slots_are_completed_once_each(place: Place, target: OwnTarget) -> None:
    queue = place.queue()
    seen: list[str] = []

    def act(call: Call) -> tuple[int, bytes]:
        seen.append(call.headers["x-request-id"])
        return 200, b"{}"

    target.act = act
    task_ids = [place.put(queue, {}, level=number % 2) for number in range(60)]
    workers = [place.worker(queue, "--call", target.url, "--slots", 8) for _ in range(2)]

    for task_id in task_ids:
        assert place.result(task_id)["status_code"] == 200
    assert sorted(seen) == sorted(task_ids)
    for worker in workers:
        worker.stop()
