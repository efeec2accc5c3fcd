"""The command config."""

from __future__ import annotations

import click
from click.core import ParameterSource

from eas_queue.stream import errors, rendering, target
from eas_queue.stream.commands.options import Command, given, info, target_options


@click.command(name="config", cls=Command)
@target_options
@click.pass_context
def config_command(ctx: click.Context, /, **options: str | None) -> None:
    """Store which queue to talk to, or, without options, show it.

    \b
        eas-queue stream config --url=http://HOST:5000/api/predict/SERVICE --token-file=FILE

    Kept in ~/.config/eas_queue/stream.toml, which only you can read. What is not given stays as it is; a new host needs
    its token again. A token of the environment is stored as well, if any option is given.
    """
    is_set = [name for name in options if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    chosen = target.chosen(given(**options))
    if not is_set:
        _show(ctx, chosen)
        return
    if not chosen["url"]:
        raise click.UsageError("the URL is missing: give it by --url")
    try:
        target.store(chosen)
    except OSError as exc:
        raise errors.Failed(
            f"store in {target.path()}: {exc.strerror}", "make this folder writable, or use the environment instead"
        ) from exc
    click.echo(f"[OK] stored in {target.path()}")
    if not chosen["token"]:
        info("[INFO] No token is stored for this host: the queue refuses you if it needs one. Give it by --token-file.")


def _show(ctx: click.Context, chosen: dict[str, str]) -> None:
    if not chosen["url"]:
        raise click.UsageError("no queue is stored yet: give --url and --token-file")
    shown = chosen | {"token": rendering.masked(chosen["token"]) if chosen["token"] else "(none)"}
    for key in target.KEYS:
        is_from_environment = ctx.get_parameter_source(key) is ParameterSource.ENVIRONMENT
        click.echo(f"{key} : {shown[key]}" + (" (from the environment)" if is_from_environment else ""))
