"""What the processes of one worker tell each other: whether it stops, how many seats each has taken, and that
somebody listens to its events.

Memory that forked children share with their parent, one writer per cell and no lock: it can be used in a signal
handler, and a child that is killed leaves nothing locked.
"""

from __future__ import annotations

import mmap

from billiard.process import current_process

CELLS = mmap.PAGESIZE // 4

RUNS, STOPS, STOPS_AT_ONCE = 0, 1, 2
SHARED = 2  # cells that the main process writes


class Board:
    """Made before the pool forks. The first cells are the main process's word, the others count seats."""

    def __init__(self) -> None:
        self._cells = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("I")

    @property
    def state(self) -> int:
        """RUNS, STOPS (running requests get their grace) or STOPS_AT_ONCE (they go back to the queue now)."""
        return self._cells[0]

    def stops(self, state: int = STOPS) -> None:
        self._cells[0] = max(state, self._cells[0])

    def write_taken(self, seats: int) -> None:
        """This process has so many seats taken. A child that replaces a dead one writes to the same cell."""
        self._cells[SHARED + getattr(current_process(), "index", 0) % (CELLS - SHARED)] = seats

    @property
    def taken(self) -> int:
        """Seats taken in all processes of this worker."""
        return sum(self._cells[SHARED:])

    @property
    def announced(self) -> int:
        """Changes whenever a listener to events has announced itself."""
        return self._cells[1]

    def announce(self) -> None:
        self._cells[1] = (self._cells[1] + 1) % 2**32
