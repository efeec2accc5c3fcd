"""SIGHUP at a worker: read the settings again. Celery's own answer is to stop and begin anew."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from eas_queue.terminal import Terminal


def on_hangup(worker: Any, tell: Callable[[], None]) -> None:
    """From now on SIGHUP makes *worker*'s main process call *tell*, in the signal handler, never twice at once.

    When it means that the worker's terminal has closed, the worker ends as it does on SIGTERM.
    """
    terminal = Terminal((1,))  # Celery's own rule: one that writes elsewhere outlives the terminal
    busy = again = False

    def hung_up(*_: object) -> None:
        nonlocal busy, again
        if terminal.is_gone:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        again = True
        while again and not busy:
            busy, again = True, False
            try:
                tell()
            finally:
                busy = False

    install_others = worker.install_platform_tweaks

    def install_all(*arguments: Any) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            install_others(*arguments)
            signal.signal(signal.SIGHUP, hung_up)  # Celery has just put its own there
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    worker.install_platform_tweaks = install_all
    signal.signal(signal.SIGHUP, hung_up)


def ignore_hangups() -> None:
    """In a forked child, which its parent tells what there is to know: a signal to the whole group must not end it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
