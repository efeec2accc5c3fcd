"""Which Celery pool carries requests best? `python -m benchmarks.pools` compares them in one run, interleaved.

Two loads per pool, in one worker process (prefork: as many as `-c` says): *slow* releases 500 requests of 1 s at once
and measures until the last has ended; *fast* releases 3,000 requests to a target that answers at once. Everything is
real: server with its append-only file, gunicorn, worker with its events, target.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from eas_queue.store.client import Client
from eas_queue.store.store import Store
from tests.support.installation import Installation, Process, await_condition
from tests.support.server import RedisServer
from tests.support.target_client import Target

POOLS = [("gevent", 1000), ("threads", 1000), ("prefork", 16)]
LOADS = {"slow": (500, {"delay_s": 1}), "fast": (3000, {})}


def measure(pool: str, concurrency: int, load: str) -> tuple[float, float]:
    """(seconds, peak MB of the worker and its children)."""
    count, query = LOADS[load]
    toml = "[services.demo]\nmax_concurrency = 1000\n"
    server = RedisServer().start()
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        target = stack.enter_context(Target())
        installation = stack.enter_context(Installation(server.url, target.url, services_toml=toml))
        installation.web()
        store = Store(Client(server.url))
        store.register(
            "demo", max_concurrency=1000, weight=1, max_attempts=4, ttl_ms=3_600_000, sink=True, max_sink_length=10**5
        )
        store.pause("demo", True)
        with ThreadPoolExecutor(8) as threads:
            made = list(threads.map(lambda _: installation.submit(**query), range(count)))  # type: ignore[arg-type]
        worker = installation.worker(pool, concurrency)
        released_at = time.monotonic()
        store.pause("demo", False)
        await_condition(lambda: target.stats()["answered"] >= count, timeout_s=300)
        for request_id in made[-concurrency:]:
            installation.await_end(request_id)
        return time.monotonic() - released_at, memory_mb(worker)


def memory_mb(worker: Process) -> float:
    """Peak resident memory of the process and its children; shared pages count once per process."""
    total = 0.0
    for path in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            text = path.read_text()
            pid, parent = (int(text.partition(f"\n{name}:")[2].split()[0]) for name in ("Pid", "PPid"))
            if worker.pid in (pid, parent) and "VmHWM:" in text:
                total += int(text.partition("VmHWM:")[2].split()[0]) / 1024
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for pool, concurrency in POOLS:
            for load in LOADS:
                found.setdefault((load, pool), []).append(measure(pool, concurrency, load))
    print(f"{'load':6}{'pool':16}{'seconds (median, range)':28}{'requests/s':>12}{'peak MB':>9}{'x gevent':>10}")
    for load, (count, _) in LOADS.items():
        best = statistics.median(s for s, _ in found[load, "gevent"])
        for pool, concurrency in POOLS:
            seconds = [s for s, _ in found[load, pool]]
            median, peak = statistics.median(seconds), max(mb for _, mb in found[load, pool])
            spread = f"{median:.2f} [{min(seconds):.2f}..{max(seconds):.2f}]"
            name = f"{pool} -c {concurrency}"
            print(f"{load:6}{name:16}{spread:28}{count / median:12.0f}{peak:9.0f}{median / best:10.1f}")


if __name__ == "__main__":
    main()
