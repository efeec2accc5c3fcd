"""What a queue or a target may say instead of doing what was asked."""

from __future__ import annotations


class Away(Exception):
    """The queue does not answer, or answers that it can't now (429, 5xx): the same again, a little later."""

    def __init__(self, reason: str, retry_after_s: float = 0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class Refused(Exception):
    """The queue has said no, and would again. *said*: its reason, on one line, may be empty."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"{status}: {said}" if said else str(status))
        self.status, self.said = status, said


class NotHeld(Exception):
    """The task is not ours any more: cancelled, expired, ended by somebody else, or given to another worker."""


class Abandoned(Exception):
    """What a function gets that reports on a task which is not ours any more: nobody waits for its result."""


class NoAnswer(Exception):
    """The target has not answered a call, which it may have received or not."""
