"""The calls of ``fal.apps``, the queue client in fal's SDK 1.83.0, are answered so that it understands them.

What is sent here are the bytes that it sends, all on one connection, as it does. It follows no redirect, takes the
status code 200 alone for the end of a request, and reads ``queue_position`` and ``logs`` without looking whether they
are there. Its key must have two parts: it refuses one without a colon.
"""

from __future__ import annotations

import http.client
import json
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support import fal_sdk
from tests.support.fal_sdk import House
from tests.support.installation import TOKEN, await_condition

KEY = "local-key:00112233445566778899aabbccddeeff"
HEADERS = (
    "Accept: */*\r\n"
    "Accept-Encoding: gzip, deflate\r\n"
    "Connection: keep-alive\r\n"
    "User-Agent: fal-sdk/1.83.0 (python)\r\n"
    f"Authorization: Key {KEY}\r\n"
)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with fal_sdk.house(api_tokens=f"{TOKEN},{KEY}") as made:
        yield made


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    json: Any


class Apps:
    """One connection, and an app to ask for."""

    def __init__(self, port: int, app: str) -> None:
        self.app = app
        self._host = f"127.0.0.1:{port}"
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=10)

    def close(self) -> None:
        self._connection.close()

    def submit(self, arguments: dict[str, Any], path: str = "") -> str:
        """The request id."""
        body = json.dumps(arguments, ensure_ascii=False, separators=(",", ":")).encode()
        after = f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\n"
        answer = self._ask(f"POST /fal/{self.app}{path}", after=after, body=body)
        assert answer.status == 200, answer.json
        return str(answer.json["request_id"])

    def status(self, request_id: str, *, logs: bool = False) -> Answer:
        return self._ask(f"GET /fal/{self.app}/requests/{request_id}/status/?logs={int(logs)}")

    def result(self, request_id: str) -> Answer:
        return self._ask(f"GET /fal/{self.app}/requests/{request_id}/")

    def cancel(self, request_id: str) -> Answer:
        return self._ask(f"PUT /fal/{self.app}/requests/{request_id}/cancel", before="Content-Length: 0\r\n")

    def completed(self, request_id: str, *, logs: bool = False) -> Answer:
        """The first status with the code 200; those before it must be understood too."""

        def is_over() -> Answer | None:
            answer = self.status(request_id, logs=logs)
            if answer.status == 200:
                return answer
            assert (answer.status, answer.json["status"]) in ((202, "IN_QUEUE"), (202, "IN_PROGRESS"))
            assert ("queue_position" if answer.json["status"] == "IN_QUEUE" else "logs") in answer.json
            return None

        found: Answer = await_condition(is_over, what=f"{request_id} ends")
        return found

    def _ask(self, line: str, *, before: str = "", after: str = "", body: bytes = b"") -> Answer:
        head = f"{line} HTTP/1.1\r\nHost: {self._host}\r\n{before}{HEADERS}{after}\r\n"
        self._connection.sendall(head.encode() + body)
        response = http.client.HTTPResponse(self._connection, method=line.split()[0])
        response.begin()
        content = response.read()
        assert not response.will_close, "the connection is not kept"
        assert "application/json" in response.headers["Content-Type"]
        return Answer(response.status, response.headers, json.loads(content))


@pytest.fixture
def apps(house: House) -> Iterator[Apps]:
    made = Apps(house.installation.port, fal_sdk.new_app())
    yield made
    made.close()


@pytest.fixture
def name() -> str:
    return uuid.uuid4().hex


def test_a_request_is_followed_to_its_result(house: House, apps: Apps, name: str) -> None:
    first = apps.submit({"do": [["log", "begins"], ["hold", name]], "text": "ü"}, "/v1")
    second = apps.submit({})
    house.target.await_held(name)

    running, waiting = apps.status(first), apps.status(second, logs=True)
    running_with_logs = apps.status(first, logs=True)
    early = apps.result(first)
    house.target.release(name)
    completed, completed_with_logs = apps.completed(first), apps.completed(first, logs=True)
    result = apps.result(first)

    assert (running.status, running.json["status"], running.json["logs"]) == (202, "IN_PROGRESS", None)
    assert (waiting.status, waiting.json["status"], waiting.json["queue_position"]) == (202, "IN_QUEUE", 0)
    assert [entry["message"] for entry in running_with_logs.json["logs"]] == ["begins"]
    assert (early.status, early.json["detail"]) == (400, "Request is still in progress")
    assert (completed.json["status"], completed.json["logs"]) == ("COMPLETED", None)
    assert [entry["message"] for entry in completed_with_logs.json["logs"]] == ["begins"]
    assert "error" not in completed.json
    assert (result.status, result.json["input"]["text"]) == (200, "ü")
    assert result.json["path"] == f"/api/predict/{fal_sdk.service_of(apps.app)}/v1"
    assert result.headers["x-fal-request-id"] == first


def test_what_is_cancelled_ends(house: House, apps: Apps, name: str) -> None:
    first, second = apps.submit({"do": [["hold", name]]}), apps.submit({})
    house.target.await_held(name)

    answers = [apps.cancel(second), apps.cancel(first)]

    assert [(answer.status, answer.json["status"]) for answer in answers] == [(202, "CANCELLATION_REQUESTED")] * 2
    for request_id in (first, second):
        assert apps.completed(request_id).json["error_type"] == "client_cancelled"
        result = apps.result(request_id)
        assert (result.status, result.json["error_type"]) == (499, "client_cancelled")
        again = apps.cancel(request_id)
        assert (again.status, again.json["status"]) == (400, "ALREADY_COMPLETED")
    assert house.target.calls(second) == []


def test_what_the_target_refuses_is_its_own_answer(apps: Apps) -> None:
    request_id = apps.submit({"do": [["answer", 422, {"detail": [{"msg": "no"}]}]]})

    completed, result = apps.completed(request_id), apps.result(request_id)

    assert completed.json["error"] == "Invalid status code: 422"
    assert (result.status, result.json) == (422, {"detail": [{"msg": "no"}]})


def test_an_id_that_nobody_has_is_not_found(apps: Apps) -> None:
    unknown = str(uuid.uuid4())

    answers = [apps.status(unknown), apps.result(unknown), apps.cancel(unknown)]

    assert [answer.status for answer in answers] == [404] * 3
    assert all(answer.json["detail"] for answer in answers)
