"""What every dialect does with an incoming HTTP request before the engine sees it: read it within limits, refuse what
could smuggle, and keep what the target should get."""

from __future__ import annotations

import codecs
import contextlib
import functools
import json
import re
import select
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, unquote

from flask import Request
from gevent import monkey
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from eas_queue.engine import errors, tags
from eas_queue.engine.request import Caller, Submission

# Never forwarded, and never stored: credentials, what describes the client's own connection (RFC 9110 section 7.6.1),
# what a proxy in front of us added, and what the queue itself says to the target.
WITHHELD = frozenset(
    """authorization cookie host connection keep-alive proxy-authenticate proxy-authorization proxy-connection te
    trailer transfer-encoding upgrade content-length expect accept-encoding x-api-key prefer via forwarded x-real-ip
    x-request-id x-request-attempt idempotency-key x-fal-request-id x-progress-url x-progress-token
    x-deadline""".split()  # noqa: SIM905
)
WITHHELD_PREFIXES = ("x-forwarded-", "x-eas-queueservice-")
CLAIMED_URI = "eas_queue.claimed_uri"  # as RAW_URI, of the path under which a dialect serves what it has claimed
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2, token
_NO_TAGS = frozenset(("user-agent", "traceparent", "tracestate", "origin", "referer"))  # of the caller, not the item
_SNIFFED_BYTES = 4096
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
PRIORITY_MOST = 2**31 - 1
_JSON_DEPTH_MAX = 32
_MAX_DEADLINE_S = 31_536_000
_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = r"(\d{1,9}(?:\.\d{1,9})?)(ns|us|µs|μs|ms|s|m|h)"
_poll = monkey.get_original("select", "poll")


def submission(
    request: Request,
    path: str,
    caller: Caller,
    *,
    priority: int | None = None,
    own: frozenset[str] = frozenset(),
    own_headers: tuple[str, ...] = (),
) -> Submission:
    """The request as the engine stores it. *path* is the subpath as the client wrote it, still quoted.

    *priority*: where the dialect has its own ways to name one; *own*: query parameters that are for the queue;
    *own_headers*: how headers begin that are for the queue, in lower case.

    Raises InvalidRequest; werkzeug's RequestEntityTooLarge when the body is over the limit (chunked ones too).
    """
    query = request.query_string.decode("latin-1")
    forwarded, headers, body = _forwarded_query(query, own), _forwarded_headers(request), whole_body(request)
    if own_headers:
        headers = tuple(header for header in headers if not header[0].lower().startswith(own_headers))
    return Submission(
        body=body,
        path=_checked_path(path),
        query=forwarded,
        headers=headers,
        priority=_priority(request) if priority is None else priority,
        deadline_s=_deadline_s(request),
        idempotency_key=idempotency_key(request),
        caller=caller,
        tags=_packed_tags(forwarded, headers, "" if "CONTENT_TYPE" in request.environ else sniffed(body)),
    )


def item_tags(query: str, headers: tuple[tuple[str, str], ...], content_type: str) -> dict[str, str]:
    """What those who read queues know an item by: each parameter of its *query*, and `Header:<Name>` of what its sender
    said of it. Of a parameter that stands twice the last holds. *content_type*: where no header names it."""
    found = {key: value for key, value in parse_qsl(query, keep_blank_values=True, errors="surrogateescape") if key}
    if content_type:
        found["Header:Content-Type"] = content_type
    found |= {
        f"Header:{name}": value
        for name, value in headers
        if name.lower() not in _NO_TAGS and not name.lower().startswith("accept")
    }
    return found


@functools.lru_cache(maxsize=1024)  # most requests have no query, and the headers of the one before
def _packed_tags(query: str, headers: tuple[tuple[str, str], ...], content_type: str) -> str:
    found = item_tags(query, headers, content_type)
    found.pop("requestId", None)  # native clients name requests by the queue's own ids
    return tags.packed(found)


def forwarded(request: Request) -> tuple[str, tuple[tuple[str, str], ...]]:
    """(the query without parameters of the queue itself, the headers that say something of the body or its sender).

    Raises InvalidRequest.
    """
    return _forwarded_query(request.query_string.decode("latin-1")), _forwarded_headers(request)


def sniffed(data: bytes) -> str:
    """The type of data that nobody has named: text where its beginning is UTF-8."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data[:_SNIFFED_BYTES])
    except UnicodeDecodeError:
        return "application/octet-stream"
    return "text/plain; charset=utf-8"


def raw_subpath(request: Request, prefix: str, routed: str) -> str:
    """What follows *prefix* in the path, quoted as the client sent it: decoding would make %2F a separator.

    *routed* is what routing, which sees the decoded path, found there. Raises InvalidRequest when the two differ: an
    encoded slash stands before the subpath, so it is not clear which service is meant.
    """
    environ = request.environ
    raw = str(environ.get(CLAIMED_URI) or environ.get("RAW_URI") or environ.get("REQUEST_URI") or "")
    if not raw.startswith("/"):
        raw = re.sub(r"^[a-z]+://[^/]*", "", raw, flags=re.I)
    path = raw.partition("?")[0].partition("#")[0]
    segments = prefix.count("/")
    parts = path.split("/", segments)
    found = parts[segments] if len(parts) > segments else ""
    if unquote(found) != routed:
        raise errors.InvalidRequest("a percent-encoded slash may stand in the subpath only, not before it")
    return found


def json_object(request: Request, *, bytes_most: int) -> dict[str, Any]:
    """The body as a JSON object without NaN, infinities and deep nesting. Raises InvalidRequest."""
    request.max_content_length = min(bytes_most, request.max_content_length or bytes_most)
    try:
        content = json.loads(whole_body(request))
        json.dumps(content, allow_nan=False)
        if _depth(content) > _JSON_DEPTH_MAX:
            raise ValueError(f"it is nested deeper than {_JSON_DEPTH_MAX}")
    except (ValueError, RecursionError) as exc:
        raise errors.InvalidRequest(f"the body is not JSON that can be kept: {exc}") from exc
    if not isinstance(content, dict):
        raise errors.InvalidRequest("the body must be a JSON object")
    return content


def _depth(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inside is None else 1 + max(map(_depth, inside), default=0)


def whole_body(request: Request) -> bytes:
    """All of the body: werkzeug cuts a chunked one off at the limit, and takes what came of one that broke off.

    Raises InvalidRequest; RequestEntityTooLarge over request.max_content_length.
    """
    limit, announced = request.max_content_length, request.content_length
    if limit is not None and announced is None:
        request.max_content_length = limit + 1
    if limit is not None and announced is not None and announced > limit:
        raise RequestEntityTooLarge
    try:
        # with a length there is nothing that werkzeug's stream would add but its cost
        body = request.get_data(cache=False) if announced is None else request.environ["wsgi.input"].read(announced)
    except HTTPException:
        raise
    except Exception as exc:  # every server has its own for a body that is badly framed
        raise errors.InvalidRequest("the body can't be read: its chunks are malformed, or it broke off") from exc
    finally:
        request.max_content_length = limit
    if limit is not None and len(body) > limit:
        raise RequestEntityTooLarge
    if announced is not None and len(body) < announced:
        raise errors.InvalidRequest(f"the body ended after {len(body)} of the {announced} bytes that were announced")
    return body


def _checked_path(path: str) -> str:
    if not path:
        return path
    plain = unquote(path)
    if _CONTROL.search(plain) or " " in path:
        raise errors.InvalidRequest("the path contains a control character or a blank")
    # Unquoted once more and without `;parameters`: a server or proxy behind us may do either before it resolves dots.
    if any(part.partition(";")[0] in (".", "..") for part in re.split(r"[/\\]", unquote(plain))):
        raise errors.InvalidRequest("the path contains a `.` or `..` segment, which could leave the service's paths")
    if not path.isascii():
        raise errors.InvalidRequest("the path contains characters that must be percent-encoded")
    return path


def _forwarded_query(query: str, own: frozenset[str] = frozenset()) -> str:
    """All parameters in their order, repeated ones too, but those of the queue itself: *own*, and `_...`."""
    if not query:
        return query
    if _CONTROL.search(unquote(query, "latin-1").replace("\n", "").replace("\t", "")):  # a prompt may have lines
        raise errors.InvalidRequest("the query contains a control character")
    if _CONTROL.search(query) or " " in query or not query.isascii():
        raise errors.InvalidRequest("the query contains characters that must be percent-encoded")
    pairs = [pair for pair in query.split("&") if pair and not unquote(pair).startswith("_")]
    return "&".join([pair for pair in pairs if unquote(pair.partition("=")[0]) not in own] if own else pairs)


def _forwarded_headers(request: Request) -> tuple[tuple[str, str], ...]:
    environ = request.environ
    found = [(key, environ[key]) for key in environ if key.startswith("HTTP_") or key == "CONTENT_TYPE"]
    if _CONTROL.search("".join([value for _, value in found]).replace("\t", " ")):
        name = next(key for key, value in found if _CONTROL.search(value.replace("\t", " ")))
        raise _bad_header(name.removeprefix("HTTP_").replace("_", "-").title())
    kept = []
    for key, value in found:
        name = _forwarded_name(key)
        if name and (value or key != "CONTENT_TYPE"):  # servers that know of none may give an empty one
            kept.append((name, value))
    connection = environ.get("HTTP_CONNECTION", "")
    if connection:
        # RFC 9110 section 7.6.1: what `Connection` names belongs to the client's own connection
        withheld = {name.strip().lower() for name in connection.split(",")}
        return tuple(header for header in kept if header[0].lower() not in withheld)
    return tuple(kept)


@functools.lru_cache(maxsize=1024)  # clients send the same ones again and again
def _forwarded_name(key: str) -> str:
    """The name of the header that WSGI calls *key*; '' if it is not forwarded. Raises InvalidRequest."""
    if key in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"):
        return ""  # not what these headers are called in WSGI: somebody has sent `Content_Type`
    name = key.removeprefix("HTTP_").replace("_", "-").title()
    if not _HEADER_NAME.fullmatch(name):
        raise _bad_header(name)
    return "" if name.lower() in WITHHELD or name.lower().startswith(WITHHELD_PREFIXES) else name


def _bad_header(name: str) -> errors.InvalidRequest:
    return errors.InvalidRequest(f"header {name[:100]!r} contains a character that headers must not contain")


def is_header(name: str, value: str) -> bool:
    """Whether this may stand in a message's head; anything else could end the head or start a header of its own."""
    return bool(_HEADER_NAME.fullmatch(name)) and not _CONTROL.search(value.replace("\t", " "))


def _priority(request: Request) -> int:
    """`_priority_=N`, default 0; 1 and higher start before all that is normal."""
    values = request.args.getlist("_priority_") if request.query_string else None
    if not values:
        return 0
    if len(values) > 1:
        raise errors.InvalidRequest("_priority_ is given more than once")
    return priority_of(values[0], "_priority_")


def priority_of(text: str, name: str) -> int:
    """Raises InvalidRequest. *name*: where it stands, for the message."""
    if not re.fullmatch(r"[0-9]{1,10}", text, re.ASCII) or int(text) > PRIORITY_MOST:
        raise errors.InvalidRequest(
            f"{name}={text[:40]!r} is not a priority: use 0 (normal), 1 (high) or a higher number"
        )
    return int(text)


def _deadline_s(request: Request) -> float | None:
    """`X-Deadline: N`: seconds from now that it may wait at most."""
    value = request.environ.get("HTTP_X_DEADLINE")
    if value is None:
        return None
    if not re.fullmatch(r"\d{1,8}(\.\d{1,3})?", value, re.ASCII) or not 0 < float(value) <= _MAX_DEADLINE_S:
        raise errors.InvalidRequest(
            f"X-Deadline: {value[:20]!r} is not a number of seconds from now, more than 0 and at most {_MAX_DEADLINE_S}"
        )
    return float(value)


def idempotency_key(request: Request) -> str:
    """`Idempotency-Key`, '' where there is none. Raises InvalidRequest."""
    value: str | None = request.environ.get("HTTP_IDEMPOTENCY_KEY")  # servers join repeated headers with a comma
    if value is None:
        return ""
    if not re.fullmatch(r"[!-~](?:[ -~]{0,253}[!-~])?", value):
        raise errors.InvalidRequest("Idempotency-Key must be a key of 1 to 255 printable ASCII characters")
    return value


def wait_s(request: Request) -> float | None:
    """How long the client would wait for the end: `_timeout_=10s`, else `Prefer: wait=10`; None: not at all."""
    values = request.args.getlist("_timeout_") if request.query_string else None
    if not values:
        return _preferred_wait_s(request)
    if len(values) > 1:
        raise errors.InvalidRequest("_timeout_ is given more than once")
    return duration_s(values[0], "_timeout_")


def duration_s(text: str, name: str) -> float:
    """Seconds of a Go duration (`1m30s`, `500ms`, `1.5h`, as PAI-EAS clients send it), or of a bare number.

    *name*: where it stands, for the message. Raises InvalidRequest.
    """
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text, re.ASCII):
        return float(text)
    if not re.fullmatch(rf"({_DURATION_PART})+", text, re.ASCII):
        raise errors.InvalidRequest(f"{name}={text[:40]!r} is not a duration like 10s, 1m30s or 500ms")
    return sum(float(number) * _UNIT_S[unit] for number, unit in re.findall(_DURATION_PART, text, re.ASCII))


def whole_number(request: Request, name: str, default: int) -> int:
    """A query parameter that must be a whole number, 0 or more. Raises InvalidRequest."""
    value = request.args.get(name)
    if value is None:
        return default
    if not re.fullmatch(r"\d{1,15}", value, re.ASCII):
        raise errors.InvalidRequest(f"{name}={value[:40]!r} is not a whole number")
    return int(value)


def _connection(request: Request) -> Any:
    """The socket of *request*, None where the server does not show it."""
    return request.environ.get("gunicorn.socket") or request.environ.get("werkzeug.socket")


def hang_up(request: Request) -> Callable[[], None]:
    """Ends the connection of *request*, from any thread: whoever sends on it is woken."""
    connection = _connection(request)

    def cut() -> None:
        if connection is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    return cut


def keep_alive(request: Request) -> None:
    """Have the system ask a silent client every now and then whether it is there: the connection of one that is not
    ends within two minutes."""
    connection = _connection(request)
    if connection is not None:
        with contextlib.suppress(OSError, AttributeError):  # not TCP, or a system without these
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3)):
                connection.setsockopt(socket.IPPROTO_TCP, option, value)


def gone_check(request: Request) -> Callable[[], bool]:
    """Tells whether the client of *request* has hung up; False for ever where the server does not show its socket."""
    connection = _connection(request)
    if connection is None:
        return lambda: False

    def is_gone() -> bool:
        try:
            poll = _poll()  # the system's own: it asks and never waits
            poll.register(connection, getattr(select, "POLLRDHUP", 0))
            return bool(poll.poll(0))
        except (OSError, ValueError):  # closed already
            return True

    return is_gone


def _preferred_wait_s(request: Request) -> float | None:
    """Seconds of `Prefer: wait=N` (RFC 7240 section 4.3), None where it is not asked for. Raises InvalidRequest."""
    header: str | None = request.environ.get("HTTP_PREFER")  # servers join repeated headers with a comma
    for preference in header.split(",") if header else ():
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            value = value.strip().strip('"')
            if not re.fullmatch(r"\d{1,6}(\.\d{1,3})?", value, re.ASCII):
                raise errors.InvalidRequest(f"Prefer: wait={value[:20]!r} is not a number of seconds")
            return float(value)
    return None
