"""Adapters: the body of a request in the form that its target takes, and the target's answer in that of its client.

Pure functions on bytes: no HTTP, no store. A service names one by its setting ``adapter``.
"""

from __future__ import annotations

from typing import Protocol

from eas_queue.adapters import openai_completions


class Adapter(Protocol):
    """All three raise Unadaptable."""

    def check(self, body: bytes) -> None:
        """Refuse a body that ``request`` would refuse."""

    def request(self, body: bytes, model: str) -> bytes:
        """What the target gets for *body*. *model*: what the target is asked for by name."""

    def answer(self, asked: bytes, body: bytes) -> bytes:
        """The client's form of *body*, which the target answered with 2xx. *asked*: the body that came in."""


_BY_NAME: dict[str, Adapter] = {"openai_completions": openai_completions}


def named(name: str) -> Adapter:
    """The adapter of this name, one of those that services may have."""
    return _BY_NAME[name]
