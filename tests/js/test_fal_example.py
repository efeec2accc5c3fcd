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

from tests.support.fal_js import FOLDER, clean_environment
from tests.support.installation import ROOT, TOKEN, Installation
from tests.support.server import RedisServer, free_port

EXAMPLE = ROOT / "examples" / "fal"
PART = (EXAMPLE / "README.md").read_text().partition("\n## JavaScript\n")[2].partition("\n## ")[0]


@pytest.fixture(scope="module")
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


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PART, re.M | re.S)


def test_the_lines_for_javascript_run(installation: Installation, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "examples" / "fal", ignore=shutil.ignore_patterns("node_modules"))
    (tmp_path / ".run").mkdir()
    (tmp_path / ".run" / "token").write_text(f"{TOKEN}\n")
    (lines,) = blocks("bash")
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
    assert printed[-6:-4] == ["COMPLETED", "subscribe: pos, 99%: A lovely, friendly hotel."]
    assert re.fullmatch(r"its id: [0-9a-f-]{36}", printed[-4])
    assert printed[-3:] == [
        "submit: neg, 94%: The soup was cold.",
        "run: pos, 77%: I would come again.",
        "refused: 422 nothing_to_classify",
    ]


def test_the_other_ways_in_the_text_work(installation: Installation) -> None:
    (block,) = blocks("js")
    program = f"""
        import {{ createFalClient }} from "@fal-ai/client";
        {block.replace("http://127.0.0.1:5000", installation.url)}
        for (const fal of [byMiddleware, byFetch]) {{
            const options = {{ input: {{ text: "Lovely." }} }};
            console.log((await fal.subscribe("local/sentiment", options)).data.label);
            console.log((await fal.run("local/sentiment", options)).data.label);
        }}
    """
    done = subprocess.run(
        ["node", "--input-type=module"],
        cwd=FOLDER,  # where it finds the client
        env=clean_environment() | {"FAL_KEY": TOKEN},
        input=program,
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert done.stdout.split() == ["pos"] * 4, done.stderr


def test_the_version_in_the_lines_is_the_one_that_is_tested() -> None:
    pinned = (ROOT / "tests" / "clients" / "fal_js" / "package.json").read_text()
    (version,) = re.findall(r"@fal-ai/client@(\S+)", PART)

    assert f'"@fal-ai/client": "{version}"' in pinned
