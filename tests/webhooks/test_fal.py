"""fal's webhooks from the submit to the receiver, which checks them by the steps that fal publishes."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.support.front import Answer, Front
from tests.support.installation import TOKEN, await_condition
from tests.support.own_target import Call, OwnTarget
from tests.support.receiver import Delivery, Receiver
from tests.webhooks.conftest import KEY


def post(front: Front, path: str, token: str = TOKEN, **headers: str) -> Answer:
    sent = {"Authorization": f"Key {token}", "Content-Type": "application/json"} | headers
    return front.call("POST", f"/fal/{path}", "{}", sent)


def submit(front: Front, receiver: Receiver, path: str, token: str = TOKEN, **headers: str) -> str:
    joined = "&" if "?" in path else "?"
    answer = post(front, f"{path}{joined}fal_webhook={quote(receiver.url + '/hook?key=1', safe='')}", token, **headers)
    assert answer.status == 200, answer.body
    return str(answer.json["request_id"])


def await_delivery(receiver: Receiver, request_id: str, count: int = 1) -> Delivery:
    """The last of *count*."""

    def there() -> list[Delivery] | None:
        found = receiver.of(request_id)
        return found if len(found) >= count else None

    found: list[Delivery] = await_condition(there, what=f"{count} deliveries of {request_id}")
    return found[-1]


def verified(front: Front, delivery: Delivery) -> Any:
    """Its content. Raises InvalidSignature, KeyError or AssertionError for what a receiver refuses."""
    names = ("request-id", "user-id", "timestamp", "signature")
    request_id, user_id, timestamp, signature = (delivery.headers[f"x-fal-webhook-{name}"] for name in names)
    assert abs(time.time() - int(timestamp)) <= 300 and user_id
    message = "\n".join((request_id, user_id, timestamp, hashlib.sha256(delivery.body).hexdigest())).encode()
    for key in front.call("GET", "/.well-known/jwks.json", token=None).json["keys"]:
        public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"]))
        try:
            public.verify(bytes.fromhex(signature), message)
        except InvalidSignature:
            continue
        return json.loads(delivery.body)
    raise InvalidSignature


def test_the_end_is_told_and_can_be_verified(front: Front, receiver: Receiver, own_target: OwnTarget) -> None:
    own_target.act = lambda call: (200, b'{"images": [1.0]}')

    request_id = submit(front, receiver, "acme/own/v1")
    delivery = await_delivery(receiver, request_id)

    assert (delivery.path, delivery.headers["content-type"]) == ("/hook?key=1", "application/json")
    assert verified(front, delivery) == {
        "request_id": request_id,
        "gateway_request_id": request_id,
        "status": "OK",
        "payload": {"images": [1.0]},
    }
    with pytest.raises(InvalidSignature):
        verified(front, Delivery(delivery.path, delivery.headers, delivery.body + b" "))


@pytest.mark.parametrize(("token", "user"), [(KEY, "a-key-id"), (TOKEN, "local")])
def test_the_receiver_is_told_whose_it_is_and_no_secret(
    front: Front, receiver: Receiver, token: str, user: str
) -> None:
    delivery = await_delivery(receiver, submit(front, receiver, "acme/demo", token))

    assert delivery.headers["x-fal-webhook-user-id"] == user
    assert token.rpartition(":")[2] not in str(delivery.headers) + delivery.body.decode()
    verified(front, delivery)


def test_it_says_what_the_result_says(front: Front, receiver: Receiver, own_target: OwnTarget) -> None:
    detail = {"detail": [{"loc": ["body", "prompt"], "msg": "field required", "type": "missing"}]}
    own_target.act = lambda call: (422, json.dumps(detail).encode())
    ids = {
        "acme/own": submit(front, receiver, "acme/own"),
        "acme/nowhere": submit(front, receiver, "acme/nowhere"),
        "acme/single": submit(front, receiver, "acme/single?hang=1"),
    }
    late = submit(front, receiver, "acme/single", **{"X-Fal-Request-Timeout": "0.2"})
    codes = {}
    for name, request_id in [("acme/single", late), *ids.items()]:
        key = {"Authorization": f"Key {TOKEN}"}
        if request_id == ids["acme/single"]:
            front.call("PUT", f"/fal/{name}/requests/{request_id}/cancel", None, key)
        content = verified(front, await_delivery(receiver, request_id))
        result = front.call("GET", f"/fal/{name}/requests/{request_id}", None, key)
        assert (content["status"], content["error"]) == ("ERROR", f"Invalid status code: {result.status}")
        assert content["payload"] == result.json
        codes[request_id] = result.status

    assert [codes[each] for each in (*ids.values(), late)] == [422, 503, 499, 504]


def test_an_answer_that_is_no_json_is_left_out(front: Front, receiver: Receiver, own_target: OwnTarget) -> None:
    own_target.act = lambda call: (200, b"\x89PNG", {"Content-Type": "image/png"})

    content = verified(front, await_delivery(receiver, submit(front, receiver, "acme/own")))

    assert (content["status"], content["payload"]) == ("OK", None)
    assert content["payload_error"].startswith("Response payload is not JSON serializable.")


def test_a_receiver_that_fails_is_told_again_and_signed_anew(front: Front, receiver: Receiver) -> None:
    statuses = iter([500, 302, 200])
    receiver.act = lambda delivery: next(statuses)

    request_id = submit(front, receiver, "acme/demo")
    await_delivery(receiver, request_id, 3)

    contents = [verified(front, delivery) for delivery in receiver.of(request_id)]
    assert contents == contents[:1] * 3


def test_the_target_hears_nothing_of_it(front: Front, receiver: Receiver, own_target: OwnTarget) -> None:
    calls: list[Call] = []

    def act(call: Call) -> tuple[int, bytes]:
        calls.append(call)
        return 200, b"{}"

    own_target.act = act
    await_delivery(receiver, submit(front, receiver, "acme/own/path?a=1"))

    assert calls[0].path == "/path?a=1"
    assert receiver.url not in json.dumps([calls[0].headers, calls[0].body.decode()])


@pytest.mark.parametrize(
    "query",
    [
        "fal_webhook=",
        "fal_webhook=ftp%3A%2F%2Freceiver.example%2F",
        "fal_webhook=http%3A%2F%2Fuser%3Apassword%40receiver.example%2F",
        "fal_webhook=hook",
        "fal_webhook=http%3A%2F%2Fa.example&fal_webhook=http%3A%2F%2Fb.example",
    ],
)
def test_what_can_be_no_receiver_is_refused(front: Front, query: str) -> None:
    answer = post(front, f"acme/demo?{query}")

    assert (answer.status, answer.json["error_type"]) == (400, "bad_request")
    assert "webhook" in answer.json["detail"] and "password@" not in answer.json["detail"]


def test_of_what_is_not_to_be_stored_the_end_is_told_all_the_same(
    front: Front, receiver: Receiver, own_target: OwnTarget
) -> None:
    own_target.act = lambda call: (200, b'{"a": 1}')

    request_id = submit(front, receiver, "acme/own", **{"X-Fal-Store-IO": "0"})

    assert verified(front, await_delivery(receiver, request_id))["payload"] == {"a": 1}
