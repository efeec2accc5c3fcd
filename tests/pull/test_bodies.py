"""JSON is itself; all else travels as base64 with its content type, and comes back as the same bytes."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from eas_queue.pull import bodies


def coded(body: bytes, content_type: str) -> dict[str, str]:
    return {"body_base64": base64.b64encode(body).decode(), "content_type": content_type}


@pytest.mark.parametrize("body", [b'{"a": 1.50, "a": 2}', b"[]", b'"text"', b"null", b'{"e": "\xc3\xa9"}', b"1e400"])
@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", "application/a+json"])
def test_an_answer_in_json_is_taken_over_as_it_was_written(body: bytes, content_type: str) -> None:
    assert bodies.of_answer(body, content_type) == body


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"\x89PNG\x00", "image/png"),
        (b'{"a": 1}', "text/plain"),
        (b"", "application/json"),
        (b'{"a": NaN}', "application/json"),
        (b'{"a": -Infinity}', "application/json"),
        ('{"a": 1}'.encode("utf-16"), "application/json"),
        (b"\xef\xbb\xbf{}", "application/json"),
        (b'"\xff"', "application/json"),
        (b"[" * 200_000, "application/json"),
        (b'{"body_base64": "AA==", "content_type": "image/png"}', "application/json"),
    ],
)
def test_any_other_answer_is_coded(body: bytes, content_type: str) -> None:
    assert json.loads(bodies.of_answer(body, content_type)) == coded(body, content_type)


def test_bytes_without_a_content_type_are_just_bytes() -> None:
    assert json.loads(bodies.of_answer(b"x", "")) == coded(b"x", "application/octet-stream")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (coded(b"\x00\xff", "image/gif"), (b"\x00\xff", "image/gif")),
        ({"body_base64": "%", "content_type": "image/gif"}, None),
        ({"body_base64": "AA==", "content_type": 3}, None),
        ({"body_base64": "AA=="}, None),
        ({"body_base64": "AA==", "content_type": "image/gif", "more": 1}, None),
        ({"k": "v"}, None),
        ([1], None),
    ],
)
def test_what_a_task_brings(data: Any, found: Any) -> None:
    assert bodies.received(data) == (found or (data, "application/json"))


@pytest.mark.parametrize("value", [{"a": [1, None]}, "text", 0, None, [{"body_base64": "AA=="}]])
def test_what_a_function_returns_is_json(value: Any) -> None:
    assert json.loads(bodies.of_value(value)) == value


@pytest.mark.parametrize("value", [b"\x00", bytearray(b"\x00"), memoryview(b"\x00")])
def test_bytes_of_a_function_are_coded(value: Any) -> None:
    assert json.loads(bodies.of_value(value)) == coded(b"\x00", "application/octet-stream")


def test_a_value_that_looks_coded_arrives_as_it_is() -> None:
    value = coded(b"\x00", "image/png")
    outer = json.loads(bodies.of_value(value))

    assert bodies.received(outer) == (json.dumps(value, separators=(",", ":")).encode(), "application/json")


@pytest.mark.parametrize("value", [float("nan"), {1}, object()])
def test_what_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        bodies.of_value(value)


def test_a_completion_is_one_object() -> None:
    assert json.loads(bodies.completion('TASK-"1', 201, b'{"a":1}')) == {
        "status_code": 201,
        "request_id": 'TASK-"1',
        "body": {"a": 1},
    }
