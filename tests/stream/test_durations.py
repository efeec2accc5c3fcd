"""Durations as Go has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eas_queue.stream import durations

# Go's own, from time_test.go, and those of the documents
GO = {
    0: "0s",
    1: "1ns",
    1_100: "1.1µs",
    2_200_000: "2.2ms",
    401_892_141: "401.892141ms",
    3_300_000_000: "3.3s",
    19_997_000_000: "19.997s",
    60_000_000_000: "1m0s",
    4 * 60 * 10**9 + 5 * 10**9 + 1_000_000: "4m5.001s",
    5 * 3600 * 10**9 + 6 * 60 * 10**9 + 7_001_000_000: "5h6m7.001s",
    8 * 60 * 10**9 + 1: "8m0.000000001s",
}


@pytest.mark.parametrize(("nanos", "text"), GO.items())
def test_they_are_written_as_go_writes_them(nanos: int, text: str) -> None:
    assert durations.to_text(nanos) == text


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("3s", 3 * 10**9),
        ("500ms", 5 * 10**8),
        ("1m30s", 90 * 10**9),
        ("1.5h", 5400 * 10**9),
        (".5s", 5 * 10**8),
        ("3us", 3_000),
        ("3µs", 3_000),
        ("3μs", 3_000),
        ("0", 0),
        ("5", 5 * 10**9),
        ("0.25", 250_000_000),
    ],
)
def test_they_are_read_as_go_reads_them_and_seconds_without_a_unit(text: str, nanos: int) -> None:
    assert durations.parse(text) == nanos


@pytest.mark.parametrize("text", ["", "s", "-1s", "3 s", "3d", "1e3s", "3s junk", "٣s", "1.2.3s", ".", "inf"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration such as 3s"):
        durations.parse(text)


@given(st.integers(0, 9 * 10**15))
def test_what_is_written_is_read_again(nanos: int) -> None:
    assert durations.parse(durations.to_text(nanos)) == nanos
