"""The body of a webhook in fal's form, and what vouches for it, as receivers check it."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from eas_queue.dialects.fal import schema, webhook
from eas_queue.engine.request import Request, State, Webhook
from eas_queue.webhooks.signing import Signatures

SECRETS = ["whsec_" + base64.b64encode(letter * 24).decode() for letter in (b"n", b"o")]


def request(state: State = State.SUCCEEDED, **told: Any) -> Request:
    return Request("s", "the-id", state, 1, 100, 1, None, 0, 0, **({"from_target": True, "status_code": 200} | told))


def said(found: Request, body: bytes | None = b"{}") -> dict[str, Any]:
    content: dict[str, Any] = json.loads(webhook.render(found, body))
    assert (content["request_id"], content["gateway_request_id"]) == ("the-id", "the-id")
    return content


@pytest.mark.parametrize(
    ("state", "code", "is_ok"),
    [
        (State.SUCCEEDED, 200, True),
        (State.SUCCEEDED, 201, False),
        (State.FAILED, 302, False),
        (State.FAILED, 422, False),
        (State.FAILED, 500, False),
    ],
)
def test_ok_is_a_200_and_nothing_else(state: State, code: int, is_ok: bool) -> None:
    content = said(request(state, status_code=code), b'{"detail": "why"}')

    assert content["status"] == ("OK" if is_ok else "ERROR")
    assert content.get("error") == (None if is_ok else f"Invalid status code: {code}")
    assert content["payload"] == {"detail": "why"}


@pytest.mark.parametrize(
    "found",
    [
        request(State.CANCELLED, from_target=False),
        request(State.EXPIRED, from_target=False),
        request(State.FAILED, from_target=False, status_code=502, error_type="TargetUnreachable", error="refused"),
        request(State.FAILED, from_target=False, status_code=504, error_type="TargetTimeout", error="too slow"),
        request(State.FAILED, from_target=False, status_code=502, error_type="ResultTooLarge", error="too large"),
    ],
    ids=lambda found: f"{found.state}-{found.error_type}",
)
def test_without_an_answer_it_says_what_the_result_says(found: Request) -> None:
    fault = schema.fault(found)
    assert fault is not None

    content = said(found, None)

    assert (content["status"], content["error"]) == ("ERROR", f"Invalid status code: {fault.status_code}")
    assert (content["payload"]["detail"], content["payload"]["error_type"]) == (fault.text, fault.error_type)


@pytest.mark.parametrize(
    "body", [b'{"n": 12345678901234567890.10, "t": "\xc3\xbc"}', b"null", b"[1e999]", b' {"a": 1}\n']
)
def test_the_payload_is_the_answer_as_it_came(body: bytes) -> None:
    assert webhook.render(request(), body).endswith(b'"payload": ' + body + b"}")
    assert "payload_error" not in said(request(), body)


@pytest.mark.parametrize("body", [b"", b"<p>", b"\xff", b'{"loss": NaN}', b"{} {}", b"[" * 100_000])
def test_what_is_no_json_is_null_and_why(body: bytes) -> None:
    content = said(request(), body)

    assert (content["status"], content["payload"]) == ("OK", None)
    assert content["payload_error"] == webhook.NOT_JSON


def test_what_is_coded_is_null_too() -> None:
    coded = request(headers=(("Content-Encoding", "gzip"),))

    assert said(coded, b"{}")["payload_error"] == webhook.NOT_JSON


def test_what_is_too_large_is_null_and_why() -> None:
    just = b'"' + b"x" * (webhook.PAYLOAD_MOST - 2) + b'"'

    assert said(request(), just)["payload"] is not None
    assert said(request(), just + b" ")["payload_error"] == webhook.TOO_LARGE


@pytest.mark.parametrize(
    ("about", "user"), [({"user_id": "an-id"}, "an-id"), ({}, "local"), ({"user_id": ""}, "local")]
)
def test_it_is_signed_as_receivers_check_it(about: dict[str, str], user: str) -> None:
    body, signatures = b'{"a": "\xc3\xbc"}', Signatures(SECRETS)

    headers = webhook.headers(
        Webhook("http://h/", "fal", about), "the-id", 1_700_000_000, body, sign=signatures.ed25519
    )

    names = ("Request-Id", "User-Id", "Timestamp")
    first = [headers[f"X-Fal-Webhook-{name}"] for name in names]
    assert first == ["the-id", user, "1700000000"]
    message = "\n".join([*first, hashlib.sha256(body).hexdigest()]).encode()
    public = base64.urlsafe_b64decode(signatures.jwks()["keys"][0]["x"])
    Ed25519PublicKey.from_public_bytes(public).verify(bytes.fromhex(headers["X-Fal-Webhook-Signature"]), message)
    assert len(headers) == 4
