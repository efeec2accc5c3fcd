"""Connections to Redis that fail fast and never repeat a command behind the caller's back.

redis-py 8 retries ten times on its own: a refused connection then takes four seconds to be reported, and one script
may run three times. Here nothing is retried; :mod:`scripts` decides, because it knows which calls may be repeated.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import redis
from redis import Redis
from redis.backoff import NoBackoff
from redis.client import PubSub
from redis.retry import Retry

from eas_queue.store.shared import SharedConnection

CONNECT_TIMEOUT_S = 0.5
COMMAND_TIMEOUT_S = 1.0  # the web promises an answer within about a second
POOL_SIZE_MAX = 128


class Client:
    """Redis connections of one process; a forked child makes its own. Opens nothing before first use."""

    def __init__(self, url: str, *, command_timeout_s: float = COMMAND_TIMEOUT_S) -> None:
        self.url = url
        self.command_timeout_s = command_timeout_s
        self._pid = 0
        self._lock = threading.Lock()
        self._made: tuple[Redis, SharedConnection] | None = None

    @property
    def redis(self) -> Redis:
        """Plain commands: at most command_timeout_s each."""
        return self._here()[0]

    @property
    def shared(self) -> SharedConnection:
        """The connection for scripts: a server that is silent for command_timeout_s fails them; see PATIENCE there."""
        return self._here()[1]

    def _here(self) -> tuple[Redis, SharedConnection]:
        made = self._made
        if made is not None and self._pid == os.getpid():
            return made
        with self._lock:
            if self._made is None or self._pid != os.getpid():
                one = self._pool(redis.ConnectionPool, 1).make_connection()
                pool = self._pool(redis.BlockingConnectionPool, POOL_SIZE_MAX)
                self._made = Redis(connection_pool=pool), SharedConnection(one, self.command_timeout_s)
                self._pid = os.getpid()
            return self._made

    def close(self) -> None:
        """Close this process's connections; the next use opens new ones."""
        if self._made is not None and self._pid == os.getpid():
            self._made[0].connection_pool.disconnect()
            self._made[1].close()

    def subscriber(self) -> PubSub:
        """A new subscription on a connection of its own; the caller closes it."""
        # With a time-out: a server that accepts and then says nothing must not hold up its reader for ever.
        pool = self._pool(redis.ConnectionPool, 1, health_check_interval=5)
        return PubSub(pool)

    def _pool(self, kind: Any, size: int, **options: Any) -> Any:
        if kind is redis.BlockingConnectionPool:
            options["timeout"] = self.command_timeout_s
        options.setdefault("socket_timeout", self.command_timeout_s)
        return kind.from_url(
            self.url,
            max_connections=size,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
            **options,
        )
