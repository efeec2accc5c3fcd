"""Makes calls of QueueClient as they are asked for: a line of JSON in, a line of JSON out.

    {"make": "a", "endpoint": "host:port", "token": .., "queue": .., "init": {..}, "set": {"timeout": 5000, ..}}
    {"on": "a", "call": "put", "args": ["data"], "kwargs": {..}}
    {"on": "a", "watch": {..arguments of watch..}}, then {"on": "a", "next": 3} and {"on": "a", "close": true}

The answer has *result*, or *error* with the exception's name, code and text. ``next`` waits for so many frames.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from eas_prediction import QueueClient

from tests.clients.eas_common import frame, say, text

clients: dict[str, Any] = {}
watchers: dict[str, Any] = {}
frames: dict[str, Any] = {}


def shown(value: Any) -> Any:
    if isinstance(value, bytes):
        return text(value)
    if isinstance(value, list | tuple):
        return [shown(item) for item in value]
    if hasattr(value, "raw_data"):
        return frame(value)
    return value


def make(asked: dict[str, Any]) -> None:
    made = QueueClient(asked["endpoint"], asked["queue"])
    made.set_token(asked["token"])
    for name, value in asked.get("set", {}).items():
        getattr(made, name if name.startswith("add_") else f"set_{name}")(value)
    made.init(**asked.get("init", {}))
    clients[asked["make"]] = made


def answer(asked: dict[str, Any]) -> Any:
    if "make" in asked:
        return make(asked)
    name = asked["on"]
    if "watch" in asked:
        watchers[name] = clients[name].watch(**asked["watch"])
        frames[name] = watchers[name].run()
        return None
    if "next" in asked:
        return [frame(next(frames[name])) for _ in range(asked["next"])]
    if "close" in asked:
        return watchers[name].close()
    args = [
        value["latin-1"].encode("latin-1") if isinstance(value, dict) and "latin-1" in value else value
        for value in asked.get("args", [])
    ]
    return shown(getattr(clients[name], asked["call"])(*args, **asked.get("kwargs", {})))


for line in sys.stdin:
    try:
        result = answer(json.loads(line))
    except Exception as exc:
        code = getattr(exc, "code", getattr(exc, "status_code", None))
        say(error=type(exc).__name__, code=code, text=str(exc))
    else:
        say(result=result)
