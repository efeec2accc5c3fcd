"""Native webhooks from the submit to the receiver."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from standardwebhooks.webhooks import Webhook

from tests.support.front import Answer, Front, assert_problem
from tests.support.installation import await_condition
from tests.support.own_target import Call, OwnTarget
from tests.support.receiver import Delivery, Receiver
from tests.webhooks.conftest import OLD_SECRET, SECRET


def submit(front: Front, receiver: Receiver, path: str = "demo", **headers: str) -> str:
    joined = "&" if "?" in path else "?"
    return front.submit(f"{path}{joined}_webhook_={quote(receiver.url + '/hook?key=1', safe='')}", headers=headers)


def await_delivery(receiver: Receiver, request_id: str, count: int = 1) -> Delivery:
    """The last of *count*."""

    def there() -> list[Delivery] | None:
        found = receiver.of(request_id)
        return found if len(found) >= count else None

    found: list[Delivery] = await_condition(there, what=f"{count} deliveries of {request_id}")
    return found[-1]


def content(delivery: Delivery, secret: str = SECRET) -> Any:
    return Webhook(secret).verify(delivery.body, delivery.headers)


def await_state(front: Front, request_id: str, state: str, service: str = "demo") -> Any:
    def there() -> Any:
        answer = front.call("GET", f"/api/services/{service}/webhooks/{request_id}")
        return answer.json if answer.status == 200 and answer.json["state"] == state else None

    return await_condition(there, what=f"the webhook of {request_id} is {state}")


def test_a_webhook_is_the_status_as_it_is_shown(front: Front, receiver: Receiver) -> None:
    request_id = submit(front, receiver)

    delivery = await_delivery(receiver, request_id)

    assert delivery.path == "/hook?key=1"
    assert delivery.headers["content-type"] == "application/json"
    for secret in (SECRET, OLD_SECRET):
        found = content(delivery, secret)
        assert (found["type"], found["timestamp"]) == ("request.succeeded", found["data"]["finished_at"])
        assert found["data"] == front.look(request_id).json
    assert delivery.headers["webhook-id"] == request_id


@pytest.mark.parametrize(("status", "event"), [(200, "succeeded"), (500, "failed"), (503, "failed")])
def test_every_answer_of_the_target_is_told(
    front: Front, receiver: Receiver, own_target: OwnTarget, status: int, event: str
) -> None:
    own_target.act = lambda call: (status, b'{"a": 1}')

    found = content(await_delivery(receiver, submit(front, receiver, "own")))

    assert (found["type"], found["data"]["result"]["target_status_code"]) == (f"request.{event}", status)


def test_a_cancelled_request_is_told(front: Front, receiver: Receiver) -> None:
    with front.occupied("single"):
        request_id = submit(front, receiver, "single")
        front.delete(request_id, "single")

        assert content(await_delivery(receiver, request_id))["type"] == "request.cancelled"


def test_an_expired_request_is_told(front: Front, receiver: Receiver) -> None:
    with front.occupied("single"):
        request_id = submit(front, receiver, "single", **{"X-Deadline": "0.1"})

        assert content(await_delivery(receiver, request_id))["type"] == "request.expired"


def test_links_are_absolute_where_the_installation_knows_its_url(
    front: Front, receiver: Receiver, own_target: OwnTarget
) -> None:
    own_target.act = lambda call: (200, json.dumps("x" * 70_000).encode())

    request_id = submit(front, receiver, "own")

    found = content(await_delivery(receiver, request_id))
    assert found["data"]["result"]["body_url"] == (f"http://queue.example/api/predict/own/requests/{request_id}/result")


def test_the_target_hears_nothing_of_the_webhook(front: Front, receiver: Receiver, own_target: OwnTarget) -> None:
    calls: list[Call] = []
    own_target.act = lambda call: (calls.append(call), (200, b"{}"))[1]

    await_delivery(receiver, submit(front, receiver, "own/path?a=1"))

    assert calls[0].path == "/path?a=1"
    assert receiver.url not in json.dumps([calls[0].headers, calls[0].body.decode()])


def test_a_receiver_that_fails_is_asked_again(front: Front, receiver: Receiver) -> None:
    receiver.act = lambda delivery: 500 if len(receiver.of(delivery.request_id)) < 3 else 200
    request_id = submit(front, receiver)

    await_delivery(receiver, request_id, 3)

    found = await_state(front, request_id, "delivered")
    assert (found["attempts"], found["last_status_code"], found["last_error"]) == (3, 200, None)
    assert [content(each)["type"] for each in receiver.of(request_id)] == ["request.succeeded"] * 3
    times = [each.at_s for each in receiver.of(request_id)]
    assert 0.09 <= times[1] - times[0] <= 2
    assert 0.18 <= times[2] - times[1] <= 2


def test_after_the_last_pause_it_is_given_up_and_listed(front: Front, receiver: Receiver) -> None:
    receiver.act = lambda delivery: 500
    request_id = submit(front, receiver)

    await_delivery(receiver, request_id, 4)

    found = await_state(front, request_id, "failed")
    assert (found["attempts"], found["last_error"], found["next_at"]) == (4, "the receiver answered 500", None)
    listed = front.call("GET", "/api/services/demo/webhooks?state=failed").json
    assert request_id in [item["request_id"] for item in listed["items"]]


def test_410_ends_it_at_once(front: Front, receiver: Receiver) -> None:
    receiver.act = lambda delivery: 410
    request_id = submit(front, receiver)

    assert await_state(front, request_id, "failed")["attempts"] == 1


def test_a_retried_request_is_told_of_once(front: Front, receiver: Receiver, own_target: OwnTarget) -> None:
    request_id = submit(front, receiver)
    again = submit(front, receiver)

    await_delivery(receiver, again)
    await_state(front, request_id, "delivered")

    assert len(receiver.of(request_id)) == len(receiver.of(again)) == 1
