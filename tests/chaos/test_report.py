"""The page that `make chaos` wrote is about the faults and mutants that there are."""

from __future__ import annotations

import re

from tests.chaos.__main__ import FAULTS, KILLS_COUNT, TAKERS_COUNT, TASKS_COUNT
from tests.chaos.mutants import MUTANTS
from tests.chaos.report import PAGE, TAKERS_BEGIN, TAKERS_END
from tests.chaos.trials import TRIALS


def test_the_page_has_every_fault_with_its_number_of_requests_and_every_mutant() -> None:
    page = PAGE.read_text()

    for fault in FAULTS.values():
        found = re.search(rf"^\| {re.escape(fault.title)} \| (\d+) \|", page, re.MULTILINE)
        assert found, f"{fault.name}: make chaos"
        assert int(found[1]) >= 2_000
    for trial in TRIALS:
        found = re.search(rf"^\| {re.escape(MUTANTS[trial.mutant].title)} \| .* \| (.*) \|$", page, re.MULTILINE)
        assert found, f"{trial.mutant}: make chaos"
        assert trial.red in found[1]


def test_the_page_has_an_account_of_killed_takers_without_a_problem() -> None:
    page = PAGE.read_text()

    account = page.partition(TAKERS_BEGIN)[2].partition(TAKERS_END)[0].strip().splitlines()
    cells = [cell.replace(",", "") for cell in account[-1].strip("| ").split(" | ")]
    assert len(account) == 3, account
    assert (int(cells[0]), int(cells[2]), int(cells[3])) == (TAKERS_COUNT, TASKS_COUNT, TASKS_COUNT)
    assert int(cells[1]) >= KILLS_COUNT
    assert int(cells[4]) > TASKS_COUNT
