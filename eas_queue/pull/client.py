"""The calls of the take API that a worker makes. Threads share one client."""

from __future__ import annotations

import http.cookiejar
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter

from eas_queue.pull.errors import Away, NotHeld, Refused

log = logging.getLogger("eas_queue.pull")

CONNECT_S = 5.0
ANSWER_S = 30.0
_SPARE_S = 10.0  # beyond the time that a take may wait
_SAID_MAX = 300
_AGAIN = (408, 425, 429)  # besides 5xx


@dataclass(frozen=True)
class Taken:
    """A task as the queue has handed it out."""

    task_id: str
    queue: str
    level: int
    endpoint: str
    data: Any
    is_first: bool  # known to be the first delivery
    content: dict[str, Any]


class Client:
    def __init__(self, server: str, token: str, worker_id: str, *, threads: int) -> None:
        self._base, self._token, self._worker = f"{server}/v1/queue", token, {"id": worker_id}
        self._session = requests.Session()
        # what all threads would share, and no queue sets
        self._session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers["Accept"] = "application/json"
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=threads))

    def take(
        self, names: Sequence[str], size: int, *, strategy: str, process_timeout_s: int, retries: int, wait_s: float
    ) -> list[Taken]:
        """At most *size* tasks, perhaps none. When the answer is lost, its tasks go back as their leases lapse."""
        asked = {
            "queues": list(names),
            "size": size,
            "strategy": strategy,
            "process_timeout": process_timeout_s,
            "process_max_retries": retries,
            "wait": wait_s,
            "worker": self._worker,
        }
        answer = self._post("take", _json(asked), answer_s=wait_s + _SPARE_S)
        try:
            found = answer.json()
            rows = [row for rows in found.values() for row in rows]
        except (ValueError, RecursionError, AttributeError, TypeError) as exc:
            raise Away("the answer is none of a queue") from exc  # what stands in front of it at the moment
        return [taken for row in rows if (taken := _taken(row)) is not None]

    def renew(self, task_id: str, process_timeout_s: int, *, answer_s: float = ANSWER_S) -> None:
        """From now on it is ours for so long. Raises NotHeld."""
        content = {"process_timeout": process_timeout_s, "worker": self._worker}
        self._post(f"{quote(task_id, '')}/renew", _json(content), answer_s=answer_s)

    def report(self, task_id: str, members: str) -> None:
        """*members*: `"progress":..`, `"logs":[..]`, `"events":[..]`, as JSON text. Raises NotHeld."""
        worker = json.dumps(self._worker, separators=(",", ":"))
        self._post(f"{quote(task_id, '')}/progress", f'{{{members},"worker":{worker}}}'.encode())

    def complete(self, task_id: str, result: bytes) -> None:
        """Harmless when the task has ended."""
        self._post(f"{quote(task_id, '')}/complete", result)

    def _post(self, path: str, body: bytes, *, answer_s: float = ANSWER_S) -> requests.Response:
        try:
            answer = self._session.post(
                f"{self._base}/{path}",
                data=body,
                headers={"Content-Type": "application/json"},
                # as `auth`, so that a ~/.netrc does not put a password for this host in the token's place
                auth=self._signed,
                timeout=(CONNECT_S, answer_s),
                allow_redirects=False,  # the token is for this URL
            )
        except requests.RequestException as exc:
            raise Away(_reason(exc)) from exc
        status = answer.status_code
        if 200 <= status < 300:
            return answer
        if status == 409:
            raise NotHeld
        said = _said(answer.content, self._token)
        if status >= 500 or status in _AGAIN:
            raise Away(f"{status}: {said}" if said else str(status), _seconds(answer.headers.get("Retry-After", "")))
        raise Refused(status, said)

    def _signed(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _json(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _taken(row: Any) -> Taken | None:
    """None for what is no task, which nobody could complete."""
    try:
        task_id, queue, level = row["task_id"], row["queue"], row["level"]
        if not (isinstance(task_id, str) and task_id and isinstance(queue, str) and isinstance(level, int)):
            raise ValueError("no task")
        is_first = row.get("status") == "waiting"
        return Taken(task_id, queue, level, str(row.get("endpoint") or ""), row.get("data"), is_first, row)
    except (KeyError, TypeError, ValueError, AttributeError):
        log.warning("row_ignored row=%.200r", row)
        return None


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() else 0.0


def _said(body: bytes, token: str) -> str:
    """The reason in an answer, on one line, without the token, which a proxy might quote."""
    text = body[:100_000].decode(errors="replace").strip()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict):
        text = str(content.get("message") or content.get("detail") or text)
    elif text.startswith("<"):
        return ""  # a page of a proxy says nothing in 300 characters
    if token:
        text = text.replace(token, "****")
    return "".join(sign if sign.isprintable() else " " for sign in text[:_SAID_MAX])


def _reason(exc: BaseException) -> str:
    """The system's words: libraries wrap them in three layers of their own, and quote the URL."""
    if isinstance(exc, requests.ReadTimeout):
        return "no answer in time"
    if isinstance(exc, requests.Timeout):
        return f"no connection within {CONNECT_S:g} s"
    while (inner := exc.__cause__ or exc.__context__) is not None:
        exc = inner
    return (isinstance(exc, OSError) and exc.strerror) or str(exc)[:100] or type(exc).__name__
