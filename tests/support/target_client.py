"""Run a scriptable target (see target.py) as a process of its own, and read its call log."""

from __future__ import annotations

import http.client
import json
import pathlib
import select
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable
from types import TracebackType
from typing import Any

from .target import CallRecord, Stats

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 5.0
POLL_S = 0.02


class Target:
    """A target process on a free port of 127.0.0.1, for a ``with`` block or start() and stop().

    Threads may share one: every query opens a connection of its own.
    """

    def __init__(self, log_path: pathlib.Path | None = None) -> None:
        self._log_path = log_path
        self._process: subprocess.Popen[str] | None = None
        self.port = 0  # known once started

    @property
    def url(self) -> str:
        """The address to POST to, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the target is not running: start() it, or use a with block")
        return self._process.pid

    def start(self) -> Target:
        """Return once the target takes connections. Raises RuntimeError if it does not."""
        # The port is the server's choice: one chosen here could be taken before it binds.
        command = [sys.executable, "-m", "tests.support.target", "--port", "0"]
        if self._log_path is not None:
            command += ["--log", str(self._log_path.resolve())]
        self._process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None  # PIPE was asked for
        readable, _, _ = select.select([self._process.stdout], [], [], START_TIMEOUT_S)
        line = self._process.stdout.readline() if readable else ""
        if not line.startswith("listening on "):
            self.stop()
            raise RuntimeError(f"the target did not say within {START_TIMEOUT_S} s that it listens, but {line!r}")
        self.port = int(line.rsplit(":", 1)[1])
        return self

    def stop(self) -> None:
        """End the target by SIGTERM and wait for it; nothing happens if it has ended."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        finally:
            if process.stdout is not None:
                process.stdout.close()

    def __enter__(self) -> Target:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def calls(self, *, request_id: str | None = None, since: int | None = None) -> list[CallRecord]:
        """Return the calls so far in order of their start; *since* keeps those with n > since."""
        wanted = {"request_id": request_id, "since": since}
        query = urllib.parse.urlencode({name: value for name, value in wanted.items() if value is not None})
        calls: list[CallRecord] = json.loads(self._query("GET", f"/_calls?{query}"))
        return calls

    def stats(self) -> Stats:
        stats: Stats = json.loads(self._query("GET", "/_stats"))
        return stats

    def clear(self) -> None:
        """Forget the calls so far. Those that run go on, counted only in ``running``."""
        self._query("DELETE", "/_calls")

    def wait_for(
        self,
        predicate: Callable[[list[CallRecord]], Any],
        timeout_s: float = 5.0,
        *,
        request_id: str | None = None,
        since: int | None = None,
    ) -> list[CallRecord]:
        """Return the calls as soon as *predicate* holds for them, asking every 20 ms.

        The predicate gets what calls() returns for the same filter. Filter when the log is long:
        each poll carries all that match. Raises AssertionError, which shows the calls, after timeout_s.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            is_last = time.monotonic() >= deadline
            calls = self.calls(request_id=request_id, since=since)
            if predicate(calls):
                return calls
            if is_last:
                shown = "\n".join(f"  {json.dumps(call)}" for call in calls) or "  (no calls)"
                raise AssertionError(f"the condition did not hold within {timeout_s} s; the calls:\n{shown}")
            time.sleep(POLL_S)

    def _query(self, method: str, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status >= 400:
            raise RuntimeError(f"{method} {path} on the target: {response.status} {body!r}")
        return body
