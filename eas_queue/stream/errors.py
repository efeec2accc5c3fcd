"""What can go wrong, each with its exit code: what was tried, on what URL, and what to do now."""

from __future__ import annotations

import json
from typing import ClassVar

from eas_queue.stream import rendering
from eas_queue.stream.target import Target

_SHOWN_MAX = 300


class Failed(Exception):
    """The command can't do what was asked. *advice*: what to do now."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(message)
        self.message, self.advice = message, advice


class Refused(Failed):
    """The queue said no, or something that no queue says. *status*: of its answer, None if it was not about that."""

    def __init__(self, message: str, advice: str, status: int | None = None) -> None:
        super().__init__(message, advice)
        self.status = status


class NotFound(Failed):
    exit_code = 3


class NotAllowed(Failed):
    exit_code = 4


class Unreachable(Failed):
    exit_code = 5


def from_status(tried: str, status: int, body: bytes, target: Target, location: str | None = None) -> Failed:
    """The error for an answer that is not the wanted one. *tried*: what was done, with the URL."""
    said = _said(body, target.token)
    message = f"{tried}: the queue answered {status}" + (f": {said}" if said else "")
    if status in (401, 403):
        return NotAllowed(message, _advice_on_token(status, target.token))
    if status == 404:
        return NotFound(message, "check the name of the service in the URL, and the index: `eas-queue stream info`")
    if 300 <= status < 400:
        place = rendering.plain(location or "nowhere")[:_SHOWN_MAX]
        return Refused(message, f"the URL leads to {place}: give that one, if it is right", status)
    advice = {
        400: "correct what the answer names",
        405: "this is no queue, or one that does not do this; check the URL",
        409: f"a consumer is connected as {target.group}.{target.user}: end it, or be another one by --user",
        413: "make the item smaller; `eas-queue stream info` shows stream.maxPayloadBytes",
        429: "the queue is full, or the token has used up its rate: wait, then try again",
    }.get(status)
    if advice is None:
        advice = "try again; if it stays so, read the service's logs" if status >= 500 else "check the URL"
    return Refused(message, advice, status)


def _advice_on_token(status: int, token: str) -> str:
    if not token:
        return "no token was sent: give one by --token-file, EAS_QUEUE_STREAM_TOKEN or `eas-queue stream config`"
    if status == 401:
        return "the token is not one of this service: give another by --token-file or `eas-queue stream config`"
    return "the token is known but may not do this here: use one with the role for it"


def _said(body: bytes, token: str) -> str:
    """The reason in an answer, on one line, without the token, which a proxy might quote."""
    text = body.decode(errors="replace").strip()
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if isinstance(content, dict) and isinstance(content.get("detail"), str):
        text = content["detail"]  # problem+json, from what stands in front of the queue
    elif text.startswith("<"):
        return ""  # a page of a proxy says nothing in 300 characters
    if token:
        text = text.replace(token, "****")
    return rendering.plain(text[:_SHOWN_MAX])
