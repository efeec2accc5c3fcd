"""Items from the bytes of a queue."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eas_queue.dialects.eas import frames_pb2
from eas_queue.stream import items
from eas_queue.stream.items import Item
from tests.support.queue_stub import items_json

_texts = st.text()


@given(st.integers(0, 2**64 - 1), st.dictionaries(_texts, _texts), st.binary(), _texts)
def test_a_frame_is_read_as_generated_code_wrote_it(
    index: int, tags: dict[str, str], data: bytes, message: str
) -> None:
    frame = frames_pb2.DataFrameProto(index=index, tags=tags, data=data, message=message)

    assert items.from_frame(frame.SerializeToString()) == Item(index, tags, data)


def test_fields_of_later_versions_are_skipped() -> None:
    later = b"\x28\x07" + b"\x31" + b"8" * 8 + b"\x3d" + b"4" * 4 + b"\x42\x02hi"  # 5: varint, 6: 64, 7: 32, 8: bytes

    assert items.from_frame(later + b"\x08\x05\x1a\x01x") == Item(5, {}, b"x")


@given(st.binary(max_size=60))
def test_what_is_no_frame_raises_nothing_but_value_error(frame: bytes) -> None:
    with contextlib.suppress(ValueError):
        items.from_frame(frame)


@pytest.mark.parametrize(
    "frame", [b"\x08", b"\x08" + b"\xff" * 11, b"\x1a\x05four", b"\x0b", b"\x12\x04\x0a\x02\xff\xfe"]
)
def test_a_broken_frame_is_said_to_be_one(frame: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        items.from_frame(frame)


def test_a_list_of_json_is_read_whatever_is_missing() -> None:
    body = items_json((1, b"\x00\xff", {"a": "b"}))[:-1] + b', {"index": 2, "tags": null, "message": "m"}]'

    assert items.from_json(body) == [Item(1, {"a": "b"}, b"\x00\xff"), Item(2, {}, b"")]


@pytest.mark.parametrize(
    "body", [b"", b"{}x", b"[1]", b'{"a": 1}', b"3", b'[{"data": ""}]', b'[{"index": 1, "data": "!"}]', b"[" * 100_000]
)
def test_what_is_no_list_of_items_raises_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        items.from_json(body)


def test_no_items_are_no_error() -> None:
    assert items.from_json(json.dumps([]).encode()) == []
