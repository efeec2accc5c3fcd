"""A real queue for all workers of these tests, and what its clients and operators do."""

from __future__ import annotations

import itertools
import json
import re
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.front import ROLE_TOKENS, Front, digest
from tests.support.installation import ROOT, TOKEN, Installation, Process, await_condition
from tests.support.own_target import OwnTarget
from tests.support.server import RedisServer
from tests.support.target_client import Target

FUNCTIONS = "tests.pull.functions"
MAX_RESULT_BYTES = 18 * 2**20
ENDS = ("succeeded", "failed", "timeout", "cancelled")


class Worker:
    """One `eas-queue pull` in a process of its own."""

    def __init__(self, process: Process) -> None:
        self.process = process

    @property
    def log(self) -> str:
        return self.process.log

    def events(self, name: str, **fields: object) -> list[str]:
        """The lines of its log of this event which have these fields."""
        wanted = [f" {key}={value}" for key, value in fields.items()]
        lines = re.findall(rf"^[\d-]+ [\d:,]+ [A-Z]+ {name}(?= |$).*", self.log, re.M)
        return [line for line in lines if all(re.search(re.escape(each) + r"(?: |$)", line) for each in wanted)]

    def await_event(self, name: str, *, count: int = 1, **fields: object) -> list[str]:
        def found() -> list[str] | None:
            lines = self.events(name, **fields)
            return lines if len(lines) >= count else None

        lines: list[str] = await_condition(found, what=f"{count} {name} {fields} in\n{self.log[-3000:]}")
        return lines

    def signal(self, signum: int) -> None:
        self.process.popen.send_signal(signum)

    def ended(self, timeout_s: float = 10) -> int:
        return self.process.popen.wait(timeout_s)

    def stop(self) -> None:
        self.signal(signal.SIGTERM)
        assert self.ended() == 0, self.log[-3000:]


class Place:
    """A queue service, and its clients by hand."""

    def __init__(self, installation: Installation, front: Front) -> None:
        self.installation, self.front = installation, front
        self.workers: list[Worker] = []
        self._names = (f"pulled-{number}" for number in itertools.count(1))

    def queue(self, endpoint: str = "/v1/work") -> str:
        """A new one, registered."""
        name = next(self._names)
        self.post("register", {"queue": name, "endpoint": endpoint})
        return name

    def post(self, path: str, content: Any, *, wanted: int = 200) -> Any:
        headers = {"Content-Type": "application/json"}
        answer = self.front.call("POST", f"/v1/queue/{path}", json.dumps(content), headers)
        assert answer.status == wanted, answer.body
        return answer.json

    def put(self, queue: str, data: Any, endpoint: str = "/v1/work", **members: Any) -> str:
        content = {"queue": queue, "level": 1, "endpoint": endpoint, "data": data} | members
        return str(self.post("put", content)["data"])

    def get(self, task_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.front.call("GET", f"/v1/queue/{task_id}").json
        return found

    def status(self, task_id: str) -> str:
        return str(self.get(task_id)["status"])

    def cancel(self, task_id: str) -> None:
        self.post(f"{task_id}/cancel", {}, wanted=202)

    def ended(self, task_id: str, *, timeout_s: float = 15) -> dict[str, Any]:
        def end() -> dict[str, Any] | None:
            task = self.get(task_id)
            return task if task["status"] in ENDS else None

        task: dict[str, Any] = await_condition(end, timeout_s=timeout_s, what=f"{task_id} ends")
        return task

    def result(self, task_id: str) -> dict[str, Any]:
        """The whole result, as whoever completed it has written it."""
        result: dict[str, Any] = self.ended(task_id)["result"]
        assert result.pop("request_id") == task_id
        return result

    def request_id(self, task_id: str) -> str:
        """By which other dialects know it: the last two parts of its task id."""
        first, last = task_id.split("-")[-2:]
        return str(uuid.UUID(first + last))

    def worker(self, queue: str, *options: object, cwd: Path = ROOT, **env: str) -> Worker:
        """One that has started to take. It waits half a second at most, so that it stops soon."""
        worker = self.start([f"{queue}:0", f"{queue}:1", "--wait", "0.5", *map(str, options)], cwd=cwd, **env)
        worker.await_event("started")
        return worker

    def start(self, arguments: list[str], *, cwd: Path = ROOT, **env: str) -> Worker:
        given = self.installation.env | {"EAS_QUEUE_PULL_TOKEN": TOKEN, "EAS_QUEUE_PULL_SERVER": self.installation.url}
        command = [sys.executable, "-m", "eas_queue.pull", *arguments]
        worker = Worker(Process("pull", command, given | env, self.installation.folder, cwd))
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        for worker in self.workers:
            worker.process.kill()


@pytest.fixture(scope="package")
def shared_place() -> Iterator[Place]:
    services = "[defaults]\nallow_unlisted = true\n[services.pushed]\n[tokens]\n"
    services += f'"{digest(TOKEN)}" = {{}}\n"{digest(ROLE_TOKENS["read"])}" = {{ roles = ["read"] }}\n'
    server = RedisServer().start()
    try:
        with (
            Target() as target,
            Installation(server.url, target.url, services_toml=services, MAX_RESULT_BYTES=MAX_RESULT_BYTES) as made,
        ):
            made.web("-w", "1", "-b", f"127.0.0.1:{made.port}")
            front = Front(made, target, server)
            yield Place(made, front)
            front.close()
    finally:
        server.stop()


@pytest.fixture
def place(shared_place: Place) -> Iterator[Place]:
    """The workers that a test starts end with it."""
    yield shared_place
    shared_place.close()
    shared_place.workers.clear()


@pytest.fixture
def target() -> Iterator[OwnTarget]:
    made = OwnTarget()
    yield made
    made.stop()


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """`files("go", "begun")`: paths for a function's data, of files that are not there yet."""
    return lambda *names: {name: str(tmp_path / name) for name in names}
