"""The faults of processes and of the server. Those of the network and of targets: see ``network`` and ``targets``."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

from tests.chaos.fleet import GRACE_S, LEASE_S, Member, wait_s
from tests.chaos.ledger import Allowed
from tests.chaos.load import Item
from tests.chaos.poison import SECTIONS as POISON_SECTIONS
from tests.chaos.poison import plan as poison_plan
from tests.chaos.poison import watch as poison_watch
from tests.chaos.scene import Fault, Scene, healthy

APART_S = 1.5  # between two of one kind
LOST = frozenset({"WorkerLost"})
# A worker that stops has GRACE_S and 4 s, then its successor starts.
STOPPED = Allowed(cuts=frozenset({"HandedBack"}), recovery_s=GRACE_S + 4 + 10)
KILLED = Allowed(cuts=LOST, recovery_s=LEASE_S + 5)
SERVER_KILLS = 20
AWAY_S = 20  # long enough for whatever tries again in growing pauses


def one_of_each_pool(scene: Scene) -> list[Member]:
    return [member for member in scene.fleet.workers if member.name.endswith("1")]


# ------------------------------------------------------------------------------------------------------------- workers
def kill_one_worker(scene: Scene) -> None:
    for member in one_of_each_pool(scene):
        scene.kill_workers([member])
        wait_s(APART_S)


def kill_all_workers(scene: Scene) -> None:
    scene.kill_workers(scene.fleet.workers)


def kill_prefork_child(scene: Scene) -> None:
    for member in scene.fleet.workers:
        if member.pool == "prefork":
            scene.kill_process(scene.fleet.children(member)[0])
            wait_s(APART_S)


def kill_prefork_main(scene: Scene) -> None:
    """Its children are not touched: they see that it has gone, and end."""
    for member in scene.fleet.workers:
        if member.pool == "prefork":
            scene.kill_process(member.pid, with_it=scene.fleet.pids(member))
            wait_s(APART_S)


def stop_one_worker(scene: Scene) -> None:
    for member in one_of_each_pool(scene):
        scene.signal([member], signal.SIGTERM)
        wait_s(APART_S)


def stop_all_workers(scene: Scene) -> None:
    scene.signal(scene.fleet.workers, signal.SIGTERM)


def freeze_one_of_each_pool(scene: Scene) -> None:
    scene.freeze(one_of_each_pool(scene), LEASE_S + 3)


def some_long(service: str, number: int) -> Item:
    """One of twenty takes longer than a worker that stops has."""
    return Item(service, "delay_s=3") if number % 20 == 0 else healthy(service, number)


# ----------------------------------------------------------------------------------------------------------------- web
def kill_one_web(scene: Scene) -> None:
    scene.signal(scene.fleet.webs[:1], signal.SIGKILL, children=True)


def kill_all_webs(scene: Scene) -> None:
    scene.signal(scene.fleet.webs, signal.SIGKILL, children=True)


def kill_web_main(scene: Scene) -> None:
    scene.signal(scene.fleet.webs, signal.SIGKILL)


def kill_web_child(scene: Scene) -> None:
    for member in scene.fleet.webs:
        for _ in range(2):
            wait_s(10, lambda member=member: scene.fleet.children(member))  # type: ignore[misc]
            for pid in scene.fleet.children(member):
                scene.signal_process(pid)
            scene.lift()
            wait_s(APART_S)


def stop_one_web(scene: Scene) -> None:
    scene.signal(scene.fleet.webs[:1], signal.SIGTERM)


def stop_all_webs(scene: Scene) -> None:
    scene.signal(scene.fleet.webs, signal.SIGTERM)


def rolling_restart(scene: Scene) -> None:
    for member in scene.fleet.members:
        starts = member.starts
        scene.signal([member], signal.SIGTERM)
        wait_s(30, lambda member=member, starts=starts: member.starts > starts and member.is_ready())  # type: ignore[misc]


# -------------------------------------------------------------------------------------------------------------- server
def kill_server(times: int) -> Callable[[Scene], None]:
    """Again as soon as all went on."""

    def act(scene: Scene) -> None:
        for _ in range(times):
            wait_s(random.uniform(0.2, 0.6))
            scene.kill_server()
            scene.await_going_on()

    return act


def keep_server_away(scene: Scene) -> None:
    scene.kill_server(away_s=AWAY_S)


def fill_memory(scene: Scene) -> None:
    with scene.fleet.server.client() as client:
        client.config_set("maxmemory", 1)
        try:
            wait_s(4)
        finally:
            client.config_set("maxmemory", 1_073_741_824)
    scene.lift()


def nothing(scene: Scene) -> None:
    """For clients and targets that are the fault themselves."""
    until = time.monotonic() + scene.fault.duration_s - 2
    wait_s(60, lambda: time.monotonic() > until)


def cancelled(service: str, number: int) -> Item:
    """A third is cancelled: waiting, running or just ended."""
    if number % 3:
        return healthy(service, number)
    delay_s = random.choice((0.0, 0.0, 0.02, 0.3))
    return Item(service, f"delay_s={delay_s}", frozenset({"SUCCESS", "REVOKED"}), cancelled=True)


def interrupted(service: str, number: int) -> Item:
    return Item(service, f"delay_s={random.uniform(0, 0.3):.3f}", interrupted=True)


PROCESSES = [
    Fault("worker-kill-one", "SIGKILL of one worker of each pool, one after the other", kill_one_worker, KILLED),
    Fault("worker-kill-all", "SIGKILL of all workers", kill_all_workers, KILLED),
    Fault("worker-kill-child", "SIGKILL of prefork children", kill_prefork_child, KILLED),
    Fault("worker-kill-main", "SIGKILL of the main processes of prefork workers only", kill_prefork_main, KILLED),
    Fault(
        "worker-stop-one",
        "SIGTERM of one worker of each pool, one after the other",
        stop_one_worker,
        STOPPED,
        plan=some_long,
    ),
    Fault("worker-stop-all", "SIGTERM of all workers", stop_all_workers, STOPPED, plan=some_long),
    Fault(
        "worker-freeze",
        "one worker of each pool frozen (SIGSTOP) 3 s beyond its lease, then thawed",
        freeze_one_of_each_pool,
        Allowed(cuts=LOST, overlaps=True),
        duration_s=12,
    ),
    Fault(
        "poison",
        "2 requests that kill the worker process that sends them, each time",
        poison_watch,
        KILLED,
        duration_s=22,
        plan=poison_plan,
        sections=POISON_SECTIONS,
    ),
    Fault("web-kill-one", "SIGKILL of one web replica", kill_one_web),
    Fault("web-kill-all", "SIGKILL of all web replicas", kill_all_webs),
    Fault("web-kill-main", "SIGKILL of gunicorn's main processes only", kill_web_main),
    Fault("web-kill-child", "SIGKILL of gunicorn's children, each replica twice", kill_web_child),
    Fault("web-stop-one", "SIGTERM of one web replica", stop_one_web),
    Fault("web-stop-all", "SIGTERM of all web replicas", stop_all_webs),
    Fault(
        "rolling-restart",
        "SIGTERM of each process, the next when its successor is ready",
        rolling_restart,
        STOPPED,
        duration_s=25,
        plan=some_long,
    ),
    Fault(
        "server-kill",
        f"SIGKILL and restart of the server {SERVER_KILLS} times, `appendfsync everysec`",
        kill_server(SERVER_KILLS),
        Allowed(cuts=LOST, undone=True),
        duration_s=25,
    ),
    Fault(
        "server-away",
        f"SIGKILL of the server, which is started again after {AWAY_S} s",
        keep_server_away,
        Allowed(cuts=LOST, undone=True),
        duration_s=AWAY_S + 8,
    ),
    Fault("server-memory", "the server's memory is full for 4 s", fill_memory),
    Fault(
        "submit-interrupted",
        "each client is gone between its submit and the answer, then submits again",
        nothing,
        plan=interrupted,
    ),
    Fault("cancel", "a third of the requests is cancelled at once", nothing, plan=cancelled),
    Fault(
        "server-kill-always",
        f"SIGKILL and restart of the server {SERVER_KILLS} times, `appendfsync always`",
        kill_server(SERVER_KILLS),
        Allowed(cuts=LOST),
        duration_s=25,
        fsync="always",
    ),
]
