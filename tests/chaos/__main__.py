"""``python -m tests.chaos [FAULT...]``: injects one fault after another and prints the ledger.

Without names: all of them, and docs/reliability.md is written anew. With ``--rows FILE`` accounts are kept there, so
that the faults may be run in several goes; the document is written once all are there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path

from tests.chaos import report
from tests.chaos.faults import PROCESSES
from tests.chaos.fleet import Fleet
from tests.chaos.ledger import Row
from tests.chaos.network import NETWORK
from tests.chaos.scene import run
from tests.chaos.targets import TARGETS

FAULTS = {fault.name: fault for fault in [*PROCESSES, *NETWORK, *TARGETS]}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Injects faults under load.")
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"of: {', '.join(FAULTS)}")
    parser.add_argument("--requests", type=int, default=2_000, help="at least so many a fault (default 2000)")
    parser.add_argument("--rows", type=Path, help="keep the accounts in this file, and go on from it")
    parser.add_argument("--logs", action="store_true", help="print the processes' last lines where a fault is red")
    arguments = parser.parse_args()
    unknown = set(arguments.faults) - set(FAULTS)
    if unknown:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    rows: dict[str, Row] = {}
    if arguments.rows and arguments.rows.exists():
        rows = {name: Row(**row) for name, row in json.loads(arguments.rows.read_text()).items()}
    wanted = [FAULTS[name] for name in arguments.faults] or list(FAULTS.values())
    by_fsync = itertools.groupby(sorted(wanted, key=lambda fault: fault.fsync, reverse=True), lambda fault: fault.fsync)
    sections = "".join(fault.sections for fault in FAULTS.values())
    for fsync, faults in by_fsync:
        with Fleet(services=sections, fsync=fsync) as fleet:
            for fault in faults:
                row = run(fleet, fault, count=arguments.requests)
                rows[fault.name] = row
                print(report.line(row), flush=True)
                for note in row.notes if row.red else ():
                    print(f"    {note}", flush=True)
                if row.red and arguments.logs:
                    print(fleet.logs(), flush=True)
                if arguments.rows:
                    arguments.rows.write_text(json.dumps({name: row.as_json() for name, row in rows.items()}, indent=1))
    in_order = [rows[name] for name in FAULTS if name in rows]
    if len(in_order) == len(FAULTS):
        report.write(in_order)
    return 1 if any(rows[fault.name].red for fault in wanted) else 0


if __name__ == "__main__":
    sys.exit(main())
