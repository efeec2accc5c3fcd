"""What a stretch of work costs: CPU of groups of processes, and what the server was asked for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import redis

TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")  # 10 ms on Linux: a group is measured for seconds, not for moments
SCRIPTS_LEAST = 0.5  # per request
OWN_READS = 2  # of the server, by the meter between its two looks
_OURS = {"info", "auth", "hello", "client|setinfo", "select"}  # of measuring and of connecting


def cpu_us(leaders: Iterable[int]) -> float:
    """CPU that these processes and all others of their sessions have used, ended and reaped children included."""
    wanted, ticks = set(leaders), 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) in wanted or int(path.parent.name) in wanted:
                ticks += sum(map(int, fields[11:15]))
    return ticks * TICK_US


class Meter:
    """Starts when it is made; ``per`` tells what was used since then.

    *groups*: session leaders by the name of what they are; the server is one of them, its own leader or not.
    """

    def __init__(self, connection: redis.Redis, groups: Mapping[str, Iterable[int]]) -> None:
        self._redis, self._groups = connection, groups
        self._began = self._read()

    def per(self, requests: int) -> dict[str, float]:
        """Per request: `<group>_us` of CPU, `reads`, `commands`, `scripted`, `scripts`, `script_us`.

        A read of the server is a client's round trip (a pipeline that fits its 16 KB buffer is one). Commands are all,
        `scripted` those of them that scripts ran. `scripts` is how often one was called, `script_us` the server's own
        time in them.
        """
        now = self._read()
        now["reads"] -= OWN_READS
        found = {name: (now[name] - self._began[name]) / requests for name in now}
        # The server counts both under the same names. Who runs scripts sends little else, one or several in a read;
        # kombu runs one now and then, to release a lock.
        sent = max(found["reads"], found["scripts"])
        runs_scripts = found["scripts"] > SCRIPTS_LEAST
        return found | {"scripted": max(0, found["commands"] - sent) if runs_scripts else 0}

    def _read(self) -> dict[str, float]:
        found = {f"{name}_us": cpu_us(leaders) for name, leaders in self._groups.items()}
        stats: Any = self._redis.info("commandstats")
        scripts = stats.get("cmdstat_evalsha", {"calls": 0, "usec": 0})
        info: Any = self._redis.info("stats")
        return found | {
            "reads": info["total_reads_processed"],
            "commands": sum(of["calls"] for name, of in stats.items() if name.removeprefix("cmdstat_") not in _OURS),
            "scripts": scripts["calls"],
            "script_us": scripts["usec"],
        }


def rss_mb(pid: int) -> float:
    """Resident memory of one process."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def pss_mb(pid: int) -> float:
    """Its memory, what it shares with others counted in parts."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.partition("\nPss:")[2].split()[0]) / 1024


def child_of(pid: int) -> int:
    """gunicorn's one worker, by the pid of its master. Raises RuntimeError without any."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                return int(path.parent.name)
    raise RuntimeError("gunicorn has no worker")


def percentile(sorted_values: list[float], share: float) -> float:
    """The value that *share* of them do not exceed. Raises IndexError without any."""
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))]
