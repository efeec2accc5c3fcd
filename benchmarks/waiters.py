"""1,000 clients that wait on one web process: idle CPU, memory, and how late they hear of the end of their request.

    python -m benchmarks.waiters [--clients 1000] [--idle-s 20] [--rate 100]

Once with `Prefer: wait` on the status, once with the events stream, each on a fresh installation with one gunicorn
process. The requests are ended by this process, through the store as a worker does, one by one at the given rate; late
is how long after the answer of the finishing script the client has its own.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

from benchmarks.meter import child_of, cpu_us, rss_mb
from eas_queue.store.client import Client
from eas_queue.store.shapes import Ended, Leased
from eas_queue.store.store import Store, fresh_id
from tests.support.installation import TOKEN, Installation
from tests.support.server import RedisServer

END = Ended("succeeded", 200, '[["content-type","application/json"]]', b'{"ok": true}', True, "", "", "{}", False)


async def client(port: int, request_id: str, *, events: bool, ready: asyncio.Event, heard: dict[str, float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    path = f"/api/predict/demo/requests/{request_id}{'/events' if events else ''}"
    wait = "" if events else "Prefer: wait=300\r\n"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n{wait}\r\n".encode())
    if events:
        await reader.readuntil(b'"STARTED"')
    ready.set()
    await reader.readuntil(b'"SUCCESS"')
    heard[request_id] = time.perf_counter()
    writer.close()


async def measure(store: Store, installation: Installation, pids: dict[str, int], options: argparse.Namespace) -> str:
    events = options.events
    work: dict[str, Leased] = {}
    for _ in range(options.clients):
        installation.submit()
    while len(work) < options.clients:
        for found in store.start("", 200, caller=fresh_id(), lease_ms=3_600_000):
            work[found.request_id] = found
    heard: dict[str, float] = {}
    flags = [asyncio.Event() for _ in work]
    tasks = [
        asyncio.create_task(client(installation.port, request_id, events=events, ready=ready, heard=heard))
        for request_id, ready in zip(work, flags, strict=True)
    ]
    await asyncio.gather(*(flag.wait() for flag in flags))
    await asyncio.sleep(3)
    before, began = {name: cpu_us([pid]) for name, pid in pids.items()}, time.perf_counter()
    await asyncio.sleep(options.idle_s)
    took = time.perf_counter() - began
    idle = {name: (cpu_us([pid]) - before[name]) / took / 1e4 for name, pid in pids.items()}
    memory = rss_mb(pids["web"])

    ended: dict[str, float] = {}
    for request_id, found in work.items():
        await asyncio.to_thread(store.finish, found, END, 0, caller=fresh_id(), nonce=fresh_id(), lease_ms=1000)
        ended[request_id] = time.perf_counter()
        await asyncio.sleep(1 / options.rate)
    await asyncio.wait_for(asyncio.gather(*tasks), 30)
    late = sorted((heard[request_id] - ended[request_id]) * 1000 for request_id in work)
    p50, p99 = statistics.median(late), late[int(len(late) * 0.99)]
    return (
        f"{'events' if events else 'Prefer: wait':14}{options.clients:>12,}{p50:>12.1f}{p99:>12.1f}{late[-1]:>12.1f}"
        f"{idle['web']:>12.1f}{idle['redis']:>12.1f}{memory:>12.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--idle-s", type=float, default=20)
    parser.add_argument("--rate", type=float, default=100)
    options = parser.parse_args()
    heads = ("clients", "p50 ms", "p99 ms", "max ms", "web CPU %", "Redis CPU %", "web MB")
    print(f"{'':14}" + "".join(f"{head:>12}" for head in heads))
    for options.events in (False, True):
        server = RedisServer().start()
        try:
            toml = "[services.demo]\nmax_concurrency = 100000\n"
            with Installation(
                server.url, "http://127.0.0.1:9", services_toml=toml, web_concurrency=1, lease_s=3600
            ) as installation:
                web = installation.web()
                store = Store(Client(server.url))
                assert server._process is not None
                pids = {"web": child_of(web.pid), "redis": server._process.pid}
                print(asyncio.run(measure(store, installation, pids, options)))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
