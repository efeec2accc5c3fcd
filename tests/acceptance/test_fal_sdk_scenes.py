"""fal's official Python client when there is a queue before it, when it leaves early, and when the web is away."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Iterator

import pytest
import requests

from tests.support import fal_sdk
from tests.support.fal_sdk import QUICK_S, Calling, FalClient, FalError, House
from tests.support.installation import TOKEN

LEAVES_WITHIN_S = 3.0
KEY = {"FAL_KEY_ID": "local-key", "FAL_KEY_SECRET": "00112233445566778899aabbccddeeff"}


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with fal_sdk.house("http", api_tokens=f"{TOKEN},{':'.join(KEY.values())}", stop_grace_s=1) as made:
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


# ------------------------------------------------------------------------------------------------- clients that leave


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("state", ["waits", "runs"])
def test_the_interpreter_ends_after_a_client_timeout(house: House, app: str, name: str, kind: str, state: str) -> None:
    # The client's own thread goes on asking, and the interpreter waits for it: until the request has ended.
    others = house.sdks["http"].client("sync")
    if state == "waits":
        others.submit(app, ["hold", f"{name}0"])
        house.target.await_held(f"{name}0")
    with fal_sdk.over_http(house.installation.port) as sdk:
        calling = sdk.client(kind).begin(
            "subscribe", app, {"do": [["hold", name]]}, told=True, client_timeout=0.5, start_timeout=60
        )
        calling.enqueued()
        calling.until("Queued" if state == "waits" else "InProgress")
        with pytest.raises(FalError) as caught:
            calling.rest()

        began = time.monotonic()
        sdk.end(timeout_s=LEAVES_WITHIN_S)

    assert caught.value.name == "FalClientTimeoutError"
    assert time.monotonic() - began < LEAVES_WITHIN_S
    handle = others.call("get_handle", app, caught.value.request_id)
    assert others.ended(handle)["error_type"] == "client_cancelled"
    assert len(house.target.calls(caught.value.request_id)) == (0 if state == "waits" else 1)


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
    house.installation.web()

    for request_id, calling in callings:
        assert calling.rest()[1]["headers"]["x-fal-request-id"] == request_id
        assert len(house.target.calls(request_id)) == 1
    for client, submit in zip(clients, submits, strict=True):
        handle = submit.result()
        assert client.get(handle)["headers"]["x-fal-request-id"] == handle.request_id


def test_a_run_that_a_stopping_web_does_not_see_the_end_of_names_its_request(
    house: House, client: FalClient, app: str, name: str
) -> None:
    run = client.begin("run", app, {"do": [["hold", name]]})
    house.target.await_held(name)

    stop_web(house, signal.SIGTERM)
    house.target.release(name)
    with pytest.raises(FalError) as caught:
        run.result()
    house.installation.web()

    request_id = caught.value.response_headers["x-fal-request-id"]
    assert caught.value.status_code == 503
    assert request_id in caught.value.text
    assert client.call("result", app, request_id)["headers"]["x-fal-request-id"] == request_id
    assert len(house.target.calls(request_id)) == 1


def test_a_run_whose_web_is_killed_is_tried_again(house: House, client: FalClient, app: str, name: str) -> None:
    run = client.begin("run", app, {"do": [["hold", name]]})
    house.target.await_held(name)

    stop_web(house, signal.SIGKILL)
    house.installation.web()
    house.target.release(name)

    answered = run.result()["headers"]["x-fal-request-id"]
    first, second = [call.headers["x-fal-request-id"] for call in house.target.calls() if call.path.endswith(app[5:])]
    assert (second, len({first, second})) == (answered, 2)


def stop_web(house: House, signum: signal.Signals) -> None:
    """No web serves HTTP from now on."""
    web = next(process for process in reversed(house.installation.processes) if process.name == "web")
    if signum is signal.SIGKILL:
        web.kill()
    else:
        assert web.stop() == 0
    with pytest.raises(requests.ConnectionError):
        house.installation.session.get(house.installation.url, timeout=5)
