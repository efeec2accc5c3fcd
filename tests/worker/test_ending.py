"""The bounded stop and the hard end, without Celery."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from eas_queue.worker import ending
from tests.support.installation import ROOT, await_condition


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """What the process would have ended with; all times are a tenth of the real ones."""
    for name in ("TICK_S", "IDLE_S", "LATE_S"):
        monkeypatch.setattr(ending, name, getattr(ending, name) / 10)
    return []


def test_with_no_seat_taken_a_stop_ends_soon_and_counts_as_a_clean_one(ends: list[tuple[int, str]]) -> None:
    began = time.monotonic()
    ending.bound_stop(lambda: 0, 60, lambda code, why: ends.append((code, why)))

    await_condition(lambda: ends)

    assert time.monotonic() - began >= ending.IDLE_S
    assert ends[0][0] == 0


def test_while_a_seat_is_taken_it_lasts_as_long_as_the_grace_and_little_more(ends: list[tuple[int, str]]) -> None:
    began = time.monotonic()
    ending.bound_stop(lambda: 3, 0.5, lambda code, why: ends.append((code, why)))

    await_condition(lambda: ends)

    assert time.monotonic() - began >= 0.5 + ending.LATE_S
    assert ends[0][0] == 1
    assert "seats=3" in ends[0][1]


def test_a_seat_taken_again_starts_the_idle_time_anew(ends: list[tuple[int, str]]) -> None:
    taken = iter([0] * 40 + [1] + [0] * 1000)
    looks: list[int] = []
    ending.bound_stop(
        lambda: looks.append(1) or next(taken),  # type: ignore[func-returns-value]
        60,
        lambda code, why: ends.append((code, why)),
    )

    await_condition(lambda: ends)

    assert len(looks) == 40 + 1 + 50


def test_the_end_comes_though_the_greenlet_hub_hangs_and_takes_the_pools_children_along() -> None:
    code = """if True:
        from gevent import monkey; monkey.patch_all()
        import billiard, time
        from eas_queue.worker import ending
        child = billiard.Process(target=monkey.get_original("time", "sleep"), args=(60,))
        child.start()
        print(child.pid, flush=True)
        ending.start_native(lambda sleep: (sleep(0.3), ending.end_now(7, "it hangs")))
        while True: pass
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=20)

    assert done.returncode == 7
    assert "it hangs" in done.stderr
    gone = subprocess.run(["kill", "-0", done.stdout.strip()], capture_output=True, check=False)
    assert gone.returncode != 0 or _is_zombie(int(done.stdout))


def _is_zombie(pid: int) -> bool:
    """Nobody may have reaped it yet."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip()[:1] in ("", "Z")
