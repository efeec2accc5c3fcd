"""The lines of examples/fal/README.md for JavaScript work as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.installation import ROOT, TOKEN, Installation
from tests.support.server import RedisServer, free_port

EXAMPLE = ROOT / "examples" / "fal"
PART = (EXAMPLE / "README.md").read_text().partition("\n## JavaScript\n")[2].partition("\n## ")[0]


@pytest.fixture
def installation() -> Iterator[Installation]:
    """With the target of `make run`."""
    server, port = RedisServer().start(), free_port()
    try:
        with Installation(server.url, f"http://127.0.0.1:{port}") as made:
            target = made.start("target", [sys.executable, "-m", "examples.sentiment.target", "--port", str(port)])
            target.await_log("Running on")
            made.web("-w", "1", "-b", f"127.0.0.1:{made.port}")
            made.worker("gevent", 10)
            yield made
    finally:
        server.stop()


def test_the_lines_for_javascript_run(installation: Installation, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "examples" / "fal", ignore=shutil.ignore_patterns("node_modules"))
    (tmp_path / ".run").mkdir()
    (tmp_path / ".run" / "token").write_text(f"{TOKEN}\n")
    (lines,) = re.findall(r"^```bash\n(.*?)^```$", PART, re.M | re.S)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", lines],
        cwd=tmp_path,
        # what `make test-js` has fetched is in npm's cache
        env=os.environ | {"QUEUE_URL": installation.url, "NPM_CONFIG_PREFER_OFFLINE": "true"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert "subscribe: COMPLETED" in "\n".join(printed)
    assert [line.split()[:2] for line in printed if line.startswith(("answer:", "run:"))] == [
        ["answer:", "pos"],
        ["answer:", "neg"],
        ["run:", "pos"],
    ]
    assert printed[-1].startswith("refused: 422 no text in the body")


def test_the_version_in_the_lines_is_the_one_that_is_tested() -> None:
    pinned = (ROOT / "tests" / "clients" / "fal_js" / "package.json").read_text()
    (version,) = re.findall(r"@fal-ai/client@(\S+)", PART)

    assert f'"@fal-ai/client": "{version}"' in pinned
