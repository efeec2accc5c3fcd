"""Each part of the benchmark in miniature: it runs, its ledger agrees, it can be reported. Nothing fails by time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import against, report
from benchmarks.fast_target import FastTarget
from benchmarks.parts import ALONE, PARTS
from benchmarks.parts.drain import run
from benchmarks.parts.part import Sizes
from benchmarks.sides import Ours, Void

MINIATURE = Sizes(
    enqueue_s=1,
    connections=(16,),
    drain=40,
    latency=((10, 0.5), (100, 0.1)),
    slow=20,
    slow_tuned=5,
    slow_plain=2,
    floor=20,
)
# Without wrk the benchmark can't measure submits, and says so; .ci/run has it.
WITH_WRK = [("enqueue", ["ours", "plain"])] if shutil.which("wrk") else []


@pytest.mark.parametrize(
    ("part", "rows"),
    [
        *WITH_WRK,
        ("drain", ["ours 2 workers", "plain", "tuned"]),
        ("latency", ["ours", "plain"]),
        ("slow", ["ours", "plain"]),
        ("floors", ["submit script", "target by requests", "target by urllib3"]),
    ],
)
def test_a_part_measures_and_reports(part: str, rows: list[str]) -> None:
    found = against.run([PARTS[part]], MINIATURE, rounds=1, rows=set(rows))[part]

    assert found["void"] == []
    assert sorted(found["rows"]) == sorted(rows)
    text = report.section(PARTS[part], found)
    assert all(f"| {row} |" in text for row in rows)
    assert ("| goal |" in text) == bool(PARTS[part].goals)


def test_every_goal_and_every_plot_names_rows_and_figures_that_there_are() -> None:
    for part in (PARTS | ALONE).values():
        rows = {row.name for row in part.rows} | {""}
        keys = {column.key for table in part.tables for column in table.columns}

        assert len(rows) == len(part.rows) + 1
        for goal in part.goals:
            assert {goal.ours, goal.other} <= rows
            assert goal.key in keys


def test_a_request_that_is_unaccounted_for_makes_the_sample_void() -> None:
    with FastTarget() as target, Ours(target) as side:
        assert run(side, 5, options="-c 5", workers=1)["count"] == 5

        with pytest.raises(Void, match="of 1 submitted"):
            side.verify(["0" * 32])


def test_a_text_replaces_what_stands_between_its_marks(tmp_path: Path) -> None:
    path = tmp_path / "document.md"
    path.write_text("before\n<!-- bench:a -->\nold\n<!-- /bench:a -->\nafter\n")

    report.refresh(path, "a", "new")

    assert path.read_text() == "before\n<!-- bench:a -->\nnew\n<!-- /bench:a -->\nafter\n"
    with pytest.raises(ValueError, match="bench:b"):
        report.refresh(path, "b", "new")
