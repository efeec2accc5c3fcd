"""Pauses before the next try, so that a queue that was away is not met by all its workers at once."""

from __future__ import annotations

import random

FIRST_S = 0.2
MOST_S = 10.0
ASKED_MOST_S = 60.0  # however long a queue says to wait


class Backoff:
    """Of one series of tries; doubles each time up to MOST_S, half of it random."""

    def __init__(self) -> None:
        self._next_s = FIRST_S

    def pause_s(self, asked_s: float = 0) -> float:
        """How long to wait now; *asked_s*: what Retry-After says, 0 if nothing."""
        full_s, self._next_s = self._next_s, min(2 * self._next_s, MOST_S)
        # spreads load, guards nothing
        return min(asked_s, ASKED_MOST_S) + full_s * random.uniform(0.5, 1)  # noqa: S311
