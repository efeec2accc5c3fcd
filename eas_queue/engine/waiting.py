"""Waiting for a request to change, by push: one Redis subscription per process, however many clients wait.

A waiter subscribes first and looks second, so that no change falls between the two. When the subscription breaks, every
waiter is woken to look for itself, and again when it is back.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

from redis.client import PubSub

from eas_queue.store import client, keys

log = logging.getLogger("eas_queue.web")

RECHECK_S = 5.0  # a waiter looks again this often even if nobody woke it
RECONNECT_S = 0.25
_PREFIX = len(keys.NOTE_PREFIX)


class Waiter:
    """One client's wait for one request."""

    def __init__(self) -> None:
        self.woken = threading.Event()
        self.armed = threading.Event()
        self.stopping = False
        self._end = 0.0

    def starts(self, timeout_s: float) -> None:
        self._end = time.monotonic() + timeout_s

    def wait(self) -> bool:
        """True: look again. False: the time is up, or the process stops."""
        left = self._end - time.monotonic()
        if left <= 0 or self.stopping:
            return False
        self.woken.wait(min(left, RECHECK_S))
        self.woken.clear()
        return not self.stopping


class Waits:
    """All waits of one process. The listener starts with the first wait and lives as long as the process."""

    def __init__(self, connection: client.Client) -> None:
        self._client = connection
        self._lock = threading.Lock()
        self._waiters: dict[str, set[Waiter]] = {}
        self._subscribed: set[str] = set()
        self._pubsub: PubSub | None = None
        self._pid = 0
        self._stopping = False

    @contextlib.contextmanager
    def watching(self, request_id: str) -> Iterator[Waiter]:
        """A waiter that is woken by changes of *request_id* from here on. Never raises for an absent Redis."""
        waiter = Waiter()
        waiter.stopping = self._stopping
        with self._lock:
            self._ensure_listener()
            others = self._waiters.setdefault(request_id, set())
            others.add(waiter)
            if request_id in self._subscribed:
                waiter.armed.set()
            elif len(others) == 1:
                self._send("subscribe", request_id)
        waiter.armed.wait(client.COMMAND_TIMEOUT_S)
        try:
            yield waiter
        finally:
            with self._lock:
                others.discard(waiter)
                if not others:
                    self._waiters.pop(request_id, None)
                    self._send("unsubscribe", request_id)

    def stop(self) -> None:
        """The process is about to stop: every wait ends now, and later ones end at once."""
        self._stopping = True
        with self._lock:
            waiters = [waiter for others in self._waiters.values() for waiter in others]
        for waiter in waiters:
            waiter.stopping = True
            waiter.woken.set()

    # ------------------------------------------------------------------------------------------------- listener
    def _ensure_listener(self) -> None:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._pubsub = None
            self._subscribed = set()
            threading.Thread(target=self._listen, name="waits", daemon=True).start()

    def _send(self, command: str, request_id: str) -> None:
        """Called with the lock held: two threads must not write to the connection at once."""
        if self._pubsub is None:
            return  # the listener subscribes to everything when it connects
        with contextlib.suppress(Exception):  # the listener finds out by itself
            getattr(self._pubsub, command)(keys.note_channel(request_id))

    def _listen(self) -> None:
        while True:
            pubsub = self._client.subscriber()
            try:
                with self._lock:
                    # one channel always, so that the connection has something to listen to
                    pubsub.subscribe(keys.NOTE_PREFIX, *map(keys.note_channel, self._waiters))
                    self._pubsub = pubsub
                while True:
                    message = pubsub.get_message(timeout=RECHECK_S)
                    if message is not None:
                        self._handle(message)
            except Exception as exc:  # noqa: BLE001  a waiter's write may find the loss first and leave redis-py torn
                log.warning("subscription_lost error=%r", exc)
                self._lost()
            finally:
                with contextlib.suppress(Exception):
                    pubsub.close()
            time.sleep(RECONNECT_S)

    def _handle(self, message: dict[str, Any]) -> None:
        request_id = message["channel"].decode()[_PREFIX:]
        with self._lock:
            if message["type"] == "subscribe":
                self._subscribed.add(request_id)
            elif message["type"] == "unsubscribe":
                self._subscribed.discard(request_id)
                if self._waiters.get(request_id):  # somebody came while the last one left
                    self._send("subscribe", request_id)
            waiters = list(self._waiters.get(request_id, ()))
        for waiter in waiters:
            if message["type"] == "subscribe":
                waiter.armed.set()
            waiter.woken.set()

    def _lost(self) -> None:
        with self._lock:
            self._pubsub = None
            self._subscribed.clear()
            waiters = [waiter for others in self._waiters.values() for waiter in others]
        for waiter in waiters:
            waiter.armed.set()
            waiter.woken.set()
