"""The callback of a task: the map that it was completed with, as it was written."""

from __future__ import annotations

from collections.abc import Callable

from eas_queue.dialects.bella import answers, parameters, schema
from eas_queue.engine.engine import Engine
from eas_queue.engine.request import Request

STYLE = parameters.STYLE


def renderer(engine: Engine) -> Callable[[Request], bytes]:
    """Makes the body for a request that has ended."""

    def render(request: Request) -> bytes:
        return (answers.result(request, schema.task_id(request), *engine.answer(request)) or "{}").encode()

    return render
