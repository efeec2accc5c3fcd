"""Taking changed settings over in a running process, when it is told to.

Nothing is restarted: services and tokens are read, judged as a whole and replaced, under requests that go on.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import tempfile
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from eas_queue.auth import Access
from eas_queue.engine.errors import EngineError
from eas_queue.engine.service import Services

if TYPE_CHECKING:  # gunicorn's master reads this, and redis must not be imported before gevent has patched
    from eas_queue.engine.engine import Engine

Read = Callable[[bytes], tuple[Services, Access]]
NAMES_MOST = 20  # in one line of the log


class Bell:
    """Rung with a message in one process, heard once in each that was forked from it.

    Shared memory, not a signal passed on: nobody can be killed by it or miss it while it starts. And all get the same
    message, whatever becomes of a file meanwhile.
    """

    def __init__(self) -> None:
        self._steps = memoryview(mmap.mmap(-1, 8)).cast("Q")  # two for each ring; odd while a message is written
        self._paper = tempfile.TemporaryFile()  # noqa: SIM115  closed with the bell
        self._heard = 0

    def ring(self, message: bytes = b"") -> None:
        """May be called in a signal handler; by one process only."""
        paper, length = self._paper.fileno(), 0
        self._steps[0] += 1
        with contextlib.suppress(OSError):  # a full disk: they get an empty message then
            length = len(message) if os.pwrite(paper, message, 8) == len(message) else 0
        with contextlib.suppress(OSError):
            os.pwrite(paper, length.to_bytes(8, "big"), 0)
        self._steps[0] += 1

    def heard(self) -> bytes | None:
        """The latest message; None when there is none since this process, or the one it was forked from, asked last."""
        steps, paper = self._steps[0], self._paper.fileno()
        if steps == self._heard or steps % 2 == 1:
            return None
        message = os.pread(paper, int.from_bytes(os.pread(paper, 8, 0), "big"), 8)
        if steps != self._steps[0]:  # overwritten while it was read: next time
            return None
        self._heard = steps
        return message

    def close(self) -> None:
        self._paper.close()


class Reload:
    """Replaces the services of *engine* and the tokens of *access* by what *read* makes of a message.

    An exception of the type *refusal*, or any other, leaves everything as it is.
    """

    def __init__(
        self, read: Read, refusal: type[Exception], engine: Engine, access: Access | None, logger: logging.Logger
    ) -> None:
        self._read, self._refusal, self._engine, self._access, self._logger = read, refusal, engine, access, logger

    def __call__(self, message: bytes = b"") -> bool:
        """Returns whether new settings are in force; says in the log what has changed, or what is wrong."""
        try:
            services, access = self._read(message)
        except self._refusal as exc:
            self._logger.error("%s", refused(exc))  # noqa: TRY400  what is wrong stands in it
            return False
        except Exception:  # whatever it is: the thread that asked goes on
            self._logger.exception("reload_failed; the settings before it stay in force")
            return False
        before, self._engine.services = self._engine.services, services
        if self._access is not None:
            self._access.adopt(access)
        self._logger.info("reloaded %s", changes(before, services, access))
        try:
            self._engine.register_listed()
        except EngineError as exc:
            self._logger.warning("limits_not_registered error=%s; the next sweep tries again", exc)
        return True

    def silently(self) -> bool:
        """The same in a process that forks: without Redis and without the log, so that a signal handler may do it."""
        with contextlib.suppress(Exception):
            self._engine.services = self._read(b"")[0]
            return True
        return False


def refused(exc: Exception) -> str:
    """One line about settings that were not taken over."""
    return f"reload_refused error={' '.join(str(exc).split())}; the settings before it stay in force"


def changes(before: Services, after: Services, access: Access) -> str:
    """One line about what differs; names and counts, no secrets."""
    old, new = ({service.name: service for service in services} for services in (before, after))
    parts = [
        f"added={_names(new.keys() - old.keys())}",
        f"removed={_names(old.keys() - new.keys())}",
        f"changed={_names(name for name in new.keys() & old.keys() if new[name] != old[name])}",
    ]
    if (before.defaults, before.allow_unlisted) != (after.defaults, after.allow_unlisted):
        parts.append(f"defaults=changed allow_unlisted={str(after.allow_unlisted).lower()}")
    parts.append(f"tokens={'off' if access.is_open else len(access.tokens)}")
    return " ".join(parts)


def _names(names: Iterable[str]) -> str:
    found = sorted(names)
    more = f",..{len(found) - NAMES_MOST}_more" if len(found) > NAMES_MOST else ""
    return (",".join(found[:NAMES_MOST]) or "-") + more
