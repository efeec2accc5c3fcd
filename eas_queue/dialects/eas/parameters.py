"""What PAI-EAS clients say in headers and parameters. Names that begin and end with `_` belong to the queue; any other
parameter is a tag. See PROTOCOL.md, "Values"."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Sequence
from typing import Any

from flask import Request

from eas_queue.dialects import inbound
from eas_queue.engine import errors
from eas_queue.engine.items import ITEMS_MOST, NEWEST, Consumer, Queue, Selection, WatchOptions

REQUEST_ID_HEADER = "X-Eas-Queueservice-Request-Id"
USER_HEADER = "X-EAS-QueueService-Uid"
GROUP_HEADER = "X-EAS-QueueService-Gid"
PRIORITY_HEADER = "X-EAS-QueueService-Priority"
REAR_HEADER = "X-EAS-QueueService-Access-Rear"
DEFAULT_GROUP = "default_group"
DEFAULT_WINDOW = 10
WINDOW_MOST = 5_000  # all of it goes back in one step when the consumer goes: some 50 ms of the server
PROTOBUF = "application/vnd.google.protobuf"
_USER_KEYS = ("HTTP_X_EAS_QUEUESERVICE_UID", "HTTP_X_EAS_QUEUESERVICE_REDIS_UID")
_GROUP_KEYS = ("HTTP_X_EAS_QUEUESERVICE_GID", "HTTP_X_EAS_QUEUESERVICE_REDIS_GID")
_PRIORITY_KEY = "HTTP_X_EAS_QUEUESERVICE_PRIORITY"
_REQUEST_ID_KEY = "HTTP_X_EAS_QUEUESERVICE_REQUEST_ID"
_REAR_KEY = "HTTP_X_EAS_QUEUESERVICE_ACCESS_REAR"
_MARKS = (*_USER_KEYS, *_GROUP_KEYS, _PRIORITY_KEY, _REAR_KEY)
_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_INDEX_MOST = 2**53  # beyond all that is given
_NEWEST = ("-1", str(2**64 - 1))
_CODE = re.compile(r"([A-Z][a-z]*)+(.[A-Z][a-z]*)?|[0-9]+")


def has_marks(environ: dict[str, Any]) -> bool:
    """Whether a client of the queue service has sent this: no other sends these headers."""
    return any(key in environ for key in _MARKS) or PROTOBUF in environ.get("HTTP_ACCEPT", "")


def has_bare_token(environ: dict[str, Any]) -> bool:
    """A token without a scheme; an empty one where none is configured."""
    authorization: str | None = environ.get("HTTP_AUTHORIZATION")
    if authorization is None:
        return False
    token = authorization.strip()
    return " " not in token and token.lower() not in ("bearer", "key")


def is_sink(rest: str) -> bool:
    """Whether the path behind the service's name means the sink; any other means the input."""
    return rest == "sink" or rest.startswith("sink/")


def queue_of(request: Request, rest: str) -> Queue:
    queue = Queue.SINK if is_sink(rest) else Queue.INPUT
    value = request.environ.get(_REAR_KEY)
    return queue.rear if value is not None and truth(value, REAR_HEADER) else queue


def truth(text: str, name: str) -> bool:
    """As Go's ParseBool. Raises InvalidRequest."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise errors.InvalidRequest(f"{name}={text[:40]!r} is neither true nor false")


def flag(request: Request, name: str, default: bool | None) -> bool | None:
    value = request.args.get(name)
    return default if value is None else truth(value, name)


def is_set(request: Request, name: str) -> bool:
    return bool(flag(request, name, False))


def _first_header(request: Request, keys: Sequence[str]) -> str:
    """The first of these that says something. Clients send UTF-8, which WSGI shows byte by byte."""
    value: str = next((request.environ[key] for key in keys if request.environ.get(key)), "")
    with contextlib.suppress(UnicodeError):
        return value.encode("latin-1").decode()
    return value


def user(request: Request) -> str:
    """Who asks; a name of its own for whoever does not say."""
    return _first_header(request, _USER_KEYS) or f"anonymous-{uuid.uuid4()}"


def named_group(request: Request) -> str | None:
    return _first_header(request, _GROUP_KEYS) or None


def named_request(request: Request) -> str:
    """The requestId in a header, '' where there is none."""
    return _first_header(request, (_REQUEST_ID_KEY,))


def consumer(request: Request) -> Consumer:
    return Consumer(named_group(request) or DEFAULT_GROUP, user(request))


def priority(request: Request) -> int:
    """The highest of parameter and header, 0 where there is neither. Raises InvalidRequest."""
    found = [_priority(value, "_priority_") for value in request.args.getlist("_priority_")]
    header = request.environ.get(_PRIORITY_KEY)
    if header:
        found.append(_priority(header, PRIORITY_HEADER))
    return max(found, default=0)


def _priority(text: str, name: str) -> int:
    """Too high ones count as the highest."""
    is_high = len(text) > 9 and re.fullmatch(r"[0-9]{1,40}", text, re.ASCII)
    return min(int(text), inbound.PRIORITY_MOST) if is_high else inbound.priority_of(text, name)


def index(text: str, name: str) -> int:
    """An index, 0 or more. Raises InvalidRequest."""
    if not re.fullmatch(r"[0-9]{1,20}", text, re.ASCII):
        raise errors.InvalidRequest(f"{name}={text[:40]!r} is not an index: use a number, 0 or more")
    return min(int(text), _INDEX_MOST)


def start(request: Request) -> int:
    """`_index_`: from there on; -1 means the newest."""
    text = request.args.get("_index_", "0")
    return NEWEST if text in _NEWEST else index(text, "_index_")


def indexes(request: Request) -> list[int]:
    """`_indexes_=1,2,3`, or `_index_`. Raises InvalidRequest where there is none."""
    text = request.args.get("_indexes_") or request.args.get("_index_") or ""
    found = [index(part.strip(), "_indexes_") for part in text.split(",") if part.strip()]
    if not found:
        raise errors.InvalidRequest("which items? add ?_indexes_=<index>,<index>..")
    return found


def tags(request: Request) -> dict[str, str]:
    """All parameters but those of the queue; of one that stands twice the last. Raises InvalidRequest."""
    found = {name: values[-1] for name, values in request.args.lists() if name and not name.startswith("_")}
    if "\0" in found.get("requestId", ""):
        raise errors.InvalidRequest("requestId contains a NUL character")  # the store would take it for the end
    return found


def selection(request: Request) -> Selection:
    wanted = tags(request)
    request_id = wanted.pop("requestId", "")
    text = request.args.get("_length_", "1")
    if not re.fullmatch(r"[0-9]{1,18}", text, re.ASCII) or not int(text):
        raise errors.InvalidRequest(f"_length_={text[:40]!r} is not a number of items, 1 or more")
    return Selection(start(request), min(int(text), ITEMS_MOST), request_id, wanted)


def timeout_s(request: Request, most_s: float) -> float:
    """`_timeout_`, a Go duration. The official clients give up at that moment: they are answered a little earlier."""
    asked_s = inbound.duration_s(request.args.get("_timeout_") or "0", "_timeout_")
    seconds = min(asked_s, most_s)
    return seconds - min(0.25, seconds / 10)


def watch_options(request: Request) -> WatchOptions:
    text = request.args.get("_window_", str(DEFAULT_WINDOW))
    if not re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
        raise errors.InvalidRequest(f"_window_={text[:40]!r} is not a number of items")
    return WatchOptions(
        window=max(1, min(int(text), WINDOW_MOST)),
        auto_commit=is_set(request, "_auto_commit_"),
        index_only=is_set(request, "_index_only_"),
        start=start(request),
        tags=tags(request),
    )


def refusal(request: Request) -> tuple[str, str]:
    """(code, reason) in the form of a negative commit. Raises InvalidRequest."""
    code, reason = request.form.get("_code_", ""), request.form.get("_reason_", "")
    if code and (len(code) > 20 or not _CODE.fullmatch(code)):
        raise errors.InvalidRequest(f"_code_={code[:40]!r} is not a code like Shutdown, Bad.Input or 503")
    return code, reason[:1000]
