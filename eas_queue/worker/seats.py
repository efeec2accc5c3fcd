"""The seats of one process: how many requests it can work on at once, and a number for each."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Seats:
    """*capacity* numbered seats. A thread or greenlet works on one request in one seat.

    *tell* is called with the number of seats taken, whenever it changes.
    """

    def __init__(self, capacity: int, tell: Callable[[int], None] = lambda _: None) -> None:
        self.capacity = capacity
        self._tell = tell
        self._free = list(range(capacity))
        self._changed = threading.Condition()
        self.somebody_waits = False
        self._stopping = False

    def take(self, most: int) -> list[int]:
        """Up to *most* free seats, none if there are none; does not wait."""
        with self._changed:
            taken = self._free[-most:] if most > 0 else []
            del self._free[len(self._free) - len(taken) :]
            self._tell(self.capacity - len(self._free))
            return taken

    def take_or_wait(self) -> list[int]:
        """One seat, waited for if need be; empty when another caller waits already, or when the process stops.

        One waiter is enough: it takes over when a seat is given back. Starting work without a seat, or announcing it
        anew, would make a busy process spin.
        """
        with self._changed:
            if not self._free:
                if self.somebody_waits:
                    return []
                self.somebody_waits = True
                try:
                    self._changed.wait_for(lambda: self._free or self._stopping)
                finally:
                    self.somebody_waits = False
            return self.take(1)

    def give(self, seats: list[int]) -> None:
        if seats:
            with self._changed:
                self._free.extend(seats)
                self._tell(self.capacity - len(self._free))
                self._changed.notify()

    def stop(self) -> None:
        """Send a waiter home, because the process stops."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
