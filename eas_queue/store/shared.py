"""One connection for the script calls of many threads or greenlets, in groups.

Who finds the connection free sends at once. What comes while a round trip is under way goes out together with the next
one: a single send, a single wait. So a lone caller loses nothing, and under load both this process and the server save
most of what a call costs beside the script itself (docs/decisions/0022).

No thread of its own: the first of those who wait leads the next round trip, for all of them. It reads their replies as
long as it would have waited for its own; a server that takes longer is left to the next of them.

A server that says nothing for the time-out fails all of them at once. One that goes on answering is waited for some
times as long: in a busy process a call may stand in line for a second, of which the server has taken a millisecond.
Of a reply that comes in pieces each may take the time-out, as with any connection, whoever reads it.
"""

from __future__ import annotations

import collections
import threading
import time
from typing import Any

import hiredis
import redis

GROUP_MOST = 256  # calls in one round trip
GROUP_BYTES_MOST = 1_048_576  # and of their arguments, unless the first alone has more
SILENCE_LEAST = 0.25  # of the time-out: a leader whose turn came late gives the server as long
PATIENCE = 5  # time-outs that a call may take in all, as long as the server answers others


class _Call:
    """One command on its way. ``turn`` opens once: when it is done, or when it leads."""

    __slots__ = ("began_s", "data", "error", "has_left", "is_done", "leads", "reply", "turn")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.began_s = time.monotonic()
        self.leads = False
        self.is_done = False  # its reply or its own error has come
        self.has_left = False  # out of time, or killed
        self.turn: Any = None  # a lock, unless it leads from the start
        self.reply: Any = None
        self.error: Exception | None = None


class SharedConnection:
    """Safe to share between the threads of one process. Opens nothing before the first call."""

    def __init__(self, connection: redis.Connection, timeout_s: float) -> None:
        """*connection*: of this object alone from now on; *timeout_s*: how long the server may be silent."""
        self._connection: Any = connection
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._waiting: collections.deque[_Call] = (
            collections.deque()
        )  # the leader, if it has not sent yet, is the first
        self._out: collections.deque[_Call] = collections.deque()  # sent, no reply yet; touched by the leader only
        self._is_led = False
        self._sent_s = self._answered_s = 0.0  # when those that are out went, when the last reply came

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
                self._round_trip(call)
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
            in_time = call.turn.acquire(timeout=PATIENCE * self._timeout_s)
        finally:  # out of time, or this greenlet is being killed: nobody may wait for it
            if not in_time:
                with self._lock:
                    call.has_left = True
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

    def _round_trip(self, leader: _Call) -> None:
        """Send, unless that is done, and read until all have their replies or the leader is out of time."""
        try:
            if not self._out:
                self._out.extend(self._group())
                self._connection.send_packed_command([b"".join([call.data for call in self._out])])
                self._sent_s = time.monotonic()
            while self._out and self._read(leader):
                pass
        except BaseException as exc:
            self._drop(exc)
            if not isinstance(exc, Exception):
                raise

    def _read(self, leader: _Call) -> bool:
        """The next reply. False: the leader has its own, or is out of time, and others go on reading."""
        call, now_s = self._out[0], time.monotonic()
        silent_s = max(self._sent_s, self._answered_s) + self._timeout_s
        leads_s = leader.began_s + self._timeout_s * (1 if leader.is_done else PATIENCE) - now_s
        if leads_s < 0 and call is not leader:
            self._leave(leader, redis.TimeoutError("no reply in time"))
            return False
        try:
            # while a long reply comes in pieces, each may take as long
            timeout_s = max(min(silent_s - now_s, leads_s), SILENCE_LEAST * self._timeout_s)
            call.reply = self._connection.read_response(timeout=timeout_s, disconnect_on_error=False)
        except redis.ResponseError as exc:  # this call's alone
            call.error = exc
        except redis.TimeoutError as exc:
            if time.monotonic() >= silent_s:
                raise
            self._leave(leader, exc)
            return False
        self._answered_s = time.monotonic()
        _let_go(self._out.popleft())
        return True

    def _leave(self, leader: _Call, exc: redis.TimeoutError) -> None:
        if not leader.is_done:
            leader.error, leader.has_left = exc, True

    def _drop(self, exc: BaseException) -> None:
        """Close the connection. What is out fails, and of those in line whom the server has told nothing for so long
        that they would wait for it again: all of them, if it was silent."""
        self._connection.disconnect()
        failed, self._out = self._out, collections.deque()
        late_s = time.monotonic() if isinstance(exc, redis.TimeoutError) else time.monotonic() - self._timeout_s
        with self._lock:
            late = [call for call in self._waiting if max(call.began_s, self._answered_s) <= late_s]
            for call in late:
                self._waiting.remove(call)
                call.error = redis.TimeoutError("no reply in time")
        for call in failed:
            if call.error is None:  # not out of time before
                call.error = exc if isinstance(exc, redis.RedisError) else redis.ConnectionError(repr(exc))
        for call in (*failed, *late):
            _let_go(call)

    def _pass_on(self) -> None:
        """To the next of those that are out, if this one leaves before all have come; else to the first who waits."""
        with self._lock:
            if self._heir(self._out):
                return
        if self._out:
            self._drop(redis.ConnectionError("nobody waits any more for what the server has not answered"))
        with self._lock:
            self._is_led = self._heir(self._waiting)

    def _heir(self, calls: collections.deque[_Call]) -> bool:
        """Whether one of *calls* leads now. Called with the lock held."""
        for call in calls:
            if not call.has_left:
                call.leads = True
                call.turn.release()
                return True
        return False


def _let_go(call: _Call) -> None:
    call.is_done = True
    if not call.leads:
        call.turn.release()
