"""Environments of official clients are made once, anew when their pins change, and say it if they can't be."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.clients import PINS, Environment, NotInstalled

MAKE = """
import sys
import zipfile
from pathlib import Path
from tests.support import clients

made = clients.Environment._make
def told(self):
    print("made", flush=True)
    made(self)
clients.Environment._make = told
print(clients.Environment(Path(sys.argv[1]), Path(sys.argv[2])).ready())
"""


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    pins = tmp_path / "nothing.txt"
    pins.write_text("# no package at all\n")
    return Environment(pins, tmp_path / "clients" / "nothing")


def test_processes_that_ask_at_once_make_it_once(environment: Environment) -> None:
    command = [sys.executable, "-c", MAKE, str(environment.pins), str(environment.folder)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    printed = [process.communicate(timeout=60)[0].split() for process in processes]

    assert sorted(len(lines) for lines in printed) == [1, 1, 1, 2]
    assert {lines[-1] for lines in printed} == {str(environment.python)}
    assert subprocess.run([environment.python, "-c", ""]).returncode == 0


def test_other_pins_make_it_anew_and_the_same_do_not(environment: Environment) -> None:
    environment.ready()
    left_behind = environment.folder / "left behind"
    left_behind.touch()

    environment.ready()
    assert left_behind.exists()

    environment.pins.write_text("# still none\n")
    environment.ready()
    assert not left_behind.exists()


def test_what_cannot_be_installed_is_named_and_tried_again(environment: Environment) -> None:
    environment.pins.write_text("--no-index\nno-package-of-this-name==1.0\n")

    for _ in range(2):
        with pytest.raises(NotInstalled, match=r"(?s)nothing\.txt.*needs the network.*no-package-of-this-name==1\.0"):
            environment.ready()

    environment.pins.write_text("# nothing again\n")
    assert environment.ready() == environment.python


def test_only_what_the_list_says_it_does_without_may_be_lacking(environment: Environment) -> None:
    wheel = environment.pins.with_name("needy-1.0-py3-none-any.whl")
    with zipfile.ZipFile(wheel, "w") as made:
        needs = "Requires-Dist: Gone ==3\nRequires-Dist: away\n"
        made.writestr("needy-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: needy\nVersion: 1.0\n{needs}")
        made.writestr("needy-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        made.writestr("needy-1.0.dist-info/RECORD", "")

    environment.pins.write_text(f"# without: gone\n{wheel}\n")
    with pytest.raises(NotInstalled, match=r"needy 1\.0 requires away"):
        environment.ready()

    environment.pins.write_text(f"# without: gone away\n{wheel}\n")
    assert environment.ready() == environment.python


@pytest.mark.parametrize("pins", sorted(PINS.glob("*.txt")), ids=lambda path: path.stem)
def test_every_package_is_pinned(pins: Path) -> None:
    lines = [line for line in pins.read_text().splitlines() if not line.startswith("#")]

    assert lines == sorted(lines, key=str.lower)
    assert all(line.count("==") == 1 for line in lines)


def test_every_package_of_the_javascript_client_is_pinned_by_its_contents_and_comes_from_any_registry() -> None:
    wanted = json.loads((PINS / "fal_js" / "package.json").read_text())["dependencies"]
    packages = json.loads((PINS / "fal_js" / "package-lock.json").read_text())["packages"]
    found = {name.removeprefix("node_modules/"): content for name, content in packages.items() if name}

    assert packages[""]["dependencies"] == wanted
    assert wanted.items() <= {name: content["version"] for name, content in found.items()}.items()
    assert all(re.fullmatch(r"sha512-.+", content["integrity"]) for content in found.values())
    assert all("resolved" not in content for content in found.values())
