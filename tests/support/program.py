"""A program of tests/clients in its client's own environment: it says what happens as lines of JSON."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from tests.support.clients import ROOT, python_of

PATIENCE_S = 15.0


class ClientProgram:
    """A program of tests/clients that runs; what it says can be read meanwhile. A ``with`` block ends by killing it."""

    def __init__(
        self,
        environment: str,
        name: str,
        *arguments: object,
        env: Mapping[str, str] | None = None,
        parse: Callable[[str], dict[str, Any]] = json.loads,
    ) -> None:
        """*environment*: whose Python runs it. *env*: more variables, beside those that every program gets.

        *parse*: what makes of a line of it, where that is not JSON.
        """
        self._parse = parse
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  closed by kill()
        self.name = name
        self.popen = subprocess.Popen(
            [str(python_of(environment)), "-m", f"tests.clients.{name}", *map(str, arguments)],
            cwd=ROOT,
            env=clean_environment() | dict(env or {}),
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
            self._said.put(self._parse(line))
        self._said.put(None)

    def __enter__(self) -> Self:
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


def clean_environment() -> dict[str, str]:
    """No proxy, and none of the project's settings."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"PYTHONUNBUFFERED": "1"}
