"""Web, worker and server are killed under samples of tinker's official client: each ends with its own result."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.fleet import HIGH, SCRIPT, SERVICE, Begun, Fleet, FleetTarget, services
from tests.support.installation import Installation, Process, await_condition
from tests.support.server import RedisServer

SLOTS, LEASE_S = 8, 5
ACCESS_LOG = ("--access-logfile", "-")
PATIENCE_S = 30
CALLS_MOST = 20  # by one sample in all: a client that asks again without a pause makes hundreds
_CALL = re.compile(r'"POST /api/v1/(asample|retrieve_future) HTTP/1.1" (\d+)')


@dataclass
class House:
    """An installation, a client that samples from it, and the target that both work with."""

    server: RedisServer
    target: FleetTarget
    installation: Installation
    fleet: Fleet
    web: Process
    worker: Process

    def start_web(self) -> None:
        self.web = self.installation.web(*ACCESS_LOG)

    def start_worker(self) -> None:
        self.worker = self.installation.worker()

    def depth(self) -> int:
        """Samples that wait or run."""
        answer = self.installation.session.get(f"{self.installation.url}/api/services/{SERVICE}", timeout=5)
        found: dict[str, Any] = answer.json()
        return int(found["depth"]) + int(found["running"])

    def under_way(self) -> list[Begun]:
        """Samples of both kinds, some of which run until the target is released; the others wait."""
        self.target.hold()
        scripts = self.fleet.begin(SCRIPT, SLOTS // 2)
        self.fleet.await_submitted(scripts)
        begun = scripts + self.fleet.begin(HIGH, SLOTS) + self.fleet.begin(SCRIPT, 2)
        self.fleet.await_submitted(begun[-2:])
        await_condition(lambda: self.depth() == len(begun), what="all are submitted")
        await_condition(lambda: self.target.running == SLOTS, what="every slot is taken")
        return begun

    def more(self) -> list[Begun]:
        """Of both kinds, begun and not yet submitted."""
        return self.fleet.begin(SCRIPT, 2) + self.fleet.begin(HIGH, 6)

    def calls_of_clients(self) -> list[tuple[str, int]]:
        """Endpoint and status of each that a web has logged."""
        webs = [process for process in self.installation.processes if process.name == "web"]
        return [(found[1], int(found[2])) for web in webs for found in _CALL.finditer(web.log)]

    def results(self, begun: list[Begun]) -> dict[Begun, dict[str, Any]]:
        """The last that is said of each, which is its result."""
        said = self.fleet.ends(begun, timeout_s=PATIENCE_S)
        late = {one: found for one, found in said.items() if "submitted" in found}
        return said | self.fleet.ends(late, timeout_s=PATIENCE_S)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    server, target = RedisServer().start(), FleetTarget()
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        stack.callback(target.stop)
        settings = {"services_toml": services(SLOTS), "lease_s": LEASE_S, "sweep_s": 0.1, "web_concurrency": 1}
        installation = stack.enter_context(Installation(server.url, target.url, **settings))
        web = installation.start("web", ["gunicorn", *ACCESS_LOG, "app:app"])
        worker = installation.worker()
        installation.await_web()
        fleet = stack.enter_context(Fleet(installation.url))
        made = House(server, target, installation, fleet, web, worker)
        fleet.await_ready()
        made.results(fleet.begin(HIGH, SLOTS))  # from here on there is an estimate, which scripts wait by
        yield made


@pytest.fixture(autouse=True)
def no_hot_loop(house: House) -> Iterator[None]:
    before, calls = len(house.target.requests()), len(house.calls_of_clients())
    yield
    assert len(house.calls_of_clients()) - calls <= CALLS_MOST * (len(house.target.requests()) - before)


def assert_each_has_its_own(house: House, begun: list[Begun], *, twice: int = 0) -> None:
    """*twice*: how many of them were at the target a second time; the others were there once."""
    results, calls = house.results(begun), house.target.requests()
    for one, said in results.items():
        one.assert_its_own(said, calls[one.number][0])
    times = [len(calls[one.number]) for one in begun]
    assert all(len(set(calls[one.number])) == 1 for one in begun), "one sample became several requests"
    assert sorted(times, reverse=True) == [2] * twice + [1] * (len(begun) - twice)


def test_samples_outlive_the_web(house: House) -> None:
    begun = house.under_way()
    known = len(begun)
    begun += house.fleet.begin(HIGH, 3 * SLOTS)
    await_condition(lambda: house.depth() > known, what="the first of these is submitted")

    house.web.kill()  # some have been submitted, and their clients don't know it
    begun += house.more()  # and these find nobody
    house.start_web()
    house.target.release()

    assert_each_has_its_own(house, begun)


def test_samples_of_a_killed_worker_are_sampled_by_the_next_one(house: House) -> None:
    begun = house.under_way()

    house.worker.kill()
    house.target.release()
    begun += house.fleet.begin(HIGH, 6)
    house.start_worker()

    assert_each_has_its_own(house, begun, twice=SLOTS)


def test_samples_outlive_the_server(house: House) -> None:
    begun = house.under_way()
    house.server.await_on_disk()

    house.server.kill()
    begun += house.more()
    await_condition(lambda: ("asample", 503) in house.calls_of_clients(), what="a submit is refused")
    house.server.start()
    house.target.release()

    assert_each_has_its_own(house, begun)
