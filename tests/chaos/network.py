"""The faults of networks: each link between two parts is slow, silent, broken off or half open."""

from __future__ import annotations

from collections.abc import Callable

from tests.chaos.fleet import LEASE_S, Fleet, wait_s
from tests.chaos.ledger import Allowed
from tests.chaos.scene import Fault, Scene
from tests.support.proxy import Proxy

Link = Callable[[Fleet], Proxy]

LATENCY_S = 0.2
LINKS: dict[str, Link] = {
    "worker-server": lambda fleet: fleet.worker_server,
    "web-server": lambda fleet: fleet.web_server,
    "worker-target": lambda fleet: fleet.worker_target,
}
SILENT_S = LEASE_S + 2  # longer than a lease and than a call's timeout_s
BROKEN_S = 3.0


def _for(seconds: float, link: Link, begin: Callable[[Proxy], None]) -> Callable[[Scene], None]:
    def act(scene: Scene) -> None:
        proxy = link(scene.fleet)
        begin(proxy)
        try:
            wait_s(seconds)
        finally:
            proxy.pass_on()
            scene.lift()

    return act


def _strand(link: Link) -> Callable[[Scene], None]:
    def act(scene: Scene) -> None:
        link(scene.fleet).strand()
        scene.lift()  # whoever connects anew gets through

    return act


def _heal(link: Link) -> Callable[[Fleet], None]:
    """End what is still half open: an idle connection would hold its owner up whenever it is used next."""

    def after(fleet: Fleet) -> None:
        link(fleet).reset()
        link(fleet).pass_on()

    return after


def _faults() -> list[Fault]:
    lost = Allowed(cuts=frozenset({"WorkerLost"}))
    # A worker whose broker connection is half open may need its watchdog, which hands its requests back.
    half_open = Allowed(cuts=frozenset({"WorkerLost", "HandedBack"}), recovery_s=30)
    unreachable = Allowed(cuts=frozenset({"TargetUnreachable", "TargetBroken"}))
    silent = Allowed(cuts=frozenset({"TargetTimeout"}))
    # What was on its way when its sender gave up still arrives once the network lets it.
    late = Allowed(cuts=frozenset({"TargetTimeout"}), overlaps=True)
    nothing = Allowed()
    allowed = {
        "worker-server": (nothing, lost, lost, half_open),
        "web-server": (nothing, nothing, nothing, nothing),
        "worker-target": (nothing, late, unreachable, silent),
    }
    made = []
    for name, link in LINKS.items():
        slow, held, broken, stranded = allowed[name]
        made += [
            Fault(
                f"{name}-latency",
                f"{name}: {LATENCY_S * 1000:.0f} ms more each way for 6 s",
                _for(6, link, lambda proxy: proxy.latency(LATENCY_S)),
                slow,
            ),
            Fault(
                f"{name}-blackhole",
                f"{name}: nothing goes through for {SILENT_S} s",
                _for(SILENT_S, link, Proxy.blackhole),
                held,
                duration_s=11,
            ),
            Fault(f"{name}-reset", f"{name}: RST for {BROKEN_S:.0f} s", _for(BROKEN_S, link, Proxy.reset), broken),
            Fault(
                f"{name}-half-open",
                f"{name}: all connections of one moment are half open for good",
                _strand(link),
                stranded,
                after=_heal(link),
            ),
        ]
    return made


NETWORK = _faults()
