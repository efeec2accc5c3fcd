"""The benchmark of status streams in miniature; what its clients read, and what its figures stand on."""

from __future__ import annotations

import pytest

from benchmarks import against, report, streams
from benchmarks.parts import ALONE
from benchmarks.parts.streams import ROWS, lateness_s, most_within
from benchmarks.sides import Void
from benchmarks.streaming import chunks


def test_streams_are_measured_in_miniature() -> None:
    part, row = ALONE["streams"], ROWS[-1].name

    found = against.run([part], streams.QUICK, rounds=1, rows={row})["streams"]

    assert found["void"] == []
    assert f"| {row} |" in report.section(part, found)
    ((sample,),) = found["rows"].values()
    assert sample.keys() >= {column.key for table in part.tables for column in table.columns}
    assert sample["ends"] == 10
    assert 0 < sample["end_p50"] <= sample["end_p95"] <= sample["end_worst"]
    assert 0 < sample["place_p50"] <= sample["place_p95"] <= sample["place_worst"]
    assert 10 < sample["before_mb"] <= sample["after_mb"] * 1.1


def test_chunks_are_read_however_they_are_cut() -> None:
    contents = [b"data: {}\n\n", b": ping\n\n", b"x" * 300, b""]
    stream = b"".join(b"%x\r\n%s\r\n" % (len(content), content) for content in contents)

    for size in (1, 7, len(stream)):
        buffer, found = bytearray(), []
        for i in range(0, len(stream), size):
            buffer += stream[i : i + size]
            found += chunks(buffer)

        assert found == contents
        assert not buffer
    with pytest.raises(Void, match="no chunk"):
        chunks(bytearray(b"data: {}\r\n"))


def test_a_start_counts_until_its_place_or_a_better_one_was_told() -> None:
    told = [(0.0, 3), (2.5, 1), (4.0, 0)]

    assert lateness_s(told, [1.0, 2.0, 3.0]) == [1.5, 0.5, 1.0]
    with pytest.raises(Void, match="last told the place 0"):
        lateness_s(told, [1.0, 2.0, 3.0, 4.0])


def test_the_most_within_a_time_slide_along() -> None:
    assert most_within(0.9, [0, 0.5, 1.0, 1.2, 1.3, 5]) == 4
    assert most_within(0.9, []) == 0
