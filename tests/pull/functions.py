"""What the workers of these tests call: `--function tests.pull.functions:NAME`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from eas_queue.pull.errors import Abandoned
from eas_queue.pull.task import Task


def echo(data: Any) -> Any:
    return data


def described(data: Any, task: Task) -> Any:
    return {"type": type(data).__name__, "content_type": task.content_type, "attempt": task.attempt, "id": task.id}


def told(data: dict[str, Any], task: Task) -> str:
    """Says all that can be said, then waits for the file that the test makes."""
    task.progress({"step": 1})
    task.log("halfway", level="WARN")
    for word in data["words"]:
        task.event({"word": word})
    task.event("last", name="end")
    await_file(Path(data["go"]))
    return "all said"


def slow(data: dict[str, Any]) -> dict[str, Any]:
    """Says that it has begun by a file, and ends when another one is there."""
    Path(data["begun"]).touch()
    await_file(Path(data["go"]))
    return {"by": "slow"}


def patient(data: dict[str, Any], task: Task) -> None:
    """Ends when it is abandoned, and writes down what a report says then."""
    Path(data["begun"]).touch()
    if task.abandoned.wait(20):
        try:
            task.progress({})
        except Abandoned:
            Path(data["note"]).write_text("abandoned")


def failing(data: Any) -> None:
    if data.get("exits"):
        raise SystemExit("enough")
    raise ValueError(f"can't use {data['value']}")


def odd(data: dict[str, Any]) -> Any:
    """What is no JSON, or looks like something else."""
    results = {"nan": float("nan"), "set": {1}, "coded": {"body_base64": "AA==", "content_type": "image/png"}}
    return results[data["of"]]


def large(data: dict[str, int]) -> bytes:
    return bytes(range(256)) * (data["bytes"] // 256)


def streams(data: dict[str, Any], task: Task) -> None:
    Path(data["begun"]).touch()
    await_file(Path(data["go"]))
    for number in range(data["events"]):
        task.event(number)


def says_wrong(data: dict[str, Any], task: Task) -> str:
    """Things that the queue takes, around one that it refuses."""
    task.log("first")
    task.log("second", level="no level!")
    task.progress({"step": 3})
    task.log("third")
    if data["of"] == "event":
        task.event(1, name="two\nlines")
    elif data["of"] == "end":
        raise ValueError("after all that")
    return "said"


def optional(data: Any, times: int = 2) -> int:
    return times


def await_file(path: Path) -> None:
    until_s = time.monotonic() + 20
    while not path.exists():
        if time.monotonic() > until_s:
            raise TimeoutError(path)
        time.sleep(0.01)
