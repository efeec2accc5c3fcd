"""The body of fal's webhooks, and what its headers vouch for."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from eas_queue.dialects.fal import webhook
from eas_queue.engine.request import Request, State, Webhook

JSON = (("Content-Type", "application/json"),)


def ended(state: State, code: int | None = None, **more: Any) -> Request:
    return Request("s", "the-id", state, 1, 100, 1, None, 0, 0, status_code=code, from_target=code is not None, **more)


def rendered(request: Request, body: bytes | None) -> Any:
    content = json.loads(webhook.render(request, body))
    assert (content.pop("request_id"), content.pop("gateway_request_id")) == ("the-id", "the-id")
    return content


def test_an_answer_with_200_is_ok() -> None:
    assert rendered(ended(State.SUCCEEDED, 200), b'{"seed": 1}') == {"status": "OK", "payload": {"seed": 1}}


@pytest.mark.parametrize(("state", "code"), [(State.FAILED, 422), (State.FAILED, 500), (State.SUCCEEDED, 201)])
def test_any_other_answer_is_an_error_with_its_body(state: State, code: int) -> None:
    assert rendered(ended(state, code), b'{"detail": []}') == {
        "status": "ERROR",
        "error": f"Invalid status code: {code}",
        "payload": {"detail": []},
    }


@pytest.mark.parametrize(("state", "code"), [(State.CANCELLED, 499), (State.EXPIRED, 504)])
def test_ends_without_an_answer_are_errors(state: State, code: int) -> None:
    content = rendered(ended(state), None)

    assert (content["status"], content["error"]) == ("ERROR", f"Invalid status code: {code}")
    assert set(content["payload"]) == {"detail", "error_type"}


def test_a_target_that_could_not_be_reached_is_an_error_that_says_so() -> None:
    request = Request("s", "the-id", State.FAILED, 1, 100, 1, None, 0, 0, status_code=502, error="refused")

    assert rendered(request, None)["payload"] == {"detail": "refused"}


@pytest.mark.parametrize("body", [b"", b"text", b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000 + b"]" * 100_000])
@pytest.mark.parametrize("code", [200, 404])
def test_what_is_no_json_is_null_and_says_why(body: bytes, code: int) -> None:
    content = rendered(ended(State.SUCCEEDED if code == 200 else State.FAILED, code), body)

    assert (content["payload"], content["payload_error"]) == (None, webhook.NOT_JSON)
    assert content["status"] == ("OK" if code == 200 else "ERROR")


def test_a_coded_answer_is_not_read() -> None:
    request = ended(State.SUCCEEDED, 200, headers=(("Content-Encoding", "gzip"),))

    assert rendered(request, b"{}")["payload_error"] == webhook.NOT_JSON


def test_a_large_answer_is_null_and_says_why() -> None:
    assert rendered(ended(State.SUCCEEDED, 200), b'"%b"' % (b"x" * webhook.PAYLOAD_MOST)) == {
        "status": "OK",
        "payload": None,
        "payload_error": webhook.TOO_LARGE,
    }


def test_numbers_are_sent_as_they_came() -> None:
    body = b'{"a": 1.10, "b": 123456789012345678901234567890}'

    assert body in webhook.render(ended(State.SUCCEEDED, 200), body)


@pytest.mark.parametrize(("about", "user"), [({"user_id": "key"}, "key"), ({}, "local"), ({"user_id": ""}, "local")])
def test_the_headers_vouch_for_id_user_time_and_body(about: dict[str, str], user: str) -> None:
    signed: list[bytes] = []

    def sign(message: bytes) -> str:
        signed.append(message)
        return "ab" * 64

    found = webhook.headers(Webhook("https://a.example/", "fal", about), "the-id", 1_795_824_437, b"{}", sign=sign)

    assert signed == [f"the-id\n{user}\n1795824437\n{hashlib.sha256(b'{}').hexdigest()}".encode()]
    assert found == {
        "X-Fal-Webhook-Request-Id": "the-id",
        "X-Fal-Webhook-User-Id": user,
        "X-Fal-Webhook-Timestamp": "1795824437",
        "X-Fal-Webhook-Signature": "ab" * 64,
    }
