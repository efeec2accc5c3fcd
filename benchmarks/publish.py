"""`python -m benchmarks.publish`: what results.json keeps, as docs/performance.md's tables and plots."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

from benchmarks import plots, report
from benchmarks.parts import ALONE, PARTS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results.json"
DOCUMENT = ROOT / "docs/performance.md"
PLOTS = ROOT / "docs/performance"


def keep(found: dict[str, Any]) -> None:
    """Put the parts of a run in place of what is known of them."""
    known = json.loads(RESULTS.read_text())["parts"] if RESULTS.exists() else {}
    about = {"python": platform.python_version(), "system": platform.system(), "cores": os.cpu_count()}
    RESULTS.write_text(json.dumps({"host": about, "parts": known | found}, indent=1) + "\n")


def publish() -> None:
    """Refresh the document and the plots. Raises ValueError where the document lacks the marks of a part."""
    parts = json.loads(RESULTS.read_text())["parts"]
    for name, content in parts.items():
        report.refresh(DOCUMENT, name, report.section((PARTS | ALONE)[name], content))
    plots.draw({name: content["rows"] for name, content in parts.items()}, PLOTS)


if __name__ == "__main__":
    publish()
