"""What each mutant is put to: the short ledger under the fault that it can't stand."""

from __future__ import annotations

from dataclasses import dataclass

from tests.chaos.faults import LOST, nothing
from tests.chaos.fleet import Fleet, wait_s
from tests.chaos.ledger import Allowed, Row
from tests.chaos.load import Item
from tests.chaos.scene import Fault, Scene, run

TRIAL_LEASE_S = 2
COUNT = 200


def freeze(scene: Scene) -> None:
    """Until what it held has been run again elsewhere and has ended."""
    scene.freeze([scene.fleet.member("gevent1")], TRIAL_LEASE_S + 2)


def kill(scene: Scene) -> None:
    wait_s(0.5)
    scene.kill_workers([scene.fleet.member("gevent1")])


def half_a_second(service: str, number: int) -> Item:
    return Item(service, "delay_s=0.5")


def some_beyond_a_lease(service: str, number: int) -> Item:
    return Item(service, f"delay_s={TRIAL_LEASE_S + 1.5}") if number % 20 == 0 else Item(service)


FREEZE = Fault("freeze", "a worker frozen beyond its lease", freeze, Allowed(LOST, overlaps=True), 5, half_a_second)
KILL = Fault("kill", "SIGKILL of one of two workers", kill, Allowed(LOST), 4, half_a_second)
LONG = Fault("long", "nothing; some calls last longer than a lease", nothing, Allowed(), 4, some_beyond_a_lease)


@dataclass(frozen=True)
class Trial:
    """*mutant* under *fault* turns the column *red*."""

    mutant: str
    fault: Fault
    red: str


TRIALS = [
    Trial("fencing-off", FREEZE, "twice"),
    Trial("result-before-check", FREEZE, "twice"),
    Trial("kick-outside-submit", LONG, "illegal"),
    Trial("no-sweep", KILL, "lost"),
    Trial("renewal-off", LONG, "overlaps"),
]


def fleet_of(mutant: str) -> Fleet:
    """One web and two workers, all with *mutant*."""
    return Fleet(
        pools={"gevent": 40},
        webs=1,
        module="tests.chaos.mutant_app",
        chaos_mutant=mutant,
        lease_s=TRIAL_LEASE_S,
    )


def try_on(fleet: Fleet, fault: Fault) -> Row:
    return run(fleet, fault, count=COUNT, settle_s=TRIAL_LEASE_S + 4)
