"""What follows an attempt: the end of the request, or another attempt and when."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from eas_queue.engine.request import Retries
from eas_queue.engine.service import Service
from eas_queue.store.shapes import Ended, Leased, Requeued

BUSY_MAX_MS = 86_400_000  # a target may say 429 to one request for a day, or until the request's deadline
BUSY_DELAY_S = 1.0  # after a 429 without Retry-After
BUSY_DELAY_MIN_S = 0.5  # after one with `Retry-After: 0`: as it does not count, it could go round for a day
RETRY_AFTER_MAX_S = 3_600.0
NEEDS_RETRY = "x-fal-needs-retry"  # a target's own word, 1 or 0, on what is not 2xx; goes before `retry_on`


@dataclass(frozen=True, slots=True)
class Answer:
    """What the target answered. Header names and values as received, in order."""

    status_code: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """There was none that could be kept. *status_code* is ours: 504 for a time-out, else 502."""

    status_code: int
    error_type: str
    detail: str
    final: bool = False  # sending it again could not help


def after_attempt(service: Service, work: Leased, got: Answer | NoAnswer) -> Ended | Requeued:
    """The policy of the service, or of the request where its client brought one, applied to one attempt.

    Any 2xx succeeds. 429 gives the request back without counting the attempt, unless target or client say that it is
    not to be sent again. Answers in ``retry_on``, those that ask for it, and missing ones are sent again until the
    attempts are used up; then, and for every other answer, the request has failed.
    """
    if isinstance(got, Answer):
        if 200 <= got.status_code < 300:
            return _succeeded(got)
        error_type, error = "TargetFailed", f"the target answered {got.status_code}"
        says = {"1": True, "true": True, "0": False, "false": False}.get((got.header(NEEDS_RETRY) or "").lower())
        is_final = says is False or _own_retries(work).server_error == 0
        if got.status_code == 429 and not is_final and work.started_ms - work.submitted_ms < BUSY_MAX_MS:
            delay_s = retry_after_s(got.header("retry-after"))
            delay_s = BUSY_DELAY_S if delay_s is None else max(delay_s, BUSY_DELAY_MIN_S)
            return Requeued(False, round(delay_s * 1000), error_type, error)
        retryable = got.status_code in service.retry_on if says is None else says
    else:
        error_type, error, retryable = got.error_type, got.detail, not got.final
    most = attempts_most(service, work, got)
    if retryable and work.attempt < most:
        return Requeued(True, backoff_ms(service, work.attempt), error_type, error)
    if retryable:
        error = f"{error}; {work.attempt} of {most} attempts were made"
    return _failed(got, error_type, error, dead_letter=retryable)


def ended(got: Answer) -> Ended:
    """The end that an answer is which no further attempt follows, whatever it says."""
    if got.status_code < 400:
        return _succeeded(got)
    return _failed(got, "TargetFailed", f"its taker answered {got.status_code}", dead_letter=False)


def attempts_most(service: Service, work: Leased, got: Answer | NoAnswer | None = None) -> int:
    """How many attempts there may be in all, after one that ended so; None: after one whose worker is lost.

    A client may say less or more than the service, but that one attempt is the most is the service's promise.
    """
    retries = _own_retries(work)
    if isinstance(got, Answer):
        most = retries.server_error
    elif got is not None and got.error_type == "TargetTimeout":
        most = retries.timeout
    else:
        most = retries.connection_error
    return service.max_attempts if most is None or service.max_attempts == 1 else 1 + most


def _own_retries(work: Leased) -> Retries:
    """What its client said, if anything."""
    return Retries(**json.loads(work.meta).get("retries") or {})


def backoff_ms(service: Service, attempt: int) -> int:
    """Pause after *attempt* (1 is the first): doubles each time up to the limit, half of it random."""
    full_s: float = min(service.retry_delay_s * 2 ** (attempt - 1), service.retry_delay_max_s)
    return round(full_s * random.uniform(500, 1000))  # noqa: S311  spreads load, guards nothing


def retry_after_s(value: str | None) -> float | None:
    """Seconds named by a Retry-After header (seconds or an HTTP date, RFC 9110 section 10.2.3); None if unusable."""
    if value is None:
        return None
    try:
        delay_s = float(value)
    except ValueError:
        try:
            delay_s = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError):
            return None
    if delay_s != delay_s:  # NaN parses as a float
        return None
    return min(max(delay_s, 0.0), RETRY_AFTER_MAX_S)


def _succeeded(got: Answer) -> Ended:
    result = {
        "status": "success",
        "target_status_code": got.status_code,
        "content_type": got.header("content-type"),
    }
    headers = json.dumps(got.headers, separators=(",", ":"))
    return Ended("succeeded", got.status_code, headers, got.body, True, "", "", json.dumps(result), False)


def _failed(got: Answer | NoAnswer, error_type: str, error: str, *, dead_letter: bool) -> Ended:
    # The shape that Celery's backend turns back into an exception: a plain string here would make .state raise.
    result = {"exc_type": "TargetFailed", "exc_message": [error], "exc_module": "eas_queue.engine.errors"}
    answer = got if isinstance(got, Answer) else Answer(got.status_code, (), b"")
    return Ended(
        "failed",
        answer.status_code,
        json.dumps(answer.headers, separators=(",", ":")),
        answer.body,
        isinstance(got, Answer),
        error_type,
        error,
        json.dumps(result),
        dead_letter,
    )
