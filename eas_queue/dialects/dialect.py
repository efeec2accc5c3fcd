"""What the web app knows of a dialect: its routes, its paths, and how it says that something went wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response

from eas_queue.dialects.failure import Failure


@dataclass(frozen=True)
class Dialect:
    """*prefixes*: the paths whose errors are rendered by *render_error*, routing's own 404 and 405 included.

    *claim*: the path under which this dialect serves a request that came for a path of another, or of several; '' where
    it does not want it. Asked before routing.
    """

    prefixes: tuple[str, ...]
    routes: tuple[Blueprint, ...]
    render_error: Callable[[Failure], Response]
    claim: Callable[[dict[str, Any]], str] | None = None
