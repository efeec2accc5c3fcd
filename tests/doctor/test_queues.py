"""What holds requests back though everything runs."""

from __future__ import annotations

from eas_queue.doctor import queues
from eas_queue.doctor.result import Result, Status
from tests.support.drive import DEAD, Driver
from tests.support.server import RedisServer


def found(server: RedisServer) -> dict[str, Result]:
    return {result.name: result for result in queues.check(server.url)}


def test_nothing_is_said_of_queues_that_move(server: RedisServer) -> None:
    drive = Driver(server.url)
    drive.submit()

    assert {name: result.status for name, result in found(server).items()} == {"queues": Status.OK}


def test_pauses_full_sinks_and_dead_letters_are_named_with_what_to_do(server: RedisServer) -> None:
    drive = Driver(server.url)
    drive.submit("paused")
    drive.store.pause("paused", True)
    drive.register("full", max_sink_length=1, hold=True)
    for _ in range(2):
        drive.submit("full")
    (work,) = drive.start(1)
    drive.finish(work, DEAD)

    results = found(server)

    assert {result.status for result in results.values()} == {Status.WARN}
    assert "paused (1 waiting)" in results["paused"].fact
    assert "resume" in str(results["paused"].mend)
    assert "full (1 waiting)" in results["held"].fact
    assert "full (1 dead)" in results["dead letters"].fact
    assert "redrive" in str(results["dead letters"].mend)


def test_a_server_that_is_away_is_told(server: RedisServer) -> None:
    assert [result.name for result in queues.check("redis://127.0.0.1:1/0")] == ["services"]
