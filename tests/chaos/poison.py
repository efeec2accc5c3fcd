"""Requests that kill the very process that sends them: the target sees the call, its peer's port tells whose it is."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tests.chaos.fleet import get, wait_s
from tests.chaos.load import Item
from tests.chaos.scene import Scene, healthy

SERVICE = "poisonous"
NUMBERS = (100, 101)  # of the load
ATTEMPTS = 3
# Without a proxy in between, which would hide whose connection it is.
SECTIONS = f"""
[services.{SERVICE}]
target_url = "{{target}}/api/predict/{SERVICE}"
max_attempts = {ATTEMPTS}
timeout_s = 600
"""
MOST_S = 60.0


def plan(service: str, number: int) -> Item:
    return Item(SERVICE, "hang=1", frozenset({"FAILURE"})) if number in NUMBERS else healthy(service, number)


def watch(scene: Scene) -> None:
    """Kill whoever sends one of them, until all have ended; look whether they are dead letters."""
    seen = 0

    def ended() -> bool:
        nonlocal seen
        for call in scene.fleet.target.calls(since=seen):
            seen = call["n"]
            if call["path"].endswith(SERVICE):
                pid = owner_of(call["peer_port"], list(scene.fleet.leaders))
                if pid is not None:
                    scene.kill_process(pid)
        poisonous = scene.history.read().of(SERVICE)
        return len(poisonous) == len(NUMBERS) and all(request.ended_ms for request in poisonous)

    wait_s(MOST_S, ended)
    found = scene.history.of(SERVICE)
    for request in found:
        if len(request.claims) != ATTEMPTS or request.error_type != "WorkerLost":
            scene.problems.append(f"{request} did not use its {ATTEMPTS} attempts up")
    rear = get(scene.fleet.webs[0].port, f"/api/services/{SERVICE}/rear")[1]
    if not all(request.id in rear for request in found):
        scene.problems.append(f"not all of {[request.id for request in found]} are in the rear queue: {rear}")


def owner_of(port: int, pids: Iterable[int]) -> int | None:
    """Which of *pids* has the TCP connection with this local port of 127.0.0.1; None when it is gone."""
    wanted = f"0100007F:{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == wanted and fields[9] != "0":
            socket = f"socket:[{fields[9]}]"
            return next((pid for pid in pids if socket in _files(pid)), None)
    return None


def _files(pid: int) -> set[str]:
    """What a process has open."""
    found = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    except OSError:  # it, or one of its files, is gone
        pass
    return found
