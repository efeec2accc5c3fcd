"""The benchmarks of the queue API in miniature: they run and report; and what their clients read."""

from __future__ import annotations

import struct

import pytest

from benchmarks import against, queue_depth, report, watchers, watching
from benchmarks.parts import ALONE
from benchmarks.parts.part import Part, Sizes
from benchmarks.parts.queue_depth import OPERATIONS
from benchmarks.sides import Void


def measured(part: Part, sizes: Sizes) -> dict[str, dict[str, float]]:
    """The one sample of each row, after all of them were reported."""
    found = against.run([part], sizes, rounds=1)[part.name]
    assert found["void"] == []
    assert sorted(found["rows"]) == sorted(row.name for row in part.rows)
    text = report.section(part, found)
    assert all(f"| {row.name} |" in text for row in part.rows)
    assert text.count("| at most ") == len(part.goals)
    samples = {name: sample for name, (sample,) in found["rows"].items()}
    for sample in samples.values():
        assert all(sample[column.key] >= 0 for table in part.tables for column in table.columns)
    return samples


def test_watchers_are_measured_in_miniature() -> None:
    sizes = watchers.QUICK

    for sample in measured(ALONE["watchers"], sizes).values():
        assert 10 < sample["before_mb"] <= sample["after_mb"] * 1.1
        assert 0 < sample["p50"] <= sample["p99"] <= sample["worst"]
        assert sample["pings"] >= sizes.watchers * sizes.watched_s / 2


def test_the_depth_of_queues_is_measured_in_miniature() -> None:
    for sample in measured(ALONE["queue_depth"], queue_depth.QUICK).values():
        for operation in OPERATIONS:
            assert 1 < sample[f"{operation}_short"] < 1_000_000
            assert sample[f"{operation}_times"] == sample[f"{operation}_long"] / sample[f"{operation}_short"]
            assert sample[f"{operation}_short_cpu"] > 0


def test_frames_are_read_however_they_are_cut() -> None:
    contents = [b"", b"a", b"b" * 126, b"c" * 70_000]
    stream = b"\x82\x00" + b"\x8a\x01a" + b"\x82\x7e" + struct.pack(">H", 126) + contents[2]
    stream += b"\x89\x7f" + struct.pack(">Q", 70_000) + contents[3]

    for size in (1, 3, 127, 70_000, len(stream)):
        buffer, found = bytearray(), []
        for i in range(0, len(stream), size):
            buffer += stream[i : i + size]
            found += watching.frames(buffer)

        assert found == list(zip((2, 10, 2, 9), contents, strict=True))
        assert not buffer


@pytest.mark.parametrize("start", [b"\x02\x01", b"\xc2\x01", b"\x82\x81"], ids=["fragment", "extension", "masked"])
def test_a_frame_that_no_queue_may_send_makes_the_sample_void(start: bytes) -> None:
    with pytest.raises(Void, match="a frame begins with"):
        watching.frames(bytearray(start))


def test_the_index_is_read_from_the_first_field() -> None:
    assert watching.index_of(b"\x08\x01\x12\x00") == 1
    assert watching.index_of(b"\x08\xac\x02\x1a\x01\xff") == 300
    assert watching.index_of(b"\x1a\x01a") == 0
