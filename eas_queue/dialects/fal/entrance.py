"""The ways by which requests reach this dialect: two path prefixes, two host names, and the proxy protocol.

All of them lead to the same inner paths, and leave in the WSGI environment how its links begin.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

from eas_queue.dialects.inbound import CLAIMED_URI

QUEUE_PREFIX, RUN_PREFIX = "/fal/", "/fal-run/"
PROXY_PATH = "/api/fal/proxy"
INNER = "/~fal/"  # where all of them come
INNER_QUEUE, INNER_RUN, INNER_PROXY = INNER + "queue/", INNER + "run/", INNER + "proxy/"
_BASE = "eas_queue.fal.base"
_PROXIED = {"queue.fal.run": QUEUE_PREFIX, "fal.run": RUN_PREFIX}  # what the JavaScript client asks its proxy for
_NOT_OF_HOST = ("/api/", "/healthz", "/.well-known/")  # of the whole service, whatever it is called
_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")


class Hosts(NamedTuple):
    """The names by which the queue and the synchronous host are reached without a prefix, '' none."""

    queue: str
    run: str


def claiming(hosts: Hosts, base_url: str) -> Callable[[dict[str, Any]], str]:
    """Dialect.claim. *base_url*: how clients reach the service, '' as each request says."""
    by_host = {name.lower(): prefix for name, prefix in zip(hosts, (QUEUE_PREFIX, RUN_PREFIX), strict=True) if name}

    def claim(environ: dict[str, Any]) -> str:
        path: str = environ["PATH_INFO"]
        if path == PROXY_PATH:
            return _proxied(environ, by_host, base_url)
        host = by_host and not path.startswith(_NOT_OF_HOST) and _by_host(by_host, environ.get("HTTP_HOST", ""))
        if host:
            environ[_BASE] = _origin(environ)
            return _enter(environ, host, path[1:], _raw_path(environ)[1:])
        for prefix in (QUEUE_PREFIX, RUN_PREFIX):
            if path.startswith(prefix):
                environ[_BASE] = (base_url or _origin(environ)) + QUEUE_PREFIX.rstrip("/")
                return _enter(environ, prefix, path.removeprefix(prefix), _raw_path(environ).removeprefix(prefix))
        return ""

    return claim


def base_of(environ: dict[str, Any]) -> str:
    """What stands before the endpoint's name in the links of a request that was claimed."""
    return str(environ[_BASE])


def _enter(environ: dict[str, Any], prefix: str, path: str, raw: str) -> str:
    inner = INNER_QUEUE if prefix == QUEUE_PREFIX else INNER_RUN
    query = environ.get("QUERY_STRING", "")
    environ[CLAIMED_URI] = inner + raw + ("?" + query if query else "")
    return inner + path


def _proxied(environ: dict[str, Any], by_host: dict[str, str], base_url: str) -> str:
    """One URL for every call; the header says which it is. Served where it names this queue, and nothing else."""
    target = environ.get("HTTP_X_FAL_TARGET_URL", "")
    try:
        parts = urlsplit(target)
    except ValueError:
        return INNER_PROXY
    prefix = {**_PROXIED, **by_host}.get(parts.netloc.lower(), "")
    path = parts.path.removeprefix("/")
    if not prefix and parts.netloc == environ.get("HTTP_HOST"):
        prefix = next((each for each in (QUEUE_PREFIX, RUN_PREFIX) if parts.path.startswith(each)), "")
        path = parts.path.removeprefix(prefix)
    if not prefix or not target.isascii() or parts.scheme not in ("http", "https"):
        return INNER_PROXY
    environ["QUERY_STRING"] = parts.query
    environ[_BASE] = (base_url or _origin(environ)) + QUEUE_PREFIX.rstrip("/")
    return _enter(environ, prefix, _unquoted(path), path)


def _by_host(by_host: dict[str, str], host: str) -> str:
    host = host.lower()
    return by_host.get(host) or by_host.get(re.sub(r":\d+$", "", host), "")


def _origin(environ: dict[str, Any]) -> str:
    """Scheme and host as the client sees them: what a proxy in front says of them goes first."""
    scheme = environ.get("HTTP_X_FORWARDED_PROTO", "").partition(",")[0].strip().lower()
    host = environ.get("HTTP_X_FORWARDED_HOST", "").partition(",")[0].strip()
    if scheme not in ("http", "https"):
        scheme = environ["wsgi.url_scheme"]
    if not _HOST.fullmatch(host):
        host = environ.get("HTTP_HOST", "")
    if not _HOST.fullmatch(host):
        host = f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
    return f"{scheme}://{host}"


def _raw_path(environ: dict[str, Any]) -> str:
    """The path as it was sent, still quoted; the slashes at the front as routing sees them."""
    raw = str(environ.get("RAW_URI") or environ.get("REQUEST_URI") or "")
    if not raw.startswith("/"):
        raw = re.sub(r"^[a-z]+://[^/]*", "", raw, flags=re.I)
    return raw.partition("?")[0].partition("#")[0]


def _unquoted(path: str) -> str:
    """As WSGI has it: bytes, one character each."""
    return unquote_to_bytes(path).decode("latin-1")
