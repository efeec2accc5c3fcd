"""What a run showed, as Markdown: for the terminal and between the marks of docs/performance.md."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.parts.part import Goal, Part, Row, Table

Samples = Mapping[str, Sequence[Mapping[str, float]]]  # by the name of the row


def values(samples: Samples, row: str, key: str) -> list[float]:
    """That figure of every round in which it counts."""
    return [sample[key] for sample in samples.get(row, ()) if key in sample]


def _cell(found: list[float], form: str) -> str:
    if not found:
        return ""
    middle = form.format(statistics.median(found))
    if len(found) == 1:
        return middle
    return f"{middle} [{form.format(min(found))}..{form.format(max(found))}]"


def _lines(rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in rows]


def table(shown: Table, samples: Samples, rows: Iterable[Row]) -> str:
    """A line for each row that was measured: medians, with the range of the rounds. What would be empty is left out."""
    rows = [row for row in rows if any(values(samples, row.name, column.key) for column in shown.columns)]
    columns = [c for c in shown.columns if any(values(samples, row.name, c.key) for row in rows)]
    head = [shown.title, *(column.heading for column in columns)]
    body = [[row.name, *(_cell(values(samples, row.name, c.key), c.form) for c in columns)] for row in rows]
    return "\n".join(_lines([head, ["---"] * len(head), *body]))


def ratio(goal: Goal, samples: Samples) -> tuple[float, list[float]] | None:
    """(ratio of the medians, that of each round); with no other row, the value itself. None where one is missing."""
    ours = values(samples, goal.ours, goal.key)
    other = values(samples, goal.other, goal.key) if goal.other else [1.0] * len(ours)
    if not ours or not other:
        return None
    rounds = [a / b for a, b in zip(ours, other, strict=False)]
    return statistics.median(ours) / statistics.median(other), rounds


def goals(part: Part, samples: Samples) -> str:
    """One line a goal: what was wanted, what is."""
    body = []
    for goal in part.goals:
        found = ratio(goal, samples)
        if found is None:
            continue
        middle, rounds = found
        wanted = "" if goal.wanted is None else f"{'at most' if goal.less else 'at least'} {goal.wanted:g}"
        met = "" if goal.wanted is None else "yes" if (middle <= goal.wanted) == goal.less else "**no**"
        spread = f"{min(rounds):.2f}..{max(rounds):.2f}" if len(rounds) > 1 else ""
        body.append([goal.text, f"{middle:.2f}", spread, wanted, met])
    if not body:
        return ""
    return "\n".join(_lines([["", "median", "rounds", "goal", "met"], ["---"] * 5, *body]))


def section(part: Part, content: Mapping[str, Any]) -> str:
    """All of one part. *content*: what results.json keeps of it."""
    samples = content["rows"]
    rounds = content["rounds"]
    about = f"{content['date']}, " + ("one round." if rounds == 1 else f"{rounds} rounds: median [lowest..highest].")
    processes = "\n".join(f"- {row.name}: {row.processes}" for row in part.rows if row.name in samples)
    void = [f"**Void:** {text}" for text in content["void"]]
    tables = [table(shown, samples, part.rows) for shown in part.tables]
    pieces = [about, *tables, processes, goals(part, samples), *void]
    return "\n\n".join(piece for piece in pieces if piece)


def refresh(path: Path, name: str, text: str) -> None:
    """Put *text* between `<!-- bench:name -->` and `<!-- /bench:name -->`. Raises ValueError without these marks."""
    begin, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    document = path.read_text()
    before, found, rest = document.partition(begin)
    _, also_found, after = rest.partition(end)
    if not found or not also_found:
        raise ValueError(f"{path} has no {begin} and {end}")
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}")
