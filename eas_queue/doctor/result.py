"""What a check says, and how a check is kept from taking for ever."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Status(StrEnum):
    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Result:
    """One line of the report. ``mend``: what to do now; None where nothing is to be done."""

    name: str
    status: Status
    fact: str
    mend: str | None = None


def ok(name: str, fact: str) -> Result:
    return Result(name, Status.OK, fact)


def warn(name: str, fact: str, mend: str) -> Result:
    return Result(name, Status.WARN, fact, mend)


def fail(name: str, fact: str, mend: str) -> Result:
    return Result(name, Status.FAIL, fact, mend)


def program(name: str) -> str:
    """*name* of the environment that this runs in, as one writes it in the project's folder without activating it."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        return name
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


class Running:
    """A check at work in a thread of its own, so that neither a silent server nor an exception stops the others.

    The thread is a daemon and is left behind when its time is over: name resolution, for one, can't be interrupted.
    """

    def __init__(self, name: str, check: Callable[[], Iterable[Result]]) -> None:
        self._name = name
        self._results: list[Result] = []
        self._thread = threading.Thread(target=self._run, args=(check,), name=f"check-{name}", daemon=True)
        self._began_s = time.monotonic()
        self._thread.start()

    def _run(self, check: Callable[[], Iterable[Result]]) -> None:
        try:
            for result in check():
                self._results.append(result)
        except Exception as exc:  # noqa: BLE001  a defect of one check must not hide what the others saw
            # Where it broke, not the message: that could quote a URL with its password.
            at = traceback.extract_tb(exc.__traceback__)[-1]
            self._results.append(
                fail(
                    self._name,
                    f"this check itself broke: {type(exc).__name__} at {Path(at.filename).name}:{at.lineno}",
                    "report this line as a defect of eas-queue; the other checks stand",
                )
            )

    def results(self, within_s: float) -> list[Result]:
        """What it found, *within_s* seconds after its start at the latest."""
        self._thread.join(max(0.0, self._began_s + within_s - time.monotonic()))
        found = list(self._results)
        if self._thread.is_alive():
            found.append(
                fail(
                    self._name,
                    f"not finished after {within_s:g} s; the rest of this check is not known",
                    "something on the way does not answer (network, name server, firewall, a stopped process); "
                    "look there, then run this again",
                )
            )
        return found
