"""What any dialect submits to a pull service is taken and completed here, and its end is where it was submitted.

By hand in the native dialect, with fal's official client, and with the official SDK of PAI-EAS.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.support import fal_sdk
from tests.support.bella_sdk import ENDPOINT, STRATEGIES, Bella, bella, request_id_of
from tests.support.eas_sdk import Sdk
from tests.support.fal_sdk import FalClient, FalError, Handle
from tests.support.installation import await_condition

APPS = 4
PAINTER = """
    [services.painter-{0}]
    mode = "pull"
    aliases = ["acme/paint-{0}"]
"""
SERVICES = """
    [defaults]
    allow_unlisted = true
    [services.listed]
    mode = "pull"
""" + "".join(PAINTER.format(n) for n in range(APPS))
BINARY = bytes(range(256))
PACKED = {"body_base64": base64.b64encode(BINARY).decode(), "content_type": "application/x-tensor"}


@pytest.fixture(scope="module")
def place() -> Iterator[Bella]:
    with bella(services_toml=SERVICES) as made:
        for n in range(APPS):
            made.register(f"painter-{n}")
        yield made


@pytest.fixture
def queue(place: Bella) -> str:
    return place.register()


@pytest.fixture(scope="module")
def fal(place: Bella) -> Iterator[FalClient]:
    with fal_sdk.over_http(place.installation.port) as sdk:
        yield sdk.client("sync")


@pytest.fixture(scope="module")
def eas(place: Bella) -> Iterator[Sdk]:
    with Sdk(place.installation) as sdk:
        yield sdk


def submit(place: Bella, path: str, body: bytes, content_type: str = "application/json") -> str:
    """In the native dialect."""
    url = f"{place.installation.url}/api/predict/{path}"
    response = place.installation.session.post(url, data=body, headers={"Content-Type": content_type}, timeout=10)
    assert response.status_code == 200, response.text
    return response.text


def native_result(place: Bella, request_id: str, service: str) -> tuple[int, str, bytes]:
    url = f"{place.installation.url}/api/predict/{service}/requests/{request_id}/result"
    response = place.installation.session.get(url, timeout=10)
    return response.status_code, response.headers.get("Content-Type", ""), response.content


# ------------------------------------------------------------------------------------------------------------ native


@pytest.mark.parametrize("status_code", [200, 422])
def test_a_native_request_has_the_bytes_of_the_completed_body(place: Bella, queue: str, status_code: int) -> None:
    request_id = submit(place, queue, b'{"text": "a film", "n": 1.0}')
    assert place.installation.status(request_id, queue)["status"] == "PENDING"

    task = place.take_one(f"{queue}:1", process_timeout=60)
    assert place.installation.status(request_id, queue)["status"] == "STARTED"
    written = b'{ "b":1.0,\n"a": "\\u00fc" }'
    content = b'{"status_code":%d,"request_id":"%s","body":%s}' % (status_code, request_id.encode(), written)
    assert place.call("POST", f"{request_id}/complete", body=content).json == request_id

    assert (task["task_id"], task["data"], task["endpoint"]) == (request_id, {"text": "a film", "n": 1.0}, ENDPOINT)
    assert (task["response_mode"], task["callback_url"]) == ("callback", "")
    shown = place.installation.status(request_id, queue)
    assert shown["status"] == ("SUCCESS" if status_code == 200 else "FAILURE")
    status, content_type, body = native_result(place, request_id, queue)
    assert (status, body) == (status_code, written)
    assert content_type.startswith("application/json")
    assert place.task(request_id)["status"] == ("succeeded" if status_code == 200 else "failed")


def test_path_and_query_of_a_native_request_are_in_the_endpoint_and_priority_is_level_0(
    place: Bella, queue: str
) -> None:
    normal = submit(place, f"{queue}/v1/films%2Fnew?a=1&b=%20&a=2", b"{}")
    urgent = submit(place, f"{queue}?_priority_=1", b"{}")

    found = place.take(f"{queue}:0", f"{queue}:1")

    [first], [second] = found[f"{queue}:0"], found[f"{queue}:1"]
    assert (first["task_id"], first["endpoint"]) == (urgent, ENDPOINT)
    assert (second["task_id"], second["endpoint"]) == (normal, f"{ENDPOINT}/v1/films%2Fnew?a=1&b=%20&a=2")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (BINARY, "application/x-tensor"),
        (b'[{"in": "a list"}]', "application/json"),
        (b"just text", "text/plain"),
        (b"", "application/json"),
        (b'{"n": NaN}', "application/json"),
        (b"{" * 20_000, "application/json"),
    ],
    ids=["binary", "list", "text", "empty", "nan", "deep"],
)
def test_what_is_no_object_of_json_comes_as_base64_and_goes_back_so(
    place: Bella, queue: str, body: bytes, content_type: str
) -> None:
    request_id = submit(place, queue, body, content_type)

    task = place.take_one(f"{queue}:1")
    place.complete(request_id, PACKED)

    assert list(task["data"]) == ["body_base64", "content_type"]
    assert base64.b64decode(task["data"]["body_base64"], validate=True) == body
    assert task["data"]["content_type"] == content_type
    assert native_result(place, request_id, queue) == (200, PACKED["content_type"], BINARY)
    assert place.task(request_id)["result"] == {"status_code": 200, "request_id": request_id, "body": PACKED}


def test_a_task_put_here_is_a_request_of_the_native_dialect(place: Bella, queue: str) -> None:
    task_id = place.put(queue, {"a": 1})
    request_id = request_id_of(task_id)
    assert place.installation.status(request_id, queue)["status"] == "PENDING"

    assert place.installation.cancel(request_id, queue).status_code in (200, 202, 204)

    assert place.task(task_id)["status"] == "cancelled"
    assert place.take(f"{queue}:1") == {}


def test_a_service_of_the_file_is_a_queue_without_being_registered(place: Bella) -> None:
    request_id = submit(place, "listed/v1/x?a=1", b"{}")

    task = place.take_one("listed:1")

    assert task["task_id"] == request_id
    assert task["endpoint"].endswith("/v1/x?a=1")


# --------------------------------------------------------------------------------------------------------------- fal


def take_of(place: Bella, service: str, handle: Handle) -> dict[str, Any]:
    task = place.take_one(f"{service}:1", process_timeout=60)
    assert task["task_id"] == handle.request_id
    return task


def test_fals_client_has_the_completed_body_as_its_result(place: Bella, fal: FalClient) -> None:
    arguments = {"prompt": "\u00c4pfel", "steps": [1, 2.5, None]}
    handle = fal.call("submit", "acme/paint-0", arguments, path="/v1/paint")
    assert fal.status(handle)["is"] == "Queued"

    task = take_of(place, "painter-0", handle)
    assert fal.status(handle)["is"] == "InProgress"
    told = {"logs": [{"message": "half way", "level": "INFO"}]}
    place.told("POST", f"{handle.request_id}/progress", told)
    logs = fal.status(handle, with_logs=True)["logs"]
    place.complete(handle.request_id, {"images": [{"url": "http://127.0.0.1/1.png"}]})

    assert (task["data"], task["endpoint"]) == (arguments, f"{ENDPOINT}/v1/paint")
    assert [line["message"] for line in logs] == ["half way"]
    assert fal.get(handle) == {"images": [{"url": "http://127.0.0.1/1.png"}]}
    assert fal.ended(handle)["is"] == "Completed"


def test_fals_subscribe_waits_for_a_taker(place: Bella, fal: FalClient) -> None:
    calling = fal.begin("subscribe", "acme/paint-1", {"prompt": "a"}, interval=fal_sdk.QUICK_S)

    task = place.await_task("painter-1:1")
    place.complete(task["task_id"], {"seed": 7})

    _, result = calling.rest()
    assert result == {"seed": 7}


def test_fals_client_raises_what_a_taker_refuses(place: Bella, fal: FalClient) -> None:
    handle = fal.call("submit", "acme/paint-2", {"prompt": ""})
    take_of(place, "painter-2", handle)
    detail = [{"loc": ["body", "prompt"], "msg": "too short", "type": "value_error"}]

    place.complete(handle.request_id, {"detail": detail}, status_code=422)

    with pytest.raises(FalError) as caught:
        fal.get(handle)
    assert (caught.value.status_code, caught.value.message) == (422, detail)
    assert place.task(handle.request_id)["status"] == "failed"


def test_a_cancel_of_fals_client_ends_the_task(place: Bella, fal: FalClient) -> None:
    handle = fal.call("submit", "acme/paint-3", {})
    take_of(place, "painter-3", handle)

    fal.call("cancel", on=handle)

    place.await_status(handle.request_id, "cancelled")
    place.complete(handle.request_id, {"late": True})
    assert fal.ended(handle)["error_type"] == "client_cancelled"


# --------------------------------------------------------------------------------------------------------------- EAS


def test_the_eas_sdk_finds_the_completed_bodies_in_the_sink(place: Bella, queue: str, eas: Sdk) -> None:
    client, sink = eas.queue(queue), eas.queue(f"{queue}/sink")
    _, plain = client.put('{"k": "v"}', tags={"colour": "blue"})
    _, binary = client.put(BINARY)
    _, urgent = client.put("{}", tags={"_priority_": 1})

    tasks = {task["task_id"]: task for some in place.take(f"{queue}:0", f"{queue}:1").values() for task in some}
    for request_id, body in ((plain, {"said": 1}), (binary, PACKED), (urgent, {})):
        place.complete(request_id, body)

    assert {task_id: task["level"] for task_id, task in tasks.items()} == {urgent: 0, plain: 1, binary: 1}
    assert tasks[plain]["data"] == {"k": "v"}
    assert base64.b64decode(tasks[binary]["data"]["body_base64"], validate=True) == BINARY
    await_condition(lambda: sink.length() == 3, what="all are in the sink")
    found = {frame.tags["requestId"]: frame for frame in sink.all()}
    assert json.loads(found[plain].data) == {"said": 1}
    assert found[plain].tags["colour"] == "blue"
    assert (found[binary].data, found[urgent].data) == (BINARY, b"{}")
    assert client.length() == 0


# --------------------------------------------------------------------------------------------- all of them parse


def test_requests_of_all_dialects_parse_in_every_strategy_and_again_when_they_come_back(
    place: Bella, eas: Sdk, fal: FalClient
) -> None:
    lease: Mapping[str, Any] = {"process_timeout": 1, "process_max_retries": -1}
    sent: dict[str, set[str]] = {}
    for n, strategy in enumerate(STRATEGIES):
        service = f"painter-{n}"
        sent[strategy] = {
            submit(place, f"{service}/v1?x=1", BINARY, "image/png"),
            eas.queue(service).put("[1]", tags={"_priority_": 5})[1],
            fal.call("submit", f"acme/paint-{n}", {"prompt": "a"}).request_id,
        }
    statuses: dict[str, list[str]] = {request_id: [] for ids in sent.values() for request_id in ids}

    def all_were_there_twice() -> bool:
        for n, strategy in enumerate(STRATEGIES):
            for tasks in place.take(f"painter-{n}:0", f"painter-{n}:1", strategy=strategy, **lease).values():
                for task in tasks:
                    statuses[task["task_id"]].append(task["status"])
                    if len(statuses[task["task_id"]]) == 2:  # in a sequential queue others come after it
                        place.complete(task["task_id"], {"of": strategy})
        return all(len(found) == 2 for found in statuses.values())

    await_condition(all_were_there_twice, timeout_s=12, what=f"first and second deliveries: {statuses}")
    assert list(statuses.values()) == [["waiting", "queued"]] * 12
