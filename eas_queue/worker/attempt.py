"""One attempt in flight: who holds which lease until when, and the way to close its connection from elsewhere."""

from __future__ import annotations

import contextlib
import enum
import socket
import threading
import time

from eas_queue.engine.service import Service
from eas_queue.store.shapes import Leased


class Closed(enum.Enum):
    """Why an attempt's connection was closed before its target had answered."""

    CANCELLED = "cancelled"  # the request has ended
    LOST = "lost"  # the lease is, or may soon be, somebody else's
    TIMEOUT = "timeout"  # timeout_s is over
    DRAINING = "draining"  # this process stops; the request goes back to the queue


class ConnectionClosed(Exception):
    """Raised in the attempt's own thread when it was closed before a socket existed."""


class Attempt:
    """A request being worked on. Monotonic seconds of this process throughout.

    ``close`` may be called from any thread or greenlet: closing a socket does not wake its reader, shutting it down
    does, at once.
    """

    def __init__(self, service: Service, work: Leased, *, lease_until_s: float) -> None:
        self.service = service
        self.work = work
        self.started_s = time.monotonic()
        self.deadline_s = self.started_s + service.timeout_s
        self.lease_until_s = lease_until_s
        self.closed: Closed | None = None
        self.reported_in = -1  # see Reporter
        self.was_sent = False  # as far as anybody can know: there was a connection
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def opened(self, sock: socket.socket | None) -> None:
        """The attempt uses *sock* from here on. Raises ConnectionClosed when it was closed already."""
        with self._lock:
            if self.closed is None:
                self._socket = sock
                self.was_sent = self.was_sent or sock is not None
                return
        raise ConnectionClosed(self.closed.value)

    def released(self) -> bool:
        """The connection is no longer the attempt's; returns whether it may be used again."""
        with self._lock:
            self._socket = None
            return self.closed is None

    def close(self, why: Closed) -> None:
        """End the call now; the first reason given stays. Harmless when it is over."""
        with self._lock:
            if self.closed is None:
                self.closed = why
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # Not the socket's own: that of TLS first takes the encryption away, and a thread that is about to
                    # send would send in the clear, one about to read would read what is encrypted.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
