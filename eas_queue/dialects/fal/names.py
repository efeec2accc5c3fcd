"""The paths of fal's queue: endpoints, and what is asked of a request.

An endpoint is `[workflows/|comfy/]owner/alias`, with a path of the target behind it. Official clients drop that path
when they ask for a request; people who copy URLs from model pages keep it, so it may stand there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from eas_queue.engine.service import NAME

NAMESPACES = frozenset({"workflows", "comfy"})
_LEGACY = re.compile(r"(\d+)-([A-Za-z0-9-]+)")  # the older form of owner/alias
_OPERATION = re.compile(r"(.+)/requests/([^/]+?)(?:/(status/stream|status|cancel|response))?/?")  # the last `requests`


@dataclass(frozen=True, slots=True)
class Endpoint:
    """*name*: owner/alias, with its namespace where there is one; *path*: what follows, quoted as it came."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Operation:
    """What is asked of a request. *action*: status, status/stream, cancel, or '' for the result."""

    endpoint: Endpoint
    request_id: str
    action: str


def endpoint(path: str) -> Endpoint | None:
    """The endpoint that *path*, quoted and without a slash in front, names; None when it names none."""
    parts = path.split("/")
    count = 3 if parts[0] in NAMESPACES and len(parts) > 2 else 2
    if len([part for part in parts if part]) == 1:
        legacy = _LEGACY.fullmatch(parts[0])
        parts = [*legacy.groups(), *parts[1:]] if legacy else parts
    names = [unquote(part) for part in parts[:count]]
    if len(names) < count or not all(NAME.fullmatch(name) for name in names):
        return None
    return Endpoint("/".join(names), "/".join(parts[count:]))


def operation(path: str) -> Operation | None:
    """What GET or PUT of *path* asks for; None when it names no request."""
    found = _OPERATION.fullmatch(path)
    at = endpoint(found[1]) if found else None
    if found is None or at is None:
        return None
    action = found[3] or ""
    return Operation(at, unquote(found[2]), "" if action == "response" else action)
