"""What fal's JavaScript client throws, and what its users can read in it."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace

import pytest

from tests.support.fal_js import FalError, FalJs, Node
from tests.support.fal_place import Place, Stage, occupied
from tests.support.installation import TOKEN

FIELDS = [{"loc": ["body", "prompt"], "msg": "field required", "type": "value_error.missing"}]
LOOKS = ["status", "result", "cancel", "streamStatus"]


def error_of(fal: FalJs, call: str, app: str, **options: object) -> FalError:
    with pytest.raises(FalError) as raised:
        fal.begin(call, app, **options).result()
    return raised.value


# -------------------------------------------------------------------------------------------------- of the target
@pytest.mark.parametrize("call", ["subscribe", "run"])
def test_a_validation_error_of_the_target_has_its_fields(fal: FalJs, app: str, call: str) -> None:
    asked = {"answer": {"status": 422, "body": {"detail": FIELDS}}}
    error = error_of(fal, call, app, input=asked, pollInterval=20)

    assert error.name == "ValidationError"
    assert error.status == 422
    assert error.body == {"detail": FIELDS}
    assert error.field_errors == FIELDS
    assert uuid.UUID(error.request_id)
    assert error.is_user_timeout is False


def test_a_validation_error_in_one_sentence_is_one_of_the_body(plain: FalJs, app: str) -> None:
    asked = {"answer": {"status": 422, "body": {"detail": "no cats"}}}
    error = error_of(plain, "subscribe", app, input=asked, mode="streaming")

    assert error.field_errors == [{"loc": ["body"], "msg": "no cats", "type": "value_error"}]


@pytest.mark.parametrize("status", [400, 403, 418, 500])
def test_other_errors_of_the_target_are_the_result(plain: FalJs, app: str, status: int) -> None:
    asked = {"answer": {"status": status, "body": {"detail": "too many cats", "message": "cats!"}}}
    request_id = plain.submit(app, input=asked)["request_id"]
    done = plain.ended(app, request_id)
    error = error_of(plain, "result", app, requestId=request_id)

    assert done["error"]
    assert error.name == "ApiError"
    assert error.status == status
    assert error.body == {"detail": "too many cats", "message": "cats!"}
    assert error.message == "cats!"
    assert error.request_id == request_id


# --------------------------------------------------------------------------------------------------- of the queue
@pytest.mark.parametrize("call", LOOKS)
@pytest.mark.parametrize("request_id", ["11111111-2222-4333-8444-555555555555", "no-uuid"])
def test_an_unknown_id_is_a_404(fal: FalJs, app: str, call: str, request_id: str) -> None:
    error = error_of(fal, call, app, requestId=request_id)

    assert error.name == "ApiError"
    assert error.status == 404
    assert error.body["detail"]
    assert error.message == error.body["detail"]


@pytest.mark.parametrize("call", LOOKS)
def test_another_endpoints_request_is_a_404(plain: FalJs, app: str, call: str) -> None:
    request_id = plain.submit(app, input={})["request_id"]
    plain.ended(app, request_id)

    assert error_of(plain, call, f"{app}x", requestId=request_id).status == 404


@pytest.mark.parametrize("credentials", [None, f"{TOKEN}x"])
@pytest.mark.parametrize("call", ["submit", "run", *LOOKS])
def test_without_a_token_nothing_goes(fal: FalJs, app: str, call: str, credentials: str | None) -> None:
    stranger = replace(fal, credentials=credentials)
    options = {"requestId": str(uuid.uuid4())} if call in LOOKS else {"input": {"prompt": "a cat"}}
    error = error_of(stranger, call, app, **options)

    assert error.name == "ApiError"
    assert error.status == 401
    assert error.body["detail"]
    assert error.message == error.body["detail"]


def test_what_the_client_asks_of_fals_other_hosts_ends_at_the_proxy(node: Node, the_place: Place, app: str) -> None:
    """A Blob in an input is uploaded to fal's storage first, with the token; a proxy alone stands in its way."""
    error = error_of(FalJs(node, "proxy", the_place.url), "upload", app)

    assert error.status == 412
    assert "https://rest.fal.ai/" in error.message


def test_a_result_before_the_end_is_a_400(fal: FalJs, stage: Stage, app: str) -> None:
    with occupied(fal, stage, app) as request_id:
        error = error_of(fal, "result", app, requestId=request_id)

    assert error.status == 400
    assert error.body["detail"] == error.message == "Request is still in progress"
    assert error.request_id == request_id


def test_the_result_of_a_cancelled_request_is_a_499(fal: FalJs, stage: Stage, app: str) -> None:
    with occupied(fal, stage, app):
        call = fal.begin("subscribe", app, input={}, mode="streaming")
        request_id = call.request_id()
        fal.cancel(app, request_id)
        with pytest.raises(FalError) as raised:
            call.result()

    error = raised.value
    assert error.name == "ApiError"
    assert error.status == 499
    assert error.body["error_type"] == "client_cancelled"
    assert error.message == error.body["detail"] == "Request was cancelled"
    assert error.request_id == request_id


def test_a_cancel_after_the_end_is_a_400(fal: FalJs, app: str) -> None:
    request_id = fal.submit(app, input={})["request_id"]
    fal.ended(app, request_id)
    error = error_of(fal, "cancel", app, requestId=request_id)

    assert error.status == 400
    assert error.body["status"] == "ALREADY_COMPLETED"
    assert error.message == error.body["detail"]


def test_a_missed_start_deadline_is_a_timeout_of_the_users_own(fal: FalJs, stage: Stage, app: str) -> None:
    with occupied(fal, stage, app):
        call = fal.begin("subscribe", app, input={"hold": app}, startTimeout=1.1, mode="streaming", logs=True)
        last = call.until(lambda update: update["status"] == "COMPLETED")
        ended_s = time.monotonic()
        with pytest.raises(FalError) as raised:
            call.result()
        took_s = time.monotonic() - ended_s

    error = raised.value
    assert last["error"]
    assert last["error_type"] == "request_timeout"
    assert error.status == 504
    assert error.is_user_timeout is True
    assert error.timeout_type == "user"
    assert error.body["error_type"] == "request_timeout"
    assert error.request_id == call.request_id()
    assert took_s < 0.5, "the client has not tried again"
    assert not stage.has_seen(app)
