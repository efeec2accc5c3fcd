"""The queue status program refuses what MinT's demo refuses, and shows what that shows."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

from tests.support.own_target import Call, OwnTarget, Reply
from tests.support.tinker_sdk import TINKER, fields_of, script

GOOD = {"Retry-After": "1", "x-should-retry": "false"}
WRONG: dict[str, tuple[dict[str, str], str, str]] = {
    "no-pause": ({"x-should-retry": "false"}, "", "Retry-After is missing"),
    "half-a-second": (GOOD | {"Retry-After": "1.5"}, "", "Retry-After is '1.5'"),
    "no-depth": (GOOD | {"X-Queue-Depth": "many"}, "", "X-Queue-Depth is 'many'"),
    "no-position": (GOOD | {"X-Queue-Position": "1.0"}, "", "X-Queue-Position is '1.0'"),
    "no-eta": (GOOD | {"X-Queue-ETA-S": "soon"}, "", "X-Queue-ETA-S is 'soon'"),
    "another-id": (GOOD, "another", "told of 'another'"),
}


def answer(call: Call) -> Reply:
    """A server whose sessions and requests are named like the model that was asked for."""
    asked: dict[str, Any] = json.loads(call.body)
    name = call.path.rpartition("/")[2]
    if name == "create_sampling_session":
        return 200, json.dumps({"sampling_session_id": asked["base_model"]}).encode()
    if name == "asample":
        assert call.headers["x-tinker-sampling-backpressure"] == "1"
        return 200, json.dumps({"request_id": asked["sampling_session_id"]}).encode()
    assert name == "retrieve_future"
    headers, request_id, _ = WRONG[asked["request_id"]]
    return 408, json.dumps({"request_id": request_id, "queue_state": "waiting"}).encode(), headers


def test_the_queue_status_program_ends_at_what_is_wrong() -> None:
    target = OwnTarget()
    target.act = answer
    try:
        with contextlib.ExitStack() as stack:
            programs = {case: stack.enter_context(script(TINKER, url=target.url, model=case)) for case in WRONG}
            for case, running in programs.items():
                said = running.until_silent(30)
                assert [line["kind"] for line in said][:2] == ["sampling_session_created", "request_submitted"]
                assert (len(said) == 3) == (case == "another-id")
                assert running.popen.wait(10) == 1
                assert WRONG[case][2] in running.errors
    finally:
        target.stop()


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("request_submitted request_id=a-1", {"request_id": "a-1"}),
        ("result_received request_id=a keys=['b', 'c']", {"request_id": "a", "keys": ["b", "c"]}),
        ("queue_fields a='b c, d' e=None f=1.5", {"a": "b c, d", "e": None, "f": 1.5}),
        ("queue_fields g={'h': 1, 'i': 2} j='k'", {"g": {"h": 1, "i": 2}, "j": "k"}),
    ],
)
def test_lines_are_read_as_they_were_meant(line: str, fields: dict[str, Any]) -> None:
    assert fields_of(line) == {"kind": line.split()[0]} | fields
