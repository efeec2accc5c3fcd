"""Webhooks that fal's JavaScript client asks for, and Node as their receiver's means to check them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from tests.support.fal_js import FalError, FalJs, Node, run
from tests.support.fal_place import Place, place
from tests.support.installation import TOKEN, await_condition
from tests.support.own_target import Call, OwnTarget, Reply

ANSWER = {"prompt": "ein Käse 🧀", "seed": 7}


@pytest.fixture(scope="module")
def the_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    secret = f"whsec_{base64.b64encode(bytes(range(32))).decode()}"
    with place(tmp_path_factory.mktemp("place"), webhook_secret=secret, webhook_allow_private=True) as made:
        made.installation.webhooks(10)
        yield made


@pytest.fixture(params=["middleware", "proxy"])
def fal(request: pytest.FixtureRequest, the_place: Place) -> Iterator[FalJs]:
    with Node(FAL_KEY=TOKEN) as node:
        yield FalJs(node, request.param, the_place.url)


@pytest.mark.parametrize("status", [200, 422])
def test_a_webhook_brings_the_answer_and_node_can_check_its_signature(
    fal: FalJs, the_place: Place, app: str, status: int
) -> None:
    receiver, received = OwnTarget(), []

    def take(call: Call) -> Reply:
        received.append(call)
        return 200, b""

    receiver.act = take
    try:
        hook = f"{receiver.url}/hook?for=ann&more=1"
        submitted = fal.submit(app, input={"answer": {"status": status, "body": ANSWER}}, webhookUrl=hook)
        await_condition(lambda: received, what="the webhook arrives")
    finally:
        receiver.stop()
    (delivery,) = received
    content = json.loads(delivery.body)

    assert delivery.path == "/hook?for=ann&more=1"
    assert delivery.headers["content-type"].startswith("application/json")
    assert content["request_id"] == delivery.headers["x-fal-webhook-request-id"] == submitted["request_id"]
    assert content["gateway_request_id"] == submitted["gateway_request_id"]
    assert content["payload"] == ANSWER
    assert content["status"] == ("OK" if status == 200 else "ERROR")
    assert content.get("error") == (None if status == 200 else "Invalid status code: 422")

    jwks = the_place.get(f"{the_place.url}/.well-known/jwks.json").text
    body = delivery.body.decode()
    deliveries = [
        {"headers": delivery.headers, "body": text} for text in (body, body.replace("seed", "sead"), f"{body} ")
    ]
    assert json.loads(run("webhook.mjs", JWKS=jwks, DELIVERIES=json.dumps(deliveries))) == [True, False, False]


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/hook", "http://ann:secret@127.0.0.1/hook", "hook"])
def test_a_webhook_that_cannot_be_delivered_is_refused_at_the_submit(fal: FalJs, app: str, url: str) -> None:
    with pytest.raises(FalError) as raised:
        fal.submit(app, input={}, webhookUrl=url)

    assert raised.value.status == 400
    assert raised.value.body["error_type"] == "bad_request"
    assert raised.value.message == raised.value.body["detail"]
