"""What clients wrote, found again in the text: each member as Python reads it, and where it stands."""

from __future__ import annotations

import json
import random
import string
import time
import tracemalloc
from typing import Any

import pytest

from eas_queue.dialects.members import VALUES_MOST, Members
from eas_queue.engine import errors


def value(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.randrange(5 if depth > 3 else 7)
    if kind == 0:
        return chance.choice([None, True, False])
    if kind == 1:
        return chance.choice([0, -1, 2**63, -(2**80), 1.5, 1e300, -0.0])
    if kind <= 4:
        return "".join(chance.choices('{}[]",:\\/ \n\t\u00e9\U0001f600' + string.ascii_letters, k=chance.randrange(9)))
    if kind == 5:
        return [value(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {str(value(chance, 9)): value(chance, depth + 1) for _ in range(chance.randrange(4))}


@pytest.mark.parametrize("seed", range(100))
def test_members_are_found_as_they_were_written(seed: int) -> None:
    chance = random.Random(seed)
    written = [(str(value(chance, 9)), value(chance)) for _ in range(chance.randrange(6))]
    is_ascii = chance.random() < 0.5

    def blank() -> str:
        return "".join(chance.choices(" \t\r\n", k=chance.randrange(3)))

    texts = [
        (json.dumps(name, ensure_ascii=is_ascii), json.dumps(each, ensure_ascii=is_ascii)) for name, each in written
    ]
    parts = [f"{blank()}{name}{blank()}:{blank()}{text}{blank()}" for name, text in texts]
    whole = f"{blank()}{{{','.join(parts) or blank()}}}{blank()}"

    found = Members.of(whole.encode())

    assert found.values == json.loads(whole)
    assert {name: found.raw(name) for name in found.values} == {
        json.loads(name): text
        for name, text in texts  # of a name that stands twice the last one
    }


@pytest.mark.parametrize("seed", range(100))
def test_what_json_does_not_allow_is_refused(seed: int) -> None:
    chance = random.Random(seed)
    whole = json.dumps({"a": value(chance), "b": [1, {"c": "d"}]})
    at = chance.randrange(len(whole))
    broken = chance.choice(
        [whole[:at], whole[:at] + chance.choice('{}[]",:\\x00') + whole[at + 1 :], whole[:at] + "\x01" + whole[at:]]
    )
    try:
        expected = json.loads(broken)
        is_fine = isinstance(expected, dict)
    except ValueError:
        is_fine = False

    if is_fine:
        assert Members.of(broken.encode()).values == expected
    else:
        with pytest.raises(errors.InvalidRequest):
            Members.of(broken.encode())


def test_very_many_values_are_not_read() -> None:
    most = json.dumps({"a": [0] * (VALUES_MOST - 10)}).encode()

    assert len(Members.of(most).values["a"]) == VALUES_MOST - 10
    with pytest.raises(errors.InvalidRequest, match="values"):
        Members.of(json.dumps({"a": [0] * (VALUES_MOST + 10)}).encode())


def test_a_text_is_one_value_however_long() -> None:
    text = ',[{"' * VALUES_MOST

    assert Members.of(json.dumps({"a": text}).encode()).values == {"a": text}


def test_a_number_may_have_many_digits() -> None:
    body = b'{"a": 1' + b"0" * 10_000 + b', "b": 1.' + b"5" * 10_000 + b"}"

    assert len(Members.of(body).raw("a")) == 10_001


def test_many_marks_in_a_long_text_are_counted_in_little_memory() -> None:
    """They are no values, and what is escaped between them is nothing to come back to."""
    body = b'{"a": "' + b"\\n" * 500_000 + b"," * 300_000 + b'"}'
    tracemalloc.start()
    try:
        found = Members.of(body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert len(found.values["a"]) == 800_000
    assert peak < 8 * len(body)


@pytest.mark.parametrize("end", [b"", b"\\", b'"', b'\\"'])
def test_a_long_text_that_never_closes_is_gone_through_once(end: bytes) -> None:
    body = b"," * (VALUES_MOST + 1) + b'"' + b'\\"' * 390_000 + end

    began_s = time.process_time()
    with pytest.raises(errors.InvalidRequest):
        Members.of(body)

    assert time.process_time() - began_s < 2, "gone through again from each mark it takes an hour"
