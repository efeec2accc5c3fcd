"""What a long queue costs the server: microseconds of a submit and of a look, and memory.

    python -m benchmarks.depth [--deep 1000000] [--calls 3000] [--rounds 5]

A queue of 1,000 and one of 1,000,000 waiting requests stand on one server and are measured in turn, so that a slow
moment of the machine hits both. Microseconds are the server's own (`INFO commandstats`, EVALSHA). A waiting request has
a body of 1,024 bytes and the headers of curl. At last, memory per request by size: waiting, and ended with an answer.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from eas_queue.engine import ids
from eas_queue.engine.request import Submission
from eas_queue.store import keys
from eas_queue.store.client import Client
from eas_queue.store.shapes import Ended
from eas_queue.store.store import Store, fresh_id
from tests.support.server import RedisServer

BODY = b'{"prompt": "' + b"x" * 1010 + b'"}'
HEADERS = (("User-Agent", "curl/7.88.1"), ("Accept", "*/*"), ("Content-Type", "application/json"))
META = Submission(BODY, headers=HEADERS).meta()
TAGS = "&Header%3AContent-Type=application%2Fjson&"
BATCH = 500
SIZED = 10_000


class Queue:
    """One service with a number of waiting requests; no worker takes them."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name
        number = store.register(
            name, max_concurrency=64, weight=1, max_attempts=4, ttl_ms=86_400_000, sink=True, max_sink_length=100_000
        )
        assert number is not None
        self.number = number
        self.waiting: list[str] = []

    def _arguments(self, request_id: str, body: bytes = BODY) -> tuple[Any, ...]:
        return self.name, request_id, self.number, 100, 0, 10**9, META, body, "", "", "", 0, 0, TAGS, "", 0

    def fill(self, count: int, body: bytes = BODY) -> None:
        self.submit()  # loads the scripts
        connection, script = self.store.client.redis, self.store.scripts._hashes["submit"]
        while len(self.waiting) < count:
            pipeline = connection.pipeline(transaction=False)
            batch = [ids.new_id(self.number) for _ in range(min(BATCH, count - len(self.waiting)))]
            for request_id in batch:
                pipeline.evalsha(script, 0, *self._arguments(request_id, body))
            pipeline.execute()
            self.waiting += batch

    def submit(self) -> str:
        request_id = ids.new_id(self.number)
        self.store.scripts.call("submit", *self._arguments(request_id))
        self.waiting.append(request_id)
        return request_id

    def measure_submits(self, calls: int) -> float:
        before = len(self.waiting)
        found = measured(self.store, lambda _: self.submit(), calls)
        for request_id in self.waiting[before:]:
            self.store.cancel(self.name, request_id)
        del self.waiting[before:]
        return found

    def measure_looks(self, calls: int) -> float:
        step = max(1, len(self.waiting) // calls)
        return measured(
            self.store, lambda i: self.store.look(self.name, self.waiting[i * step % len(self.waiting)]), calls
        )


def measured(store: Store, act: Any, calls: int) -> float:
    """Server microseconds per EVALSHA."""
    connection = store.client.redis
    connection.config_resetstat()
    for i in range(calls):
        act(i)
    stats: Any = connection.info("commandstats")
    return float(stats["cmdstat_evalsha"]["usec_per_call"])


def used(store: Store) -> int:
    found: Any = store.client.redis.info("memory")
    return int(found["used_memory"])


def bytes_waiting(store: Store, size: int) -> float:
    before = used(store)
    Queue(store, f"waiting{size}").fill(SIZED, b"x" * size)
    return (used(store) - before) / SIZED


def bytes_ended(store: Store, size: int) -> float:
    before = used(store)
    name = f"ended{size}"
    Queue(store, name).fill(SIZED)
    for queue in keys.READY, keys.READY_HIGH:  # nothing else may start
        others: Any = store.client.redis.zrange(queue, 0, -1)
        for other in others:
            if other != name.encode():
                store.pause(other.decode(), True)
    headers = '[["content-type","application/json"]]'
    result = '{"status": "success", "target_status_code": 200, "content_type": "application/json"}'
    end = Ended("succeeded", 200, headers, b"x" * size, True, "", "", result, False)
    works = store.start("", 64, caller="bench", lease_ms=60_000)
    while works:
        works = [
            found
            for work in works
            for found in store.finish(work, end, 1, caller="bench", nonce=fresh_id(), lease_ms=60_000)[1]
        ]
    return (used(store) - before) / SIZED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deep", type=int, default=1_000_000)
    parser.add_argument("--calls", type=int, default=3_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    server = RedisServer(maxmemory_bytes=8 * 2**30).start()
    try:
        store = Store(Client(server.url, command_timeout_s=30))
        connection: Any = store.client.redis
        shallow, deep = Queue(store, "shallow"), Queue(store, "deep")
        shallow.fill(1_000)
        before = connection.info("memory")["used_memory"]
        began = time.monotonic()
        deep.fill(options.deep)
        grown = connection.info("memory")["used_memory"] - before
        took = time.monotonic() - began
        print(f"{options.deep:,} waiting, filled in {took:.0f} s; {grown / options.deep:,.0f} bytes each")
        rows: dict[str, dict[str, list[float]]] = {}
        for _ in range(options.rounds):
            for queue in (shallow, deep):
                row = rows.setdefault(queue.name, {"submit": [], "look": []})
                row["submit"].append(queue.measure_submits(options.calls))
                row["look"].append(queue.measure_looks(options.calls))
        print(f"{'server us per call':20}{'1,000':>10}{options.deep:>12,}{'ratio':>8}   (medians)")
        for name in ("submit", "look"):
            small, large = (statistics.median(rows[queue.name][name]) for queue in (shallow, deep))
            print(f"{name:20}{small:>10.1f}{large:>12.1f}{large / small:>8.2f}")
        connection.flushall(asynchronous=False)
        connection.script_flush()
        print(f"{'bytes of body':20}{'waiting':>10}{'ended':>12}   (bytes each; ended: an answer that long)")
        bytes_waiting(store, 1)  # what the first requests of a server allocate counts for nobody
        for size in (1024, 4096, 16_384):
            print(f"{size:>13,}{bytes_waiting(store, size):>17,.0f}{bytes_ended(store, size):>12,.0f}")
    finally:
        server.stop()


if __name__ == "__main__":
    main()
