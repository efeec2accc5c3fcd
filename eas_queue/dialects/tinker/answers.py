"""How answers look: results as JSON or protobuf, failures, and errors of the calls themselves."""

from __future__ import annotations

import json
from typing import Any

from flask import Response

from eas_queue.dialects import members, problem
from eas_queue.dialects.failure import Failure
from eas_queue.dialects.tinker import protobuf
from eas_queue.dialects.tinker.parameters import About
from eas_queue.engine import errors
from eas_queue.engine.request import Request, State

PROTOBUF_TYPE = "application/x-protobuf"
RETRY_AFTER_MOST_S = 60  # the SDK passes over longer ones, and comes again much sooner
READ_MOST = 1_048_576  # bytes of an answer that is handed on as it came
QUOTED_MOST = 500  # characters of what a target said when it failed
ANOTHER_BODY = (
    "this sampling session has a request with this seq_id already, and another body (or this X-Idempotency-Key has): "
    "nothing was stored; give a new request a new seq_id"
)
_decoder = json.JSONDecoder(parse_int=members.number)
_BUSY = (408, 429)  # of a target's 4xx answers those that are not its client's fault


def json_response(content: Any, code: int = 200) -> Response:
    return _response(json.dumps(content).encode() + b"\n", "application/json", code)


def result(found: Request, body: bytes, accept: str, *, high_level: bool) -> Response:
    """What has become of a request that has ended. Failures, too, are 200: the SDK would ask for anything else again.

    *body*: its target's answer. *accept*: the poll's header, by which newer clients ask for protobuf. *high_level*: who
    polls takes some members of an answer for words of the queue, and gets nothing but samples.
    """
    if found.state is not State.SUCCEEDED:
        return _failed(found, body)
    try:
        if PROTOBUF_TYPE in accept.lower():
            coded = protobuf.sample(body, About.of(found.about).samples)
            return _response(coded, PROTOBUF_TYPE)
        if high_level:
            protobuf.check(body, About.of(found.about).samples)
        return _response(_with_id(found, body), "application/json")
    except protobuf.NotSample as exc:
        return _failure(found, f"service {found.service} returned no sample: {exc}", "server")


def render_error(failure: Failure) -> Response:
    """An error of the call itself. Never without a body: the SDK takes an empty 400 for a proxy's and goes on trying.

    Never with a member `error` either, which would make it a failed request.
    """
    detail = ANOTHER_BODY if failure.code == errors.IdempotencyConflict.code else failure.detail
    content = {"detail": detail, "code": failure.code, "title": failure.title, "status": failure.status}
    response = json_response(content, failure.status)
    problem.add_headers(response, failure)
    if failure.status == 429 and failure.retry_after_s is not None:
        response.headers["Retry-After"] = str(min(failure.retry_after_s, RETRY_AFTER_MOST_S))
    return response


def _failed(found: Request, body: bytes) -> Response:
    if found.state is State.CANCELLED:
        return _failure(found, "cancelled by client", "user")
    if found.state is State.EXPIRED:
        return _failure(
            found, f"service {found.service}: it waited longer than its deadline and was not sent", "server"
        )
    text = f"service {found.service}: {found.error or 'it gave no answer'}"
    code = found.status_code or 500
    said = body[: QUOTED_MOST * 4].decode("utf-8", "replace").strip()[:QUOTED_MOST]
    text += f": {said}" if said else ""
    return _failure(found, text, "user" if 400 <= code < 500 and code not in _BUSY else "server")


def _failure(found: Request, text: str, category: str) -> Response:
    return json_response({"error": text, "category": category, "request_id": found.request_id})


def _with_id(found: Request, body: bytes) -> bytes:
    """The target's JSON as it came, so that no number changes, and the request's id in it.

    A long one is not read: the id stands in front of what it says, and goes behind its own where it has one.
    """
    own = f'"request_id": {json.dumps(found.request_id)}'.encode()
    start, end = len(body) - len(body.lstrip()), len(body.rstrip())
    if len(body) > READ_MOST and body[start : start + 1] == b"{" and body[end - 1 : end] == b"}":
        inside = body[start + 1 : end - 1].lstrip()
        try:
            inside.decode()
        except ValueError as exc:
            raise protobuf.NotSample("its answer is not in UTF-8") from exc
        return b"{" + own + (b", " + inside if inside else b"") + b"}\n"
    if len(body) > READ_MOST:
        raise protobuf.NotSample(f"its answer is no JSON object, and has more than {READ_MOST:,} bytes")
    try:
        content = _decoder.decode(body.decode())  # not UTF-16, which json.loads would take as well
    except (ValueError, RecursionError) as exc:
        raise protobuf.NotSample(f"its answer is not JSON: {exc}") from exc
    if not isinstance(content, dict):
        return b'{"result": ' + body[start:end] + b", " + own + b"}\n"
    if "request_id" in content:
        return body
    return body[: end - 1].rstrip() + (b", " if content else b"") + own + b"}\n"


def _response(body: bytes, kind: str, code: int = 200) -> Response:
    response = Response(body, code, content_type=kind)
    response.headers["Cache-Control"] = "no-store"
    return response
