"""The official SDK of PAI-EAS, unmodified, in processes of its own: the programs of tests/clients that drive it."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.clients import python_of
from tests.support.installation import TOKEN, Installation
from tests.support.program import PATIENCE_S, ClientProgram, clean_environment

ENVIRONMENT = "eas_prediction"
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
    return subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=timeout_s)


class Program(ClientProgram):
    """One of tests/clients in the SDK's environment."""

    def __init__(self, name: str, *arguments: object) -> None:
        super().__init__(ENVIRONMENT, name, *arguments)


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
