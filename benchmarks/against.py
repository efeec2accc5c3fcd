"""eas_queue against the plain app, and both against the floors, in one interleaved run.

    python -m benchmarks.against [--parts enqueue,drain] [--rows ours,plain] [--rounds 3] [--keep]

Every sample is a fresh installation: server, web, worker, target. A round makes one sample of every row of every part
before the next round begins, so a slow minute of the machine hits all of them. What ours was given is accounted for
after each sample: each request ended once, in success, with a result. If not, the sample is void and the run fails.
With --keep (`make bench`) what was measured replaces what results.json knew of these parts, and docs/performance.md and
its plots are drawn anew; `python -m benchmarks.publish` does only that.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Iterable
from typing import Any

from benchmarks import publish, report
from benchmarks.parts import PARTS
from benchmarks.parts.part import Part, Sizes
from benchmarks.sides import Void


def run(parts: Iterable[Part], sizes: Sizes, rounds: int, rows: set[str] | None = None) -> dict[str, Any]:
    """What results.json keeps of these parts. *rows*: names, None for all."""
    parts = list(parts)
    found: dict[str, Any] = {
        part.name: {"date": datetime.date.today().isoformat(), "rounds": rounds, "void": [], "rows": {}}
        for part in parts
    }
    for number in range(1, rounds + 1):
        for part in parts:
            for row in part.rows if number % 2 else reversed(part.rows):  # what drifts favours nobody
                if rows is not None and row.name not in rows:
                    continue
                began = time.monotonic()
                try:
                    sample = dict(part.measure(row.name, sizes))
                except Void as exc:
                    sample = {}
                    found[part.name]["void"].append(f"{row.name}, round {number}: {exc}")
                found[part.name]["rows"].setdefault(row.name, []).append(sample)
                columns = (column for table in part.tables for column in table.columns if column.key in sample)
                first = next(columns, None)
                shown = f"{sample[first.key]:,.1f} {first.heading}" if first else "void"
                took = time.monotonic() - began
                print(f"round {number} {part.name:8} {row.name:24} {shown}   ({took:.0f} s)", file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="default: all")
    parser.add_argument("--rows", help="default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="keep the figures, and refresh docs/performance.md")
    options = parser.parse_args()
    unknown = [name for name in options.parts.split(",") if name not in PARTS]
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if options.rows and options.keep:
        parser.error("--keep wants all rows")
    rows = set(options.rows.split(",")) if options.rows else None
    found = run((PARTS[name] for name in options.parts.split(",")), Sizes(), options.rounds, rows)
    for name, content in found.items():
        print(f"\n## {PARTS[name].title}\n\n{report.section(PARTS[name], content)}")
    if any(content["void"] for content in found.values()):
        sys.exit("a sample is void, see above; nothing is kept")
    if options.keep:
        publish.keep(found)
        publish.publish()


if __name__ == "__main__":
    main()
