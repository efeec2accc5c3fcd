"""``python -m tests.chaos [FAULT...]``: injects one fault after another and prints the ledger.

Without names: all of them, the mutants and the takers, and docs/reliability.md is written anew. With ``--rows FILE``
accounts are kept there, so that the faults may be run in several goes; the page is written once all are there.
``takers`` alone writes its part of the page anew.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from tests.chaos import report, taking
from tests.chaos.faults import PROCESSES
from tests.chaos.fleet import Fleet
from tests.chaos.ledger import Row
from tests.chaos.network import NETWORK
from tests.chaos.scene import Fault, run
from tests.chaos.targets import TARGETS
from tests.chaos.trials import TRIALS, fleet_of, try_on

FAULTS = {fault.name: fault for fault in [*PROCESSES, *NETWORK, *TARGETS]}
MUTANTS = "mutants"
TAKERS = "takers"
TAKERS_COUNT, TASKS_COUNT, KILLS_COUNT = 20, 2_000, 200
DEADLY = [2 * taking.MAX_ATTEMPTS] * 2


class Book:
    """The accounts so far, kept in a file where one is given."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        kept: dict[str, Any] = json.loads(path.read_text()) if path and path.exists() else {}
        self.rows = {name: Row(**row) for name, row in kept.get("faults", {}).items()}
        self.trials = {name: Row(**row) for name, row in kept.get("mutants", {}).items()}
        self.takers = taking.Account(**kept["takers"]) if "takers" in kept else None
        self.server: str = kept.get("server", "")

    def keep(self) -> None:
        content = {
            "faults": {name: row.as_json() for name, row in self.rows.items()},
            "mutants": {name: row.as_json() for name, row in self.trials.items()},
            "server": self.server,
        } | ({"takers": self.takers.as_json()} if self.takers else {})
        if self._path:
            self._path.write_text(json.dumps(content, indent=1))

    def is_complete(self) -> bool:
        return set(self.rows) >= set(FAULTS) and set(self.trials) >= {trial.mutant for trial in TRIALS}

    def write(self) -> None:
        machine = report.Machine(os.cpu_count() or 0, platform.python_version(), self.server)
        report.write([self.rows[name] for name in FAULTS], self.trials, machine)
        self.write_takers()

    def write_takers(self) -> None:
        if self.takers:
            report.write_takers(self.takers)


def inject(faults: list[Fault], book: Book, *, count: int, logs: bool) -> None:
    """One fleet for all that want the same server."""
    ordered = sorted(faults, key=lambda fault: fault.fsync, reverse=True)
    sections = "".join(fault.sections for fault in FAULTS.values())
    for fsync, some in itertools.groupby(ordered, lambda fault: fault.fsync):
        with Fleet(services=sections, fsync=fsync) as fleet:
            book.server = fleet.server_version()
            for fault in some:
                row = book.rows[fault.name] = run(fleet, fault, count=count)
                print(report.line(row), flush=True)
                for note in row.notes if row.red else ():
                    print(f"    {note}", flush=True)
                if row.red and logs:
                    print(fleet.logs(), flush=True)
                book.keep()


def mutate(book: Book) -> None:
    for trial in TRIALS:
        with fleet_of(trial.mutant) as fleet:
            row = book.trials[trial.mutant] = try_on(fleet, trial.fault)
        print(
            f"{trial.mutant:24} {'red as it has to be' if trial.red in row.red else 'NOT SEEN'}: {sorted(row.red)}",
            flush=True,
        )
        book.keep()


def kill_takers(book: Book) -> None:
    with taking.site() as place:
        account = book.takers = taking.run(
            place, takers=TAKERS_COUNT, tasks=TASKS_COUNT, kills=KILLS_COUNT, deadly=DEADLY
        )
    print(f"{TAKERS:24} {account}", flush=True)
    book.keep()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Injects faults under load.")
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"of: {', '.join([*FAULTS, MUTANTS, TAKERS])}")
    parser.add_argument("--requests", type=int, default=2_000, help="at least so many a fault (default 2000)")
    parser.add_argument("--rows", type=Path, help="keep the accounts in this file, and go on from it")
    parser.add_argument("--logs", action="store_true", help="print the processes' last lines where a fault is red")
    arguments = parser.parse_args()
    names: list[str] = arguments.faults or [*FAULTS, MUTANTS, TAKERS]
    unknown = set(names) - set(FAULTS) - {MUTANTS, TAKERS}
    if unknown:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    book = Book(arguments.rows)
    wanted = [FAULTS[name] for name in names if name in FAULTS]
    inject(wanted, book, count=arguments.requests, logs=arguments.logs)
    if MUTANTS in names:
        mutate(book)
    if TAKERS in names:
        kill_takers(book)
    if book.is_complete():
        book.write()
    elif TAKERS in names:
        book.write_takers()
    unseen = [trial for trial in TRIALS if MUTANTS in names and trial.red not in book.trials[trial.mutant].red]
    broken = TAKERS in names and book.takers is not None and book.takers.problems
    return 1 if unseen or broken or any(book.rows[fault.name].red for fault in wanted) else 0


if __name__ == "__main__":
    sys.exit(main())
