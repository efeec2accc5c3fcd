"""The end of a process that nothing can hold up: not Celery's plumbing, nor a greenlet hub that hangs.

Celery's own stop waits without limit, for instance for a reply to Flower that kombu tries to send for ever when Redis
went at the same moment.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from billiard.process import active_children

TICK_S = 0.1
IDLE_S = 5.0  # once no seat is taken, for Celery's own goodbyes: up to 4 s with greenlets
LATE_S = 4.0  # after the grace, for handing back; supervisord.conf's stopwaitsecs is the grace and 5 s


def _original(module: str, name: str) -> Any:
    """What stands there without gevent, also where gevent has put its own in place."""
    if "gevent.monkey" in sys.modules:
        from gevent import monkey

        return monkey.get_original(module, name)
    return getattr(sys.modules[module], name)


def start_native(run: Callable[[Callable[[float], None]], None]) -> None:
    """Call *run(sleep)* in a thread of the system's own, which runs even while gevent's hub hangs.

    It may touch nothing that gevent has replaced: no locks, no logging, no sockets. May be called in a signal handler.
    """
    sleep = _original("time", "sleep")
    _original("_thread", "start_new_thread")(run, (sleep,))


def end_now(code: int, why: str) -> None:
    """End this process and its pool's children. Only them: the process group may be somebody else's as well."""
    with contextlib.suppress(OSError):
        os.write(2, f"[{time.strftime('%Y-%m-%d %H:%M:%S')}: ERROR] {why}\n".encode())
    with contextlib.suppress(Exception):
        for child in active_children():
            with contextlib.suppress(OSError):
                os.kill(child.pid, signal.SIGKILL)
    os._exit(code)


def bound_stop(taken: Callable[[], int], grace_s: float, end: Callable[[int, str], None] = end_now) -> None:
    """A stop has begun: end this process IDLE_S after its last seat is free, and LATE_S after *grace_s* in any case.

    Counts its own ticks, so that a process which was frozen does not find its time used up.
    """

    def watch(sleep: Callable[[float], None]) -> None:
        ticks = idle = 0
        while True:
            sleep(TICK_S)
            ticks += 1
            idle = idle + 1 if taken() == 0 else 0
            if idle * TICK_S >= IDLE_S:
                return end(0, "worker_stop_hung: no request was running any more, so the process ends here")
            if ticks * TICK_S >= grace_s + LATE_S:
                return end(1, f"worker_stop_cut seats={taken()}: their leases lapse, and the requests are tried again")

    start_native(watch)
