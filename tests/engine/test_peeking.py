"""Places are told soon, not too often, and at no cost while nothing moves."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from eas_queue.engine.engine import Engine
from eas_queue.engine.following import follow
from eas_queue.engine.peeking import POSITIONS_LATE_S, POSITIONS_S
from eas_queue.engine.request import Request, Submission
from tests.support.drive import SUCCEEDED, Driver
from tests.support.installation import await_condition
from tests.support.server import RedisServer

AHEAD = 12


@pytest.fixture
def drive(server: RedisServer) -> Driver:
    return Driver(server.url)


class Follower:
    """Follows one request in a thread of its own; *told*: when, and the request as it was then."""

    def __init__(self, engine: Engine, request_id: str) -> None:
        self.told: list[tuple[float, Request]] = []
        self._engine = engine
        self._first = engine.look("s", request_id)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for change in follow(self._engine, self._first, after=-1, is_gone=lambda: False):
            if change is not None:
                self.told.append((time.monotonic(), change.request))

    @property
    def positions(self) -> list[int | None]:
        return [request.position for _, request in self.told]

    def await_position(self, position: int) -> float:
        """When it was told that one, the latest then."""
        await_condition(lambda: self.positions[-1:] == [position], timeout_s=4, what=f"{position}; told: {self.told}")
        return self.told[-1][0]

    def join(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def ids(engine: Engine) -> list[str]:
    """The last one is followed."""
    return [engine.submit("s", Submission(b"")).request_id for _ in range(AHEAD + 1)]


@pytest.fixture
def follower(engine: Engine, ids: list[str]) -> Iterator[Follower]:
    made = Follower(engine, ids[-1])
    made.await_position(AHEAD)
    yield made
    engine.waits.stop()
    made.join()


def count(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[Any]:
    """The arguments of each call from now on."""
    calls: list[Any] = []
    real: Callable[..., Any] = getattr(owner, name)

    def counted(*args: Any) -> Any:
        calls.append(args)
        return real(*args)

    monkeypatch.setattr(owner, name, counted)
    return calls


def test_a_queue_that_moves_all_the_time_is_told_twice_a_second(
    follower: Follower, drive: Driver, ids: list[str]
) -> None:
    for request_id in ids[:-1]:
        drive.store.cancel("s", request_id)
        time.sleep(0.15)  # the pace of the queue, twelve of these are a bit less than two seconds
    follower.await_position(0)

    times = [at for at, _ in follower.told]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert 3 <= len(gaps) <= 5, gaps
    assert min(gaps) > POSITIONS_S - 2 * POSITIONS_LATE_S, gaps
    assert follower.positions == sorted(follower.positions, key=lambda position: -(position or 0))


def test_one_move_is_told_soon_and_costs_no_look(
    follower: Follower, engine: Engine, drive: Driver, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    time.sleep(POSITIONS_S)  # it has been told of its place just now
    looks = count(monkeypatch, engine.store, "look")

    drive.store.cancel("s", ids[0])
    moved_s = time.monotonic()
    told_s = follower.await_position(AHEAD - 1)

    assert told_s - moved_s < POSITIONS_S
    assert looks == []


def test_what_is_told_of_a_place_is_what_a_look_says(
    follower: Follower, engine: Engine, drive: Driver, ids: list[str]
) -> None:
    for _ in range(5):  # of a minute: then there is an estimate
        (work,) = drive.start()
        drive.pass_time(60_000)
        drive.finish(work, SUCCEEDED)
    drive.start(2)

    follower.await_position(AHEAD - 7)
    told, looked = follower.told[-1][1], engine.look("s", ids[-1])

    assert (told.position, told.depth, told.version, told.state) == (5, 6, looked.version, "queued")
    assert told.depth == looked.depth
    assert told.eta_s is not None and looked.eta_s is not None
    assert 0 <= told.eta_s - looked.eta_s < 2
    assert told.submitted_ms == looked.submitted_ms


def test_nothing_is_asked_of_requests_while_nothing_moves(
    follower: Follower, engine: Engine, drive: Driver, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stamps = count(monkeypatch, engine.store, "moves")
    drive.store.cancel("s", ids[0])
    follower.await_position(AHEAD - 1)
    peeks = count(monkeypatch, engine.store, "peek")
    asked = len(stamps)

    await_condition(lambda: len(stamps) >= asked + 10, what="the service is asked ten times")
    assert peeks == []

    drive.store.cancel("s", ids[1])
    follower.await_position(AHEAD - 2)
    assert len(peeks) == 1


def test_a_service_that_nobody_follows_is_not_asked(
    follower: Follower, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamps = count(monkeypatch, engine.store, "moves")
    other = engine.submit("other", Submission(b"")).request_id
    waiter = threading.Thread(target=lambda: engine.wait("other", other, 0.5))
    waiter.start()
    waiter.join()

    assert stamps
    assert {tuple(services) for (services,) in stamps} == {("s",)}


def test_one_that_begins_while_the_queue_moves_is_told_of_its_place(engine: Engine, drive: Driver) -> None:
    """The move comes after its look, and is in the first stamp that this process ever had of the service."""
    ids = [engine.submit("s", Submission(b"")).request_id for _ in range(2)]
    look_again = engine.look_again

    def late(request: Request) -> Request:
        found = look_again(request)
        if found.position == 1:
            drive.store.cancel("s", ids[0])
            time.sleep(0.3)  # three turns, in which it has not seen anything yet
        return found

    engine.look_again = late  # type: ignore[method-assign]
    follower = Follower(engine, ids[1])
    try:
        follower.await_position(0)
    finally:
        engine.waits.stop()
        follower.join()

    assert follower.positions[:2] == [1, 0]
