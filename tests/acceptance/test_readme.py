"""The README's blocks run; what it names exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import config
from eas_queue.engine.service import ServiceSettings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.timeout(400)
def test_every_block_of_the_readme_runs_in_a_clean_clone() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/run_readme.py", "--skip-tests", "--venv", str(Path(sys.executable).parents[1])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=380,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "all as README.md says" in done.stdout


def test_every_setting_is_in_the_readme_and_none_that_is_not() -> None:
    table = README.partition("## Settings")[2].partition("## Production")[0]
    variables = {name for row in re.findall(r"^\|([^|]*)\|", table, re.M) for name in re.findall(r"`([A-Z_]+)`", row)}
    assert variables == {name.upper() for name in config.Settings.model_fields}

    keys = set(re.findall(r"\b([a-z_]+) = ", table))
    assert set(ServiceSettings.model_fields) <= keys, "a service setting is missing in the example"


def test_every_link_leads_to_a_file() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
