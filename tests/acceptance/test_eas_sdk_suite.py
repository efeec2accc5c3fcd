"""The test suite that the official SDK brings along, as it is, against a real installation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.eas_sdk import Sdk
from tests.support.installation import Installation
from tests.support.own_target import OwnTarget
from tests.support.server import RedisServer

# What a model of the SDK's authors answers: two of its tests look into it.
ANSWER = b'[{"p_0":0.52,"p_1":0.48}]'

# In the suite's own order: some of its tests need what others leave behind.
TESTS = [
    "test_queue_get_by_index",
    "test_queue_get_by_request_id",
    "test_queue_truncate",
    "test_watch_async",
    "test_watch_with_auto_commit",
    "test_watch_with_inference_service_async",
    "test_watch_with_inference_service_sync",
    "test_watch_with_manual_commit",
    "test_watch_with_two_watcher",
]


@pytest.fixture(scope="module")
def said() -> Iterator[list[dict[str, Any]]]:
    """All that the suite says, to its end or until it has said nothing for a minute."""
    redis_server, target = RedisServer().start(), OwnTarget()
    target.act = lambda call: (200, ANSWER)
    try:
        with Installation(redis_server.url, target.url) as installation, Sdk(installation) as sdk:
            installation.web("-w", "2")
            installation.worker()
            suite = sdk.program("eas_suite", "test_group.qservice")
            lines: list[dict[str, Any]] = [{}]
            while "all" not in lines[-1]:
                try:
                    lines.append(suite.hear(timeout_s=60))
                except AssertionError as exc:
                    lines.append({"all": f"no more of it: {exc}"})
            yield lines
    finally:
        target.stop()
        redis_server.stop()


def test_the_suite_has_these_tests_and_runs_them_all(said: list[dict[str, Any]]) -> None:
    assert [line["begins"] for line in said if "begins" in line] == TESTS, said[-1]
    assert said[-1] == {"all": len(TESTS)}


@pytest.mark.parametrize("name", TESTS)
def test_each_test_of_the_suite_passes(said: list[dict[str, Any]], name: str) -> None:
    (ended,) = [line for line in said if line.get("ended") == name] or [{"detail": f"it did not end; {said[-1]}"}]

    assert ended["detail"] == ""
