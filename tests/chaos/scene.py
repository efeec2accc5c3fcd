"""One fault under load: starts the load, injects the fault, waits until all goes on, and draws up the account."""

from __future__ import annotations

import bisect
import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.chaos.fleet import Fleet, Member, wait_s
from tests.chaos.history import History, pid_of
from tests.chaos.ledger import Allowed, Row, fill
from tests.chaos.load import Item, Load

RECOVERY_MOST_S = 60.0  # then it is said that there was none
SETTLE_S = 60.0  # for all requests to end, once the load has stopped
BEFORE_S = 1.0  # of load, before the fault begins

Plan = Callable[[str, int], Item]


def healthy(service: str, number: int) -> Item:
    """A target that takes up to 0.3 s."""
    return Item(service, f"delay_s={random.uniform(0, 0.3):.3f}")


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong. *act* lets it happen and returns when it is over. *duration_s*: of the load, about as
    long as *act*. *sections*: of services.toml, ``{target}`` stands for the target without a proxy.
    """

    name: str
    title: str
    act: Callable[[Scene], None]
    allowed: Allowed = field(default_factory=Allowed)
    duration_s: float = 8.0
    plan: Plan = healthy
    sections: str = ""
    fsync: str = "everysec"
    after: Callable[[Fleet], None] = lambda fleet: None  # once the account is drawn up: leave nothing to the next fault


@dataclass
class Scene:
    """What *act* works with, and what it notes."""

    fleet: Fleet
    history: History
    fault: Fault
    load: Load
    kills: list[float] = field(default_factory=list)  # of the server, Unix seconds
    killed: list[tuple[float, set[int]]] = field(default_factory=list)  # of workers: when, and which pids
    lifted: list[float] = field(default_factory=list)  # from when on all should go on
    replaced: dict[str, int] = field(default_factory=dict)  # members that end: name -> how often it had been started
    problems: list[str] = field(default_factory=list)  # what *act* found wrong by itself
    recovery_s: float = 0.0

    def lift(self) -> None:
        """The fault is over, as far as it lies outside of the queue."""
        self.lifted.append(time.time())

    def signal(self, members: Sequence[Member], number: signal.Signals, *, children: bool = False) -> None:
        """To the main process of each, or to all its processes; a new one will have to take its place."""
        for member in members:
            self.replaced[member.name] = member.starts
            (member.signal_all if children else member.signal)(number)
        self.lift()

    def kill_workers(self, members: Sequence[Member]) -> None:
        for member in members:
            self.killed.append((time.time(), self.fleet.pids(member)))
            self.signal([member], signal.SIGKILL, children=True)

    def kill_process(self, pid: int, *, with_it: set[int] | None = None) -> None:
        """One process of a worker. *with_it*: those that may end because of it."""
        self.killed.append((time.time(), {pid, *(with_it or ())}))
        self.signal_process(pid)
        self.lift()

    def signal_process(self, pid: int) -> None:
        """SIGKILL to one process."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def freeze(self, members: Sequence[Member], seconds: float) -> None:
        """SIGSTOP to all processes of *members*, SIGCONT after *seconds*."""
        for member in members:
            member.signal_all(signal.SIGSTOP)
        try:
            wait_s(seconds)
        finally:
            for member in members:
                member.signal_all(signal.SIGCONT)
        self.lift()

    def kill_server(self, *, away_s: float = 0) -> None:
        self.kills.append(time.time())
        self.fleet.server.kill()
        wait_s(away_s)
        self.fleet.server.start()
        self.lift()

    def goes_on(self) -> bool:
        """Whether a request that came after the fault was lifted has ended; notes how long that took at most."""
        since_ms = self.lifted[-1] * 1000
        ends = [
            request.ended_ms
            for request in self.history.read().of(self.fault.name)
            if request.submitted_ms >= since_ms and request.ended_ms
        ]
        if ends:
            self.recovery_s = max(self.recovery_s, (min(ends) - since_ms) / 1000)
        return bool(ends)

    def await_going_on(self) -> None:
        self._await(self.goes_on)

    def await_all_at_work(self) -> None:
        """Every process runs, anew where it had to end; every worker takes work since the fault was lifted."""

        def at_work() -> bool:
            members = {member.name: member for member in self.fleet.members}
            if any(members[name].starts == before for name, before in self.replaced.items()):
                return False
            first = self._first_asks()
            if set(first) != {member.name for member in self.fleet.workers}:
                return False
            if not all(members[name].is_ready() for name in self.replaced):
                return False
            since_s = self.lifted[-1]
            self.recovery_s = max(self.recovery_s, max(first.values()) / 1000 - since_s)
            if any(web.name in self.replaced for web in self.fleet.webs):
                self.recovery_s = max(self.recovery_s, time.time() - since_s)
            return True

        self._await(at_work)

    def note_held(self) -> None:
        """How long it took until the requests that killed workers held have ended, from the last kill that hit each."""
        for request in self.history.of(self.fault.name):
            hits = [
                killed_at
                for killed_at, pids in self.killed
                for claim in request.claims
                if pid_of(claim.process) in pids and claim.lapsed and claim.started_ms <= killed_at * 1000
            ]
            if hits:
                self.recovery_s = max(self.recovery_s, request.ended_ms / 1000 - max(hits))

    def _await(self, condition: Callable[[], bool]) -> None:
        if not wait_s(RECOVERY_MOST_S, lambda: condition() or wait_s(0.1)):
            self.recovery_s = max(self.recovery_s, RECOVERY_MOST_S)

    def _first_asks(self) -> dict[str, int]:
        """When each worker, as it runs now, first took a kick or got work since the fault was lifted, ms."""
        since_ms, first = self.lifted[-1] * 1000, dict[str, int]()
        names = {member.pid: member.name for member in self.fleet.workers}
        for pid, asked_ms in self.history.read().asked_ms.items():
            at = bisect.bisect_left(asked_ms, since_ms)
            name = names.get(self.fleet.leaders.get(pid, -1))
            if name is not None and at < len(asked_ms):
                first[name] = min(first.get(name, asked_ms[at]), asked_ms[at])
        return first


def run(fleet: Fleet, fault: Fault, *, count: int, settle_s: float = SETTLE_S) -> Row:
    """Inject *fault* under a load of *count* requests; the account of it."""
    fleet.await_ready()
    fleet.target.clear()
    history = fleet.history
    breaches = len(history.read().breaches)
    load = Load(
        [web.port for web in fleet.webs], lambda n: fault.plan(fault.name, n), count=count, duration_s=fault.duration_s
    )
    scene = Scene(fleet, history, fault, load)
    try:
        wait_s(BEFORE_S)
        fault.act(scene)
        if not scene.lifted:
            scene.lift()
        scene.await_going_on()
        scene.await_all_at_work()
        wait_s(120, lambda: load.is_complete)
    finally:
        load.stop()
    load.look_up(settle_s)
    fleet.server.await_on_disk()
    history.read()
    scene.note_held()
    row = Row(fault.name, fault.title, recovery_s=round(scene.recovery_s, 1))
    fault.after(fleet)
    services = {entry.item.service for entry in load.entries}
    for problem in scene.problems:
        row.wrong_end += 1
        row.note(problem)
    return fill(
        row,
        fault.allowed,
        entries=load.entries,
        requests=[request for service in services for request in history.of(service)],
        calls=[call for call in fleet.target.calls() if call["path"].split("/")[3] in services],
        breaches=history.breaches[breaches:],
        kills=scene.kills,
    )
