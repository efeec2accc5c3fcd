"""One connection for the script calls of many threads or greenlets, in groups.

Who finds the connection free sends at once. What comes while a round trip is under way goes out together with the next
one: a single send, a single wait. So a lone caller loses nothing, and under load both this process and the server save
most of what a call costs beside the script itself (docs/decisions/0022).

No thread of its own: the first of those who wait leads the next round trip, for all of them.
"""

from __future__ import annotations

import collections
import threading
from typing import Any

import hiredis
import redis

GROUP_MOST = 256  # calls in one round trip
GROUP_BYTES_MOST = 1_048_576  # and of their arguments, unless the first alone has more


class _Call:
    """One command on its way. ``turn`` opens once: when it is done, or when it leads."""

    __slots__ = ("data", "error", "leads", "reply", "turn")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.leads = False
        self.turn: Any = None  # a lock, unless it leads from the start
        self.reply: Any = None
        self.error: Exception | None = None


class SharedConnection:
    """Safe to share between the threads of one process. Opens nothing before the first call."""

    def __init__(self, connection: redis.Connection, timeout_s: float) -> None:
        """*connection*: of this object alone from now on; *timeout_s*: how long a call may wait for its turn, which is
        how long a round trip may take."""
        self._connection: Any = connection
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._waiting: collections.deque[_Call] = (
            collections.deque()
        )  # the leader, if it has not sent yet, is the first
        self._is_led = False

    def call(self, *command: Any) -> Any:
        """The server's reply. Raises its error, redis.TimeoutError or redis.ConnectionError; nothing is repeated.

        After a time-out or a lost connection nothing is known of the call's effect.
        """
        call = _Call(hiredis.pack_command(command))
        with self._lock:
            self._waiting.append(call)
            call.leads = not self._is_led
            self._is_led = True
            if not call.leads:
                call.turn = threading.Lock()
                call.turn.acquire()
        if not call.leads:
            self._await_turn(call)
        if call.leads:
            try:
                self._round_trip(self._group())
            finally:
                self._pass_on()
        if call.error is not None:
            raise call.error
        return call.reply

    def close(self) -> None:
        """Close the connection; the next call opens it again. Calls under way fail."""
        self._connection.disconnect()

    def _await_turn(self, call: _Call) -> None:
        """Return when the call is done or leads. Raises redis.TimeoutError."""
        in_time = False
        try:
            in_time = call.turn.acquire(timeout=self._timeout_s)
        finally:  # out of time, or this greenlet is being killed: nobody may wait for it
            if not in_time:
                with self._lock:
                    leads = call.leads
                    if call in self._waiting:
                        self._waiting.remove(call)
                if leads:
                    self._pass_on()
        if not in_time:
            raise redis.TimeoutError("no turn on the connection in time")

    def _group(self) -> list[_Call]:
        """The calls that go out now; the leader's own is among them."""
        group: list[_Call] = []
        size_bytes = 0
        with self._lock:
            while self._waiting and len(group) < GROUP_MOST:
                size_bytes += len(self._waiting[0].data)
                if group and size_bytes > GROUP_BYTES_MOST:
                    break
                group.append(self._waiting.popleft())
        return group

    def _round_trip(self, group: list[_Call]) -> None:
        left = collections.deque(group)
        try:
            self._connection.send_packed_command([b"".join([call.data for call in group])])
            while left:
                try:
                    left[0].reply = self._connection.read_response()
                except redis.ResponseError as exc:  # this call's alone
                    left[0].error = exc
                _let_go(left.popleft())
        except BaseException as exc:
            self._connection.disconnect()
            if isinstance(exc, redis.TimeoutError):
                with self._lock:  # the server is silent: those that wait would each wait as long again
                    left += self._waiting
                    self._waiting.clear()
            for call in left:
                call.error = exc if isinstance(exc, redis.RedisError) else redis.ConnectionError(repr(exc))
                _let_go(call)
            if not isinstance(exc, Exception):
                raise

    def _pass_on(self) -> None:
        with self._lock:
            self._is_led = bool(self._waiting)
            if self._is_led:
                self._waiting[0].leads = True
                self._waiting[0].turn.release()


def _let_go(call: _Call) -> None:
    if not call.leads:
        call.turn.release()
