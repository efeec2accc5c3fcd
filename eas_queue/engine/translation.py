"""The store's errors as the engine's own: callers of the engine see no others."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from eas_queue.engine.errors import Unavailable
from eas_queue.store.errors import StoreError

_F = TypeVar("_F", bound=Callable[..., Any])


def translated(call: _F) -> _F:
    """The method *call*, raising Unavailable where the store is away or full."""

    @functools.wraps(call)
    def inner(*args: Any, **options: Any) -> Any:
        try:
            return call(*args, **options)
        except StoreError as exc:
            raise Unavailable(str(exc), exc.in_full) from exc

    return inner  # type: ignore[return-value]
