"""The Procfile and supervisord.conf start the same commands; whoever changes one changes the other."""

from __future__ import annotations

import configparser
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROCFILE = dict(
    line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines() if line and not line.startswith("#")
)
CONF = configparser.RawConfigParser(inline_comment_prefixes=(" ;",))
CONF.read(ROOT / "supervisord.conf")
OWN = {"redis", "target", "ready"}  # what only `make run` needs


def from_procfile(name: str, environ: dict[str, str]) -> list[str]:
    """The arguments after a shell has expanded them, as honcho, foreman and the like start them."""
    shown = subprocess.run(
        ["/bin/sh", "-c", f"printf '%s\\n' {PROCFILE[name]}"], env=environ, capture_output=True, text=True, check=True
    )
    return shown.stdout.splitlines()


def from_supervisord(name: str, environ: dict[str, str]) -> list[str]:
    expansions = {f"ENV_{key}": value for key, value in environ.items()}  # %% is a percent sign there, too
    return shlex.split(CONF[f"program:{name}"]["command"] % expansions)


def programs() -> set[str]:
    return {section.removeprefix("program:") for section in CONF.sections() if section.startswith("program:")}


def test_both_have_the_same_programs() -> None:
    assert programs() - OWN == set(PROCFILE)


@pytest.mark.parametrize("name", sorted(PROCFILE))
def test_the_same_environment_gives_the_same_command(name: str) -> None:
    environ = {"WORKER_CONCURRENCY": "250", "WEBHOOK_CONCURRENCY": "20"}

    assert from_procfile(name, environ) == from_supervisord(name, environ)


def test_an_empty_environment_gives_the_default_concurrency() -> None:
    assert from_procfile("worker", {}) == from_supervisord("worker", {"WORKER_CONCURRENCY": "1000"})
    assert from_procfile("webhooks", {}) == from_supervisord("webhooks", {"WEBHOOK_CONCURRENCY": "100"})


def test_every_program_belongs_to_a_group_and_redis_stops_last() -> None:
    groups = {section: CONF[section] for section in CONF.sections() if section.startswith("group:")}
    member_of = {name: group for group, keys in groups.items() for name in keys["programs"].split(",")}
    priority = {name: int(groups[group]["priority"]) for name, group in member_of.items()}

    assert set(member_of) == programs()
    assert priority["redis"] < priority["target"] < priority["worker"]
    assert min(priority, key=lambda name: priority[name]) == "redis"


@pytest.mark.parametrize("name", sorted(programs() - {"ready"}))
def test_what_dies_is_started_again_and_its_log_stays_small(name: str) -> None:
    keys = CONF[f"program:{name}"]

    assert keys["autorestart"] == "true"
    assert int(keys["startretries"]) > 100_000
    assert keys["stdout_logfile"] == f"%(ENV_RUN_DIR)s/log/{name}.log"
    assert keys["stdout_logfile_maxbytes"] == "10MB"
    assert keys["redirect_stderr"] == "true"


def test_no_port_of_the_supervisor_is_open() -> None:
    assert not [section for section in CONF.sections() if "http_server" in section]
