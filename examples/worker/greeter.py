"""A function for `eas-queue pull`: it greets, word by word, and tells how far it is."""

from __future__ import annotations

import time
from typing import Any

from eas_queue.pull.task import Task


def greet(data: dict[str, Any], task: Task) -> dict[str, str]:
    """`{"name": "Ada", "pause_s": 0.2}`, the second one may be missing."""
    words = ["Hello", *str(data["name"]).split(), "and", "welcome!"]
    task.log(f"{len(words)} words")
    for number, word in enumerate(words, 1):
        if task.abandoned.wait(float(data.get("pause_s", 0.2))):
            break  # cancelled: nobody waits for it
        task.progress({"word": number, "of": len(words)})
        task.event({"word": word, "at": round(time.time(), 1)})
    return {"greeting": " ".join(words)}
