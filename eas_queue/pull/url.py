"""A target behind a local URL: each task is one POST to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from eas_queue.pull import bodies
from eas_queue.pull.errors import NoAnswer
from eas_queue.pull.task import Task

CONNECT_S = 5.0
ANSWER_MAX_BYTES: Final = 64 * 2**20  # what the queue keeps by default
_IN_URL = "/:@!$&'()*+,;=~%?"  # besides letters and digits: as in RFC 3986, and what is percent-encoded already


class Url:
    """`http://127.0.0.1:9000`, or with a path, below which the endpoints of the tasks are."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.name = url
        self._is_tls, self._host, self._prefix = parts.scheme == "https", parts.hostname or "", parts.path.rstrip("/")
        self._port = parts.port or (443 if self._is_tls else 80)

    def problem(self) -> str | None:
        """Why it can't be reached, None if it can: asked by a connection that says nothing."""
        try:
            with socket.create_connection((self._host, self._port), CONNECT_S):
                return None
        except OSError as exc:
            return _reason(exc)

    def call(self, task: Task) -> tuple[int, bytes]:
        """Status and body (JSON text) of the answer, whatever it is. Raises NoAnswer.

        There is no time limit: the task is ours as long as it runs, until it expires.
        """
        if _leaves(task.endpoint):
            text = "the endpoint holds a `.` or `..` segment, which could leave the target's paths"
            return 400, bodies.of_error("BadEndpoint", text)
        kind = http.client.HTTPSConnection if self._is_tls else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=CONNECT_S)
        with contextlib.closing(connection):
            try:
                connection.connect()
                opened = connection.sock
                opened.settimeout(None)
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a host that dies is noticed some time
                # close() would not wake the thread that reads
                task.on_abandon(lambda: _shut_down(opened))
                connection.request("POST", self._path(task.endpoint), _body(task), _headers(task))
                answer = connection.getresponse()
                body = answer.read(ANSWER_MAX_BYTES + 1)
            except (OSError, http.client.HTTPException) as exc:
                raise NoAnswer(_reason(exc)) from exc
        if len(body) > ANSWER_MAX_BYTES:
            return 500, bodies.of_error("ResultTooLarge", f"the answer has more than {ANSWER_MAX_BYTES} bytes")
        if answer.length:
            raise NoAnswer("the answer broke off")
        return answer.status, bodies.of_answer(body, answer.headers.get("Content-Type", ""))

    def _path(self, endpoint: str) -> str:
        """Path and query only: whatever else an endpoint names, it is this target that is called."""
        try:
            parts = urlsplit(endpoint)
        except ValueError:
            parts = urlsplit("")
        path = "/" + parts.path.lstrip("/") if parts.path else ""
        target = quote(self._prefix + path, safe=_IN_URL.replace("?", "")) or "/"
        return f"{target}?{quote(parts.query, safe=_IN_URL)}" if parts.query else target


def _leaves(endpoint: str) -> bool:
    """Whether some server could resolve it to a path that is not below ours."""
    path = re.split(r"[?#]", endpoint, maxsplit=1)[0]
    return any(part.partition(";")[0] in (".", "..") for part in re.split(r"[/\\]", unquote(unquote(path))))


def _body(task: Task) -> bytes:
    return task.data if isinstance(task.data, bytes) else json.dumps(task.data).encode()


def _headers(task: Task) -> dict[str, str]:
    kind = task.content_type if task.content_type.isascii() and task.content_type.isprintable() else bodies.BYTES_TYPE
    headers = {"Content-Type": kind, "X-Request-ID": task.id}
    return headers if task.attempt is None else headers | {"X-Request-Attempt": str(task.attempt)}


def _shut_down(opened: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(opened, socket.SHUT_RDWR)  # not that of TLS, which takes itself away from under a reader


def _reason(exc: Exception) -> str:
    return (isinstance(exc, OSError) and exc.strerror) or str(exc)[:100] or type(exc).__name__
