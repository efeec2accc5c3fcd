"""What an adapter says of a body that it can't translate."""

from __future__ import annotations


class Unadaptable(ValueError):
    """Names the place in the body, what is wrong there, and what would do instead."""
