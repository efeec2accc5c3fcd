"""The benchmark of takers in miniature, and what its figures stand on."""

from __future__ import annotations

import json

import pytest

from benchmarks import against, report, taking
from benchmarks.parts import ALONE
from benchmarks.parts.takers import DRAIN, EMPTY_ONE, SOLO
from benchmarks.sides import Void
from benchmarks.takers import QUICK
from benchmarks.taking import Answer, Calls, Taken


def test_takers_are_measured_in_miniature() -> None:
    part, rows = ALONE["takers"], {DRAIN, EMPTY_ONE, SOLO}

    found = against.run([part], QUICK, rounds=1, rows=rows)["takers"]

    assert found["void"] == []
    text = report.section(part, found)
    assert [text.count(f"| {row} |") for row in sorted(rows)] == [1, 1, 1]
    samples = {name: sample for name, (sample,) in found["rows"].items()}
    assert 0 < samples[DRAIN]["seconds"] == pytest.approx(QUICK.taken / samples[DRAIN]["rate"])
    assert 5 < samples[DRAIN]["a_take"] <= taking.AT_ONCE
    assert samples[SOLO]["rate"] > 1
    empty = samples[EMPTY_ONE]
    assert empty["takes"] > 1
    assert 0 < empty["p50"] <= empty["p99"] <= empty["worst"]
    # An empty take is one script and one round trip; a sweep or a look of the web's own may fall into it.
    assert 1 <= empty["empty_scripts"] < 1.1
    assert 1 <= empty["empty_reads"] < 1.5


def _tasks(*names: str) -> Answer:
    return _answer(json.dumps({taking.LEVEL: [{"task_id": name, "data": {"n": 7}} for name in names]}).encode())


def _answer(body: bytes, status: int = 200) -> Answer:
    return Answer(status, body, 0.001)


def test_a_taker_completes_what_it_took_until_nothing_is_left() -> None:
    taken = Taken()
    script = taking.taking(Calls("t"), taken, completes=True)
    answers = [_tasks("a", "b"), _answer(b'"a"'), _answer(b'"b"'), _tasks("b"), _answer(b'"b"')]

    calls = [next(script), *(script.send(answer) for answer in answers)]
    with pytest.raises(StopIteration):
        script.send(_answer(b"{}"))

    paths = [call.split()[1].decode().removeprefix("/v1/queue/") for call in calls]
    assert paths == ["take", "a/complete", "b/complete", "take", "b/complete", "take"]
    assert (taken.times, taken.takes) == ({"a": 1, "b": 2}, 3)
    said = json.loads(calls[1].partition(b"\r\n\r\n")[2])
    assert said == {"status_code": 200, "request_id": "a", "body": json.loads(taken.results["a"])}


@pytest.mark.parametrize("answer", [_answer(b"{}", 500), _tasks("a")], ids=["no success", "not empty"])
def test_a_take_that_is_answered_otherwise_than_expected_makes_the_sample_void(answer: Answer) -> None:
    script = taking.taking_nothing(Calls("t"), lambda: True, [])
    next(script)

    with pytest.raises(Void):
        script.send(answer)
