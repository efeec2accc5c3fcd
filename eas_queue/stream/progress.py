"""A bar at the foot of a terminal, below lines that go on scrolling."""

from __future__ import annotations

import time
from typing import TextIO

from eas_queue.stream import rendering

_EVERY_S = 0.1
_WIDTH = 30


class Progress:
    """Draws on *bar* if that is a terminal, else does nothing.

    *lines*: where the lines go; only where they share the bar's terminal it must make room for them.
    *total_bytes* None: how much will come is unknown.
    """

    def __init__(self, bar: TextIO, lines: TextIO, total_bytes: int | None) -> None:
        self._bar, self._total = bar, total_bytes
        self._is_shown = bar.isatty()
        self._is_shared = lines.isatty()
        self._is_drawn = False
        self._drawn_s = 0.0

    def update(self, count: int, done_bytes: int) -> None:
        """Ten times a second at most, unless it had to make room."""
        now_s = time.monotonic()
        if not self._is_shown or (self._is_drawn and now_s - self._drawn_s < _EVERY_S):
            return
        self._drawn_s, self._is_drawn = now_s, True
        self._write(f"\r\x1b[K{self._line(count, done_bytes)}")

    def make_room(self) -> None:
        """Before a line is written."""
        if self._is_shared:
            self.clear()

    def clear(self) -> None:
        if self._is_drawn:
            self._is_drawn = False
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        self._bar.write(text)
        self._bar.flush()

    def _line(self, count: int, done_bytes: int) -> str:
        if not self._total:
            return f"{count} items, {rendering.size(done_bytes)}"
        share = min(1.0, done_bytes / self._total)
        bar = "#" * round(share * _WIDTH)
        return f"[{bar:<{_WIDTH}}] {share:4.0%}  {count} items"
