"""The command get."""

from __future__ import annotations

import click

from eas_queue.stream import durations, errors, rendering
from eas_queue.stream.commands.options import START, Command, Duration, Queue, tags_option, talks_to_queue


@click.command(name="get", cls=Command)
@click.option("-l", "--length", type=click.IntRange(min=1), default=1, show_default=True, help="How many at most.")
@click.option("--timeout", type=Duration(), default="5s", show_default=True, help="How long to wait for them.")
@click.option("--index", type=START, default=0, help="Start from this index; -1: the newest. Default: the first.")
@click.option("--auto-delete", is_flag=True, help="Take them out of the queue; on an input this cancels requests.")
@tags_option("Only items that have all of these: --tags requestId=ID.")
@talks_to_queue
def get_command(queue: Queue, length: int, timeout: int, index: int, auto_delete: bool, tags: dict[str, str]) -> None:
    """Get items, and leave them in the queue unless --auto-delete is given.

    Each line: [received index - queue index], the tags of the item, its data with control characters escaped. With
    --json an object: received, index, tags, and the data as text, or as base64 if it is no UTF-8.

    A service that is running takes items from its queue by itself: look at its results with -k.
    """
    found = queue.client.get(index=index, length=length, timeout_ns=timeout, auto_delete=auto_delete, tags=tags)
    if not found:
        raise errors.NotFound(
            f"get from {queue.target.url}: nothing "
            + (f"came within {durations.to_text(timeout)}" if timeout else "is there"),
            "wait longer with --timeout, ask for less with --tags and --index, or look for results with -k",
        )
    for received, item in enumerate(found):
        queue.say(rendering.row(received, item), rendering.row_json(received, item))
