"""What SIGHUP means: a program's terminal has closed, or `kill -HUP` asks it to read its settings again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable


class Terminal:
    """The terminal among these descriptors when the program started, if there was one.

    Under nohup, and where a supervisor starts a program with SIGHUP ignored, there is none: it shall outlive terminals.
    """

    def __init__(self, descriptors: Iterable[int] = (0, 1, 2)) -> None:
        outlives = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        self._descriptors = [] if outlives else [each for each in descriptors if os.isatty(each)]

    @property
    def is_gone(self) -> bool:
        """Whether there was one that has closed since."""
        return not all(map(os.isatty, self._descriptors))
