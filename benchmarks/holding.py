"""Many connections that are held open and read by whoever runs this, in one thread."""

from __future__ import annotations

import resource
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from typing import Protocol, Self

from benchmarks.sides import Void

AT_ONCE = 50  # connections that are made
ANSWER_S = 30
RECEIVED_MOST = 65_536
SPARE_FILES = 200
LOOK_S = 0.02  # how late it is seen that something is so which no connection tells


class Held(Protocol):
    """One connection. *is_joined*: it has had what shows that the server holds it; *is_over*: it may be closed."""

    socket: socket.socket

    @property
    def is_joined(self) -> bool: ...

    @property
    def is_over(self) -> bool: ...

    def receive(self) -> None:
        """Read what there is. Raises Void for what may not come."""


class Holder:
    """All connections of a run; a context manager that closes them."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    @property
    def open_count(self) -> int:
        """How many are not over."""
        return len(self._selector.get_map())

    def hold(self, makers: Sequence[Callable[[], Held]]) -> None:
        """Return when each of those made has joined. Raises Void."""
        wanted = self.open_count + len(makers) + SPARE_FILES
        allowed, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if allowed < wanted:
            if hard < wanted:
                raise Void(f"{len(makers)} connections need as many open files; `ulimit -Hn` allows {hard}")
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        for i in range(0, len(makers), AT_ONCE):
            some = [make() for make in makers[i : i + AT_ONCE]]
            for held in some:
                self._selector.register(held.socket, selectors.EVENT_READ, held)
            self.until(lambda some=some: all(held.is_joined for held in some), "all to join")  # type: ignore[misc]

    def serve(self, seconds: float) -> None:
        """Read for so long. Raises Void."""
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            self._step(left)

    def until(self, is_so: Callable[[], bool], what: str, timeout_s: float = ANSWER_S) -> None:
        """Read until it is so. Raises Void."""
        end = time.perf_counter() + timeout_s
        while not is_so():
            left = end - time.perf_counter()
            if left <= 0:
                raise Void(f"waited {timeout_s:g} s for {what}")
            self._step(min(left, LOOK_S))

    def _step(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            key.data.receive()
            if key.data.is_over:
                self._selector.unregister(key.fileobj)
                key.data.socket.close()
