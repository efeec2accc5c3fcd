"""The HTTP client towards targets: one POST per attempt, over pooled connections that can be closed from outside.

It follows no redirect, reads no proxy or netrc settings, keeps at most MAX_RESULT_BYTES, and bounds the whole call by
``timeout_s`` however slowly a target drips (the housekeeping closes it; a socket's own timeout covers one read only).
"""

from __future__ import annotations

import functools
import json
import re
from urllib.parse import urlsplit

from requests.utils import requote_uri
from urllib3.util import parse_url

from eas_queue import adapters, exchange
from eas_queue.adapters.errors import Unadaptable
from eas_queue.engine.retry import Answer, NoAnswer
from eas_queue.store.shapes import progress_token
from eas_queue.worker.attempt import Attempt, Closed, ConnectionClosed

CONNECT_TIMEOUT_S = 5.0
# RFC 9110 section 7.6.1, and what describes only the connection that the answer came on
_HOP_BY_HOP = frozenset(
    """connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding
    upgrade content-length date server""".split()  # noqa: SIM905
)
# What this forwarder says itself, whatever the record of a request holds.
_OWN = frozenset(
    """host accept-encoding content-length transfer-encoding connection x-request-id x-fal-request-id idempotency-key
    x-request-attempt x-progress-url x-progress-token""".split()  # noqa: SIM905
)
# An adapter's bodies are plain JSON, whatever its client or target had.
_OF_THE_BODY = frozenset({"content-type", "content-encoding"})
_MODEL = "x-tinker-model"  # what a client asked for by name, where its dialect has names of models
_PREFIX = re.compile(r"https?://[^/?]*", re.I)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Forwarder:
    """Connections towards targets, for one process; safe to share between its threads."""

    def __init__(self, *, connections: int, max_result_bytes: int, progress_url: str) -> None:
        """*connections*: kept to each target; *progress_url*: where targets report, before the request's id."""
        self._connections = exchange.Connections(connections)
        self._max_result_bytes = max_result_bytes
        self._progress_url = progress_url

    def send(self, attempt: Attempt) -> Answer | NoAnswer | Closed:
        """Make one attempt: the target's answer whatever its status, or why there is none."""
        try:
            got: Answer | NoAnswer = self._post(attempt)
        except ConnectionClosed:
            got = NoAnswer(502, "ConnectionClosed", "closed before it was sent")
        except exchange.ConnectTimeout:
            got = NoAnswer(504, "TargetTimeout", f"no connection to {_host(attempt)} within {CONNECT_TIMEOUT_S:g} s")
        except TimeoutError:
            got = _timed_out(attempt)
        except exchange.Unreachable as exc:
            got = NoAnswer(502, "TargetUnreachable", f"{_host(attempt)}: {exc}")
        except (exchange.Broken, OSError) as exc:
            got = NoAnswer(502, "TargetBroken", f"{_host(attempt)} sent no complete answer: {exc}")
        except ValueError as exc:
            got = NoAnswer(502, "TargetUnreachable", f"the target's address can't be used: {exc}", final=True)
        if isinstance(got, Answer) or attempt.closed is None:
            return got
        return _timed_out(attempt) if attempt.closed is Closed.TIMEOUT else attempt.closed

    def close(self) -> None:
        """Close the connections that are idle."""
        self._connections.close()

    def _post(self, attempt: Attempt) -> Answer | NoAnswer:
        service, most, body = attempt.service, self._max_result_bytes, attempt.work.body
        adapted = None
        if service.adapter:
            try:
                body = adapted = adapters.named(service.adapter).request(body, _model(attempt))
            except Unadaptable as exc:  # submitted before the service had an adapter
                return NoAnswer(502, "Unadaptable", f"not sent to {_host(attempt)}: {exc}", final=True)
        origin, head = _head(attempt, self._progress_url, adapted)
        connect_s = min(CONNECT_TIMEOUT_S, service.timeout_s)
        reply = self._connections.exchange(attempt, origin, head, body, connect_s=connect_s, bytes_most=most)
        if len(reply.body) > most:
            return NoAnswer(
                502,
                "ResultTooLarge",
                f"the target answered {reply.status_code} with more than {most} bytes "
                "(MAX_RESULT_BYTES), which are not kept",
                final=True,
            )
        if not 200 <= reply.status_code <= 599:
            return NoAnswer(502, "TargetBroken", f"{_host(attempt)} answered with the status {reply.status_code}")
        headers = tuple(header for header in reply.headers if header[0].lower() not in _HOP_BY_HOP)
        if adapted is not None and reply.status_code < 300:
            return _adapted(attempt, reply.status_code, headers, reply.body)
        return Answer(reply.status_code, headers, reply.body)


def _model(attempt: Attempt) -> str:
    """The name by which the target knows what it is asked for: one of the service's aliases, else its own."""
    service = attempt.service
    for name, value in json.loads(attempt.work.meta)["headers"]:
        if name.lower() == _MODEL and value in service.aliases:
            return str(value)
    return service.aliases[0] if service.aliases else service.name


def _adapted(
    attempt: Attempt, status_code: int, headers: tuple[tuple[str, str], ...], body: bytes
) -> Answer | NoAnswer:
    """A 2xx answer in the client's form."""
    try:
        content = adapters.named(attempt.service.adapter).answer(attempt.work.body, body)
    except Unadaptable as exc:
        return NoAnswer(502, "TargetBroken", f"{_host(attempt)} gave no usable answer: {exc}", final=True)
    kept = tuple(header for header in headers if header[0].lower() not in _OF_THE_BODY)
    return Answer(status_code, (*kept, ("Content-Type", "application/json")), content)


def _head(attempt: Attempt, progress_url: str, adapted: bytes | None = None) -> tuple[exchange.Origin, bytes]:
    """Where the request goes, and its head as it is sent. *adapted*: the body, where it is not the client's.

    Raises ValueError, LocationParseError.
    """
    work, meta = attempt.work, json.loads(attempt.work.meta)
    given, body = meta["headers"], work.body
    if adapted is not None:
        given = [header for header in given if header[0].lower() not in _OF_THE_BODY]
        given.append(("Content-Type", "application/json"))
        body = adapted
    url = attempt.service.url(meta["path"], meta["query"]).partition("#")[0]
    if _CONTROL.search(url):
        raise ValueError("a control character stands in it")
    prefix = _PREFIX.match(url)
    origin, host = _origin(prefix[0] if prefix else url)
    target = url[prefix.end() :] if prefix else ""
    if not target.startswith("/"):
        target = "/" + target
    if not target.isascii() or " " in target:
        target = requote_uri(target)  # only a target_url can hold such characters
    lines = [
        f"POST {target} HTTP/1.1",
        f"Host: {host}",
        *[f"{name}: {value}" for name, value in given if name.lower() not in _OWN],
        "Accept-Encoding: identity",
        f"Content-Length: {len(body)}",
        f"X-Request-Id: {work.request_id}",
        f"X-Fal-Request-Id: {work.request_id}",
        f"Idempotency-Key: {work.request_id}",
        f"X-Request-Attempt: {work.attempt}",
        f"X-Progress-Url: {progress_url}{work.request_id}",
        f"X-Progress-Token: {progress_token(work.token)}",
        "\r\n",
    ]
    head = "\r\n".join(lines).encode("latin-1")
    if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines):
        raise ValueError("a line break stands in a header")
    return origin, head


@functools.lru_cache(maxsize=1024)
def _origin(prefix: str) -> tuple[exchange.Origin, str]:
    """Of `http://host:port`: the origin, and the Host header."""
    parts = parse_url(prefix)
    if not parts.host or parts.scheme not in ("http", "https") or parts.port == 0:
        raise ValueError(f"{prefix!r} names no host")
    own_port = 443 if parts.scheme == "https" else 80
    port = own_port if parts.port is None else parts.port
    host = parts.host if port == own_port else f"{parts.host}:{port}"
    return exchange.Origin(parts.scheme, parts.host.strip("[]"), port), host


def _timed_out(attempt: Attempt) -> NoAnswer:
    return NoAnswer(
        504, "TargetTimeout", f"{_host(attempt)} gave no complete answer within {attempt.service.timeout_s:g} s"
    )


def _host(attempt: Attempt) -> str:
    return urlsplit(attempt.service.url("", "")).netloc
