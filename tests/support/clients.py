"""The official clients that tests run, each in a virtual environment of its own: their pins contradict each other's.

    python -m tests.support.clients

makes all that are missing; `make test` does so before the tests start, which need no network then.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PINS = ROOT / "tests" / "clients"
FOLDER = ROOT / ".venv-clients"


class NotInstalled(Exception):
    """An environment could not be made; the message says which, why, and what to do."""


@dataclass(frozen=True)
class Environment:
    """What the file *pins* lists, every package with its version, in *folder*.

    A line ``# without: A B`` of it names packages that those listed ask for and that are left out on purpose.
    """

    pins: Path
    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def ready(self) -> Path:
        """Its Python. Makes it where it is missing or was made from other pins, once however many processes ask.

        Raises NotInstalled.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with self.folder.with_name(f"{self.folder.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._is_made():
                self._make()
        return self.python

    @property
    def _stamp(self) -> Path:
        return self.folder / "made"

    def _made_from(self) -> str:
        # The folder counts too: a moved environment's programs don't start.
        of = f"{sys.version_info[:2]} {self.folder}\n{self.pins.read_text()}"
        return hashlib.sha256(of.encode()).hexdigest()

    def _is_made(self) -> bool:
        return self._stamp.exists() and self._stamp.read_text() == self._made_from() and self.python.exists()

    def _make(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._run(sys.executable, "-m", "venv", "--without-pip", str(self.folder))  # a pip of its own takes 4 s more
        pip = (sys.executable, "-m", "pip", "--python", str(self.python), "--no-input", "--disable-pip-version-check")
        # What is listed and nothing else; the check sees what the list lacks.
        self._run(*pip, "install", "--quiet", "--no-deps", "-r", str(self.pins))
        self._run(*pip, "check", is_fine=self._lacks_only_what_it_may)
        self._stamp.write_text(self._made_from())

    def _lacks_only_what_it_may(self, complaints: str) -> bool:
        without = " ".join(re.findall(r"^# without: (.+)$", self.pins.read_text(), re.MULTILINE)).split()
        lacks = re.compile(r"\S+ \S+ requires (\S+), which is not installed\.")
        found = [lacks.fullmatch(line) for line in complaints.splitlines()]
        return bool(found) and all(lack is not None and lack[1].lower() in without for lack in found)

    def _run(self, *command: str, is_fine: Callable[[str], bool] = lambda output: False) -> None:
        """*is_fine*: of what it prints, where it ends with an error."""
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output = done.stdout.decode(errors="replace").strip()
        if done.returncode and not is_fine(output):
            raise NotInstalled(
                f"the packages of {self.pins.name} could not be installed into {self.folder}; this needs the network, "
                f"once, and `make test` does it. {' '.join(command)} ended with {done.returncode}:\n"
                f"{output[-2000:]}"
            )


def environment(name: str) -> Environment:
    """That of tests/clients/*name*.txt."""
    return Environment(PINS / f"{name}.txt", FOLDER / name)


def python_of(name: str) -> Path:
    """The Python that has the packages of tests/clients/*name*.txt. Raises NotInstalled."""
    return environment(name).ready()


def main() -> int:
    for pins in sorted(PINS.glob("*.txt")):
        try:
            python_of(pins.stem)
        except NotInstalled as exc:
            print(exc, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
