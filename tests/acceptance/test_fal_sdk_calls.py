"""Every call of fal's official Python client answers what its users expect: both clients, over HTTP and over TLS.

The client is used as it is: over HTTP its constants are set after its import, over TLS its environment points here.
Each test has an app of its own, which is a service of its own with one slot.
"""

from __future__ import annotations

import base64
import datetime
import json
import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import fal_sdk
from tests.support.fal_sdk import QUICK_S, FalClient, Handle, House
from tests.support.installation import await_condition
from tests.support.own_target import Call

SERVICES = f"""{fal_sdk.SERVICES}
    [services.painter]
    aliases = ["acme/paint-v2"]
"""
LEAST_S = 1.01  # the client refuses a start timeout of 1 and less
WAYS = [f"{way}-{kind}" for way in ("http", "tls") for kind in ("sync", "async")]


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    hooks = {"webhook_secret": f"whsec_{base64.b64encode(bytes(32)).decode()}", "webhook_allow_private": True}
    with fal_sdk.house("http", "tls", services_toml=SERVICES, **hooks) as made:
        yield made


@pytest.fixture(params=WAYS)
def client(house: House, request: pytest.FixtureRequest) -> FalClient:
    way, _, kind = request.param.partition("-")
    return house.sdks[way].client(kind)


@pytest.fixture(params=["sync", "async"])
def http_client(house: House, request: pytest.FixtureRequest) -> FalClient:
    """For what takes its time."""
    return house.sdks["http"].client(request.param)


@pytest.fixture
def app() -> str:
    return fal_sdk.new_app()


@pytest.fixture
def name() -> str:
    """What a call is held by."""
    return uuid.uuid4().hex


def base_url(house: House, client: FalClient) -> str:
    """Where the client looks for its queue."""
    if client.sdk is house.sdks["tls"]:
        return f"https://127.0.0.1:{house.tls_port}/fal"
    return f"http://127.0.0.1:{house.installation.port}/fal"


def only_call(house: House, request_id: str) -> Call:
    (call,) = house.target.calls(request_id)
    return call


# ------------------------------------------------------------------------------------------------------------ submit


def test_what_was_submitted_reaches_the_target_and_its_answer_comes_back(
    house: House, client: FalClient, app: str
) -> None:
    arguments = {"prompt": "Äpfel & \u2028", "steps": [1, 2.5, None, True], "nested": {"a": {}}}

    handle = client.call("submit", app, arguments)

    answer = client.get(handle)
    assert answer["input"] == arguments
    assert answer["path"] == f"/api/predict/{fal_sdk.service_of(app)}"
    assert answer["headers"]["x-fal-request-id"] == answer["headers"]["x-request-id"] == handle.request_id
    assert "authorization" not in answer["headers"]


def test_every_parameter_of_submit_is_heeded(house: House, client: FalClient, app: str) -> None:
    handle = client.submit(
        app,
        path="/v1/paint",
        hint="the warm one",
        priority="low",
        start_timeout=30,
        headers={"X-Fal-Store-IO": "0", "X-Of-Mine": "kept"},
        webhook_url=f"{house.target.url}/told?by=fal&more=1",
    )

    answer = client.get(handle)
    assert answer["path"] == f"/api/predict/{fal_sdk.service_of(app)}/v1/paint"
    assert answer["headers"]["x-fal-runner-hint"] == "the warm one"
    assert answer["headers"]["x-of-mine"] == "kept"


def test_an_alias_of_the_services_file_names_its_service(client: FalClient) -> None:
    handle = client.submit("acme/paint-v2/fast")

    assert client.get(handle)["path"] == "/api/predict/painter/fast"


@pytest.mark.parametrize(
    ("submitted", "path", "place"),
    [
        ("acme/{}", "", "acme/{}"),
        ("acme/{}", "v1/paint", "acme/{}"),
        ("acme/{}/v1/paint", "", "acme/{}"),
        ("workflows/acme/{}", "", "workflows/acme/{}"),
        ("comfy/acme/{}/v1", "", "comfy/acme/{}"),
        ("1714827-{}", "", "1714827/{}"),
    ],
)
def test_the_handle_of_an_id_equals_the_one_that_submit_returned(
    house: House, client: FalClient, submitted: str, path: str, place: str
) -> None:
    alias = f"t{uuid.uuid4().hex}"
    app = submitted.format(alias)

    handle = client.submit(app, path=path)

    found = client.call("get_handle", app, handle.request_id)
    url = f"{base_url(house, client)}/{place.format(alias)}/requests/{handle.request_id}"
    assert client.sdk.are_equal(handle, found)
    assert (found.response_url, found.status_url, found.cancel_url) == (url, f"{url}/status", f"{url}/cancel")
    assert client.get(found)["headers"]["x-fal-request-id"] == handle.request_id
    assert client.call("result", app, handle.request_id) == client.get(handle)


def test_normal_goes_before_low(house: House, client: FalClient, app: str, name: str) -> None:
    first = client.submit(app, ["hold", name])
    house.target.await_held(name)
    waiting = [client.submit(app, priority=priority) for priority in ("low", "normal", "low", None)]
    positions = [client.status(handle)["position"] for handle in waiting]

    house.target.release(name)

    for handle in [first, *waiting]:
        client.get(handle)
    service = fal_sdk.service_of(app)
    order = [call.headers["x-fal-request-id"] for call in house.target.calls() if service in call.path]
    assert positions == [2, 0, 3, 1]
    assert order == [first.request_id, *(waiting[n].request_id for n in (1, 3, 0, 2))]


# ------------------------------------------------------------------------------------------------------------ status


def test_status_follows_a_request_through_its_three_states(
    house: House, client: FalClient, app: str, name: str
) -> None:
    first, second = (client.submit(app, ["hold", f"{name}{n}"]) for n in range(2))
    house.target.await_held(f"{name}0")

    running, waiting = client.status(first), client.call("status", app, second.request_id)
    house.target.release(f"{name}0")
    house.target.await_held(f"{name}1")
    now_running = client.status(second)
    house.target.release(f"{name}1")
    completed = client.ended(second)

    assert waiting == {"is": "Queued", "position": 0}
    assert running == now_running == {"is": "InProgress", "logs": None}
    inference_time = completed["metrics"].pop("inference_time")
    assert completed == {"is": "Completed", "logs": None, "metrics": {}, "error": None, "error_type": None}
    assert isinstance(inference_time, float) and 0 < inference_time < 10


def test_logs_come_when_asked_for_and_all_of_them_each_time(
    house: House, client: FalClient, app: str, name: str
) -> None:
    began = datetime.datetime.now(datetime.UTC)
    handle = client.submit(app, ["log", "one", "zwei \u00e4"], ["hold", name], ["log", "three"])
    house.target.await_held(name)

    without, with_logs = client.status(handle), client.status(handle, with_logs=True)
    house.target.release(name)
    completed = client.ended(handle, with_logs=True)

    assert without["logs"] is None
    assert [entry["message"] for entry in with_logs["logs"]] == ["one", "zwei \u00e4"]
    assert [entry["message"] for entry in completed["logs"]] == ["one", "zwei \u00e4", "three"]
    assert client.status(handle)["logs"] is None
    for entry in completed["logs"]:
        when = datetime.datetime.fromisoformat(entry["timestamp"])
        when = when.replace(tzinfo=when.tzinfo or datetime.UTC)
        assert abs(when - began) < datetime.timedelta(seconds=30)
        assert (entry["level"], entry["source"]) == ("INFO", "USER")


def test_logs_that_were_asked_for_are_a_list_though_there_are_none(
    house: House, client: FalClient, app: str, name: str
) -> None:
    handle = client.submit(app, ["hold", name])
    house.target.await_held(name)

    running = client.status(handle, with_logs=True)
    house.target.release(name)

    assert running == {"is": "InProgress", "logs": []}
    assert client.ended(handle, with_logs=True)["logs"] == []


def test_iter_events_ends_with_completed(house: House, client: FalClient, app: str, name: str) -> None:
    handle = client.submit(app, ["log", "drawing"], ["hold", name])
    events = client.begin("iter_events", on=handle, with_logs=True, interval=QUICK_S)
    running = events.until("InProgress")
    house.target.release(name)

    *before, last = events.rest()[0]

    assert [entry["message"] for entry in running["logs"]] == ["drawing"] or running["logs"] == []
    assert last["is"] == "Completed"
    assert [entry["message"] for entry in last["logs"]] == ["drawing"]
    assert {event["is"] for event in before} <= {"InProgress"}


# ------------------------------------------------------------------------------------------------------------ result


def test_a_result_can_be_had_again_and_again(client: FalClient, app: str) -> None:
    handle = client.submit(app, ["answer", 200, {"images": [{"url": "https://example.com/1.png"}], "seed": 7}])

    answers = [client.get(handle), client.call("result", app, handle.request_id), client.get(handle)]

    assert answers == [{"images": [{"url": "https://example.com/1.png"}], "seed": 7}] * 3


def test_result_waits_until_the_request_has_ended(house: House, client: FalClient, app: str, name: str) -> None:
    handle = client.submit(app, ["hold", name], ["answer", 200, {"done": True}])
    house.target.await_held(name)
    result = client.begin("result", app, handle.request_id)
    assert client.status(handle)["is"] == "InProgress"  # it has asked by then, most likely

    house.target.release(name)

    assert result.result() == {"done": True}


# --------------------------------------------------------------------------------------------------------- subscribe


def test_subscribe_tells_of_every_state_and_returns_the_result(
    house: House, client: FalClient, app: str, name: str
) -> None:
    client.submit(app, ["hold", f"{name}0"])
    house.target.await_held(f"{name}0")
    steps = [["log", "begins"], ["hold", f"{name}1"], ["log", "ends"], ["answer", 200, {"seed": 7}]]

    calling = client.begin(
        *("subscribe", app, {"do": steps}),
        told=True,
        with_logs=True,
        path="sub",
        hint="h",
        priority="normal",
        interval=QUICK_S,
    )

    request_id = calling.enqueued()
    assert calling.until("Queued") == {"is": "Queued", "position": 0}
    house.target.release(f"{name}0")
    house.target.await_held(f"{name}1")
    running = calling.until("InProgress")
    while not running["logs"]:
        running = calling.until("InProgress")
    house.target.release(f"{name}1")
    events, result = calling.rest()
    assert result == {"seed": 7}
    assert [entry["message"] for entry in running["logs"]] == ["begins"]
    assert [entry["message"] for entry in events[-1]["logs"]] == ["begins", "ends"]
    assert [event["is"] for event in events].count("Completed") == 1
    call = only_call(house, request_id)
    assert call.path.endswith("/sub") and call.headers["x-fal-runner-hint"] == "h"


def test_subscribe_without_callbacks_returns_the_result(client: FalClient, app: str) -> None:
    assert client.call("subscribe", app, {"do": [["answer", 200, {"seed": 1}]]}, interval=QUICK_S) == {"seed": 1}


def test_a_client_timeout_cancels_what_runs(house: House) -> None:
    clients = [sdk.client(kind) for sdk in house.sdks.values() for kind in ("sync", "async")]
    apps = [fal_sdk.new_app() for _ in clients]
    callings = [
        client.begin("subscribe", app, {"do": [["hold", app]]}, told=True, client_timeout=1.5, start_timeout=60)
        for client, app in zip(clients, apps, strict=True)
    ]
    for app in apps:
        house.target.await_held(app)

    for client, app, calling in zip(clients, apps, callings, strict=True):
        request_id = calling.enqueued()
        with pytest.raises(fal_sdk.FalError) as caught:
            calling.rest()
        assert (caught.value.name, caught.value.timeout) == ("FalClientTimeoutError", 1.5)
        assert caught.value.request_id == request_id
        completed = client.ended(client.call("get_handle", app, request_id))
        assert (completed["error"], completed["error_type"]) == ("Request was cancelled", "client_cancelled")


# ------------------------------------------------------------------------------------------------------------ cancel


def assert_cancelled(client: FalClient, handle: Handle) -> None:
    completed = client.ended(handle)
    assert (completed["error"], completed["error_type"]) == ("Request was cancelled", "client_cancelled")
    with pytest.raises(fal_sdk.FalError) as caught:
        client.get(handle)
    assert (caught.value.name, caught.value.status_code) == ("FalClientHTTPError", 499)
    assert caught.value.error_type == "client_cancelled"
    assert caught.value.response_headers["x-fal-error-type"] == "client_cancelled"
    assert caught.value.response_headers["x-fal-request-id"] == handle.request_id


def test_a_waiting_request_that_is_cancelled_never_reaches_the_target(
    house: House, client: FalClient, app: str, name: str
) -> None:
    first = client.submit(app, ["hold", name])
    house.target.await_held(name)
    second, third = client.submit(app), client.submit(app)

    client.call("cancel", on=second)
    client.call("cancel", app, third.request_id)

    for handle in (second, third):
        assert_cancelled(client, handle)
    house.target.release(name)
    client.get(client.submit(app))  # whatever was waiting before it has had its turn
    assert client.ended(first)["error"] is None
    assert house.target.calls(second.request_id) == house.target.calls(third.request_id) == []


def test_a_running_request_that_is_cancelled_ends(house: House, client: FalClient, app: str, name: str) -> None:
    handle = client.submit(app, ["hold", name])
    house.target.await_held(name)

    client.call("cancel", on=handle)

    assert_cancelled(client, handle)
    only_call(house, handle.request_id)
    assert client.get(client.submit(app, ["answer", 200, {"next": True}])) == {"next": True}  # the slot is free again


# --------------------------------------------------------------------------------------------------------------- run


def test_run_answers_what_the_target_answers(house: House, client: FalClient, app: str) -> None:
    answer = client.call(
        *("run", app, {"text": "now"}), path="/v1/paint", hint="h", headers={"X-Of-Mine": "kept"}, start_timeout=30
    )

    assert answer["input"] == {"text": "now"}
    assert answer["path"] == f"/api/predict/{fal_sdk.service_of(app)}/v1/paint"
    assert answer["headers"]["x-fal-runner-hint"] == "h"
    assert answer["headers"]["x-of-mine"] == "kept"


def test_run_raises_what_the_target_refuses(house: House, client: FalClient, app: str) -> None:
    detail = [{"loc": ["body", "prompt"], "msg": "field required", "type": "value_error.missing"}]

    with pytest.raises(fal_sdk.FalError) as caught:
        client.call("run", app, {"do": [["answer", 422, {"detail": detail}]]})

    assert (caught.value.name, caught.value.status_code) == ("FalClientHTTPError", 422)
    assert caught.value.message == detail
    assert house.target.calls(caught.value.response_headers["x-fal-request-id"])


def test_a_stream_of_the_target_is_a_stream_to_the_client(client: FalClient, app: str) -> None:
    told = [{"output": "Kn\u00f6pfe", "partial": True}, {"output": "Kn\u00f6pfe und", "partial": False}]

    calling = client.begin("stream", app, {"do": [["stream", *told]]})

    assert calling.rest() == (told, None)


def test_a_run_whose_client_gives_up_is_cancelled(house: House) -> None:
    # All at the same time: the web looks every 5 s whether its clients are still there.
    clients = [sdk.client(kind) for sdk in house.sdks.values() for kind in ("sync", "async")]
    apps = [fal_sdk.new_app() for _ in clients]
    runs = [
        # With a start timeout the client does not try it again.
        client.begin("run", app, {"do": [["hold", app]]}, timeout=1.0, start_timeout=60)
        for client, app in zip(clients, apps, strict=True)
    ]

    for client, app, run in zip(clients, apps, runs, strict=True):
        with pytest.raises(fal_sdk.FalError) as caught:
            run.result()
        assert caught.value.name == "ReadTimeout"
        (call,) = [call for call in house.target.calls() if fal_sdk.service_of(app) in call.path]
        completed = client.ended(client.call("get_handle", app, call.headers["x-fal-request-id"]))
        assert (completed["error"], completed["error_type"]) == ("Request was cancelled", "client_cancelled")


# ------------------------------------------------------------------------------------------------------------ errors


def test_what_the_target_refuses_arrives_with_its_body(client: FalClient, app: str) -> None:
    detail = [{"loc": ["body", "prompt"], "msg": "f\u00fcr den Prompt", "type": "value_error"}]
    handle = client.submit(app, ["answer", 422, {"detail": detail, "more": 1}])

    completed = client.ended(handle)
    with pytest.raises(fal_sdk.FalError) as caught:
        client.get(handle)

    assert completed["error"] == "Invalid status code: 422"
    assert (caught.value.name, caught.value.status_code) == ("FalClientHTTPError", 422)
    assert caught.value.message == detail
    assert caught.value.error_type is None
    assert '"more": 1' in caught.value.body
    assert caught.value.response_headers["x-fal-request-id"] == handle.request_id


def test_subscribe_raises_what_the_target_refuses(client: FalClient, app: str) -> None:
    calling = client.begin(
        "subscribe", app, {"do": [["answer", 422, {"detail": "no such seed"}]]}, told=True, interval=QUICK_S
    )
    calling.enqueued()

    completed = calling.until("Completed")
    with pytest.raises(fal_sdk.FalError) as caught:
        calling.result()

    assert completed["error"] == "Invalid status code: 422"
    assert (caught.value.status_code, caught.value.text) == (422, "no such seed")


@pytest.mark.parametrize("call", ["status", "result", "cancel"])
def test_an_id_that_nobody_has_is_not_found(client: FalClient, app: str, call: str) -> None:
    unknown = str(uuid.uuid4())

    with pytest.raises(fal_sdk.FalError) as caught:
        client.call(call, app, unknown)

    assert (caught.value.name, caught.value.status_code) == ("FalClientHTTPError", 404)
    if call == "cancel":
        assert json.loads(caught.value.body)["status"] == "NOT_FOUND"
    else:
        assert caught.value.message.startswith(f"no request '{unknown}' in this service")


def test_a_request_of_another_app_is_not_found(client: FalClient, app: str) -> None:
    handle = client.submit(app)

    with pytest.raises(fal_sdk.FalError) as caught:
        client.call("result", fal_sdk.new_app(), handle.request_id)

    assert caught.value.status_code == 404


def test_what_has_ended_cannot_be_cancelled(client: FalClient, app: str) -> None:
    handle = client.submit(app)
    answer = client.get(handle)

    with pytest.raises(fal_sdk.FalError) as caught:
        client.call("cancel", on=handle)

    assert caught.value.status_code == 400
    assert handle.request_id in caught.value.text and "already completed" in caught.value.text
    assert client.get(handle) == answer


def test_a_start_deadline_that_passes_is_told_as_the_callers_own(house: House, name: str) -> None:
    clients = [house.sdks["http"].client(kind) for kind in ("sync", "async")]
    apps = [fal_sdk.new_app() for _ in clients]
    for n, (client, app) in enumerate(zip(clients, apps, strict=True)):
        client.submit(app, ["hold", f"{name}{n}"])
        house.target.await_held(f"{name}{n}")

    runs = [client.begin("run", app, {}, start_timeout=LEAST_S) for client, app in zip(clients, apps, strict=True)]
    handles = [client.submit(app, start_timeout=LEAST_S) for client, app in zip(clients, apps, strict=True)]

    for client, run, handle in zip(clients, runs, handles, strict=True):
        completed = client.ended(handle)
        assert completed["error_type"] == "request_timeout" and completed["error"]
        for calling in (run, client.begin("get", on=handle)):
            with pytest.raises(fal_sdk.FalError) as caught:
                calling.result()
            assert (caught.value.status_code, caught.value.error_type) == (504, "request_timeout")
            assert caught.value.response_headers["x-fal-request-timeout-type"] == "user"
    house.target.release(f"{name}0", f"{name}1")
    for client, app, handle in zip(clients, apps, handles, strict=True):
        client.get(client.submit(app))
        assert house.target.calls(handle.request_id) == []


@pytest.mark.parametrize("call", ["submit", "run", "status", "result", "cancel"])
def test_a_key_that_nobody_was_given_is_refused(client: FalClient, app: str, call: str) -> None:
    handle = client.submit(app)
    stranger = client.sdk.client(client.kind, key="of-nobody:that-is-known-here")
    what: Any = {} if call in ("submit", "run") else handle.request_id

    with pytest.raises(fal_sdk.FalError) as caught:
        stranger.call(call, app, what)

    assert (caught.value.name, caught.value.status_code) == ("FalClientHTTPError", 401)
    assert caught.value.message and "of-nobody" not in caught.value.body


def test_a_queue_that_is_full_is_tried_again_until_there_is_room(
    house: House, http_client: FalClient, app: str, name: str
) -> None:
    running, waiting = http_client.submit(app, ["hold", f"{name}0"]), http_client.submit(app, ["hold", f"{name}1"])
    house.target.await_held(f"{name}0")

    calling = http_client.begin("submit", app, {}, path="?fal_max_queue_length=0")
    await_condition(lambda: re.search(rf'{app}/[?]fal_max_queue_length=0 [^"]*" 429 ', house.web.log), what="a refusal")
    house.target.release(f"{name}0")
    handle = calling.result()

    assert http_client.status(waiting)["is"] == "InProgress"
    house.target.release(f"{name}1")
    assert http_client.get(running) and http_client.get(waiting) and http_client.get(handle)
    only_call(house, handle.request_id)
