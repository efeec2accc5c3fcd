"""fal's official client for Python, unmodified, in a process of its own: tests/clients/fal_calls.py drives it."""

from __future__ import annotations

import collections
import contextlib
import itertools
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import tls
from tests.support.installation import TOKEN, Installation, Process
from tests.support.program import PATIENCE_S, ClientProgram
from tests.support.server import RedisServer, free_port
from tests.support.told_target import ToldTarget

ENVIRONMENT = "fal_client"
ACCESS_LOG = ("--access-logfile", "-")
QUICK_S = 0.01  # how often the client asks: its own 0.1 s would only make tests longer
SERVICES = """
    [defaults]
    allow_unlisted = true
    max_concurrency = 1
    retry_delay_s = 0
"""


class FalError(Exception):
    """What the client raised. *facts*: what it carries, of an answer also the *body* as text."""

    def __init__(self, facts: dict[str, Any]) -> None:
        super().__init__(f"{facts['error']}: {facts['text']}")
        self.name: str = facts["error"]
        self.facts = facts

    def __getattr__(self, name: str) -> Any:
        try:
            return self.facts[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass(frozen=True)
class Handle:
    """A handle that the client holds; *n*: of the call that returned it."""

    n: int
    request_id: str
    status_url: str
    response_url: str
    cancel_url: str


class Calling:
    """One call of the client's, which may take its time. Others go on meanwhile."""

    def __init__(self, sdk: FalSdk, n: int) -> None:
        self._sdk, self.n = sdk, n

    def event(self, *, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """The next status that it yields, or hands to a callback."""
        said = self._sdk.hear(self.n, timeout_s=timeout_s)
        assert "event" in said, said
        event: dict[str, Any] = said["event"]
        return event

    def until(self, kind: str, **facts: Any) -> dict[str, Any]:
        """The first status of this kind that has all these facts."""
        while True:
            event = self.event()
            if event["is"] == kind and facts.items() <= event.items():
                return event

    def enqueued(self) -> str:
        """The request id that the first callback got."""
        said = self._sdk.hear(self.n)
        assert "enqueued" in said, said
        return str(said["enqueued"])

    def rest(self) -> tuple[list[dict[str, Any]], Any]:
        """The statuses that are left, and the result. Raises FalError."""
        events = []
        while "event" in (said := self._sdk.hear(self.n)):
            events.append(said["event"])
        return events, self._result(said)

    def result(self, *, timeout_s: float = PATIENCE_S) -> Any:
        """Raises FalError."""
        return self._result(self._sdk.hear(self.n, timeout_s=timeout_s))

    def _result(self, said: dict[str, Any]) -> Any:
        if "error" in said:
            raise FalError(said)
        result = said["result"]
        return Handle(self.n, **result) if isinstance(result, dict) and "status_url" in result else result


class FalClient:
    """SyncClient or AsyncClient, as *kind* says. A call's answer is what the client's method returned."""

    def __init__(self, sdk: FalSdk, kind: str, key: str | None = None) -> None:
        """*key*: instead of the environment's."""
        self.sdk, self.kind, self.key = sdk, kind, key

    def begin(self, call: str, *args: Any, on: Handle | None = None, told: bool = False, **kwargs: Any) -> Calling:
        """*on*: a handle's method instead of the client's. *told*: with both callbacks."""
        asked: dict[str, Any] = {"client": self.kind, "call": call, "args": args, "kwargs": kwargs, "told": told}
        if on is not None:
            asked["on"] = on.n
        if self.key is not None:
            asked["key"] = self.key
        return self.sdk.tell(**asked)

    def call(self, call: str, *args: Any, on: Handle | None = None, **kwargs: Any) -> Any:
        """Raises FalError."""
        return self.begin(call, *args, on=on, **kwargs).result()

    def submit(self, app: str, *steps: list[Any], **kwargs: Any) -> Handle:
        handle = self.call("submit", app, {"do": steps}, **kwargs)
        assert isinstance(handle, Handle)
        return handle

    def status(self, handle: Handle, **kwargs: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.call("status", on=handle, **kwargs)
        return found

    def get(self, handle: Handle) -> Any:
        """The result, when it is there."""
        return self.call("get", on=handle, interval=QUICK_S)

    def ended(self, handle: Handle, **kwargs: Any) -> dict[str, Any]:
        """The status in the end."""
        events, _ = self.begin("iter_events", on=handle, interval=QUICK_S, **kwargs).rest()
        return events[-1]


class FalSdk:
    """One process with clients in it. Everything that they do goes on at the same time."""

    def __init__(self, program: ClientProgram) -> None:
        self.program = program
        self._numbers = itertools.count(1)
        self._said: dict[int, collections.deque[dict[str, Any]]] = collections.defaultdict(collections.deque)

    def client(self, kind: str, *, key: str | None = None) -> FalClient:
        return FalClient(self, kind, key)

    def tell(self, **asked: Any) -> Calling:
        n = next(self._numbers)
        self.program.tell(n=n, **asked)
        return Calling(self, n)

    def hear(self, n: int, *, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """The next that is said of this call."""
        while not self._said[n]:
            said = self.program.hear(timeout_s=timeout_s)
            self._said[said["n"]].append(said)
        return self._said[n].popleft()

    def are_equal(self, *handles: Handle) -> bool:
        return bool(self.tell(equal=[handle.n for handle in handles]).result())

    def end(self, *, timeout_s: float) -> None:
        """No more calls: the program must end by itself, and well."""
        assert self.program.popen.stdin is not None
        self.program.popen.stdin.close()
        assert self.program.popen.wait(timeout_s) == 0, self.program.errors


@contextlib.contextmanager
def over_http(port: int, *, env: Mapping[str, str] | None = None) -> Iterator[FalSdk]:
    """The client is pointed to this port after its import. *env*: its key, where it is not the usual one."""
    url = f"http://127.0.0.1:{port}"
    arguments = ("--queue-url", f"{url}/fal/", "--run-url", f"{url}/fal-run/")
    with ClientProgram(ENVIRONMENT, "fal_calls", *arguments, env=env or {"FAL_KEY": TOKEN}) as program:
        yield FalSdk(program)


@contextlib.contextmanager
def over_tls(port: int, certificate: Path) -> Iterator[FalSdk]:
    """The client is pointed to this port by its environment only."""
    env = {
        "FAL_QUEUE_RUN_HOST": f"127.0.0.1:{port}/fal",
        "FAL_RUN_HOST": f"127.0.0.1:{port}/fal-run",
        "FAL_KEY": TOKEN,
        "SSL_CERT_FILE": str(certificate),
    }
    with ClientProgram(ENVIRONMENT, "fal_calls", env=env) as program:
        yield FalSdk(program)


@dataclass
class House:
    """An installation with one slot for each app, its target, and processes with clients in them."""

    installation: Installation
    target: ToldTarget
    tls_port: int
    sdks: dict[str, FalSdk]
    """By the way that they take."""
    web: Process
    """The one that serves HTTP, with an access log."""

    def restart_web(self) -> None:
        self.web = self.installation.web(*ACCESS_LOG)


@contextlib.contextmanager
def house(*ways: str, services_toml: str = SERVICES, **settings: object) -> Iterator[House]:
    """*ways* that clients take: http or tls."""
    server, target = RedisServer().start(), ToldTarget()
    settings = {"services_toml": services_toml, "sweep_s": 0.1, "web_concurrency": 2, **settings}
    try:
        with Installation(server.url, target.url, **settings) as installation, contextlib.ExitStack() as stack:
            web = installation.start("web", ["gunicorn", *ACCESS_LOG, "app:app"])
            made = House(installation, target, free_port(), {}, web)
            if "http" in ways:
                made.sdks["http"] = stack.enter_context(over_http(installation.port))
            if "tls" in ways:
                certificate, _ = tls.made(installation.folder)
                secure = _secure_web(installation, certificate, made.tls_port)
                made.sdks["tls"] = stack.enter_context(over_tls(made.tls_port, certificate))
            installation.worker()
            installation.await_web()
            if "tls" in ways:
                secure.await_log("Booting worker")
            yield made
    finally:
        target.stop()
        server.stop()


def _secure_web(installation: Installation, certificate: Path, port: int) -> Process:
    """A second web beside the first."""
    key = certificate.with_name("key.pem")
    command = ["gunicorn", "--certfile", str(certificate), "--keyfile", str(key), "-b", f"127.0.0.1:{port}", "app:app"]
    return installation.start("tls", command)


def new_app() -> str:
    """A name that no other test uses: a service of its own."""
    return f"acme/t{uuid.uuid4().hex}"


def service_of(app: str) -> str:
    return app.replace("/", ".")
