"""What can go wrong below the engine: the server is away, or has no memory left."""

from __future__ import annotations


class StoreError(Exception):
    """Redis could not do what was asked. *reason*: what the connection said, for logs; it may name hosts."""

    def __init__(self, text: str, reason: object = "") -> None:
        super().__init__(text)
        self.reason = str(reason)

    @property
    def in_full(self) -> str:
        return f"{self} ({self.reason})" if self.reason else str(self)


class StoreUnavailable(StoreError):
    """Redis can't be reached, doesn't answer in time, or isn't ready to (loading, read only).

    Nothing is known of the call's effect.
    """


class StoreFull(StoreError):
    """Redis is at its memory limit, or can't write to its disk, and refused to store anything; nothing was changed."""


class LayoutMismatch(StoreError):
    """The data on the server was written by a version of this project with another key layout."""
