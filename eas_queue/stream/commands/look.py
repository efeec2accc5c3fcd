"""Commands that look and change nothing: info, search, count."""

from __future__ import annotations

import click

from eas_queue.stream import rendering
from eas_queue.stream.commands.options import INDEX, Command, Queue, tags_option, talks_to_queue


@click.command(name="info", cls=Command)
@talks_to_queue
def info_command(queue: Queue) -> None:
    """Show the attributes of the queue."""
    found = queue.client.attributes()
    queue.say("\n".join(rendering.attributes(found)), dict(sorted(found.items())))


@click.command(name="search", cls=Command)
@click.argument("index", type=INDEX)
@talks_to_queue
def search_command(queue: Queue, index: int) -> None:
    """Say where the item INDEX is.

    With which consumer, or behind how many others. Whether it is pending is looked up in your group (--group).
    """
    found = queue.client.search(index)
    shown = {key: str(value).lower() if isinstance(value, bool) else value for key, value in found.items()}
    queue.say(rendering.plain("[OK] " + ", ".join(f"{key}: {value}" for key, value in shown.items())), found)


@click.command(name="count", cls=Command)
@click.option("--priority", type=click.IntRange(min=0), default=0, help="Only items of this priority.")
@tags_option("Only items that have all of these.")
@talks_to_queue
def count_command(queue: Queue, priority: int, tags: dict[str, str]) -> None:
    """Count the items of the queue."""
    count = queue.client.count(tags=tags, priority=priority)
    queue.say(f"[OK] {count}", {"count": count})
