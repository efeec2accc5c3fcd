from __future__ import annotations

import uuid

import pytest

from eas_queue.engine import ids


@pytest.mark.parametrize("number", [1, 2, 255, 256, 4_095, 32_768, 65_535])
def test_an_id_is_a_uuid_of_version_8_that_carries_its_service_number(number: int) -> None:
    request_id = ids.new_id(number)

    parsed = uuid.UUID(request_id)
    assert str(parsed) == request_id
    assert (parsed.version, parsed.variant) == (8, uuid.RFC_4122)
    assert ids.is_id(request_id)
    assert ids.service_number(request_id) == number


def test_no_two_ids_are_equal() -> None:
    made = {ids.new_id(7) for _ in range(10_000)}

    assert len(made) == 10_000


def test_all_but_the_number_version_and_variant_is_random() -> None:
    made = [int(uuid.UUID(ids.new_id(1))) for _ in range(200)]

    always_one, ever_one = made[0], 0
    for each in made:
        always_one &= each
        ever_one |= each
    fixed = ~(always_one ^ ever_one) & (1 << 128) - 1
    assert fixed == 0xFFFF << 112 | 0xF << 76 | 0x3 << 62


@pytest.mark.parametrize(
    "text",
    [
        "",
        "17",
        "TASK-1",
        "00010000-0000-4000-8000-000000000000",
        "00010000-0000-8000-0000-000000000000",
        "00010000-0000-8000-c000-000000000000",
        "0001AAAA-0000-8000-8000-000000000000",
        "{00010000-0000-8000-8000-000000000000}",
        "00010000000080008000000000000000",
        "00010000-0000-8000-8000-000000000000\n",
        " 00010000-0000-8000-8000-000000000000",
        "00010000-0000-8000-8000-00000000000",
        "٠٠٠١0000-0000-8000-8000-000000000000",
    ],
)
def test_anything_else_is_no_id(text: str) -> None:
    assert not ids.is_id(text)
