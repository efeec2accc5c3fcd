"""What every dialect does with an incoming HTTP request before the engine sees it: read it within limits, refuse what
could smuggle, and keep what the target should get."""

from __future__ import annotations

import re
from urllib.parse import unquote

from flask import Request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from eas_queue.engine import errors
from eas_queue.engine.request import Submission

# Never forwarded, and never stored: credentials, what describes the client's own connection (RFC 9110 section 7.6.1),
# what a proxy in front of us added, and what the queue itself says to the target.
WITHHELD = frozenset(
    """authorization cookie host connection keep-alive proxy-authenticate proxy-authorization proxy-connection te
    trailer transfer-encoding upgrade content-length expect accept-encoding x-api-key prefer via forwarded x-real-ip
    x-request-id x-request-attempt idempotency-key x-fal-request-id x-progress-url x-progress-token""".split()  # noqa: SIM905
)
WITHHELD_PREFIXES = ("x-forwarded-", "x-eas-queueservice-")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2, token
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MAX_PRIORITY = 2**31 - 1


def submission(request: Request, path: str) -> Submission:
    """The request as the engine stores it. *path* is the subpath as the client wrote it, still quoted.

    Raises InvalidRequest; werkzeug's RequestEntityTooLarge when the body is over the limit (chunked ones too).
    """
    query = request.query_string.decode("latin-1")
    return Submission(
        body=_whole_body(request),
        path=_checked_path(path),
        query=_forwarded_query(query),
        headers=_forwarded_headers(request),
        priority=_priority(request),
    )


def raw_subpath(request: Request, prefix: str, routed: str) -> str:
    """What follows *prefix* in the path, quoted as the client sent it: decoding would make %2F a separator.

    *routed* is what routing, which sees the decoded path, found there. Raises InvalidRequest when the two differ: an
    encoded slash stands before the subpath, so it is not clear which service is meant.
    """
    raw = request.environ.get("RAW_URI") or request.environ.get("REQUEST_URI") or ""
    path = re.sub(r"^[a-z]+://[^/]*", "", str(raw), flags=re.I).partition("?")[0].partition("#")[0]
    segments = prefix.count("/")
    parts = path.split("/", segments)
    found = parts[segments] if len(parts) > segments else ""
    if unquote(found) != routed:
        raise errors.InvalidRequest("a percent-encoded slash may stand in the subpath only, not before it")
    return found


def _whole_body(request: Request) -> bytes:
    """All of the body: werkzeug cuts a chunked one off at the limit, and takes what came of one that broke off."""
    limit, announced = request.max_content_length, request.content_length
    if limit is not None and announced is None:
        request.max_content_length = limit + 1
    try:
        body = request.get_data(cache=False)
    except HTTPException:
        raise
    except Exception as exc:  # every server has its own for a body that is badly framed
        raise errors.InvalidRequest("the body can't be read: its chunks are malformed, or it broke off") from exc
    if limit is not None and len(body) > limit:
        raise RequestEntityTooLarge
    if announced is not None and len(body) < announced:
        raise errors.InvalidRequest(f"the body ended after {len(body)} of the {announced} bytes that were announced")
    return body


def _checked_path(path: str) -> str:
    plain = unquote(path)
    if _CONTROL.search(plain) or " " in path:
        raise errors.InvalidRequest("the path contains a control character or a blank")
    # Unquoted once more and without `;parameters`: a server or proxy behind us may do either before it resolves dots.
    if any(part.partition(";")[0] in (".", "..") for part in re.split(r"[/\\]", unquote(plain))):
        raise errors.InvalidRequest("the path contains a `.` or `..` segment, which could leave the service's paths")
    if not path.isascii():
        raise errors.InvalidRequest("the path contains characters that must be percent-encoded")
    return path


def _forwarded_query(query: str) -> str:
    """All parameters in their order, repeated ones too, but those of the queue itself, whose names start with `_`."""
    if _CONTROL.search(unquote(query, "latin-1").replace("\n", "").replace("\t", "")):  # a prompt may have lines
        raise errors.InvalidRequest("the query contains a control character")
    if _CONTROL.search(query) or " " in query or not query.isascii():
        raise errors.InvalidRequest("the query contains characters that must be percent-encoded")
    return "&".join(pair for pair in query.split("&") if pair and not unquote(pair).startswith("_"))


def _forwarded_headers(request: Request) -> tuple[tuple[str, str], ...]:
    kept = []
    # RFC 9110 section 7.6.1: what `Connection` names belongs to the client's own connection
    withheld = WITHHELD | {name.strip().lower() for name in request.headers.get("Connection", "").split(",")}
    for name, value in request.headers.items():
        if not is_header(name, value):
            raise errors.InvalidRequest(f"header {name[:100]!r} contains a character that headers must not contain")
        if name.lower() in withheld or name.lower().startswith(WITHHELD_PREFIXES):
            continue
        if name.lower() == "content-type" and not value:
            continue
        kept.append((name, value))
    return tuple(kept)


def is_header(name: str, value: str) -> bool:
    """Whether this may stand in a message's head; anything else could end the head or start a header of its own."""
    return bool(_HEADER_NAME.fullmatch(name)) and not _CONTROL.search(value.replace("\t", " "))


def _priority(request: Request) -> int:
    """`_priority_=N`, default 0; 1 and higher start before all that is normal."""
    values = request.args.getlist("_priority_")
    if not values:
        return 0
    if len(values) > 1:
        raise errors.InvalidRequest("_priority_ is given more than once")
    if not re.fullmatch(r"[0-9]{1,10}", values[0], re.ASCII) or int(values[0]) > _MAX_PRIORITY:
        raise errors.InvalidRequest(
            f"_priority_={values[0][:40]!r} is not a priority: use 0 (normal), 1 (high) or a higher number"
        )
    return int(values[0])


def preferred_wait_s(request: Request) -> float | None:
    """Seconds of `Prefer: wait=N` (RFC 7240 section 4.3), None where it is not asked for. Raises InvalidRequest."""
    for header in request.headers.getlist("Prefer"):
        for preference in header.split(","):
            name, _, value = preference.partition(";")[0].partition("=")
            if name.strip().lower() == "wait":
                value = value.strip().strip('"')
                if not re.fullmatch(r"\d{1,6}(\.\d{1,3})?", value, re.ASCII):
                    raise errors.InvalidRequest(f"Prefer: wait={value[:20]!r} is not a number of seconds")
                return float(value)
    return None
