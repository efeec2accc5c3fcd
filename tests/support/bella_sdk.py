"""Clients of the take API: bella-openapi's published models in a process of their own, and plain HTTP beside them."""

from __future__ import annotations

import contextlib
import http.client
import json
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tests.support.front import Answer
from tests.support.installation import TOKEN, Installation, await_condition
from tests.support.program import ClientProgram
from tests.support.server import RedisServer, free_port

ENVIRONMENT = "bella_openapi"
ENDPOINT = "/v1/chat/completions"
STRATEGIES = ("fifo", "round_robin", "active_passive", "sequential")
SERVICES = """
    [defaults]
    allow_unlisted = true
"""
Tasks = dict[str, list[dict[str, Any]]]


class BellaError(Exception):
    """What a call with the models raised: a refusal's *status* and *body*, else 0 and ''."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        super().__init__(f"{said['error']}: {said['text']}")
        self.status, self.body = said.get("status", 0), said.get("body", "")


class Models:
    """Calls through the models. What they don't parse is a BellaError."""

    def __init__(self, program: ClientProgram) -> None:
        self._program = program

    def call(self, call: str, /, **kwargs: Any) -> Any:
        self._program.tell(call=call, kwargs=kwargs)
        said = self._program.hear()
        if "error" in said:
            raise BellaError(said)
        return said["result"]


class Bella:
    """The take API of an installation. Every take is parsed by the models, every complete and event made by them."""

    def __init__(self, installation: Installation, models: Models, threads: ThreadPoolExecutor) -> None:
        self.installation, self.models, self._threads = installation, models, threads

    def call(
        self,
        method: str,
        path: str,
        content: Any = None,
        *,
        token: str | None = TOKEN,
        body: bytes | None = None,
        timeout_s: float = 15,
    ) -> Answer:
        """*path*: below /v1/queue/. *content* is sent as JSON, *body* as it is."""
        with self.opened(method, path, content, token=token, body=body, timeout_s=timeout_s) as response:
            return Answer(response.status, response.headers, response.read())

    @contextlib.contextmanager
    def opened(
        self,
        method: str,
        path: str,
        content: Any = None,
        *,
        token: str | None = TOKEN,
        body: bytes | None = None,
        timeout_s: float = 15,
    ) -> Iterator[http.client.HTTPResponse]:
        """An answer whose body may still be on its way; the connection is closed at the end."""
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if content is not None:
            body = json.dumps(content).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.installation.port, timeout=timeout_s)
        try:
            connection.request(method, f"/v1/queue/{path}", body, headers)
            yield connection.getresponse()
        finally:
            connection.close()

    def told(self, method: str, path: str, content: Any = None, *, status: int = 200) -> Any:
        """The JSON of an answer that must have this status, and the headers of every JSON answer."""
        answer = self.call(method, path, content)
        assert answer.status == status, (answer.status, answer.body)
        assert answer.headers["Content-Type"].partition(";")[0] == "application/json"
        assert answer.headers["Cache-Control"] == "no-cache"
        return answer.json

    def register(self, queue: str = "", endpoint: str = ENDPOINT) -> str:
        """Its name; '': one that no other test uses."""
        queue = queue or f"t{uuid.uuid4().hex}"
        assert self.told("POST", "register", {"queue": queue, "endpoint": endpoint}) == queue
        return queue

    def put(self, queue: str, data: Any = None, **fields: Any) -> str:
        """The id of a task in callback mode, of level 1 where *fields* say nothing else."""
        content = {"endpoint": ENDPOINT, "queue": queue, "level": 1, "data": {"k": "v"} if data is None else data}
        answer = self.told("POST", "put", content | fields)
        assert set(answer) == {"code", "timestamp", "data"} and answer["code"] == 200
        return str(answer["data"])

    def begin_put(self, queue: str, mode: str, data: Any = None, **fields: Any) -> Future[Answer]:
        """A put that waits for the end of its task."""
        content = {"endpoint": ENDPOINT, "queue": queue, "data": {"k": "v"} if data is None else data}
        content |= {"response_mode": mode} | fields
        return self._threads.submit(self.call, "POST", "put", content)

    def take(self, *queues: str, size: int = 10, **more: Any) -> Tasks:
        """The answer as it came, after the models have parsed it."""
        found: Tasks = self.models.call("take", queues=queues, size=size, **more)
        return found

    def take_one(self, queue: str, **more: Any) -> dict[str, Any]:
        """The task that must be there."""
        found = self.take(queue, size=1, **more)
        assert list(found) == [queue], found
        [task] = found[queue]
        return task

    def await_task(self, queue: str, *, timeout_s: float = 5, **more: Any) -> dict[str, Any]:
        """The task that is about to be there: put by somebody else, or back when its lease ends."""
        found: Tasks = await_condition(
            lambda: self.take(queue, size=1, **more), timeout_s=timeout_s, what=f"{queue} has a task"
        )
        return found[queue][0]

    def complete(self, task_id: str, body: Any = None, status_code: int = 200) -> None:
        answer = self.models.call(
            "complete", task_id=task_id, status_code=status_code, body={} if body is None else body
        )
        assert answer == task_id

    def tell(self, task_id: str, event_id: str, data: dict[str, Any], name: str = "message") -> None:
        """An event of a streaming task."""
        assert self.models.call("tell", task_id=task_id, event_id=event_id, name=name, data=data) == task_id

    def task(self, task_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.told("GET", task_id)
        return found

    def await_status(self, task_id: str, status: str, *, timeout_s: float = 10) -> dict[str, Any]:
        def there() -> dict[str, Any] | None:
            found = self.task(task_id)
            return found if found["status"] == status else None

        found: dict[str, Any] = await_condition(there, timeout_s=timeout_s, what=f"{task_id} is {status}")
        return found

    def is_held(self, task_id: str, queue: str) -> bool:
        """Whether a taker has it, as the native dialect says: the take API has no word for it."""
        return bool(self.installation.status(request_id_of(task_id), queue)["status"] == "STARTED")

    def worker(self, *queues: str, **options: object) -> ClientProgram:
        """A worker as the real clients behave; *options*: of tests/clients/bella_worker.py."""
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        return program(self.installation.url, "bella_worker", f"--queues={','.join(queues)}", *arguments)


def request_id_of(task_id: str) -> str:
    """By which other dialects know what was put here."""
    return str(uuid.UUID(task_id[-33:].replace("-", "")))


def program(url: str, name: str, *arguments: object) -> ClientProgram:
    return ClientProgram(ENVIRONMENT, name, *arguments, env={"BELLA_HOST": url, "BELLA_API_KEY": TOKEN})


@contextlib.contextmanager
def bella(*, services_toml: str = SERVICES, webhooks: bool = False, **settings: object) -> Iterator[Bella]:
    """An installation in which any name may be registered, without a worker of its own: others take.

    Two web processes, so that who waits and who completes are mostly in different ones. *webhooks*: with the worker
    that delivers them.
    """
    server = RedisServer().start()
    settings = {"services_toml": services_toml, "sweep_s": 0.1, **settings}
    try:
        with (
            ThreadPoolExecutor(16) as threads,  # ends last: without a web nothing in it waits any longer
            Installation(server.url, f"http://127.0.0.1:{free_port()}", **settings) as installation,
            program(installation.url, "bella_calls") as calls,
        ):
            installation.start("web", ["gunicorn", "-w", "2", "-b", f"127.0.0.1:{installation.port}", "app:app"])
            if webhooks:
                installation.webhooks()
            installation.await_web()
            yield Bella(installation, Models(calls), threads)
    finally:
        server.stop()
