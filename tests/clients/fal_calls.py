"""Makes calls of fal_client as they are asked for, any number at a time: lines of JSON in, lines of JSON out.

    {"n": 1, "client": "sync", "call": "submit", "args": [..], "kwargs": {..}}
    {"n": 2, "client": "async", "call": "subscribe", "kwargs": {..}, "told": true, "key": "another one"}
    {"n": 3, "client": "sync", "call": "iter_events", "on": 1}
    {"n": 4, "equal": [1, 3]}

*on*: the handle that call 1 returned; *told*: with both callbacks; *equal*: are the handles of these calls? Each line
out repeats *n*: *enqueued* and *event* as they come, in the end *result*, or *error* with the exception's name and
facts. The program ends when standard input does, as soon as the package lets the interpreter go. The package is used as
it is: its constants are set, nothing of it is replaced.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import os
import sys
import threading
from typing import Any

import fal_client

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--queue-url", help="instead of the host that the environment names")
parser.add_argument("--run-url")
options = parser.parse_args()
if options.queue_url:
    fal_client.client.QUEUE_URL_FORMAT = options.queue_url
    fal_client.client.RUN_URL_FORMAT = options.run_url

loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, name="loop", daemon=True).start()
clients: dict[tuple[str, str | None], Any] = {
    ("sync", None): fal_client.sync_client,
    ("async", None): fal_client.async_client,
}
handles: dict[int, Any] = {}
_facts = os.dup(1)
os.dup2(2, 1)  # from here on only facts go where facts are read
_one_at_a_time = threading.Lock()


def say(n: int, **fact: Any) -> None:
    with _one_at_a_time:
        os.write(_facts, json.dumps({"n": n, **fact}).encode() + b"\n")


def say_result(n: int, value: Any) -> None:
    if isinstance(value, fal_client.SyncRequestHandle | fal_client.AsyncRequestHandle):
        handles[n] = value
        value = {name: getattr(value, name) for name in ("request_id", "status_url", "response_url", "cancel_url")}
    say(n, result=shown(value))


def say_error(n: int, exc: Exception) -> None:
    found: dict[str, Any] = {"error": type(exc).__name__, "text": str(exc)}
    for name in ("message", "status_code", "response_headers", "error_type", "timeout", "request_id"):
        if name in vars(exc):
            found[name] = getattr(exc, name)
    if isinstance(exc, fal_client.FalClientHTTPError):
        found["body"] = exc.response.text
    say(n, **found)


def shown(value: Any) -> Any:
    return {"is": type(value).__name__, **vars(value)} if isinstance(value, fal_client.Status) else value


def called(asked: dict[str, Any]) -> Any:
    """What the function returned: of an AsyncClient something to await or to iterate over."""
    if "on" in asked:
        on = handles[asked["on"]]
    else:
        kind, key = asked["client"], asked.get("key")
        if (kind, key) not in clients:
            clients[kind, key] = (fal_client.SyncClient if kind == "sync" else fal_client.AsyncClient)(key=key)
        on = clients[kind, key]
    kwargs = dict(asked.get("kwargs", {}))
    if asked.get("told"):
        kwargs["on_enqueue"] = lambda request_id: say(asked["n"], enqueued=request_id)
        kwargs["on_queue_update"] = lambda status: say(asked["n"], event=shown(status))
    return getattr(on, asked["call"])(*asked.get("args", []), **kwargs)


def call(asked: dict[str, Any]) -> None:
    n = asked["n"]
    try:
        result = called(asked)
        if inspect.isgenerator(result):
            for value in result:
                say(n, event=shown(value))
            result = None
        say_result(n, result)
    except Exception as exc:
        say_error(n, exc)


async def call_async(asked: dict[str, Any]) -> None:
    n = asked["n"]
    try:
        result = called(asked)
        if inspect.isasyncgen(result):
            async for value in result:
                say(n, event=shown(value))
            result = None
        else:
            result = await result
        say_result(n, result)
    except Exception as exc:
        say_error(n, exc)


for line in sys.stdin:
    asked = json.loads(line)
    if "equal" in asked:
        first, second = asked["equal"]
        say_result(asked["n"], handles[first] == handles[second])
    elif asked["client"] == "async":
        asyncio.run_coroutine_threadsafe(call_async(asked), loop)
    else:
        threading.Thread(target=call, args=(asked,), daemon=True).start()
