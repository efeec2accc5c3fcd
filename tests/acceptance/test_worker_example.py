"""The lines of the README about workers that pull run, and print what they should."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.installation import ROOT

PAGE = "examples/worker/README.md"


@pytest.mark.timeout(200)
def test_the_lines_of_the_readme_run() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/run_readme.py", "--venv", str(Path(sys.executable).parents[1]), PAGE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    printed = re.findall(r"^    \| (.*)$", done.stdout, re.M)
    assert [line for line in printed if line.startswith('data:{"word": "welcome!"')]  # of the streaming put
    assert '{"greeting":"Hello Grace and welcome!"}' in printed
    assert '{"words": 3, "path": "/v1/count?by=words"}' in printed
    assert '"body": {"words": 4, "path": "/v1/count/long"}' in printed[-1]


def test_every_event_that_it_names_is_logged_by_the_worker() -> None:
    text = (ROOT / PAGE).read_text().partition("Each event is a line")[2].partition("and so on")[0]
    sources = "".join(path.read_text() for path in (ROOT / "eas_queue/pull").glob("*.py"))
    events = re.findall(r"`(\w+)`", text)

    assert len(events) >= 5
    assert [event for event in events if f'"{event} ' not in sources] == []


def test_every_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / PAGE).read_text())

    assert links
    assert [link for link in links if not (ROOT / PAGE).parent.joinpath(link).exists()] == []
