"""A real HTTP target that does what the body of each call tells it, step by step."""

from __future__ import annotations

import collections
import json
import threading
from typing import Any

from tests.support.own_target import Call, OwnTarget, Reply

LONGEST_HOLD_S = 30


class ToldTarget(OwnTarget):
    """The input is JSON; its ``do`` is a list of steps, each of them one of

    ["log", "message", ..]        report these lines to the queue, in one call
    ["hold", "name"]              wait until the test releases this name
    ["answer", 422, {..}]         with this status and body, instead of 200 and what came in
    ["stream", {..}, ..]          answer with these events, as a stream of server-sent ones
    """

    def __init__(self) -> None:
        super().__init__()
        self.act = self._act
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self._held: dict[str, threading.Event] = collections.defaultdict(threading.Event)
        self._released: dict[str, threading.Event] = collections.defaultdict(threading.Event)

    def calls(self, request_id: str | None = None) -> list[Call]:
        """So far, in order: all of them or those of one request."""
        with self._lock:
            return [call for call in self._calls if request_id in (None, call.headers.get("x-fal-request-id"))]

    def await_held(self, name: str, *, timeout_s: float = 10) -> None:
        """Until a call waits for this name."""
        assert self._event(self._held, name).wait(timeout_s), f"no call has come to {name!r} within {timeout_s} s"

    def release(self, *names: str) -> None:
        """Those that wait, and those that will."""
        for name in names:
            self._event(self._released, name).set()

    def stop(self) -> None:
        with self._lock:
            names = list(self._held)
        self.release(*names)
        super().stop()

    def _event(self, events: dict[str, threading.Event], name: str) -> threading.Event:
        with self._lock:
            return events[name]

    def _act(self, call: Call) -> Reply:
        with self._lock:
            self._calls.append(call)
        content: Any = json.loads(call.body)
        status, answer = 200, {"path": call.path, "headers": call.headers, "input": content}
        for step, *given in content.get("do", ()):
            if step == "log":
                told = call.report(logs=[{"message": message, "level": "INFO"} for message in given])
                assert told == 204, told
            elif step == "hold":
                self._event(self._held, given[0]).set()
                self._event(self._released, given[0]).wait(LONGEST_HOLD_S)
            elif step == "answer":
                status, answer = given
            elif step == "stream":
                events = "".join(f"data: {json.dumps(event)}\n\n" for event in given)
                return 200, events.encode(), {"Content-Type": "text/event-stream"}
        return status, json.dumps(answer).encode()
