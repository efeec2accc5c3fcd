"""The group `stream`. A command's module is imported when the command is asked for: `doctor` needs none of them."""

from __future__ import annotations

import importlib
import io
import sys
from typing import Any

import click

# Command -> its module in eas_queue/stream/commands, in the order of the help.
COMMANDS = {
    "config": "config",
    "info": "look",
    "put": "put",
    "get": "get",
    "watch": "watch",
    "delete": "remove",
    "trunc": "remove",
    "search": "look",
    "count": "look",
    "help": "help",
}


class OnDemand(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        try:
            module: Any = importlib.import_module(f"eas_queue.stream.commands.{COMMANDS[cmd_name]}")
        except ModuleNotFoundError as exc:
            raise click.ClickException(
                f"the package {exc.name} is not installed for {sys.executable}: "
                "`make run` installs all; a client needs `pip install click requests websocket-client`"
            ) from exc
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command


@click.group(name="stream", cls=OnDemand, context_settings={"help_option_names": ["-h", "--help"]})
def stream() -> None:
    """Talk to a queue service: put items, get them, watch them arrive.

    First tell where it is, once:

    \b
        eas-queue stream config --url=http://HOST:5000/api/predict/SERVICE --token-file=FILE

    URL and token may also be given to each command, and in the environment as EAS_QUEUE_STREAM_URL and
    EAS_QUEUE_STREAM_TOKEN; an option goes before the environment, and that before what `config` has stored. A token on
    the command line can be read by all users of this host (`ps`): rather use --token-file or the environment. A stored
    token is only sent to the host that it was stored for.

    Exits with 0 when all went well, 1 when the queue refused or something broke, 2 for wrong usage, 3 when nothing was
    found, 4 when the token does not allow it, 5 when the queue can't be reached.
    """
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="backslashreplace")  # whatever an item holds, a terminal's encoding may lack it
