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

    def act(call: Call) -> tuple[int, bytes]:
        calls.append(call)
        return 200, b"{}"

    own_target.act = act

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


# ------------------------------------------------------------------------------------------------- who submits, and how
@pytest.mark.parametrize(
    "url", ["ftp://a.example/", "http://u:p@a.example/", "http://a.example/%20 b", "http://" + "x" * 2048, "", "a"]
)
def test_a_url_that_can_not_be_one_is_refused_and_nothing_stored(front: Front, url: str) -> None:
    before = front.stored()

    assert_problem(front.post(f"demo?_webhook_={quote(url, safe='')}"), 400, "invalid-request")

    assert front.stored() == before


def test_two_webhooks_are_refused(front: Front, receiver: Receiver) -> None:
    answer = front.post(f"demo?_webhook_={quote(receiver.url)}&_webhook_={quote(receiver.url)}")

    assert_problem(answer, 400, "invalid-request")


def test_a_key_that_is_used_for_another_webhook_is_a_conflict(front: Front, receiver: Receiver) -> None:
    headers = {"Idempotency-Key": "the-key"}
    first = front.post(f"demo?_webhook_={quote(receiver.url)}", headers=headers)
    again = front.post(f"demo?_webhook_={quote(receiver.url)}", headers=headers)
    other = front.post(f"demo?_webhook_={quote(receiver.url + '/other')}", headers=headers)

    assert first.request_id == again.request_id
    assert_problem(other, 422, "idempotency-conflict")


# -------------------------------------------------------------------------------------------------------- operators
def ask(front: Front, path: str, body: Any = None, **options: Any) -> Answer:
    method = "GET" if body is None else "POST"
    return front.call(
        method, f"/api/services/demo/webhooks{path}", None if body is None else json.dumps(body), **options
    )


def test_webhooks_are_listed_from_the_end_on_without_what_may_be_secret(front: Front, receiver: Receiver) -> None:
    first, second = submit(front, receiver), submit(front, receiver)
    for request_id in (first, second):
        await_state(front, request_id, "delivered")
    index = min(ask(front, f"/{each}").json["index"] for each in (first, second))  # they end in any order

    page = ask(front, f"?after={index - 1}&limit=2").json

    assert page["count"] >= 2
    assert {item["request_id"] for item in page["items"]} == {first, second}
    (item,) = (item for item in page["items"] if item["request_id"] == first)
    assert item == ask(front, f"/{first}").json
    assert (item["url"], item["style"]) == (f"{receiver.url}/hook", "native")
    assert item["delivered_at"].endswith("Z")
    assert (item["next_at"], item["last_error"], item["last_status_code"]) == (None, None, 204)


def test_a_request_that_has_not_ended_or_has_no_webhook_has_none(front: Front, receiver: Receiver) -> None:
    without = front.ended().request_id
    with front.occupied("single"):
        waits = submit(front, receiver, "single")
        answer = front.call("GET", f"/api/services/single/webhooks/{waits}")
        assert_problem(answer, 404, "webhook-not-found")
    for request_id in (without, "unknown"):
        assert_problem(ask(front, f"/{request_id}"), 404, "webhook-not-found")
    assert_problem(ask(front, f"/{without}/resend", {}), 404, "webhook-not-found")
    await_delivery(receiver, waits)


def test_a_delivered_webhook_is_delivered_again(front: Front, receiver: Receiver) -> None:
    request_id = submit(front, receiver)
    await_state(front, request_id, "delivered")

    answer = ask(front, f"/{request_id}/resend", {})

    assert (answer.status, answer.json["request_id"]) == (200, request_id)
    first, second = await_delivery(receiver, request_id, 1), await_delivery(receiver, request_id, 2)
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])


def test_all_that_were_given_up_are_delivered_again(front: Front, receiver: Receiver) -> None:
    receiver.act = lambda delivery: 410
    requests = [submit(front, receiver) for _ in range(3)]
    for request_id in requests:
        await_state(front, request_id, "failed")
    receiver.act = lambda delivery: 200

    done = ask(front, "/resend", {"state": "failed"}).json

    assert set(requests) <= set(done["request_ids"])
    assert (done["resent"], done["not_found"]) == (len(done["request_ids"]), [])
    for request_id in requests:
        assert await_state(front, request_id, "delivered")["attempts"] == 1


def test_named_ones_are_delivered_again_and_unknown_ones_named(front: Front, receiver: Receiver) -> None:
    request_id, other = submit(front, receiver), front.ended().request_id
    await_state(front, request_id, "delivered")

    done = ask(front, "/resend", {"request_ids": [request_id, other]}).json

    assert (done["request_ids"], done["not_found"], done["resent"]) == ([request_id], [other], 1)
    await_delivery(receiver, request_id, 2)


@pytest.mark.parametrize("content", [{}, {"state": "all"}, {"request_ids": "x"}, {"request_ids": [1]}, {"all": True}])
def test_which_ones_must_be_said(front: Front, content: Any) -> None:
    assert_problem(ask(front, "/resend", content), 400, "invalid-request")


def test_roles(front: Front, receiver: Receiver) -> None:
    request_id = submit(front, receiver)
    await_state(front, request_id, "delivered")

    def status(role: str, path: str, body: Any = None) -> int:
        return ask(front, path, body, token=f"may-do-nothing-but-{role}").status

    for path in ("", f"/{request_id}"):
        assert [status(role, path) for role in ("read", "submit", "admin")] == [200, 403, 403]
    for path in ("/resend", f"/{request_id}/resend"):
        body = {"request_ids": [request_id]}
        assert [status(role, path, body) for role in ("admin", "read", "submit")] == [200, 403, 403]
    assert ask(front, "", token=None).status == 401


def test_a_wrong_state_is_refused(front: Front) -> None:
    assert_problem(ask(front, "?state=pending"), 400, "invalid-request")


def test_anybody_gets_the_public_keys(front: Front) -> None:
    answer = front.call("GET", "/.well-known/jwks.json", token=None)

    assert (answer.status, answer.headers["Cache-Control"]) == (200, "public, max-age=3600")
    assert [(key["kty"], len(key["x"])) for key in answer.json["keys"]] == [("OKP", 44)] * 2


def test_the_health_page_tells_of_the_process(front: Front) -> None:
    (process,) = await_condition(lambda: front.call("GET", "/healthz").json["webhooks"])
    (worker,) = front.call("GET", "/healthz").json["workers"]

    assert (process["busy"], worker["seats"]) == (0, 100)
