"""The ledger can go red: a defect that is put into the engine turns the column that is there for it.

Two of them here; `make chaos` tries all.
"""

from __future__ import annotations

import dataclasses

import pytest

from eas_queue.store import scripts
from tests.chaos.mutants import MUTANTS, Stale
from tests.chaos.trials import FREEZE, KILL, LONG, TRIALS, Trial, fleet_of, try_on


@pytest.mark.parametrize("trial", TRIALS[:2], ids=lambda trial: trial.mutant)
def test_a_mutant_turns_the_ledger_red(trial: Trial) -> None:
    with fleet_of(trial.mutant) as fleet:
        row = try_on(fleet, trial.fault)

    print(row)
    assert trial.red in row.red, row


def test_without_a_mutant_the_same_faults_leave_the_ledger_green() -> None:
    with fleet_of("none") as fleet:
        for fault in (FREEZE, KILL, LONG):
            row = try_on(fleet, fault)

            assert row.red == set(), row
            assert row.submitted >= 200
            assert (row.extra > 0) == (fault is not LONG), "the fault did cut attempts off, or none"


@pytest.mark.parametrize("name", [name for name, mutant in MUTANTS.items() if mutant.script])
def test_a_mutant_is_refused_unless_its_text_is_in_the_script_once(name: str) -> None:
    mutant = MUTANTS[name]
    source = scripts.source(mutant.script)

    assert mutant.mutated(source) != source
    with pytest.raises(Stale):
        dataclasses.replace(mutant, old="no such text").mutated(source)
    with pytest.raises(Stale):
        dataclasses.replace(mutant, old="redis").mutated(source)
