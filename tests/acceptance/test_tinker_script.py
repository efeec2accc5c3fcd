"""MinT's queue status demo, driven by tests/clients/tinker_queue_status.py, sees its request wait, run and end."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.program import ClientProgram
from tests.support.tinker_sdk import ENVIRONMENTS, TINKER, House, Sampler, house, service_of

SLOW_S = 20.0
RUNS = 5  # after so many there are estimates
WIDE = f"""
    [services.wide]
    aliases = ["acme/wide"]
    max_concurrency = {RUNS}
"""


@pytest.fixture(scope="module")
def place() -> Iterator[House]:
    with house(TINKER, services_toml=WIDE) as made:
        yield made


@pytest.fixture
def name() -> str:
    """What a call is held by."""
    return uuid.uuid4().hex


def begun(script: ClientProgram) -> list[dict[str, Any]]:
    """The two lines before the first poll."""
    return [script.hear(timeout_s=SLOW_S), script.hear()]


def until(script: ClientProgram, **facts: Any) -> dict[str, Any]:
    """The first line that has all these facts; every line before it tells of a request that goes on."""
    while True:
        said = script.hear(timeout_s=SLOW_S)
        if facts.items() <= said.items():
            return said
        assert said["kind"] == "queue_fields", said


def occupied(place: House, model: str, name: str) -> Sampler:
    sampler = place.sdk().sampler(model)
    sampler.begin([1], f"hold {name}")
    place.target.await_held(name)
    return sampler


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_script_shows_waiting_processing_and_the_result(place: House, environment: str, name: str) -> None:
    model = place.model()
    occupied(place, model, f"{name}first")
    place.target.does(service_of(model), "tell 3 128", f"hold {name}")

    with place.script(environment, model) as script:
        created, submitted = begun(script)
        waiting = until(script, queue_state="waiting")
        place.target.release(f"{name}first")
        request_id = place.target.await_held(name)
        processing = until(script, queue_state="processing")
        place.target.release(name)
        received = until(script, kind="result_received")
        assert script.rest(timeout_s=5) == []

    assert (created["kind"], set(created)) == ("sampling_session_created", {"kind", "sampling_session_id"})
    assert submitted == {"kind": "request_submitted", "request_id": request_id}
    assert waiting == {
        "kind": "queue_fields",
        "request_id": request_id,
        "type": "pending",
        "status": "queued",
        "queue_state": "waiting",
        "queue_state_reason": "queue position 0 of 2",
        "queue_depth": 2,
        "queue_position": 0,
        "estimated_wait_s": None,
        "progress": None,
        "retry_after_s": 1.0,
        "x_queue_depth": 2,
        "x_queue_position": 0,
        "x_queue_status": "queued",
        "x_queue_eta_s": None,
        "retry_after": 1,
    }
    assert processing["progress"] == {"tokens_generated": 3, "max_tokens": 128}
    assert (processing["queue_state_reason"], processing["queue_position"]) == (None, 0)
    assert processing["x_queue_depth"] == processing["queue_depth"] == 1
    polls = [line for line in place.wire("retrieve_future") if line["type"] == "-"]
    assert {line["retry"] for line in polls} == {"0"}  # none that the client repeats by itself, and does not show
    assert received["request_id"] == request_id
    assert {"sequences", "request_id"} <= set(received["keys"])


def test_scripts_of_the_same_second_have_requests_of_their_own_in_their_order(place: House, name: str) -> None:
    model = place.model()
    occupied(place, model, name)

    with place.script(TINKER, model, count=3) as script:
        said: list[dict[str, Any]] = []
        while len({line["request_id"] for line in said if line["kind"] == "queue_fields"}) < 3:
            said.append(script.hear(timeout_s=SLOW_S))
        place.target.release(name)
        said += script.rest(timeout_s=SLOW_S)

    ids = [line["request_id"] for line in said if line["kind"] == "request_submitted"]
    positions = {line["queue_position"] for line in said if line.get("queue_state") == "waiting"}
    assert len({line["sampling_session_id"] for line in said if line["kind"] == "sampling_session_created"}) == 3
    assert len(set(ids)) == 3
    assert positions == {0, 1, 2}
    assert sorted(line["request_id"] for line in said if line["kind"] == "result_received") == sorted(ids)


def test_an_estimate_is_shown_in_body_and_header_once_runs_are_known(place: House, name: str) -> None:
    sampler = place.sdk().sampler("acme/wide")
    for n in range(RUNS):
        sampler.begin([1], f"hold {name}{n}")
        place.target.await_held(f"{name}{n}")
    place.target.does("wide", f"hold {name}")

    with place.script(TINKER, "acme/wide") as script:
        begun(script)
        waiting = [until(script, queue_state="waiting") for _ in range(3)][-1]
        place.target.release(*(f"{name}{n}" for n in range(RUNS)))  # each took longer than the next poll comes after
        place.target.await_held(name)
        processing = until(script, queue_state="processing")
        place.target.release(name)
        until(script, kind="result_received")

    assert (waiting["estimated_wait_s"], waiting["x_queue_eta_s"]) == (None, None)
    assert 0 < processing["estimated_wait_s"] == processing["x_queue_eta_s"] < SLOW_S
