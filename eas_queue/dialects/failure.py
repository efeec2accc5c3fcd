"""One place that turns whatever was raised into a status and words; each dialect renders it in its own shape."""

from __future__ import annotations

from dataclasses import dataclass

from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from eas_queue import auth
from eas_queue.engine import errors

_STATUS: dict[type[Exception], tuple[int, str]] = {
    errors.InvalidRequest: (400, "The request can't be accepted"),
    errors.ServiceNotFound: (404, "There is no such service"),
    errors.NotPulled: (400, "Consumers can't pull from it"),
    errors.NotTaken: (409, "It is not held"),
    errors.RequestNotFound: (404, "There is no such request"),
    errors.WebhookNotFound: (404, "There is no such webhook"),
    errors.NotCancellable: (409, "The request has ended"),
    errors.IdempotencyConflict: (422, "The key was used for another request"),
    errors.QueueFull: (429, "The queue is full"),
    errors.SinkFull: (429, "The sink is full"),
    errors.ConsumerBusy: (409, "This consumer watches already"),
    errors.FilterMismatch: (409, "The group watches with other tags"),
    errors.TooManyGroups: (409, "The queue has too many groups"),
    errors.RateLimited: (429, "Too many requests"),
    errors.WaiterGone: (499, "The client has hung up"),
    errors.AttemptOver: (403, "This attempt is over"),
    errors.TooManyServices: (503, "No more services"),
    errors.Unavailable: (503, "The queue's store is unavailable"),
}


@dataclass(frozen=True)
class Failure:
    """*code* is stable; *detail* says what was tried, on what, and what to do now."""

    status: int
    code: str
    title: str
    detail: str
    retry_after_s: int | None = None
    headers: tuple[tuple[str, str], ...] = ()


def of(exc: Exception, *, max_payload_bytes: int, limit_bytes: int | None = None) -> Failure:
    """The failure behind *exc*; anything unexpected is a plain 500 that tells nothing of the inside.

    *limit_bytes*: of this request's body, where it is another one than MAX_PAYLOAD_BYTES.
    """
    if isinstance(exc, errors.EngineError):
        status, title = _STATUS[type(exc)]
        return Failure(status, exc.code, title, str(exc), getattr(exc, "retry_after_s", None))
    if isinstance(exc, auth.Unauthorized):
        return Failure(401, "unauthorized", "A token is needed", str(exc))
    if isinstance(exc, auth.Forbidden):
        return Failure(403, "forbidden", "Not allowed", str(exc))
    if isinstance(exc, RequestEntityTooLarge):
        limit, setting = limit_bytes or max_payload_bytes, ""
        if limit == max_payload_bytes:
            setting = " (MAX_PAYLOAD_BYTES)"
        detail = f"the body is larger than {limit} bytes{setting}: nothing was stored"
        return Failure(413, "payload-too-large", "The body is too large", detail)
    if isinstance(exc, HTTPException) and exc.code is not None and exc.code >= 400:
        allow = tuple(
            (name, value) for name, value in exc.get_headers() if name in ("Allow", "Upgrade", "Sec-WebSocket-Version")
        )
        code = (exc.name or "error").lower().replace(" ", "-")
        return Failure(exc.code, code, exc.name, exc.description or exc.name, headers=allow)
    return Failure(
        500, "internal-error", "Something went wrong here", "this is a defect of the queue; its log tells more"
    )
