"""What a function says of its task, on its way to the queue: in order, and without the function waiting for each piece.

While one message is on its way the next ones gather, so that a model's words leave as fast as they come, over however
slow a line. The thread that sends begins with the first piece.
"""

from __future__ import annotations

import itertools
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from eas_queue.pull.backoff import Backoff
from eas_queue.pull.client import Client
from eas_queue.pull.errors import Abandoned, Away, NotHeld, Refused

log = logging.getLogger("eas_queue.pull")

AT_ONCE_MOST, AT_ONCE_BYTES = 100, 200_000  # of one message: as many as the queue takes
GATHERED_MOST = 1000  # then the function waits
AGAIN_S = 60.0  # a message is sent again for so long while the queue is away


@dataclass(frozen=True)
class Piece:
    kind: str  # progress, logs, events: the members of the queue's report
    text: str  # JSON


class Reporter:
    """Of one task. *abandon* is called when the queue says that it is not ours any more, which sets *abandoned*."""

    def __init__(self, task_id: str, client: Client, abandoned: threading.Event, abandon: Callable[[], object]) -> None:
        self._task_id, self._client, self._abandoned, self._abandon = task_id, client, abandoned, abandon
        self._pieces: deque[Piece] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_sending = self._is_closed = False
        self._broken: Exception | None = None  # why an event is missing: whatever comes after it makes no sense

    def say(self, kind: str, content: object) -> None:
        """Raises Abandoned; TypeError or ValueError for what is not JSON; Away or Refused where an event was lost."""
        piece = Piece(kind, json.dumps(content, allow_nan=False, separators=(",", ":")))
        with self._changed:
            self._changed.wait_for(lambda: len(self._pieces) < GATHERED_MOST or self._is_over())
            self._check()
            self._pieces.append(piece)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"reports on {self._task_id}", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Returns when all has been sent. Raises as `say`."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._pieces or self._is_sending) or self._is_over())
            self._check()

    def close(self) -> None:
        """No more is said; what has not been sent is dropped. Any thread may call this, and any time."""
        with self._changed:
            self._is_closed = True
            self._pieces.clear()
            self._changed.notify_all()

    def _is_over(self) -> bool:
        return self._is_closed or self._abandoned.is_set() or self._broken is not None

    def _check(self) -> None:
        if self._is_closed or self._abandoned.is_set():
            raise Abandoned
        if self._broken is not None:
            raise self._broken

    # ------------------------------------------------------------------------------------------------------ sending
    def _run(self) -> None:
        while pieces := self._next():
            try:
                self._send(pieces)
            except NotHeld:
                self._abandon()
                self.close()
            except Exception as exc:  # the function is told
                log.exception("report_failed task_id=%s", self._task_id)
                self._broken = exc
            finally:
                with self._changed:
                    self._is_sending = False
                    self._changed.notify_all()

    def _next(self) -> list[Piece]:
        """What goes out as one; empty when it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._pieces or self._is_over())
            found: list[Piece] = []
            left = AT_ONCE_BYTES
            while not self._is_over() and self._pieces and len(found) < AT_ONCE_MOST:
                left -= len(self._pieces[0].text)
                if found and left < 0:
                    break
                found.append(self._pieces.popleft())
            self._is_sending = bool(found)
            self._changed.notify_all()
            return found

    def _send(self, pieces: list[Piece]) -> None:
        try:
            self._send_again(pieces)
        except Refused as exc:
            if len(pieces) > 1:  # one of them is wrong, which must not take the others with it
                for piece in pieces:
                    self._send([piece])
                return
            self._lost(pieces, exc)
        except Away as exc:
            self._lost(pieces, exc)

    def _lost(self, pieces: list[Piece], exc: Exception) -> None:
        log.warning("report_lost task_id=%s error=%r", self._task_id, str(exc))
        if any(piece.kind == "events" for piece in pieces):
            self._broken = exc

    def _send_again(self, pieces: list[Piece]) -> None:
        content = _content(pieces)
        backoff, until_s = Backoff(), time.monotonic() + AGAIN_S
        while not self._is_over():
            try:
                self._client.report(self._task_id, content)
                return
            except Away as exc:
                if time.monotonic() > until_s:
                    raise
                pause_s = backoff.pause_s(exc.retry_after_s)
                log.warning("report_failed task_id=%s again_in_s=%.1f error=%r", self._task_id, pause_s, str(exc))
                with self._changed:
                    self._changed.wait_for(self._is_over, pause_s)


def _content(pieces: list[Piece]) -> str:
    """The members of one report, JSON without the braces; of progress the last counts."""
    members = []
    for kind, group in itertools.groupby(sorted(pieces, key=lambda piece: piece.kind), lambda piece: piece.kind):
        texts = [piece.text for piece in group]
        members.append(f'"{kind}":' + (texts[-1] if kind == "progress" else f"[{','.join(texts)}]"))
    return ",".join(members)
