"""Commands that take items out for good: delete, trunc."""

from __future__ import annotations

import click

from eas_queue.stream.commands.options import INDEX, Command, Queue, confirmed, info, talks_to_queue

_yes = click.option("-y", "--yes", is_flag=True, help="Don't ask.")


@click.command(name="delete", cls=Command)
@click.argument("indexes", metavar="INDEX...", type=INDEX, nargs=-1, required=True)
@_yes
@talks_to_queue
def delete_command(queue: Queue, indexes: tuple[int, ...], yes: bool) -> None:
    """Delete items by their index, after asking. A request that is running is cancelled."""
    if not yes:
        info("Deleting index(es):")
        _ask(", ".join(map(str, indexes)))
    queue.client.delete(indexes)
    queue.say("[OK] deleted", {"deleted": list(indexes)})


@click.command(name="trunc", cls=Command)
@click.argument("index", type=INDEX)
@_yes
@talks_to_queue
def trunc_command(queue: Queue, index: int, yes: bool) -> None:
    """Delete all items before INDEX, after asking.

    The item INDEX itself stays."""
    if not yes:
        _ask(f"trunc stream from index: {index}")
    queue.client.truncate(index)
    queue.say("[OK] truncated", {"truncated": index})


def _ask(question: str) -> None:
    if not confirmed(question, default=False):
        info("[INFO] Nothing was deleted.")
        click.get_current_context().exit(1)
