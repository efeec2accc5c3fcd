"""Reads a server's append-only file: all that it has kept, in order, one transaction at a time.

Redis and Valkey write each command there before its client is answered, a script as its effects between MULTI and EXEC.
What a SIGKILL took away is cut off at the next start, so the file is what the server itself believes. It holds
the whole history only while it is not rewritten (``auto-aof-rewrite-percentage 0``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

Command = tuple[bytes, ...]
Transaction = list[Command]  # one command outside of MULTI is a transaction of its own


class Broken(Exception):
    """The file holds something other than whole commands."""


class AppendOnlyFile:
    """The file of the server whose data is in *folder*; it may be read while the server runs, dies and comes back."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "appendonlydir"
        self._offset = 0
        self._path: Path | None = None

    def news(self) -> Iterator[Transaction]:
        """The transactions that are complete by now and were not given before."""
        path = self._incremental()
        if self._path not in (None, path):
            raise Broken(f"the server went on in {path.name}: what it kept before can't be followed")
        self._path = path
        with path.open("rb") as opened:
            opened.seek(self._offset)
            data = opened.read()
        at, pending, inside = 0, 0, False  # pending: bytes of a transaction that is not complete yet
        transaction: Transaction = []
        while True:
            command, after = _command(data, at)
            if command is None:
                return
            name = command[0].upper()
            if name == b"MULTI":
                inside = True
            elif name == b"EXEC":
                inside = False
            elif name != b"SELECT":
                transaction.append(command)
            read, at = after - at, after
            pending += read
            if not inside:
                self._offset += pending
                pending = 0
                if transaction:
                    yield transaction
                transaction = []

    def _incremental(self) -> Path:
        """The one file that grows; the base before it is empty."""
        manifest = next(self._folder.glob("*.manifest")).read_text()
        names = [line.split()[1] for line in manifest.splitlines() if line.endswith(" type i")]
        if len(names) != 1:
            raise Broken(f"{len(names)} incremental files, expected one:\n{manifest}")
        return self._folder / names[0]


def _command(data: bytes, at: int) -> tuple[Command | None, int]:
    """The command at *at* and where the next one begins; None when it is not complete."""
    end = data.find(b"\r\n", at)
    if end < 0:
        return None, at
    if data[at : at + 1] == b"#":  # an annotation, such as a time stamp
        return (b"SELECT",), end + 2
    if data[at : at + 1] != b"*":
        raise Broken(f"no command at byte {at}: {data[at : at + 40]!r}")
    count, parts = int(data[at + 1 : end]), []
    at = end + 2
    for _ in range(count):
        end = data.find(b"\r\n", at)
        if end < 0:
            return None, at
        if data[at : at + 1] != b"$":
            raise Broken(f"no argument at byte {at}: {data[at : at + 40]!r}")
        start = end + 2
        at = start + int(data[at + 1 : end]) + 2
        if at > len(data):
            return None, at
        parts.append(data[start : at - 2])
    return tuple(parts), at
