"""When the watchdog calls a worker stalled, second by second; and the watch over a greenlet hub."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from eas_queue.worker.watchdog import FROZEN_S, Look, Stall
from tests.support.installation import ROOT

STALLED = Look(waiting=3, free=1, received=7, connected=True)


def looks(stall: Stall, look: Look | None, seconds: int, *, begin: float = 100) -> float | None:
    """The answer to the last of *seconds* looks, one a second."""
    answer = None
    for second in range(seconds):
        answer = stall.lasts(begin + second, look)
    return answer


def test_a_worker_that_takes_nothing_though_it_could_is_stalled_after_the_time() -> None:
    stall = Stall(10)

    assert looks(stall, STALLED, 11) is None
    assert stall.lasts(111, STALLED) == 10


@pytest.mark.parametrize(
    "look",
    [
        None,
        replace(STALLED, waiting=0),
        replace(STALLED, free=0),
        replace(STALLED, free=-2),
        replace(STALLED, received=8),
    ],
    ids=["Redis is silent", "nothing waits", "full", "overfull", "received one"],
)
def test_one_look_that_explains_it_starts_the_time_anew(look: Look | None) -> None:
    stall = Stall(10)
    looks(stall, STALLED, 10)

    assert stall.lasts(110, look) is None
    again = replace(STALLED, received=look.received if look else 7)
    assert looks(stall, again, 10, begin=111) is None
    assert stall.lasts(121, again) == 10


def test_a_process_that_slept_knows_nothing_of_that_time() -> None:
    stall = Stall(10)
    looks(stall, STALLED, 10)

    assert stall.lasts(109 + FROZEN_S + 1, STALLED) is None
    assert looks(stall, STALLED, 10, begin=109 + FROZEN_S + 2) is None


def test_while_celery_knows_that_it_is_not_connected_it_has_longer() -> None:
    stall = Stall(10, reconnects_s=45)
    away = replace(STALLED, connected=False)

    assert looks(stall, away, 45) is None
    assert looks(stall, STALLED, 9, begin=145) is None, "a fresh connection has its own time"
    assert stall.lasts(154, STALLED) == 53, "since the look that began it"
    assert looks(Stall(10, reconnects_s=45), away, 47) is not None


def test_a_greenlet_hub_that_hangs_ends_the_process_and_one_that_runs_does_not() -> None:
    code = """if True:
        from gevent import monkey; monkey.patch_all()
        import time
        from eas_queue.worker.watchdog import watch_hub
        watch_hub(1.5)
        time.sleep(3)
        print("alive", flush=True)
        while True: pass
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=20)

    assert (done.returncode, done.stdout) == (1, "alive\n")
    assert "worker_hangs: no greenlet has run for 1.5 s" in done.stderr
