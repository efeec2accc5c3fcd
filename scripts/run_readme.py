"""Does the README tell the truth? Runs every fenced block of it in a clean clone of HEAD, as a newcomer would.

`python scripts/run_readme.py [--venv DIR] [--skip-tests] [PAGE [SECTION]]` clones this repository into a temporary
folder, replaces the ports by free ones, and goes through the blocks of README.md, or of one section of another page, in
order: `make run` and blocks that begin with `# background` are started and awaited, other `bash` and `python` blocks
must exit 0 (one that begins with `# client: NAME` in that client's environment), `toml` blocks must load as a services
file, `text` blocks are left alone. Ends with 0 when all did. `--venv` lends the clone an installed environment; without
it the clone makes its own.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PORTS = ("5000", "5555", "5001", "8000", "8443", "9000")
READY = {  # what a line has in it that starts something: what that prints when it is ready
    "make run": "Ctrl-C stops all",
    "celery": " ready.",
    "gunicorn": "Listening at",
    "eas-queue pull": " started ",
    "examples.worker.target": "listens at",
}
PATIENCE_S = 240.0  # the first `make run` installs


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    text: str


def blocks(text: str, section: str = "") -> Iterator[Block]:
    """Of the whole page, or of what stands below the heading *section*."""
    heading = ""
    for match in re.finditer(r"^## ([^\n]+)$|^```(\w*)\n(.*?)^```$", text, re.M | re.S):
        heading = match[1] or heading
        if match[1] is None and section in ("", heading):
            yield Block(text.count("\n", 0, match.start()) + 1, match[2], match[3])


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


class Clone:
    """The clone, the ports its lines use, and what was started in it."""

    def __init__(self, folder: Path, venv: Path | None) -> None:
        self.folder = folder
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        self.ports = {port: free_port() for port in PORTS}
        names = ("PATH", "HOME", "LANG", "PIP_CONFIG_FILE", "PIP_INDEX_URL", "SSL_CERT_FILE", "TMPDIR")
        self.env = {name: os.environ[name] for name in names if name in os.environ}
        self.env |= {"PORT": self.ports["5000"], "FLOWER_PORT": self.ports["5555"]}
        self.env |= {"EXAMPLE_TARGET_PORT": self.ports["5001"]}
        if venv is not None:
            self._lend(venv)
        self.env["PATH"] = f"{folder / '.venv' / 'bin'}{os.pathsep}{self.env['PATH']}"
        self.service: subprocess.Popen[bytes] | None = None
        self.others: list[subprocess.Popen[bytes]] = []

    def _lend(self, venv: Path) -> None:
        """An installed environment under the name and with the marks that the Makefile looks for."""
        own = self.folder / ".venv"
        own.mkdir()
        for part in venv.iterdir():
            if part.suffix != ".stamp" and part.name != "made":
                (own / part.name).symlink_to(part)
        (own / "made").write_text(f"{self.folder}\n")
        for stamp in ("run.stamp", "dev.stamp"):
            (own / stamp).touch()

    def localised(self, text: str, **changes: str) -> str:
        for port, own in (self.ports | changes).items():
            text = re.sub(rf"(?<=:){port}\b", own, text)
        return text

    def start(self, text: str, mark: str) -> subprocess.Popen[bytes]:
        log = self.folder.parent / f"log-{time.monotonic_ns()}"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {text}" if "=" not in text.split()[0] else text],
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until_s = time.monotonic() + PATIENCE_S
        while mark not in log.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > until_s:
                stop(process)
                raise SystemExit(f"{text!r} did not get ready:\n{log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.1)
        return process

    def run_block(self, block: Block, *, skip_tests: bool) -> str:
        text = block.text.strip()
        if block.language == "toml":
            (self.folder / "readme-services.toml").write_text(block.text)
            code = "import config; s = config.Settings(services_file='readme-services.toml'); s.services(); s.access()"
            self.command([str(self.folder / ".venv/bin/python"), "-c", code])
            return "loads"
        if block.language == "text":
            return "what it prints"
        programs = self.programs(text)
        if block.language == "python":
            self.command([str(programs / "python"), "-c", self.localised(block.text)])
            return "ran"
        if text == "make test" and skip_tests:
            return "skipped, as asked"
        if text.endswith("make run"):
            if self.service is not None:
                stop(self.service)
            self.service = self.start(self.localised(text), READY["make run"])
            if text != "make run":  # shown to start; the lines after it are about the example again
                stop(self.service)
                self.service = self.start("make run", READY["make run"])
            return "got ready"
        if text.startswith("# background"):
            line = text.partition("\n")[2]
            mark = next(mark for name, mark in READY.items() if name in line)
            changes = {"5000": free_port()} if "gunicorn" in line else {}  # a second web
            self.others.append(self.start(self.localised(line, **changes), mark))
            return "got ready"
        path = f"{programs}{os.pathsep}{self.env['PATH']}"
        self.command(["bash", "-euo", "pipefail", "-c", self.localised(block.text)], PATH=path)
        return "ran"

    def programs(self, text: str) -> Path:
        """Where the project's own are, or those of the official client which the first line names."""
        client = re.match(r"# client: (\w+)\n", text)
        if client is None:
            return self.folder / ".venv/bin"
        subprocess.run([sys.executable, "-m", "tests.support.clients"], cwd=ROOT, check=True)
        return ROOT / ".venv-clients" / client[1] / "bin"

    def command(self, argv: list[str], **env: str) -> None:
        done = subprocess.run(
            argv,
            cwd=self.folder,
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1800,
        )
        sys.stdout.write("".join(f"    | {line}\n" for line in done.stdout.splitlines()[-12:]))
        if done.returncode != 0:
            raise SystemExit(f"exit {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")

    def close(self) -> None:
        for process in [*self.others, *([self.service] if self.service else [])]:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C does: to the whole group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(40)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise SystemExit(f"{process.args} did not stop within 40 s") from None


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, help="an environment with the requirements, instead of a new one")
    parser.add_argument("--skip-tests", action="store_true", help="leave out the block that runs all tests")
    parser.add_argument("page", nargs="?", default="README.md", help="default: %(default)s")
    parser.add_argument("section", nargs="?", default="", help="the heading of its second level; default: all of it")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="eas-queue-readme-") as folder:
        clone = Clone(Path(folder, "eas_queue"), options.venv)
        try:
            found = list(blocks((clone.folder / options.page).read_text(), options.section))
            if not found:
                raise SystemExit(f"{options.page} has no blocks below a heading {options.section!r}")
            for block in found:
                print(f"{options.page}:{block.line} {block.language}: {block.text.strip().splitlines()[0]}", flush=True)
                print(f"    {clone.run_block(block, skip_tests=options.skip_tests)}", flush=True)
        finally:
            clone.close()
    print(f"{len(found)} blocks, all as {options.page} says")


if __name__ == "__main__":
    main()
