"""What the depth of a queue costs the server, call by call of the HTTP API.

A short and a long queue stand on one server and are measured in turn, operation by operation, so that a slow moment of
the machine hits both.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis

from benchmarks.client import Client, fill
from benchmarks.parts.part import Column, Goal, Part, Row, Sample, Sizes, Table
from benchmarks.sides import Void
from tests.support.installation import TOKEN, Installation
from tests.support.server import RedisServer

RATIO_WANTED = 1.5
LENGTH_MOST = 300_000
REMOVED_AT_ONCE = 200  # the indexes stand in the URL
QUIET_S = 0.2
DATA = b'{"prompt": "' + b"x" * 1010 + b'"}'
OPERATIONS = {
    "put": "put",
    "index": "get by index",
    "id": "get by request id",
    "attrs": "attributes",
}
ROWS = (
    Row("sink", "items that clients have put there"),
    Row("input", "requests that wait: the service is paused"),
)


class Call:
    """One HTTP call of an operation, and what its answer must be."""

    def __init__(self, method: str, target: str, body: bytes = b"", *, is_right: Callable[[bytes], bool]) -> None:
        self.method, self.target, self.body, self.is_right = method, target, body, is_right


class Queue:
    """A queue with a number of items, by the API."""

    def __init__(self, client: Client, path: str, count: int) -> None:
        self._client, self._path, self._count = client, path, count
        self._ids: list[tuple[int, str]] = []  # some of its items: (index, request id)

    async def _ask(self, call: Call) -> bytes:
        answer = await self._client.call(call.method, self._path + call.target, call.body)
        if answer.status != 200 or not call.is_right(answer.body):
            raise Void(f"{call.method} {self._path}{call.target}: {answer.status} {answer.body[:200]!r}")
        return answer.body

    async def fill(self, some: int) -> None:
        """Put what shall stand there, and learn the request ids of *some*, evenly spread."""
        await fill(self._client, self._path, self._count)
        attributes = json.loads(await self._ask(self._attributes()))
        first, last = int(attributes["stream.firstEntry"]), int(attributes["stream.lastEntry"])
        for number in range(some):
            index = first + (last - first) * number // some
            (item,) = json.loads(await self._ask(self._by_index(index)))
            self._ids.append((index, item["tags"]["requestId"]))

    def calls(self, operation: str, count: int) -> list[Call]:
        """*count* calls of it."""
        if operation == "put":
            return [Call("POST", "", DATA, is_right=bytes.isdigit)] * count
        if operation == "attrs":
            return [self._attributes()] * count
        make = self._by_index if operation == "index" else self._by_id
        spread = [self._ids[number * len(self._ids) // count] for number in range(count)]
        return [make(index, request_id) for index, request_id in spread]

    def _attributes(self) -> Call:
        return Call("GET", "?_attrs_=true", is_right=lambda body: int(json.loads(body)["stream.length"]) == self._count)

    def _by_index(self, index: int, _: str = "") -> Call:
        return self._get(f"_index_={index}", index)

    def _by_id(self, index: int, request_id: str) -> Call:
        return self._get(f"requestId={request_id}", index)

    def _get(self, which: str, index: int) -> Call:
        def is_right(body: bytes) -> bool:
            return [item["index"] for item in json.loads(body)] == [index]

        return Call("GET", f"?{which}&_length_=1&_timeout_=0&_auto_delete_=false&_raw_=false", is_right=is_right)

    async def run(self, calls: Sequence[Call]) -> list[bytes]:
        return [await self._ask(call) for call in calls]

    async def remove(self, indexes: Sequence[int]) -> None:
        for i in range(0, len(indexes), REMOVED_AT_ONCE):
            some = ",".join(map(str, indexes[i : i + REMOVED_AT_ONCE]))
            await self._ask(Call("DELETE", f"?_indexes_={some}", is_right=lambda _: True))


class Costs:
    """What the server has used since this was made."""

    def __init__(self, connection: redis.Redis) -> None:
        self._redis = connection
        self._began = self._read()

    def per(self, calls: int) -> tuple[float, float]:
        """(microseconds in scripts, microseconds of CPU), a call. Raises Void where scripts did not do the work."""
        now = self._read()
        scripts, in_scripts, cpu = (now[i] - self._began[i] for i in range(3))
        if scripts < calls:
            raise Void(f"{calls} calls ran {scripts:.0f} scripts: the server's time in scripts is not theirs")
        return in_scripts / calls, cpu / calls

    def _read(self) -> tuple[float, float, float]:
        stats: Any = self._redis.info("commandstats")
        cpu: Any = self._redis.info("cpu")
        found = [stats.get(f"cmdstat_{name}", {"calls": 0, "usec": 0}) for name in ("evalsha", "evalsha_ro")]
        return (
            sum(each["calls"] for each in found),
            sum(each["usec"] for each in found),
            (cpu["used_cpu_user_main_thread"] + cpu["used_cpu_sys_main_thread"]) * 1_000_000,
        )


async def _measure(queues: Mapping[str, Queue], connection: redis.Redis, sizes: Sizes) -> Sample:
    figures: dict[str, list[float]] = {}
    for queue in queues.values():
        await queue.fill(sizes.depth_calls)
    for turn in range(sizes.depth_turns):
        for operation in OPERATIONS:
            for name in sorted(queues, reverse=bool(turn % 2)):  # what drifts favours neither
                calls = queues[name].calls(operation, sizes.depth_calls)
                await asyncio.sleep(QUIET_S)  # what the web does behind its answers is done
                costs = Costs(connection)
                answers = await queues[name].run(calls)
                script_us, cpu_us = costs.per(len(calls))
                figures.setdefault(f"{operation}_{name}", []).append(script_us)
                figures.setdefault(f"{operation}_{name}_cpu", []).append(cpu_us)
                if operation == "put":
                    await queues[name].remove([int(answer) for answer in answers])
    found = {key: statistics.median(values) for key, values in figures.items()}
    for operation in OPERATIONS:
        for kind in ("", "_cpu"):
            found[f"{operation}_times{kind}"] = found[f"{operation}_long{kind}"] / found[f"{operation}_short{kind}"]
    return found


def measure(row: str, sizes: Sizes) -> Sample:
    settings = f"max_queue_length = {LENGTH_MOST}\nmax_sink_length = {LENGTH_MOST}\n"
    toml = f"[defaults]\n{settings}[services.short]\n[services.long]\n"
    with contextlib.ExitStack() as stack:
        server = RedisServer(maxmemory_bytes=4 * 2**30).start()
        stack.callback(server.stop)
        # The sweep is the web's own; a scarce one is no part of these calls.
        installation = Installation(server.url, "http://127.0.0.1:9", services_toml=toml, sweep_s=60)
        stack.enter_context(installation)
        installation.web()
        client = Client(installation.port, {"Authorization": TOKEN, "Content-Type": "application/json"})
        queues = {}
        for name, depth in zip(("short", "long"), sizes.depths, strict=True):
            if row == "input":
                installation.set_paused(name, True)
            queues[name] = Queue(client, f"/api/predict/{name}{'/sink' if row == 'sink' else ''}", depth)
        connection = stack.enter_context(server.client())

        async def run() -> Sample:
            try:
                return await _measure(queues, connection, sizes)
            finally:
                client.close()

        return asyncio.run(run())


PART = Part(
    "queue_depth",
    "Server microseconds a call, in a queue of 1,000 and of 200,000 items",
    ROWS,
    tuple(
        Table(
            text,
            (
                Column(f"{operation}_short", "1,000 items: us", "{:.1f}"),
                Column(f"{operation}_long", "200,000 items: us", "{:.1f}"),
                Column(f"{operation}_times", "times", "{:.2f}"),
                Column(f"{operation}_short_cpu", "1,000 items: CPU us", "{:.0f}"),
                Column(f"{operation}_long_cpu", "200,000 items: CPU us", "{:.0f}"),
                Column(f"{operation}_times_cpu", "times", "{:.2f}"),
            ),
        )
        for operation, text in OPERATIONS.items()
    ),
    measure,
    tuple(
        Goal(f"{text}, {row.name}: times", f"{operation}_times", row.name, "", RATIO_WANTED, less=True)
        for operation, text in OPERATIONS.items()
        for row in ROWS
    ),
)
