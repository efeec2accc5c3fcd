"""How a benchmark that compares nobody is run: as a program of its own, with the reports of `benchmarks.against`."""

from __future__ import annotations

import argparse
import sys

from benchmarks import against, publish, report
from benchmarks.parts.part import Part, Sizes


def main(about: str | None, part: Part, quick: Sizes, *, rounds: int) -> None:
    """*about*: the program's help. *quick*: what --quick measures; *rounds* without it, by default."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", help="default: all")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--quick", action="store_true", help="a miniature, once: that it runs, not what it costs")
    parser.add_argument("--keep", action="store_true", help="keep the figures, and refresh docs/performance.md")
    options = parser.parse_args()
    if options.keep and (options.rows or options.quick):
        parser.error("--keep wants all rows, in full")
    rows = set(options.rows.split(",")) if options.rows else None
    if rows and not rows <= {row.name for row in part.rows}:
        parser.error(f"there are the rows {', '.join(row.name for row in part.rows)}")
    sizes, rounds = (quick, 1) if options.quick else (Sizes(), options.rounds)
    found = against.run([part], sizes, rounds, rows)
    print(f"\n## {part.title}\n\n{report.section(part, found[part.name])}")
    if found[part.name]["void"]:
        sys.exit("a sample is void, see above; nothing is kept")
    if options.keep:
        publish.keep(found)
        publish.publish()
