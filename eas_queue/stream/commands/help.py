"""The command help: what --help says, for fingers that are used to eascmd."""

from __future__ import annotations

import click


@click.command(name="help")
@click.argument("command", required=False)
@click.pass_context
def help_command(ctx: click.Context, command: str | None) -> None:
    """Show all commands, or the options of one."""
    above = ctx.parent
    assert above is not None
    assert isinstance(above.command, click.Group)
    if command is None:
        click.echo(above.get_help())
        return
    found = above.command.get_command(above, command)
    if found is None:
        raise click.UsageError(f"there is no command {command!r}: `{above.command_path} help` shows them", ctx)
    with click.Context(found, info_name=command, parent=above) as of_it:
        click.echo(of_it.get_help())
