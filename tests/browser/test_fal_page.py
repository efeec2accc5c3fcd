"""fal's JavaScript client in a page on another origin: a real browser decides what the page may send and read."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.support.browser import Page
from tests.support.fal_js import FalError, FalJs, is_installed
from tests.support.fal_place import Place, Stage, occupied, place
from tests.support.installation import TOKEN

ANSWER = {"prompt": "ein Käse 🧀", "seed": 7}
WAYS = ("middleware", "fetch", "proxy")


@pytest.fixture(scope="module")
def the_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    assert is_installed(), "fal's JavaScript client is missing: `make test-browser` installs it"
    with place(tmp_path_factory.mktemp("place")) as made:
        yield made


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with Page() as made:
        yield made


@pytest.fixture
def stage(the_place: Place) -> Stage:
    return the_place.stage


@pytest.fixture(params=WAYS)
def fal(request: pytest.FixtureRequest, page: Page, the_place: Place) -> FalJs:
    """A page has no environment: the token stands in it."""
    return FalJs(page, request.param, the_place.url, credentials=TOKEN)


@pytest.fixture
def app(the_place: Place) -> Iterator[str]:
    name = f"local/t{uuid.uuid4().hex[:12]}"
    yield name
    the_place.stage.release(name)


def test_the_page_is_on_another_origin(page: Page, the_place: Place) -> None:
    assert page.origin != the_place.url


def test_submit_look_and_result(fal: FalJs, stage: Stage, app: str) -> None:
    with occupied(fal, stage, app):
        request_id = fal.submit(
            app,
            input={"answer": {"body": ANSWER}},
            priority="low",
            hint="lora-7",
            startTimeout=30,
            storageSettings={"expiresIn": "1h"},
        )["request_id"]
        assert fal.status(app, request_id, logs=True)["queue_position"] == 0
    call = fal.stream(app, request_id, logs=True)

    assert call.result() == {"done": call.updates[-1], "requestId": request_id}
    assert call.updates[-1]["status"] == "COMPLETED"
    assert fal.result(app, request_id) == {"data": ANSWER, "requestId": request_id}


@pytest.mark.parametrize("mode", ["polling", "streaming"])
def test_subscribe_with_logs(fal: FalJs, stage: Stage, app: str, mode: str) -> None:
    asked = {"hold": app, "answer": {"body": ANSWER}}
    call = fal.begin("subscribe", app, input=asked, mode=mode, logs=True, pollInterval=20)
    stage.await_call(app).report(logs=[{"message": "half way"}])
    call.until(lambda update: update["status"] == "IN_PROGRESS" and update["logs"])
    stage.release(app)

    assert call.result() == {"data": ANSWER, "requestId": call.request_id()}
    assert [entry["message"] for entry in call.updates[-1]["logs"]] == ["half way"]


def test_cancel(fal: FalJs, stage: Stage, app: str) -> None:
    request_id = fal.submit(app, input={"hold": app})["request_id"]
    stage.await_call(app)
    fal.cancel(app, request_id)

    assert fal.ended(app, request_id)["error_type"] == "client_cancelled"
    with pytest.raises(FalError) as raised:
        fal.result(app, request_id)
    assert raised.value.status == 499
    assert raised.value.request_id == request_id


def test_run(fal: FalJs, app: str) -> None:
    result = fal.begin("run", app, input={"answer": {"body": ANSWER}}).result()

    assert result["data"] == ANSWER
    assert uuid.UUID(result["requestId"])


def test_run_of_a_target_that_refuses(fal: FalJs, app: str) -> None:
    asked = {"answer": {"status": 422, "body": {"detail": "no cats"}}}
    with pytest.raises(FalError) as raised:
        fal.begin("run", app, input=asked).result()

    assert raised.value.name == "ValidationError"
    assert raised.value.body == {"detail": "no cats"}
    assert uuid.UUID(raised.value.request_id)


def test_a_missed_start_deadline_can_be_told_from_other_timeouts(fal: FalJs, stage: Stage, app: str) -> None:
    """Its header is one that a page may read only where the answer says so."""
    with occupied(fal, stage, app), pytest.raises(FalError) as raised:
        fal.begin("subscribe", app, input={}, startTimeout=1.1, mode="streaming").result()

    assert raised.value.status == 504
    assert raised.value.is_user_timeout is True


@pytest.mark.parametrize("credentials", [None, f"{TOKEN}x"])
@pytest.mark.parametrize("call", ["submit", "status", "streamStatus", "result", "cancel", "run"])
def test_a_page_without_a_token_is_told_why(fal: FalJs, app: str, call: str, credentials: str | None) -> None:
    stranger = replace(fal, credentials=credentials)
    with pytest.raises(FalError) as raised:
        stranger.begin(call, app, requestId=str(uuid.uuid4()), input={"prompt": "a cat"}).result()

    assert raised.value.status == 401
    assert raised.value.message == raised.value.body["detail"]
    assert raised.value.message


def test_unknown_ids_are_told_apart_from_what_a_browser_forbids(fal: FalJs, app: str) -> None:
    with pytest.raises(FalError) as raised:
        fal.status(app, str(uuid.uuid4()))

    assert raised.value.status == 404
    assert raised.value.body["detail"]
