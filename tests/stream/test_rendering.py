"""The lines of `eascmd stream`, and that nothing foreign can draw its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eas_queue.stream import rendering
from eas_queue.stream.items import Item

TAGS = {
    "ts@source": "1685802680575",
    "requestId": "e47b76e2-2648-40fe-9197-a268015cbd1f",
    "Header:Content-Type": "text/plain; charset=utf-8",
}


def test_a_row_is_that_of_the_document() -> None:
    assert rendering.row(0, Item(1, TAGS, b"data1")) == (
        "[OK] [0 - 1] tags[Header:Content-Type=text/plain; charset=utf-8 "
        "requestId=e47b76e2-2648-40fe-9197-a268015cbd1f ts@source=1685802680575] data1"
    )


def test_a_row_without_data_ends_with_the_tags() -> None:
    assert rendering.row(3, Item(7, {}, b"")) == "[OK] [3 - 7] tags[]"


def test_attributes_are_sorted_as_in_the_document() -> None:
    found = {"stream.length": "0", "meta.name": "a", "consumers.list.[0]": "Id: g.u, Index: 0"}

    assert list(rendering.attributes(found)) == [
        "[OK] Attributes:",
        "consumers.list.[0] : Id: g.u, Index: 0",
        "meta.name : a",
        "stream.length : 0",
    ]


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0.00 B"), (3, "3.00 B"), (1536, "1.50 KiB"), (2**20, "1.00 MiB"), (2**41, "2048.00 GiB")]
)
def test_sizes_are_those_of_the_document(count: int, text: str) -> None:
    assert rendering.size(count) == text


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b'{"a": [1, 2]}', '{"a": [1, 2]}'),
        ("价格 €\u3000👩\u200d🚀 \u00a0".encode(), "价格 €\u3000👩\u200d🚀 \u00a0"),
        (b"one\r\n\ttwo", "one\\r\\n\\ttwo"),
        (b"\x1b]0;title\x07\x1b[2J", "\\x1b]0;title\\x07\\x1b[2J"),
        ("\x9b2J\x7f".encode(), "\\x9b2J\\x7f"),
        ("a\u202eb\u2028".encode(), "a\\u202eb\\u2028"),
        ("\U000e0001".encode(), "\\U000e0001"),
        (b"\xff\xfe text", "\\xff\\xfe text"),
    ],
)
def test_what_could_steer_a_terminal_is_escaped_and_all_else_stays(data: bytes, shown: str) -> None:
    assert rendering.plain_bytes(data) == shown


@given(st.binary())
def test_whatever_comes_stays_on_its_line(data: bytes) -> None:
    line = rendering.row(0, Item(1, {"tag": data.decode("latin-1")}, data))

    assert len(line.splitlines()) == 1
    assert not any(sign < " " or "\x7f" <= sign <= "\x9f" for sign in line)


def test_programs_get_text_where_it_is_and_base64_where_not() -> None:
    assert rendering.row_json(0, Item(1, {"a": "b"}, b"x\n")) == {
        "received": 0,
        "index": 1,
        "tags": {"a": "b"},
        "text": "x\n",
    }
    assert rendering.row_json(1, Item(2, {}, b"\xff"))["base64"] == "/w=="


def test_of_a_token_only_a_long_one_shows_its_end() -> None:
    assert rendering.masked("tml-00112233445566778899aabbccddeeff") == "****eeff"
    assert rendering.masked("shortsecret") == "****"
