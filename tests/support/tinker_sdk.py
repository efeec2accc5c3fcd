"""The official clients of Tinker's API, unmodified, in processes of their own: programs of tests/clients drive them."""

from __future__ import annotations

import ast
import contextlib
import itertools
import json
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.installation import TOKEN, Installation, Process, await_condition
from tests.support.program import PATIENCE_S, ClientProgram
from tests.support.sample_target import SampleTarget
from tests.support.server import RedisServer, free_port

TINKER, TINKER_022, MINT = "tinker", "tinker_022", "mindlab_toolkit"
ENVIRONMENTS = (TINKER, TINKER_022, MINT)
MODELS = 60
SERVICES = """
    [defaults]
    max_concurrency = 1
    retry_delay_s = 0
    max_attempts = 2

    [services.qwen]
    aliases = ["Qwen/Qwen3-0.6B", "openai/gpt-oss-20b:peft:131072"]

    [services.small]
    aliases = ["acme/small"]
    max_queue_length = 1
"""
_WIRE = {
    "method": "%(m)s",
    "path": "%(U)s",
    "status": "%(s)s",
    "took_s": "%(L)s",
    "host": "%({host}i)s",
    "type": "%({x-tinker-request-type}i)s",
    "iteration": "%({x-tinker-request-iteration}i)s",
    "retry": "%({x-stainless-retry-count}i)s",
}
ACCESS_LOG = ("--access-logfile", "-", "--access-logformat", f"wire {json.dumps(_WIRE)}")


class TinkerError(Exception):
    """What the client raised: the *name* of its class, and the *facts* that it carries."""

    def __init__(self, facts: dict[str, Any]) -> None:
        super().__init__(f"{facts['error']}: {facts['text']}")
        self.name: str = facts["error"]
        self.facts = facts


class Calling:
    """One call of the client's, which may take its time. Others go on meanwhile."""

    def __init__(self, sdk: Sdk, n: int) -> None:
        self._sdk, self.n = sdk, n

    def result(self, *, timeout_s: float = PATIENCE_S) -> Any:
        """Raises TinkerError."""
        said = self._sdk.hear(self.n, timeout_s=timeout_s)
        if "error" in said:
            raise TinkerError(said)
        return said["result"]


@dataclass(frozen=True)
class Sampler:
    """A SamplingClient in the client's process."""

    sdk: Sdk
    n: int
    session: str

    def begin(self, prompt: Sequence[int], *steps: str, max_tokens: int = 2, **more: Any) -> Calling:
        """A sample whose result is heard later; *steps*: what the target does before it answers."""
        return self.sdk.tell("sample", **self._asked(prompt, steps, max_tokens), **more)

    def sample(self, prompt: Sequence[int], *steps: str, max_tokens: int = 2, **more: Any) -> dict[str, Any]:
        """Raises TinkerError."""
        found: dict[str, Any] = self.begin(prompt, *steps, max_tokens=max_tokens, **more).result()
        return found

    def future(self, prompt: Sequence[int], *steps: str) -> int:
        """Submits; the number of the future, to be given to other calls as *on*."""
        calling = self.sdk.tell("begin", **self._asked(prompt, steps, 2))
        assert calling.result() is None
        return calling.n

    def _asked(self, prompt: Sequence[int], steps: Sequence[str], max_tokens: int) -> dict[str, Any]:
        return {"on": self.n, "prompt": list(prompt), "params": params(*steps, max_tokens=max_tokens)}


class Sdk:
    """One process with the client in it."""

    def __init__(self, program: ClientProgram) -> None:
        self.program = program
        self._numbers = itertools.count(1)
        self._said: dict[int, dict[str, Any]] = {}
        self._reading = threading.Lock()

    def tell(self, do: str, **asked: Any) -> Calling:
        n = next(self._numbers)
        self.program.tell(n=n, do=do, **asked)
        return Calling(self, n)

    def call(self, do: str, *, timeout_s: float = PATIENCE_S, **asked: Any) -> Any:
        """Raises TinkerError."""
        return self.tell(do, **asked).result(timeout_s=timeout_s)

    def sampler(self, model: str | None = None, *, path: str | None = None, **where: Any) -> Sampler:
        """Raises TinkerError."""
        kwargs = {"base_model": model} if path is None else {"model_path": path}
        return self._sampler(self.tell("sampler", kwargs=kwargs, **where))

    def copy(self, do: str, **asked: Any) -> Sampler:
        """Of a sampler of another process."""
        return self._sampler(self.tell(do, **asked))

    def _sampler(self, calling: Calling) -> Sampler:
        return Sampler(self, calling.n, calling.result()["session"])

    def hear(self, n: int, *, timeout_s: float) -> dict[str, Any]:
        """What is said of this call."""
        while n not in self._said:
            said = self.program.hear(timeout_s=timeout_s)
            self._said[said["n"]] = said
        return self._said.pop(n)

    # --------------------------------------------------------------------------------------- the low-level client
    def raw_sample(self, session: str, seq_id: int, prompt: Sequence[int], *steps: str, **more: Any) -> dict[str, Any]:
        """The reply to an asample."""
        asked: dict[str, Any] = {"session": session, "seq_id": seq_id, "prompt": list(prompt)}
        found: dict[str, Any] = self.call("raw_sample", params=params(*steps), **asked, **more)
        return found

    def raw_poll(self, request_id: str, **more: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.call("raw_poll", request_id=request_id, **more)
        return found

    def raw_end(self, request_id: str) -> dict[str, Any]:
        """The body of the answer that is not a 408 any more."""

        def ended() -> dict[str, Any] | None:
            found = self.raw_poll(request_id)
            return found if found["status"] != 408 else None

        found = await_condition(ended, what=f"{request_id} ends")
        assert found["status"] == 200, found
        body: dict[str, Any] = found["body"]
        return body


def params(*steps: str, max_tokens: int = 2) -> dict[str, Any]:
    return {"max_tokens": max_tokens} | ({"stop": list(steps)} if steps else {})


def fields_of(line: str) -> dict[str, Any]:
    """A line of the queue status program: its *kind*, and its facts as Python values where they are some."""
    kind, _, rest = line.strip().partition(" ")
    found: dict[str, Any] = {"kind": kind}
    for name, text in re.findall(r"(\w+)=(.*?)(?= \w+=|$)", rest):
        try:
            found[name] = ast.literal_eval(text)
        except (SyntaxError, ValueError):
            found[name] = text
    return found


@dataclass
class House:
    """An installation with one slot for each model, its target, and a process of each client that is asked for."""

    installation: Installation
    target: SampleTarget
    web: Process
    stack: contextlib.ExitStack
    sdks: dict[str, Sdk] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(MODELS)))

    def model(self) -> str:
        """The name of a model that no other test uses."""
        return f"acme/m{next(self._numbers)}"

    def sdk(self, environment: str = TINKER) -> Sdk:
        if environment not in self.sdks:
            self.sdks[environment] = self.another_sdk(environment)
        return self.sdks[environment]

    def another_sdk(self, environment: str = TINKER, *, url: str = "") -> Sdk:
        """*url*: another one than the installation's own."""
        return Sdk(self.stack.enter_context(program(environment, "tinker_calls", url=url or self.installation.url)))

    @contextlib.contextmanager
    def script(self, environment: str, model: str, *, count: int = 1) -> Iterator[ClientProgram]:
        """The queue status program, *count* times in one process. It says dicts of fields_of()."""
        with script(environment, "--count", count, url=self.installation.url, model=model) as running:
            yield running

    def restart_web(self) -> None:
        self.web = self.installation.web(*ACCESS_LOG)

    def wire(self, path: str) -> list[dict[str, Any]]:
        """The requests to this path below /api/v1/ that have been answered so far."""
        lines = [json.loads(line[5:]) for line in self.web.log.splitlines() if line.startswith('wire {"')]
        return [line for line in lines if line["path"] == f"/api/v1/{path}"]


def program(
    environment: str, name: str, *arguments: object, url: str, model: str | None = None, **more: Any
) -> ClientProgram:
    """A program of tests/clients whose client knows the *url* and its key by its environment."""
    env = {"TINKER_BASE_URL": url, "TINKER_API_KEY": TOKEN}
    if environment == MINT:
        env = {"MINT_BASE_URL": f"{url}/", "MINT_API_KEY": TOKEN}  # the toolkit's own default ends like that
    if model is not None:
        env["MINT_BASE_MODEL"] = model
    return ClientProgram(environment, name, *arguments, env=env, **more)


def script(environment: str, *arguments: object, url: str, model: str) -> ClientProgram:
    """The queue status program. It says dicts of fields_of()."""
    return program(environment, "tinker_queue_status", *arguments, url=url, model=model, parse=fields_of)


def service_of(model: str) -> str:
    return model.partition("/")[2]


@contextlib.contextmanager
def house(*environments: str, services_toml: str = "", **settings: object) -> Iterator[House]:
    """*environments*: of the clients that are started before the installation is there, which saves their time.

    *services_toml*: more of it. There is one service, ``gone``, whose target is not.
    """
    server, target = RedisServer().start(), SampleTarget()
    listed = SERVICES + "".join(f'[services.m{n}]\naliases = ["acme/m{n}"]\n' for n in range(MODELS))
    listed += f'[services.gone]\naliases = ["acme/gone"]\ntarget_url = "http://127.0.0.1:{free_port()}"\n'
    given: dict[str, object] = {"services_toml": listed + services_toml, "sweep_s": 0.1}
    try:
        with (
            Installation(server.url, target.url, **(given | settings)) as installation,
            contextlib.ExitStack() as stack,
        ):
            web = installation.start("web", ["gunicorn", *ACCESS_LOG, "app:app"])
            made = House(installation, target, web, stack)
            for environment in environments:
                made.sdk(environment)
            installation.worker()
            installation.await_web()
            yield made
    finally:
        target.stop()
        server.stop()
