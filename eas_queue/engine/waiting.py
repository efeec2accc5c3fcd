"""Waiting for requests and queues to change, by push: one Redis subscription per process, however many clients wait.

A waiter subscribes first and looks second, so that no change falls between the two. When the subscription breaks, every
waiter is woken to look for itself, and again when it is back. Beside that, one question for all of them (peeking.py)
finds what a note was lost for, and positions, of which there are no notes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

from redis.client import PubSub

from eas_queue.engine.peeking import POSITIONS_LATE_S, POSITIONS_S, Followers, Peeks
from eas_queue.store import keys
from eas_queue.store.shapes import Place
from eas_queue.store.store import Store

log = logging.getLogger("eas_queue.web")

LISTEN_S = 5.0
ARM_S = 0.25  # for Redis to confirm a subscription; one that comes later wakes the waiter to look again
RECONNECT_S = 0.25
_PREFIX = len(keys.NOTE_PREFIX)
_ENDS = frozenset({b"succeeded", b"failed", b"cancelled", b"expired"})


def nobody_asks() -> bool:
    return False


class Turn(Enum):
    """What has become of a wait."""

    NEWS = "look again"
    MOVED = "it has another place, and nothing else of it has changed"
    SILENCE = "the time is up"
    GONE = "the client has hung up"
    STOPPING = "the process is about to stop"


class Waiter:
    """One client's wait for one request. ``saw`` tells it what its client knows, so that it is woken for news only."""

    is_client = True

    def __init__(self, service: str, request_id: str, *, end_only: bool, is_gone: Callable[[], bool]) -> None:
        self.service, self.request_id = service, request_id
        self.woken = threading.Event()
        self.armed = threading.Event()
        self.over: Turn | None = None  # GONE or STOPPING, and for good
        self.end_only = end_only
        self.followers: Followers | None = None
        self.stamp = b""  # of its service, when a peek found its place
        self.due_s = 0.0  # before that it is told of no other place
        self.looks = 0  # of its own
        self.place: Place | None = None  # after MOVED
        self._is_gone = is_gone
        self._must_look = False
        self._new_place: Place | None = None
        self._version, self._position = -1, -1

    @property
    def topic(self) -> str:
        """What stands behind NOTE_PREFIX in the channel that it listens to."""
        return self.request_id

    def hear(self, note: bytes) -> None:
        """A note has come."""
        if not self.end_only or note in _ENDS:
            self.wake()

    def wake(self) -> None:
        """It is to look for itself."""
        self._must_look = True
        self.woken.set()

    def begin(self) -> None:
        """It is about to look for the first time: that sees what woke it until now."""
        self._must_look = False
        self.woken.clear()

    def saw(self, version: int, position: int | None) -> None:
        """What it found when it looked."""
        self.looks += 1
        self._version, self._position = version, -1 if position is None else position
        if position is not None and self.followers is not None:
            self.stamp, self.due_s = b"", time.monotonic() + POSITIONS_S
            self.followers.is_behind = True  # something may have moved between its look and now

    @property
    def wants_positions(self) -> bool:
        return not self.end_only and self._position >= 0

    def wait(self, timeout_s: float) -> Turn:
        """The next turn, SILENCE after *timeout_s*. A wait that is over stays so and never blocks again."""
        if self.over is None and self.woken.wait(timeout_s):
            self.woken.clear()
            self.place, self._new_place = self._new_place, None
            must_look, self._must_look = self._must_look or self.place is None, False
            return self.over or (Turn.NEWS if must_look else Turn.MOVED)
        return self.over or Turn.SILENCE

    def end(self, turn: Turn) -> None:
        self.over = self.over or turn
        self.wake()

    def check_client(self) -> None:
        if self._is_gone():
            self.end(Turn.GONE)

    def compare(self, version: int, place: Place, stamp: bytes) -> None:
        """What a peek found; wakes it when that is news, of a place only when that is due."""
        now_s = time.monotonic()
        if version != self._version:
            self.stamp, self.due_s = stamp, now_s + POSITIONS_S  # it may be stuck, and is not asked for again and again
            self.wake()
        elif not self.wants_positions or place.position == self._position:
            self.stamp = stamp
        elif now_s >= self.due_s:
            self.stamp, self.due_s = stamp, max(self.due_s, now_s - POSITIONS_LATE_S) + POSITIONS_S
            self._position, self._new_place = place.position, place
            self.woken.set()


class QueueWaiter(Waiter):
    """A wait for what is put into one queue: anything, or items of one requestId."""

    def __init__(self, service: str, queue: str, *, name: str = "", is_gone: Callable[[], bool] = nobody_asks) -> None:
        super().__init__(service, "", end_only=True, is_gone=is_gone)  # it follows no request
        self.queue = queue
        self._note = b"put " + name.encode("utf-8", "surrogateescape")

    @property
    def topic(self) -> str:
        return keys.queue_topic(self.service, self.queue)

    def hear(self, note: bytes) -> None:
        if note == self._note or (self._note == b"put " and note.startswith(self._note)):
            self.wake()

    def compare_last(self, last: int) -> None:
        """The last index given there, as a pulse found it; wakes it when that is news."""
        if last != self._version:  # -1: not asked for before
            self._version = last
            self.wake()


class Waits:
    """All waits of one process. Its threads start with the first wait and live as long as the process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._waiters: dict[str, set[Waiter]] = {}
        self._followed: dict[str, Followers] = {}
        self._subscribed: set[str] = set()
        self._left: set[str] = set()  # subscribed, and nobody waits for them
        self._pubsub: PubSub | None = None
        self._pid = 0
        self._heard_s = 0.0
        self._stopping = False

    @contextlib.contextmanager
    def watching(
        self, service: str, request_id: str, *, end_only: bool, is_gone: Callable[[], bool] = nobody_asks
    ) -> Iterator[Waiter]:
        """A waiter that is woken by changes of the request from here on, or by its end only, and when its client *is
        gone*, which is asked every few seconds. Never raises for an absent Redis."""
        waiter = Waiter(service, request_id, end_only=end_only, is_gone=is_gone)
        with self.attending(waiter):
            yield waiter

    @contextlib.contextmanager
    def attending(self, waiter: Waiter) -> Iterator[None]:
        """As ``watching``, for a waiter of one's own."""
        self.add(waiter)
        waiter.armed.wait(ARM_S)
        waiter.begin()
        try:
            yield
        finally:
            self.remove(waiter)

    def add(self, waiter: Waiter) -> None:
        """It hears of changes from about now on; ``armed`` is set when that is certain."""
        topic = waiter.topic
        with self._lock:
            if self._stopping:
                waiter.end(Turn.STOPPING)
            self._ensure_threads()
            others = self._waiters.setdefault(topic, set())
            others.add(waiter)
            if not waiter.end_only:
                waiter.followers = self._followed.setdefault(waiter.service, Followers())
                waiter.followers.waiters.add(waiter)
            if topic in self._subscribed or self._pubsub is None:
                waiter.armed.set()  # not connected: the listener wakes everybody when it is
            elif len(others) == 1:
                self._send("subscribe", topic)
            self._left.discard(topic)

    def remove(self, waiter: Waiter) -> None:
        topic = waiter.topic
        with self._lock:
            others = self._waiters.get(topic, set())
            others.discard(waiter)
            if not others:
                self._waiters.pop(topic, None)
                self._left.add(topic)
            if waiter.followers is not None:
                waiter.followers.waiters.discard(waiter)
                if not waiter.followers.waiters:
                    self._followed.pop(waiter.service, None)

    def stop(self) -> None:
        """The process is about to stop: every wait ends now, and later ones end at once."""
        with self._lock:
            self._stopping = True
        for waiter in self._all():
            waiter.end(Turn.STOPPING)

    def is_listening(self) -> bool:
        """Whether notes arrive, or did until some seconds ago; True as long as nobody has waited."""
        return not self._pid or time.monotonic() - self._heard_s < 3 * LISTEN_S

    def count(self) -> int:
        """How many wait."""
        return sum(waiter.is_client for waiter in self._all())

    def _all(self) -> list[Waiter]:
        with self._lock:
            return [waiter for others in self._waiters.values() for waiter in others]

    def _everybody(self) -> tuple[list[Waiter], list[QueueWaiter]]:
        """Who waits for requests, and who for queues."""
        waiters = self._all()
        return (
            [waiter for waiter in waiters if not isinstance(waiter, QueueWaiter)],
            [waiter for waiter in waiters if isinstance(waiter, QueueWaiter)],
        )

    def _follows(self) -> dict[str, Followers]:
        with self._lock:
            return dict(self._followed)

    # ------------------------------------------------------------------------------------------------- listener
    def _ensure_threads(self) -> None:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._pubsub = None
            self._subscribed = set()
            self._left = set()
            self._heard_s = time.monotonic()
            threading.Thread(target=self._listen, name="waits", daemon=True).start()
            peeks = Peeks(self._store, everybody=self._everybody, followed=self._follows, tidy=self._forget_left)
            threading.Thread(target=peeks.run, name="peeks", daemon=True).start()

    def _send(self, command: str, *topics: str) -> None:
        """Called with the lock held: two threads must not write to the connection at once."""
        if self._pubsub is None:
            return  # the listener subscribes to everything when it connects
        with contextlib.suppress(Exception):  # the listener finds out by itself
            getattr(self._pubsub, command)(*map(keys.note_channel, topics))

    def _forget_left(self) -> None:
        """Unsubscribe from what nobody waits for any more: many at once, and not while an answer is made."""
        with self._lock:
            left, self._left = self._left, set()
            if left:
                self._send("unsubscribe", *left)

    def _listen(self) -> None:
        while True:
            pubsub = self._store.client.subscriber()
            try:
                pubsub.subscribe(keys.NOTE_PREFIX)  # connects; one channel always, so that there is something to hear
                with self._lock:
                    if self._waiters:
                        pubsub.subscribe(*map(keys.note_channel, self._waiters))
                    self._pubsub = pubsub
                asked = False
                while True:
                    message = pubsub.get_message(timeout=LISTEN_S)
                    if message is not None:
                        asked = False
                        self._heard_s = time.monotonic()
                        if message["type"] != "pong":
                            self._handle(message)
                    elif asked:  # a connection that was cut off somewhere stays silent for ever
                        raise ConnectionError("no answer to a ping")
                    else:
                        asked = True
                        with self._lock:
                            pubsub.ping()
            except Exception as exc:  # noqa: BLE001  a waiter's write may find the loss first and leave redis-py torn
                log.warning("subscription_lost error=%r", exc)
                self._lost()
            finally:
                with contextlib.suppress(Exception):
                    pubsub.close()
            time.sleep(RECONNECT_S)

    def _handle(self, message: dict[str, Any]) -> None:
        topic = message["channel"].decode()[_PREFIX:]
        with self._lock:
            if message["type"] == "subscribe":
                self._subscribed.add(topic)
            elif message["type"] == "unsubscribe":
                self._subscribed.discard(topic)
                if self._waiters.get(topic):  # somebody came while the last one left
                    self._send("subscribe", topic)
            waiters = list(self._waiters.get(topic, ()))
        for waiter in waiters:
            if message["type"] == "message":
                waiter.hear(message["data"])
            else:
                if message["type"] == "subscribe":
                    waiter.armed.set()
                waiter.wake()

    def _lost(self) -> None:
        with self._lock:
            self._pubsub = None
            self._subscribed.clear()
            self._left.clear()
        for waiter in self._all():
            waiter.armed.set()
            waiter.wake()
