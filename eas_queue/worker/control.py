"""Celery's remote commands that mean something else here.

Flower's Revoke and Terminate, and ``control.revoke``, cancel that request, and nothing else. Celery's own command knows
messages, and here a message carries many requests: terminating it would cut off the others, and the request itself
would only lose an attempt and run again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from celery.worker.control import Panel, ok

from eas_queue.engine.engine import Engine
from eas_queue.engine.errors import EngineError, NotCancellable, RequestNotFound
from eas_queue.worker.board import Board

log = logging.getLogger("eas_queue.worker")


def replace_revoke(engine: Engine) -> None:
    """Make this worker answer ``revoke`` and ``terminate`` by cancelling the requests of these ids."""

    def revoke(state: Any, task_id: str | Iterable[str], *_: Any, **__: Any) -> Any:
        ids = [task_id] if isinstance(task_id, str) else list(task_id)
        return ok("; ".join(_cancel(engine, request_id) for request_id in ids))

    def terminate(state: Any, signal: str, task_id: str | Iterable[str], **_: Any) -> Any:
        return revoke(state, task_id)

    Panel.data["revoke"] = revoke
    Panel.data["terminate"] = terminate


def hear_listeners(board: Board) -> None:
    """Note on *board* when Flower and the like ask for events, which they do as soon as they listen."""
    enable = Panel.data["enable_events"]

    def enable_events(state: Any, **options: Any) -> Any:
        board.announce()
        return enable(state, **options)

    Panel.data["enable_events"] = enable_events


def _cancel(engine: Engine, request_id: str) -> str:
    try:
        was = engine.cancel(engine.service_of(request_id), request_id)
    except (RequestNotFound, NotCancellable) as exc:
        return str(exc)
    except EngineError as exc:
        log.warning("revoke_failed request_id=%s error=%s", request_id, exc)
        return f"{request_id} was not cancelled: {exc}"
    log.info("request_cancelled request_id=%s was=%s by=revoke", request_id, was)
    return f"request {request_id} was {was} and is cancelled"
