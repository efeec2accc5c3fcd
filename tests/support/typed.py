"""A terminal with a program in it, and somebody who types: what both have written, as one would see it."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

# What a progress bar draws over itself: from the start of the line to what is written next there.
_REDRAWN = re.compile(r"\r\x1b\[K(?:\[[# ]*\] +\d+%  \d+ items)?")


class Terminal:
    """Use as a context manager: at its end the program is gone."""

    def __init__(self, command: Sequence[str], *, cwd: Path, env: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        self._shown = b""
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            preexec_fn=lambda: os.login_tty(theirs),  # so that Ctrl-C is a signal, as in a real one
        )
        os.close(theirs)

    @property
    def text(self) -> str:
        """All so far; lines end as in a file, what a progress bar has drawn is gone."""
        return _REDRAWN.sub("", self._shown.decode(errors="replace").replace("\r\n", "\n"))

    def await_text(self, text: str, *, times: int = 1, timeout_s: float = 15) -> None:
        """Until *text* is the end of what is shown, the *times*-th time: a question, or a line that is complete."""
        until_s = time.monotonic() + timeout_s
        while not self.text.endswith(text) or self.text.count(text) < times:
            if not self._read(until_s - time.monotonic()):
                raise AssertionError(f"{text!r} is not shown; this is:\n{self.text}")

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def end(self, *, timeout_s: float = 15) -> int:
        """Its exit code, when it has ended and all is shown."""
        until_s = time.monotonic() + timeout_s
        while self._read(until_s - time.monotonic()):
            pass
        try:
            return self._process.wait(max(0.1, until_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end; this is shown:\n{self.text}") from None

    def _read(self, timeout_s: float) -> bool:
        """False when nothing came in time, or nothing will come any more."""
        if not select.select([self._ours], [], [], max(0.0, timeout_s))[0]:
            return False
        try:
            piece = os.read(self._ours, 65_536)
        except OSError:  # the other end has closed
            return False
        self._shown += piece
        return bool(piece)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)
