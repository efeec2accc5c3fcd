"""Neither a check that hangs nor one that breaks keeps the report from being made."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from eas_queue.doctor.result import Result, Running, Status, ok


def test_a_check_that_hangs_is_left_behind_and_what_it_saw_is_kept() -> None:
    forever = threading.Event()

    def check() -> Iterator[Result]:
        yield ok("first", "seen")
        forever.wait(30)

    began_s = time.monotonic()
    results = Running("slow", check).results(0.2)
    forever.set()

    assert time.monotonic() - began_s < 1
    assert [(result.name, result.status) for result in results] == [("first", Status.OK), ("slow", Status.FAIL)]
    assert "not finished after 0.2 s" in results[1].fact


def test_a_check_that_breaks_says_where_but_not_what_it_held() -> None:
    def check() -> Iterator[Result]:
        yield ok("first", "seen")
        raise ValueError("redis://:s3cret@host")

    results = Running("broken", check).results(5)

    assert [(result.name, result.status) for result in results] == [("first", Status.OK), ("broken", Status.FAIL)]
    assert "ValueError at test_result.py:" in results[1].fact
    assert "s3cret" not in repr(results)
