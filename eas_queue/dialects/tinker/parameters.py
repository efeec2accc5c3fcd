"""What a sampling request says to the queue. All of it goes to its target as it came."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from flask import Request

from eas_queue.dialects import inbound, members
from eas_queue.dialects.tinker import names
from eas_queue.engine import errors
from eas_queue.engine.request import Caller, Submission

SAMPLES_MOST = 4096
SMALL_BYTES = 65_536  # of a body that is no prompt
BACKPRESSURE_HEADER = "X-Tinker-Sampling-Backpressure"
IDEMPOTENCY_HEADER = "X-Idempotency-Key"
MODEL_HEADER = "X-Tinker-Model"  # to the target: the model as the client called it
_OWN_HEADERS = ("x-tinker-", "x-stainless-", "x-sdk-", IDEMPOTENCY_HEADER.lower())
_NUMBERS = re.compile(rb"(" + members.TEXT.pattern + rb")|\[[0-9eE+\-., \t\r\n]*+\]", re.DOTALL)  # or a text
_SEQUENCE_MOST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Asked:
    """A sampling request. *model*: as its client calls it."""

    model: str
    service: str
    samples: int
    submission: Submission


@dataclass(frozen=True, slots=True)
class About:
    """What the queue keeps of it for those who poll. *samples* None: it was submitted by another dialect."""

    samples: int | None
    has_backpressure: bool

    @classmethod
    def of(cls, text: str) -> About:
        kept = json.loads(text).get("tinker") if text else None
        return cls(kept["samples"], kept["backpressure"]) if kept else cls(None, False)

    def packed(self) -> str:
        kept = {"samples": self.samples, "backpressure": self.has_backpressure}
        return json.dumps({"tinker": kept}, separators=(",", ":"))


def sampling(request: Request, caller: Caller, resolve: Callable[[str], str]) -> Asked:
    """The request as the engine stores it. *resolve*: the service of a model, for those who may use it.

    Raises InvalidRequest, what *resolve* raises, UnknownSession; RequestEntityTooLarge when the body is too large.
    """
    found = inbound.submission(request, "", caller, priority=0, own_headers=_OWN_HEADERS)
    values = _values(found.body)
    model = _model(values)
    service = resolve(model)
    about = About(_samples(values), request.headers.get(BACKPRESSURE_HEADER, "").strip() == "1")
    submission = replace(
        found,
        query="",
        headers=(*found.headers, (MODEL_HEADER, model)),
        idempotency_key=_key(request, values) or found.idempotency_key,
        about=about.packed(),
        key_covers_about=False,  # it follows from the body, but for how the client wants to be answered
    )
    return Asked(model, service, about.samples or 0, submission)


def _values(body: bytes) -> dict[str, Any]:
    """Of a long prompt the tokens are not read here: they would take seconds, in which nobody else is served."""
    if members.has_too_many(body):
        # Else it is texts or lists that are many, and to take numbers out would cost more than it helps.
        if body.count(b'"') <= 2 * members.VALUES_MOST and not members.has_too_many(body.replace(b",", b"")):
            body = _NUMBERS.sub(lambda found: found[1] or b"[]", body)
        if members.has_too_many(body):
            raise errors.InvalidRequest(
                f"the body has more than {members.VALUES_MOST:,} values besides lists of numbers: nothing was stored"
            )
    return members.values_of(body)


def _model(values: dict[str, Any]) -> str:
    session = values.get("sampling_session_id")
    if session is not None:
        model = names.of_session(session) if isinstance(session, str) else None
        if model is None:
            raise names.UnknownSession(str(session))
        return model
    found = names.asked(values)
    if found is None:
        raise errors.InvalidRequest(
            "the body names no model: it needs a sampling_session_id (POST /api/v1/create_sampling_session), "
            "a base_model or a model_path"
        )
    return found


def _samples(values: dict[str, Any]) -> int:
    samples = values.get("num_samples")
    if samples is None:
        return 1
    if type(samples) is not int or not 1 <= samples <= SAMPLES_MOST:
        raise errors.InvalidRequest(f"num_samples must be a whole number from 1 to {SAMPLES_MOST}")
    return samples


def _key(request: Request, values: dict[str, Any]) -> str:
    """What makes a request the same when its client sends it again: its number in its sampling session, which stays
    when a reply was lost, else the header that each call of the SDK carries."""
    session, number = values.get("sampling_session_id"), values.get("seq_id")
    if number is not None and (type(number) is not int or not -_SEQUENCE_MOST <= number <= _SEQUENCE_MOST):
        raise errors.InvalidRequest("seq_id must be a whole number")
    if session is not None and number is not None:
        return f"tinker\n{session}\n{number}"
    call = request.headers.get(IDEMPOTENCY_HEADER, "")
    return f"tinker\n{call}" if call else ""
