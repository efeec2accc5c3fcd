"""fal's official Python client when there is a queue before it, when it leaves early, and when the web is away."""

from __future__ import annotations

import base64
import hashlib
import json
import signal
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.support import fal_sdk
from tests.support.fal_sdk import QUICK_S, Calling, FalClient, FalError, House
from tests.support.installation import TOKEN, await_condition
from tests.support.receiver import Receiver

LEAVES_WITHIN_S = 3.0
KEY = {"FAL_KEY_ID": "local-key", "FAL_KEY_SECRET": "00112233445566778899aabbccddeeff"}
SECRET = f"whsec_{base64.b64encode(bytes(range(32))).decode()}"


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    keys = f"{TOKEN},{':'.join(KEY.values())}"
    hooks = {"webhook_secret": SECRET, "webhook_allow_private": "true"}
    with fal_sdk.house("http", api_tokens=keys, stop_grace_s=1, **hooks) as made:
        yield made


@pytest.fixture(params=["sync", "async"])
def client(house: House, request: pytest.FixtureRequest) -> FalClient:
    return house.sdks["http"].client(request.param)


@pytest.fixture
def app() -> str:
    return fal_sdk.new_app()


@pytest.fixture
def name() -> str:
    """What calls are held by."""
    return uuid.uuid4().hex


def test_the_third_of_three_sees_the_queue_shrink_before_it(
    house: House, client: FalClient, app: str, name: str
) -> None:
    holds = [f"{name}{n}" for n in range(3)]
    handles = [client.submit(app, ["hold", hold]) for hold in holds]
    events = client.begin("iter_events", on=handles[2], with_logs=True, interval=QUICK_S)
    seen = [events.until("Queued")]

    for released, next_one, kind in ((0, 1, "Queued"), (1, 2, "InProgress")):
        house.target.await_held(holds[released])
        house.target.release(holds[released])
        house.target.await_held(holds[next_one])
        seen.append(events.until(kind, **({"position": 0} if kind == "Queued" else {})))
    house.target.release(holds[2])
    seen += events.rest()[0]

    assert seen[0]["position"] == 1
    assert [(event["is"], event.get("position")) for event in changes(seen)] == [
        ("Queued", 1),
        ("Queued", 0),
        ("InProgress", None),
        ("Completed", None),
    ]
    assert client.get(handles[2])["headers"]["x-fal-request-id"] == handles[2].request_id


def changes(events: list[dict[str, object]]) -> list[dict[str, object]]:
    return [event for before, event in zip([{}, *events], events, strict=False) if event != before]


def test_nobody_waits_behind_a_request_that_was_cancelled(house: House, client: FalClient, app: str, name: str) -> None:
    running = client.submit(app, ["hold", name])
    house.target.await_held(name)
    cancelled, last = client.submit(app), client.submit(app)
    events = client.begin("iter_events", on=last, interval=QUICK_S)
    assert events.until("Queued")["position"] == 1

    client.call("cancel", on=cancelled)

    events.until("Queued", position=0)
    completed = client.ended(cancelled)
    with pytest.raises(FalError) as caught:
        client.get(cancelled)
    house.target.release(name)
    assert client.get(running) and client.get(last)
    assert (completed["error_type"], caught.value.status_code) == ("client_cancelled", 499)
    assert house.target.calls(cancelled.request_id) == []


def test_a_key_of_two_parts_is_one_token(house: House, app: str) -> None:
    with fal_sdk.over_http(house.installation.port, env=KEY) as sdk:
        clients = [sdk.client(kind) for kind in ("sync", "async")]

        assert all("x-fal-request-id" in client.get(client.submit(app))["headers"] for client in clients)


@pytest.fixture
def receiver(house: House) -> Iterator[Receiver]:
    """Somebody to be told by webhook, and the process that does it."""
    house.installation.webhooks()
    made = Receiver()
    yield made
    made.close()


def test_a_webhook_tells_what_the_result_is(house: House, receiver: Receiver, name: str) -> None:
    (key,) = house.installation.session.get(f"{house.installation.url}/.well-known/jwks.json").json()["keys"]
    public_key = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"]))
    expected: dict[str, dict[str, Any]] = {}
    for kind in ("sync", "async"):
        client = house.sdks["http"].client(kind)
        for status, answer in ((200, {"seed": 7}), (422, {"detail": [{"msg": "no"}]})):
            steps = [["answer", status, answer]]
            handle = client.submit(fal_sdk.new_app(), *steps, webhook_url=f"{receiver.url}/told?by={kind}&is=%C3%BC")
            failed = {"status": "ERROR", "error": f"Invalid status code: {status}"}
            expected[handle.request_id] = {"payload": answer, **({"status": "OK"} if status == 200 else failed)}
        app = fal_sdk.new_app()
        client.submit(app, ["hold", f"{name}{kind}"])
        house.target.await_held(f"{name}{kind}")
        handle = client.submit(app, webhook_url=f"{receiver.url}/told")
        client.call("cancel", on=handle)
        expected[handle.request_id] = {"status": "ERROR", "error": "Invalid status code: 499"}

    await_condition(lambda: len(receiver.deliveries) >= len(expected), what="all are told")

    assert len(receiver.deliveries) == len(expected)
    for delivery in receiver.deliveries:
        content = json.loads(delivery.body)
        assert content["gateway_request_id"]
        assert expected[content["request_id"]].items() <= content.items()
        assert delivery.headers["content-type"] == "application/json"
        given = [delivery.headers[f"x-fal-webhook-{part}"] for part in ("request-id", "user-id", "timestamp")]
        assert given[0] == content["request_id"]
        assert abs(time.time() - int(given[2])) < 300
        text = "\n".join([*given, hashlib.sha256(delivery.body).hexdigest()])
        public_key.verify(bytes.fromhex(delivery.headers["x-fal-webhook-signature"]), text.encode())
    assert {delivery.path for delivery in receiver.deliveries} >= {"/told?by=sync&is=%C3%BC", "/told"}


# ------------------------------------------------------------------------------------------------- clients that leave


def test_the_interpreter_ends_after_client_timeouts(house: House, name: str) -> None:
    # Threads of the client go on asking, and the interpreter waits for them: until their requests have ended.
    others = house.sdks["http"].client("sync")
    apps = {(kind, state): fal_sdk.new_app() for kind in ("sync", "async") for state in ("waits", "runs")}
    for (kind, state), app in apps.items():
        if state == "waits":
            others.submit(app, ["hold", f"{name}{kind}"])
            house.target.await_held(f"{name}{kind}")
    with fal_sdk.over_http(house.installation.port) as sdk:
        for kind in ("sync", "async"):
            client = sdk.client(kind)
            client.get(client.submit(fal_sdk.new_app()))  # the first call of a process takes longer than others
        callings = {
            case: sdk.client(case[0]).begin(
                "subscribe", app, {"do": [["hold", app]]}, client_timeout=1.5, start_timeout=60
            )
            for case, app in apps.items()
        }
        for (_, state), app in apps.items():
            if state == "runs":
                house.target.await_held(app)
        ids = {}
        for case, calling in callings.items():
            with pytest.raises(FalError) as caught:
                calling.result()
            assert caught.value.name == "FalClientTimeoutError"
            ids[case] = caught.value.request_id
        began = time.monotonic()
        sdk.end(timeout_s=LEAVES_WITHIN_S)

    assert time.monotonic() - began < LEAVES_WITHIN_S
    for case, request_id in ids.items():
        handle = others.call("get_handle", apps[case], request_id)
        assert others.ended(handle)["error_type"] == "client_cancelled"
        assert len(house.target.calls(request_id)) == (0 if case[1] == "waits" else 1)


def test_a_client_that_leaves_cancels_nothing(house: House, app: str, name: str) -> None:
    with fal_sdk.over_http(house.installation.port) as sdk:
        calling = sdk.client("sync").begin("subscribe", app, {"do": [["hold", name]]}, told=True)
        request_id = calling.enqueued()
        house.target.await_held(name)
    others = house.sdks["http"].client("sync")
    handle = others.call("get_handle", app, request_id)

    house.target.release(name)

    assert others.get(handle)["headers"]["x-fal-request-id"] == request_id


# ------------------------------------------------------------------------------------------------- a web that leaves


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_asked_before_and_while_the_web_was_away_is_answered_after_it(
    house: House, name: str, signum: signal.Signals
) -> None:
    clients = [house.sdks["http"].client(kind) for kind in ("sync", "async")]
    callings: list[tuple[str, Calling]] = []
    for client in clients:
        app = fal_sdk.new_app()
        calling = client.begin("subscribe", app, {"do": [["hold", name]]}, told=True)
        request_id = calling.enqueued()
        callings += [(request_id, calling), (request_id, client.begin("result", app, request_id))]
        calling.until("InProgress")

    stop_web(house, signum)
    submits = [client.begin("submit", fal_sdk.new_app(), {}) for client in clients]
    house.target.release(name)
    house.restart_web()

    for request_id, calling in callings:
        assert calling.rest()[1]["headers"]["x-fal-request-id"] == request_id
        assert len(house.target.calls(request_id)) == 1
    for client, submit in zip(clients, submits, strict=True):
        handle = submit.result()
        assert client.get(handle)["headers"]["x-fal-request-id"] == handle.request_id


def begun_runs(house: House, name: str) -> list[tuple[FalClient, str, Calling]]:
    """One of each client, all of them held: the client, its app, the call."""
    found = []
    for kind in ("sync", "async"):
        client, app = house.sdks["http"].client(kind), fal_sdk.new_app()
        found.append((client, app, client.begin("run", app, {"do": [["hold", f"{name}{kind}"]]})))
        house.target.await_held(f"{name}{kind}")
    return found


def test_a_run_that_a_stopping_web_does_not_see_the_end_of_is_cancelled(house: House, name: str) -> None:
    runs = begun_runs(house, name)

    stop_web(house, signal.SIGTERM)
    house.target.release(f"{name}sync", f"{name}async")
    house.restart_web()

    for client, app, run in runs:
        with pytest.raises(FalError) as caught:
            run.result()
        request_id = caught.value.response_headers["x-fal-request-id"]
        assert caught.value.status_code == 503
        assert request_id in caught.value.text
        with pytest.raises(FalError) as cancelled:
            client.call("result", app, request_id)
        assert cancelled.value.status_code == 499
        assert len(house.target.calls(request_id)) == 1


def test_a_run_whose_web_is_killed_is_tried_again(house: House, name: str) -> None:
    runs = begun_runs(house, name)

    stop_web(house, signal.SIGKILL)
    house.restart_web()
    house.target.release(f"{name}sync", f"{name}async")

    for _, app, run in runs:
        answered = run.result()["headers"]["x-fal-request-id"]
        of_app = [call for call in house.target.calls() if call.path.endswith(fal_sdk.service_of(app))]
        first, second = [call.headers["x-fal-request-id"] for call in of_app]
        assert second == answered != first


def stop_web(house: House, signum: signal.Signals) -> None:
    """No web serves HTTP from now on."""
    if signum is signal.SIGKILL:
        house.web.kill()
    else:
        assert house.web.stop() == 0
    with pytest.raises(requests.ConnectionError):
        house.installation.session.get(house.installation.url, timeout=5)
