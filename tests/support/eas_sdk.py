"""The official SDK of PAI-EAS, unmodified, in processes of its own: the programs of tests/clients that drive it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.clients import ROOT, python_of
from tests.support.installation import TOKEN, Installation

ENVIRONMENT = "eas_prediction"
PATIENCE_S = 15.0
REAR = {"X-EAS-QueueService-Access-Rear": "true"}
_names = itertools.count()


class SdkError(Exception):
    """What the SDK raised: its name, its code where it has one (a status), and its text."""

    def __init__(self, name: str, code: int | None, text: str) -> None:
        super().__init__(f"{name} {code}: {text}")
        self.name, self.code, self.text = name, code, text


@dataclass(frozen=True)
class Frame:
    """An item as the SDK hands it out."""

    index: int
    tags: dict[str, str]
    data: bytes
    message: str

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Frame:
        return cls(said["index"], said["tags"], said["data"].encode("latin-1"), said["message"])


def run(text: str, *, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """A whole program, as its text, to its end."""
    command = [str(python_of(ENVIRONMENT)), "-c", text]
    return subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=timeout_s)


class Program:
    """A program of tests/clients that runs; what it says can be read meanwhile. A ``with`` block ends by killing it."""

    def __init__(self, name: str, *arguments: object) -> None:
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  closed by kill()
        self.name = name
        self.popen = subprocess.Popen(
            [str(python_of(ENVIRONMENT)), "-m", f"tests.clients.{name}", *map(str, arguments)],
            cwd=ROOT,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        self._said: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name=f"reads {name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None  # PIPE was asked for
        for line in self.popen.stdout:
            self._said.put(json.loads(line))
        self._said.put(None)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """SIGKILL, to what it has started too. Harmless when it has ended, or was killed before."""
        if self._errors.closed:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, 9)
        self.popen.wait()
        self._reader.join()
        assert self.popen.stdin is not None and self.popen.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.popen.stdin.close()
        self.popen.stdout.close()
        self._errors.close()

    @property
    def errors(self) -> str:
        """What it has written to standard error."""
        self._errors.seek(0)
        return self._errors.read()

    def tell(self, **content: Any) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(json.dumps(content) + "\n")

    def hear(self, *, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """The next that it says. Raises AssertionError when it says nothing in time, or has ended."""
        try:
            said = self._said.get(timeout=timeout_s)
        except queue.Empty:
            raise AssertionError(f"{self.name} said nothing for {timeout_s} s; its errors:\n{self.errors}") from None
        assert said is not None, f"{self.name} has ended; its errors:\n{self.errors}"
        return said

    def until_silent(self, seconds: float) -> list[dict[str, Any]]:
        """All that it says until it has said nothing for so long."""
        found = []
        with contextlib.suppress(queue.Empty):
            while (said := self._said.get(timeout=seconds)) is not None:
                found.append(said)
        return found

    def rest(self, *, timeout_s: float) -> list[dict[str, Any]]:
        """All that it says to its end, which must be a good one."""
        found: list[dict[str, Any]] = []
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                said = self._said.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(
                    f"{self.name} has not ended after {timeout_s} s; it said {len(found)} lines, the last ones "
                    f"{found[-3:]}; its errors:\n{self.errors}"
                ) from None
            if said is None:
                assert self.popen.wait(10) == 0, self.errors
                return found
            found.append(said)


def requests_in(web_log: str, method: str, path: str) -> int:
    """How many reached a web process, told by the access log it was started with; *path* is that before the ``?``."""
    return web_log.count(f'"{method} {path} ') + web_log.count(f'"{method} {path}?')


class SdkQueue:
    """A QueueClient in a process of its own. Each method is one call of the SDK's, with its defaults."""

    def __init__(
        self,
        program: Program,
        port: int,
        queue_name: str,
        *,
        token: str = TOKEN,
        uid: str | None = None,
        gid: str = "eas",
        path_suffix: str = "",
        **settings: Any,
    ) -> None:
        """*settings*: of the SDK's ``set_`` methods, or add_extra_headers."""
        self.program, self.port, self.queue_name = program, port, queue_name
        self._name = str(next(_names))
        self._ask(
            make=self._name,
            endpoint=f"127.0.0.1:{port}",
            token=token,
            queue=queue_name,
            init={"uid": uid, "gid": gid, "path_suffix": path_suffix},
            set=settings,
        )

    def _ask(self, *, timeout_s: float = PATIENCE_S, **content: Any) -> Any:
        self.program.tell(**content)
        return self.answer(timeout_s=timeout_s)

    def answer(self, *, timeout_s: float = PATIENCE_S) -> Any:
        """Of a call that was begun. Raises SdkError. If it takes longer, its process ends: others would wait for it."""
        try:
            said = self.program.hear(timeout_s=timeout_s)
        except AssertionError:
            self.program.kill()
            raise
        if "error" in said:
            raise SdkError(said["error"], said["code"], said["text"])
        return said["result"]

    def begin(self, call: str, *args: Any, **kwargs: Any) -> None:
        """A call whose answer is asked for later."""
        self.program.tell(on=self._name, call=call, args=args, kwargs=kwargs)

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self.begin(name, *args, **kwargs)
        return self.answer(timeout_s=40)

    def put(self, data: str | bytes, tags: Mapping[str, Any] | None = None) -> tuple[int, str]:
        """Index and request id. The SDK's index is text, which must be its plain digits."""
        sent = {"latin-1": data.decode("latin-1")} if isinstance(data, bytes) else data
        index, request_id = self._call("put", sent, **({} if tags is None else {"tags": tags}))
        assert index == str(int(index))
        return int(index), request_id

    def get(self, **kwargs: Any) -> list[Frame]:
        return [Frame.of(said) for said in self._call("get", **kwargs)]

    def got(self, *, timeout_s: float = PATIENCE_S) -> list[Frame]:
        """The answer of a get that was begun."""
        return [Frame.of(said) for said in self.answer(timeout_s=timeout_s)]

    def attributes(self) -> dict[str, str]:
        found: dict[str, str] = self._call("attributes")
        return found

    def search(self, index: int | str) -> dict[str, Any]:
        found: dict[str, Any] = self._call("search", index)
        return found

    def delete(self, index: int | list[int]) -> str:
        return str(self._call("delete", index))

    def truncate(self, index: int) -> str:
        return str(self._call("truncate", index))

    def commit(self, index: int | list[int]) -> str:
        return str(self._call("commit", index))

    def watch(self, index: int = 0, window: int = 5, **kwargs: Any) -> None:
        """Connects at the first ``next``, as the SDK does."""
        self._ask(on=self._name, watch={"index": index, "window": window, **kwargs})

    def next(self, count: int = 1) -> list[Frame]:
        """So many frames of the watcher."""
        return [Frame.of(said) for said in self._ask(on=self._name, next=count)]

    def close(self) -> None:
        """Of the watcher."""
        self._ask(on=self._name, close=True)

    def length(self) -> int:
        return int(self.attributes()["stream.length"])

    def all(self) -> list[Frame]:
        """What is in the queue, in order of index; nothing is taken out."""
        found: list[Frame] = []
        while more := self.get(index=found[-1].index + 1 if found else 0, length=500, timeout="0s", auto_delete=False):
            found += more
        return found


class Sdk:
    """Clients and programs of the SDK towards one installation."""

    def __init__(self, installation: Installation, port: int | None = None) -> None:
        """*port*: another way to it."""
        self.installation = installation
        self.port = port or installation.port
        self._stack = contextlib.ExitStack()
        self._program: Program | None = None

    def __enter__(self) -> Sdk:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def queue(self, name: str, *, alone: bool = False, **options: Any) -> SdkQueue:
        """A client of its own; *alone*: in its own process too, so that another one's call can wait meanwhile."""
        if alone:
            program = self._stack.enter_context(Program("eas_client"))
        else:
            if self._program is None or self._program.popen.poll() is not None:
                self._program = self._stack.enter_context(Program("eas_client"))
            program = self._program
        return SdkQueue(program, self.port, name, **options)

    def program(self, name: str, queue_name: str, *arguments: object) -> Program:
        """One of tests/clients that is told a queue."""
        return self._stack.enter_context(
            Program(
                name,
                *("--endpoint", f"127.0.0.1:{self.port}", "--token", TOKEN, "--queue", queue_name),
                *arguments,
            )
        )

    @contextlib.contextmanager
    def watcher(self, queue_name: str, *arguments: object) -> Iterator[Program]:
        """A consumer in a process of its own, killed at the end."""
        with self.program("eas_watch", queue_name, *arguments) as program:
            yield program


def _environment() -> dict[str, str]:
    """No proxy, and none of the project's settings."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"PYTHONUNBUFFERED": "1"}
