"""The command put."""

from __future__ import annotations

import os
import shlex
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import click

from eas_queue.stream import durations, errors, rendering
from eas_queue.stream.commands.options import Command, Queue, info, tags_option, talks_to_queue, tell
from eas_queue.stream.progress import Progress

# Refusals of one item; whatever else is said, the next item would hear as well.
_OF_ONE_ITEM = (400, 413)


@click.command(name="put", cls=Command)
@click.option("-d", "--data", metavar="TEXT", help="One item, this text.")
@click.option(
    "-f",
    "--file",
    type=click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True),
    help="An item for each line, - for stdin. Empty lines are left out.",
)
@click.option("--priority", type=click.IntRange(0, 2**31 - 1), default=0, help="1 and higher go before all others.")
@tags_option("Tags of the items.")
@talks_to_queue
def put_command(queue: Queue, data: str | None, file: str | None, priority: int, tags: dict[str, str]) -> None:
    """Put items into the queue.

    A line that the queue refuses is told and counted, and the next one follows. When the queue is full or out of reach,
    the rest is not tried: the message says how to go on with it.

    With --json an object for each item (index and requestId, or line, status and error), and at the end one with total,
    success, failed, bytes and elapsed_ms.
    """
    if (data is None) == (file is None):
        raise click.UsageError("give the data by -d TEXT, or a file by -f FILE (- for stdin)")
    putting = _Putting(queue, priority, tags)
    if data is not None:
        with putting:
            putting.put(os.fsencode(data))  # as the shell has given it, whatever encoding that is
        return
    assert file is not None
    with _opened(file) as source:
        queue.say(f"[INFO] Opening data file: {rendering.plain(file)}")
        with putting:
            putting.put_lines(_lines(source), file, _progress(source))
    if putting.failed:
        click.get_current_context().exit(1)


class _Putting:
    """Counts what is put; at the end of its `with` block it sums up, however that ends."""

    def __init__(self, queue: Queue, priority: int, tags: dict[str, str]) -> None:
        self._queue, self._priority, self._tags = queue, priority, tags
        self.total = self.failed = self._bytes = 0
        self._began_ns = time.perf_counter_ns()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        elapsed_ns = time.perf_counter_ns() - self._began_ns
        success = self.total - self.failed
        content = {"total": self.total, "success": success, "failed": self.failed, "bytes": self._bytes}
        self._queue.say(
            "[INFO] Put data done.\n"
            f"Total time cost: {durations.to_text(elapsed_ns)}\n"
            f"Total size: {rendering.size(self._bytes)}\n"
            f"Total: {self.total}, success: {success}, failed: {self.failed}",
            content | {"elapsed_ms": elapsed_ns / 1e6},
        )

    def put(self, data: bytes) -> None:
        self.total += 1
        self.failed += 1  # until the queue has it: an interrupt may come any time
        index, request_id = self._queue.client.put(data, tags=self._tags, priority=self._priority)
        self.failed -= 1
        self._bytes += len(data)
        self._queue.say(f"[OK] {index}", {"index": index, "requestId": request_id})

    def put_lines(self, lines: Iterable[tuple[int, bytes]], file: str, progress: Progress) -> None:
        number = done_bytes = 0
        try:
            for number, data in lines:
                progress.make_room()
                try:
                    self.put(data)
                except errors.Refused as exc:
                    if exc.status not in _OF_ONE_ITEM:
                        raise
                    exc.message = f"line {number}: {exc.message}"
                    tell(exc)
                    if self._queue.as_json:
                        self._queue.say("", {"line": number, "status": exc.status, "error": exc.message})
                done_bytes += len(data) + 1
                progress.update(self.total, done_bytes)
        except errors.Failed as exc:
            exc.message = f"line {number}: {exc.message}"
            exc.advice += f"; the lines before {number} were put, {_rest(file, number)}"
            raise
        except KeyboardInterrupt:
            info(f"[INFO] Stopped: the lines before {number} were put, {number} perhaps; {_rest(file, number + 1)}")
            raise
        finally:
            progress.clear()


def _rest(file: str, number: int) -> str:
    if file == "-":
        return f"go on with line {number}"
    return f"go on by `tail -n +{number} {rendering.plain(shlex.quote(file))} | eas-queue stream put -f -`"


def _opened(file: str) -> BinaryIO:
    if file == "-":
        return sys.stdin.buffer
    try:
        return Path(file).open("rb")
    except OSError as exc:
        raise click.UsageError(f"{file} can't be read: {exc.strerror}") from exc


def _lines(source: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Number and content of each line that has any, without its end."""
    for number, line in enumerate(source, 1):
        data = line.rstrip(b"\r\n")
        if data:
            yield number, data


def _progress(source: BinaryIO) -> Progress:
    total_bytes = None
    try:
        found = os.fstat(source.fileno())
        if stat.S_ISREG(found.st_mode):
            total_bytes = found.st_size
    except OSError:
        pass  # not a file of the system
    return Progress(sys.stderr, sys.stdout, total_bytes)
