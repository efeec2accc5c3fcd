"""A target that is a Python function: `def f(data)` or `def f(data, task)`."""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eas_queue.pull import bodies
from eas_queue.pull.errors import Abandoned, Away, Refused
from eas_queue.pull.task import Task

log = logging.getLogger("eas_queue.pull")


class Function:
    """Called in the thread of its task, several at once where there are slots."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name, self._function = name, function
        self._wants_task = _wants_task(function)

    def problem(self) -> str | None:
        return None

    def call(self, task: Task) -> tuple[int, bytes]:
        """200 and what it returns; 500 and the error that it raises, or for what is no JSON. Raises Abandoned."""
        try:
            result = self._function(task.data, task) if self._wants_task else self._function(task.data)
            status, body = 200, bodies.of_value(result)
        except Abandoned:
            raise
        except (Exception, SystemExit) as exc:  # whatever it is, it is this task's answer and not the worker's end
            if not task.abandoned.is_set():
                log.exception("function_failed task_id=%s error=%s", task.id, type(exc).__name__)
            status, body = 500, bodies.of_error(type(exc).__name__, str(exc))
        try:
            task.flush()  # who follows it hears of the end after all that was said
        except (Away, Refused) as exc:
            if status == 200:
                return 500, bodies.of_error("EventsLost", f"the queue did not take what was streamed: {exc}")
        return status, body


def loaded(name: str) -> Function:
    """From `module:function`, the module also in the folder we are called in. Raises ValueError with a sentence."""
    module_name, _, path = name.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path[:1]:
        sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
            raise  # a package that the module itself needs: the traceback says where
        raise ValueError(f"there is no module {exc.name!r} in {folder} or in {sys.executable}") from exc
    for part in path.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ValueError(f"{module_name} has no function {path!r}")  # noqa: TRY004  of what was asked for, as above
    if inspect.iscoroutinefunction(found) or inspect.isgeneratorfunction(found) or inspect.isasyncgenfunction(found):
        raise ValueError(f"{name} must be a plain function: it runs in a thread, and streams by task.event()")
    return Function(name, found)


def _wants_task(function: Callable[..., Any]) -> bool:
    """By a second argument that it can't do without, or one called `task`."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return False  # a builtin
    places = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    return len(places) > 1 and (places[1].default is inspect.Parameter.empty or places[1].name == "task")
