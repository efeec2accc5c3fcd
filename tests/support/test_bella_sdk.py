"""The programs with bella-openapi's models find what is wrong in an answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.bella_sdk import BellaError, Models, program
from tests.support.own_target import Call, OwnTarget, Reply

TASK: dict[str, Any] = {
    "task_id": "TASK-1",
    "queue": "q",
    "level": 1,
    "endpoint": "/v1/x",
    "data": {"n": 1.5},
    "ak": "",
    "status": "waiting",
    "start_time": 1,
    "running_time": 0,
    "expire_time": 2,
    "completed_time": 0,
    "response_mode": "callback",
}


@pytest.fixture(scope="module")
def target() -> Iterator[OwnTarget]:
    made = OwnTarget()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def models(target: OwnTarget) -> Iterator[Models]:
    with program(target.url, "bella_calls") as calls:
        yield Models(calls)


def answer(target: OwnTarget, content: Any, status: int = 200) -> None:
    target.act = lambda call: (status, json.dumps(content).encode())


def test_a_good_answer_comes_through(target: OwnTarget, models: Models) -> None:
    seen = []

    def act(call: Call) -> Reply:
        seen.append(json.loads(call.body))
        return 200, json.dumps({"q:1": [TASK]}).encode()

    target.act = act

    assert models.call("take", queues=["q:1"], size=3, process_timeout=7) == {"q:1": [TASK]}

    assert seen == [{"queues": ["q:1"], "size": 3, "strategy": "fifo", "process_timeout": 7}]


@pytest.mark.parametrize(
    "wrong",
    [
        {"q:1": [{name: value for name, value in TASK.items() if name != "ak"}]},
        {"q:1": [TASK | {"ak": None}]},
        {"q:1": [TASK | {"level": "1"}]},
        {"q:1": [TASK | {"level": 0}]},
        {"q:1": [TASK | {"start_time": 1.0}]},
        {"q:1": [TASK | {"data": "{}"}]},
        {"q:1": [TASK | {"response_mode": "native"}]},
        {"q:1": [TASK | {"unheard": 1}]},
        {"q:1": []},
        {"q:0": [TASK | {"level": 0}]},
    ],
)
def test_a_wrong_answer_is_an_error(target: OwnTarget, models: Models, wrong: Any) -> None:
    answer(target, wrong)

    with pytest.raises(BellaError):
        models.call("take", queues=["q:1"], size=1)


def test_a_refusal_has_its_status_and_body(target: OwnTarget, models: Models) -> None:
    answer(target, {"code": 400}, status=400)

    with pytest.raises(BellaError) as caught:
        models.call("complete", task_id="TASK-1", status_code=200, body={})

    assert (caught.value.status, json.loads(caught.value.body)) == (400, {"code": 400})
