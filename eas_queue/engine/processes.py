"""What each process of an installation says of itself with every sweep, so that any other can tell how they are."""

from __future__ import annotations

import json
import os
import socket
from typing import Any


def process_name() -> str:
    """Of this process, unique among the hosts that share a Redis."""
    return f"{socket.gethostname()}:{os.getpid()}"


def about(role: str, **facts: Any) -> str:
    """*role*: web, worker or webhooks."""
    return json.dumps({"role": role, **facts}, separators=(",", ":"))
