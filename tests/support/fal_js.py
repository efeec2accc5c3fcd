"""fal's JavaScript client, driven from here: in a Node process, or in a page (see browser.py)."""

from __future__ import annotations

import abc
import contextlib
import itertools
import json
import os
import queue
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.installation import ROOT

FOLDER = ROOT / "tests" / "clients" / "fal_js"
PATIENCE_S = 15.0
FROM_ENVIRONMENT = "from FAL_KEY"


class FalError(Exception):
    """What the client threw; its fields are those of the client's ApiError and ValidationError."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        super().__init__(f"{content['name']}: {content['message']} {dict(content)}")
        self.name: str = content["name"]
        self.message: str = content["message"]
        self.status: int | None = content.get("status")
        self.body: Any = content.get("body")
        self.request_id: str | None = content.get("requestId")
        self.timeout_type: str | None = content.get("timeoutType")
        self.is_user_timeout: bool | None = content.get("isUserTimeout")
        self.field_errors: Any = content.get("fieldErrors")


class Runner(abc.ABC):
    """Something that runs tests/clients/fal_js/calls.mjs."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._said: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self.uncaught: queue.SimpleQueue[str] = queue.SimpleQueue()

    @abc.abstractmethod
    def send(self, content: Mapping[str, Any]) -> None: ...

    @property
    @abc.abstractmethod
    def errors(self) -> str:
        """What it has complained about, for messages."""

    def call(self, **content: Any) -> Call:
        number = next(self._numbers)
        said = self._said[number] = queue.SimpleQueue()
        self.send({"id": number, **content})
        return Call(self, number, said)

    def hear(self, content: dict[str, Any]) -> None:
        if "uncaught" in content:
            self.uncaught.put(content["uncaught"])
        else:
            self._said[content["id"]].put(content)


class Call:
    """One call of the client's that runs, or has ended."""

    def __init__(self, runner: Runner, number: int, said: queue.SimpleQueue[dict[str, Any]]) -> None:
        self._runner, self._number, self._said = runner, number, said
        self._end: dict[str, Any] | None = None
        self.enqueued: str | None = None
        self.updates: list[dict[str, Any]] = []

    def _hear(self) -> None:
        try:
            content = self._said.get(timeout=PATIENCE_S)
        except queue.Empty:
            raise AssertionError(
                f"nothing said for {PATIENCE_S} s, after {self.updates[-3:]}; errors:\n{self._runner.errors}"
            ) from None
        if "told" not in content:
            self._end = content
        elif "update" in content["told"]:
            self.updates.append(content["told"]["update"])
        else:
            self.enqueued = content["told"]["enqueued"]

    def until(self, is_it: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """The first update like that, also one of those that have come already."""
        for number in itertools.count():
            while len(self.updates) <= number:
                assert self._end is None, f"it has ended with {self._end}, after {self.updates}"
                self._hear()
            if is_it(self.updates[number]):
                return self.updates[number]
        raise AssertionError("unreachable: the count never ends")

    def request_id(self) -> str:
        """As a subscribe tells it."""
        while self.enqueued is None:
            assert self._end is None, self._end
            self._hear()
        return self.enqueued

    def result(self) -> Any:
        """At the end. Raises FalError."""
        while self._end is None:
            self._hear()
        if "error" in self._end:
            raise FalError(self._end["error"])
        return self._end["result"]

    def abort(self) -> None:
        """By its AbortSignal."""
        self._runner.send({"id": self._number, "abort": True})


@dataclass(frozen=True)
class FalJs:
    """A client that is sent to *base* in one of the ways of calls.mjs."""

    runner: Runner
    mode: str
    base: str
    credentials: str | None = FROM_ENVIRONMENT

    def begin(self, call: str, app: str, **options: Any) -> Call:
        """Options have the client's own names."""
        client: dict[str, str | None] = {"mode": self.mode, "base": self.base}
        if self.credentials != FROM_ENVIRONMENT:
            client |= {"credentials": self.credentials}
        return self.runner.call(client=client, call=call, app=app, options=options)

    def _call(self, call: str, app: str, **options: Any) -> Any:
        return self.begin(call, app, **options).result()

    def submit(self, app: str, **options: Any) -> dict[str, Any]:
        content: dict[str, Any] = self._call("submit", app, **options)
        return content

    def status(self, app: str, request_id: str, **options: Any) -> dict[str, Any]:
        content: dict[str, Any] = self._call("status", app, requestId=request_id, **options)
        return content

    def result(self, app: str, request_id: str) -> dict[str, Any]:
        content: dict[str, Any] = self._call("result", app, requestId=request_id)
        return content

    def cancel(self, app: str, request_id: str) -> None:
        assert self._call("cancel", app, requestId=request_id) is None

    def stream(self, app: str, request_id: str, **options: Any) -> Call:
        return self.begin("streamStatus", app, requestId=request_id, **options)

    def ended(self, app: str, request_id: str) -> dict[str, Any]:
        """The last status, once there is one."""
        done: dict[str, Any] = self.stream(app, request_id, logs=True).result()["done"]
        assert done["status"] == "COMPLETED"
        return done


class Node(Runner):
    """A Node process. A ``with`` block ends by killing it."""

    def __init__(self, **environment: str) -> None:
        super().__init__()
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  closed by __exit__
        self._popen = subprocess.Popen(
            ["node", str(FOLDER / "node.mjs")],
            env=clean_environment() | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
        )
        self._reader = threading.Thread(target=self._read, name="reads node", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None  # PIPE was asked for
        for line in self._popen.stdout:
            self.hear(json.loads(line))

    def send(self, content: Mapping[str, Any]) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps(content) + "\n")

    @property
    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read()

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.kill()
        self._popen.wait()
        self._reader.join()
        assert self._popen.stdin is not None and self._popen.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._popen.stdin.close()
        self._popen.stdout.close()
        self._errors.close()


def run(name: str, **environment: str) -> str:
    """The output of a program of tests/clients/fal_js."""
    done = subprocess.run(
        ["node", str(FOLDER / name)],
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def clean_environment() -> dict[str, str]:
    """No proxy, no key, and none of the project's settings."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ}


def is_installed() -> bool:
    """Whether `make test-js` has put the client where programs find it."""
    return Path(FOLDER, "node_modules", "@fal-ai", "client").is_dir()
