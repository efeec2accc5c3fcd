"""The command watch."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import click

from eas_queue.stream import errors, rendering
from eas_queue.stream.commands.options import (
    START,
    Command,
    Queue,
    confirmed,
    info,
    tags_option,
    talks_to_queue,
    tell,
)
from eas_queue.stream.items import Item
from eas_queue.stream.watching import Arrived, Connected, Ended, Lost, Watch

_CODE = re.compile(r"([A-Z][a-z]*)+(.[A-Z][a-z]*)?|[0-9]+")  # as eas-golang-sdk, types/code.go has it
_CODE_MAX = 20

_log = logging.getLogger("eas_queue.stream")


def _checked_code(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if value and (len(value) > _CODE_MAX or not _CODE.fullmatch(value)):
        raise click.BadParameter("a code is a number or words such as Busy or OutOfMemory, at most 20 characters")
    return value


@click.command(name="watch", cls=Command)
@click.option("--auto-commit", is_flag=True, help="The queue takes each item as done once it is sent.")
@click.option("--index", type=START, default=0, help="Only items from this index; -1: only what comes from now on.")
@click.option("--window", type=click.IntRange(1, 2**31 - 1), default=10, show_default=True, help="Most items at once.")
@click.option("--index-only", is_flag=True, help="Without the data of the items.")
@click.option("--negative-code", default="", callback=_checked_code, metavar="CODE", help="Sent with each rejection.")
@click.option("--negative-reason", default="", metavar="TEXT", help="Sent with each rejection.")
@tags_option("Only items that have all of these; the same for all consumers of a group.")
@talks_to_queue
def watch_command(
    queue: Queue,
    auto_commit: bool,
    index: int,
    window: int,
    index_only: bool,
    negative_code: str,
    negative_reason: str,
    tags: dict[str, str],
) -> None:
    """Show items as the queue pushes them, until Ctrl-C.

    For each one asks whether to commit it, which takes it out of the queue, and if not, whether to reject it, which
    gives it back at once. What gets neither goes back when the watch ends. Lines and --json are as of get.
    """
    queue.say(
        f"[INFO] Start to watch: index: {index}, indexOnly: {str(index_only).lower()}, "
        f"autoCommit: {str(auto_commit).lower()}, window: {window}"
    )
    watch = Watch(queue.target, index=index, window=window, index_only=index_only, auto_commit=auto_commit, tags=tags)
    decisions = None if auto_commit else _Decisions(queue, negative_code, negative_reason)
    with _logging():
        try:
            _show(queue, watch, decisions)
        except (KeyboardInterrupt, click.Abort):
            info("")  # below what the terminal shows of Ctrl-C, or the question that gets no answer


def _show(queue: Queue, watch: Watch, decisions: _Decisions | None) -> None:
    received = 0
    with watch:
        _log.info("watch via websocket")
        for event in watch.events():
            match event:
                case Lost(reason):
                    _log.warning("%s; connecting again", reason)
                case Connected():
                    _log.info("watch via websocket")
                case Ended(failure):
                    raise failure
                case Arrived(item, connection):
                    if decisions is not None and not decisions.are_wanted(item, connection, watch):
                        continue
                    queue.say(rendering.row(received, item), rendering.row_json(received, item))
                    sys.stdout.flush()  # a program that reads us wants each item at once
                    received += 1
                    if decisions is not None:
                        decisions.ask(item)


class _Decisions:
    """Asks what to do with each item, and tells the queue."""

    def __init__(self, queue: Queue, code: str, reason: str) -> None:
        self._queue, self._code, self._reason = queue, code, reason
        self._committed: set[int] = set()

    def are_wanted(self, item: Item, connection: int, watch: Watch) -> bool:
        """False for what was pushed on a connection that has broken since, as the queue pushes it again, and for what
        it pushed again before it heard of our commit."""
        return connection == watch.connection and item.index not in self._committed

    def ask(self, item: Item) -> None:
        """Commit, reject or neither; the question again when the queue is out of reach."""
        index, client = item.index, self._queue.client
        while True:
            try:
                if confirmed(f"commit: {index} ?", default=True):
                    client.commit(index)
                    self._committed.add(index)
                elif confirmed(f"negative: {index} ?", default=True):
                    client.negative(index, code=self._code, reason=self._reason)
                return
            except errors.Unreachable as exc:
                tell(exc)


@contextmanager
def _logging() -> Iterator[None]:
    """What happens to the connection, on stderr and in the form of Go's log, as eascmd does."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_GoFormatter())
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False
    try:
        yield
    finally:
        _log.removeHandler(handler)


class _GoFormatter(logging.Formatter):
    """`I0604 09:20:45.211243   66197 watch.py:93] watch via websocket`."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created)
        head = f"{record.levelname[0]}{at:%m%d %H:%M:%S.%f} {record.process:>7} {record.filename}:{record.lineno}]"
        return f"{head} {record.getMessage()}"
