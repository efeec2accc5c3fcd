"""The HTTP client towards targets: one POST per attempt, over pooled connections that can be closed from outside.

It follows no redirect, reads no proxy or netrc settings, keeps at most MAX_RESULT_BYTES, and bounds the whole call by
``timeout_s`` however slowly a target drips (the housekeeping closes it; a socket's own timeout covers one read only).
"""

from __future__ import annotations

import json
import threading
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from eas_queue.engine.retry import Answer, NoAnswer
from eas_queue.store.shapes import progress_token
from eas_queue.worker.attempt import Attempt, Closed, ConnectionClosed

CONNECT_TIMEOUT_S = 5.0
CHUNK_BYTES = 65_536
# RFC 9110 section 7.6.1, and what describes only the connection that the answer came on
_HOP_BY_HOP = frozenset(
    """connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding
    upgrade content-length date server""".split()  # noqa: SIM905
)

_current = threading.local()  # .attempt: the attempt that this thread or greenlet works on


class _Capturing:
    """Tells the attempt which socket it uses, so that it can be shut down from another thread."""

    sock: Any
    timeout: Any

    def connect(self) -> None:
        attempt: Attempt = _current.attempt
        attempt.opened(None)  # closed before there was anything to shut down
        super().connect()  # type: ignore[misc]
        attempt.opened(self.sock)
        # urllib3 sends the body under the connect timeout, and a busy target may be slow to read a large one
        self.sock.settimeout(attempt.service.timeout_s)

    def request(self, *args: Any, **options: Any) -> None:
        if self.sock is not None:
            self.timeout = _current.attempt.service.timeout_s
            _current.attempt.opened(self.sock)
        super().request(*args, **options)  # type: ignore[misc]


class _Connection(_Capturing, HTTPConnection):
    pass


class _TLSConnection(_Capturing, HTTPSConnection):
    pass


class _Releasing:
    def _put_conn(self, conn: Any) -> None:
        # Before anybody else can take the connection: a late close must not hit another attempt's call.
        if not _current.attempt.released() and conn is not None:
            conn.close()
        super()._put_conn(conn)  # type: ignore[misc]


class _Pool(_Releasing, HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(_Releasing, HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}


class Forwarder:
    """Connections towards targets, for one process; safe to share between its threads."""

    def __init__(self, *, connections: int, max_result_bytes: int, progress_url: str) -> None:
        """*progress_url*: where targets report, before the request's id."""
        self._adapter = _Adapter(pool_connections=100, pool_maxsize=connections, max_retries=0)
        self._max_result_bytes = max_result_bytes
        self._progress_url = progress_url

    def send(self, attempt: Attempt) -> Answer | NoAnswer | Closed:
        """Make one attempt: the target's answer whatever its status, or why there is none."""
        _current.attempt = attempt
        try:
            got: Answer | NoAnswer = self._post(attempt)
        except ConnectionClosed:
            got = NoAnswer(502, "ConnectionClosed", "closed before it was sent")
        except requests.exceptions.ConnectTimeout:
            got = NoAnswer(504, "TargetTimeout", f"no connection to {_host(attempt)} within {CONNECT_TIMEOUT_S:g} s")
        except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError):
            got = _timed_out(attempt)
        except (requests.exceptions.InvalidURL, urllib3.exceptions.LocationParseError) as exc:
            got = NoAnswer(502, "TargetUnreachable", f"the target's address can't be used: {exc}", final=True)
        except requests.exceptions.ConnectionError as exc:
            got = NoAnswer(502, "TargetUnreachable", f"{_host(attempt)}: {_reason(exc)}")
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as exc:
            got = NoAnswer(502, "TargetBroken", f"{_host(attempt)} sent no complete answer: {_reason(exc)}")
        finally:
            attempt.released()
            _current.attempt = None
        if isinstance(got, Answer) or attempt.closed is None:
            return got
        return _timed_out(attempt) if attempt.closed is Closed.TIMEOUT else attempt.closed

    def _post(self, attempt: Attempt) -> Answer | NoAnswer:
        timeout = (min(CONNECT_TIMEOUT_S, attempt.service.timeout_s), attempt.service.timeout_s)
        response = self._adapter.send(_request(attempt, self._progress_url), stream=True, timeout=timeout, proxies={})
        raw = response.raw
        chunks, size = [], 0
        try:
            for chunk in raw.stream(CHUNK_BYTES, decode_content=False):
                chunks.append(chunk)
                size += len(chunk)
                if size > self._max_result_bytes:
                    break
        finally:
            if not raw.closed and (size > self._max_result_bytes or attempt.closed is not None):
                raw.close()
        if not attempt.released():  # an answer that ends with its connection looks whole when that is shut down
            raise ConnectionClosed("while the answer came")
        if size > self._max_result_bytes:
            return NoAnswer(
                502,
                "ResultTooLarge",
                f"the target answered {response.status_code} with more than {self._max_result_bytes} bytes "
                "(MAX_RESULT_BYTES), which are not kept",
                final=True,
            )
        if not 200 <= response.status_code <= 599:
            return NoAnswer(502, "TargetBroken", f"{_host(attempt)} answered with the status {response.status_code}")
        headers = tuple((name, value) for name, value in raw.headers.items() if name.lower() not in _HOP_BY_HOP)
        return Answer(response.status_code, headers, b"".join(chunks))


def _request(attempt: Attempt, progress_url: str) -> requests.PreparedRequest:
    """Built by hand: requests' own preparation would re-quote the path and costs more than the rest of the call."""
    work, meta = attempt.work, json.loads(attempt.work.meta)
    headers: CaseInsensitiveDict[str] = CaseInsensitiveDict(meta["headers"])
    headers["Accept-Encoding"] = "identity"
    headers["Content-Length"] = str(len(work.body))
    headers["X-Request-Id"] = headers["X-Fal-Request-Id"] = headers["Idempotency-Key"] = work.request_id
    headers["X-Request-Attempt"] = str(work.attempt)
    headers["X-Progress-Url"] = progress_url + work.request_id
    headers["X-Progress-Token"] = progress_token(work.token)
    prepared = requests.PreparedRequest()
    prepared.method = "POST"
    prepared.url = attempt.service.url(meta["path"], meta["query"])
    prepared.headers = headers
    prepared.body = work.body
    prepared.hooks = {}
    return prepared


def _timed_out(attempt: Attempt) -> NoAnswer:
    return NoAnswer(
        504, "TargetTimeout", f"{_host(attempt)} gave no complete answer within {attempt.service.timeout_s:g} s"
    )


def _host(attempt: Attempt) -> str:
    return urlsplit(attempt.service.url("", "")).netloc


def _reason(exc: BaseException) -> str:
    """The innermost cause: what the operating system or the peer said, without the wrappers."""
    while True:
        inner = getattr(exc, "reason", None) or exc.__cause__ or (exc.args[0] if exc.args else None)
        if not isinstance(inner, BaseException):
            return str(exc) or type(exc).__name__
        exc = inner
