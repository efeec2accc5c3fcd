"""The ledger as text."""

from __future__ import annotations

from tests.chaos.ledger import Row


def line(row: Row) -> str:
    recovery = "-" if row.recovery_s is None else f"{row.recovery_s:.1f}/{row.recovery_limit_s:g} s"
    return (
        f"{row.name:24} submitted {row.submitted} refused {row.refused} ack {row.acknowledged} terminal {row.terminal} "
        f"lost {row.lost} undone {row.undone} extra {row.extra} ({row.cuts}) unexplained {row.unexplained} "
        f"twice {row.twice} unfenced {row.unfenced} illegal {row.illegal} overlaps {row.overlaps} "
        f"wrong {row.wrong_end} recovery {recovery} {'RED ' + ','.join(sorted(row.red)) if row.red else 'green'}"
    )


def write(rows: list[Row]) -> None:
    pass
