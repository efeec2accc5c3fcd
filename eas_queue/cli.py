"""The command line, `eas-queue`: commands for the people who run an installation."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from eas_queue import doctor
from eas_queue.doctor.result import Result, Status
from eas_queue.pull.command import pull_command
from eas_queue.stream.group import stream

ROOT = Path(__file__).parents[1]
COLOURS = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red"}
NAME_WIDTH_MAX = 24  # longer ones, targets with many services, push only their own line


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Look after an installation of eas_queue, talk to a queue, or work on its tasks."""


main.add_command(stream)
main.add_command(pull_command)


@main.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: checks (name, status, fact, mend), ok.")
def doctor_command(as_json: bool) -> None:
    """Check the installation and say what to mend.

    Reads the settings of the project's folder, asks Redis and the workers, and connects to the targets without sending
    them anything. Exits with 0 when nothing FAILs, else with 1.
    """
    os.chdir(ROOT)  # .env, services.toml and a relative RUN_DIR mean the same as for web and worker
    logging.disable()  # what libraries have to say about a broken connection, the report says better
    results = doctor.examine()
    is_sound = not any(result.status is Status.FAIL for result in results)
    if as_json:
        checks = [
            {"name": result.name, "status": result.status, "fact": result.fact, "mend": result.mend}
            for result in results
        ]
        click.echo(json.dumps({"checks": checks, "ok": is_sound}, indent=2))
    else:
        # Wrapped for a person in front of a terminal only: in a file each fact stays on its line, for grep.
        is_terminal = sys.stdout.isatty()
        width = shutil.get_terminal_size().columns if is_terminal else None
        is_coloured = is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        for line in report(results, width=width, is_coloured=is_coloured):
            click.echo(line, color=is_coloured)
    sys.exit(0 if is_sound else 1)


def report(results: Sequence[Result], *, width: int | None, is_coloured: bool) -> Iterator[str]:
    """The lines for people; *width* None: not wrapped."""
    names = max((len(result.name) for result in results if len(result.name) <= NAME_WIDTH_MAX), default=0)
    indent = " " * (6 + names + 2)
    for result in results:
        status = f"{result.status:<4}"
        if is_coloured:
            status = click.style(status, fg=COLOURS[result.status], bold=result.status is not Status.OK or None)
        facts = wrapped(result.fact, width, indent)
        yield f"{status}  {result.name:<{names}}  {facts[0]}"
        yield from (indent + line for line in facts[1:])
        if result.mend is not None:
            mends = wrapped(result.mend, width, indent + "   ")
            yield f"{indent}-> {mends[0]}"
            yield from (f"{indent}   {line}" for line in mends[1:])
    yield ""
    yield summary(results)


def wrapped(text: str, width: int | None, indent: str) -> list[str]:
    pieces = []
    for line in text.splitlines():
        if width is None or line.startswith("  "):  # a command to copy: whole, even where the terminal breaks it
            pieces.append(line)
        else:
            room = max(30, width - len(indent))
            pieces += textwrap.wrap(line, room, break_long_words=False, break_on_hyphens=False) or [""]
    return pieces


def summary(results: Sequence[Result]) -> str:
    def named(status: Status) -> list[str]:
        return list(dict.fromkeys(result.name for result in results if result.status is status))

    failed, warned = named(Status.FAIL), named(Status.WARN)
    if failed:
        also = f"; then look at {', '.join(warned)}" if warned else ""
        return f"Does not work as it should: {', '.join(failed)}. Mend from the top{also}."
    if warned:
        return f"Works; worth a look: {', '.join(warned)}."
    return "All is well."
