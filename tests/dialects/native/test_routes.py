"""The native dialect over real HTTP: gunicorn with four processes, one worker with a greenlet pool, a real target."""

from __future__ import annotations

import base64
import gzip
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.support.front import (
    LIMITED_TOKEN,
    MAX_PAYLOAD_BYTES,
    MAX_WAIT_S,
    READER_TOKEN,
    Answer,
    Front,
    OddTarget,
    assert_problem,
)
from tests.support.installation import TOKEN, await_condition

STATUS_KEYS = [
    "request_id",
    "status",
    "service_name",
    "message",
    "result",
    "error_info",
    "position",
    "depth",
    "eta_s",
    "attempts",
    "submitted_at",
    "started_at",
    "finished_at",
    "progress",
    "logs",
    "redriven_as",
]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
UNKNOWN_ID = "0001aaaa-bbbb-8ccc-9ddd-eeeeeeeeeeee"


def headers_of(echo: Any) -> dict[str, str]:
    """By lower-case name; no name may come twice."""
    names = [name.lower() for name, _ in echo["headers"]]
    assert len(names) == len(set(names))
    return {name.lower(): value for name, value in echo["headers"]}


# ------------------------------------------------------------------------------------------------------------- submit


def test_a_submit_answers_id_index_and_location(front: Front) -> None:
    first = front.post("demo")
    second = front.post("demo")

    assert first.status == 200
    assert first.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert first.body.decode() == first.request_id
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", first.request_id)
    assert first.headers["Location"] == f"/api/predict/demo/requests/{first.request_id}"
    assert int(second.headers["X-Eas-Queueservice-Index"]) == int(first.headers["X-Eas-Queueservice-Index"]) + 1


def test_a_service_may_answer_the_index_as_body(front: Front) -> None:
    answer = front.post("indexed")

    assert answer.body.decode() == answer.headers["X-Eas-Queueservice-Index"] == "1"
    assert front.look(answer.request_id, "indexed").status in (200, 202)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (None, {}),
        (b"", {"Content-Type": "application/json"}),
        (bytes(range(256)) * 5, {"Content-Type": "application/octet-stream"}),
        ("Grüße, 世界".encode(), {"Content-Type": "text/plain; charset=utf-8"}),
        (b"key=value&_priority_=9", {"Content-Type": "application/x-www-form-urlencoded"}),
        (gzip.compress(b"{}"), {"Content-Type": "application/json", "Content-Encoding": "gzip"}),
        (b'{"not": json', {"Content-Type": "application/json"}),
    ],
    ids=["none", "empty", "binary", "utf-8", "form", "gzip", "broken json"],
)
def test_any_bytes_reach_the_target_as_they_came(front: Front, body: bytes | None, headers: dict[str, str]) -> None:
    received = front.echo(body=body, headers=headers)

    sent = headers_of(received)
    assert received["method"] == "POST"
    assert base64.b64decode(received["body"]) == (body or b"")
    assert sent["content-length"] == str(len(body or b""))
    assert {name: sent.get(name) for name in ("content-type", "content-encoding")} == {
        "content-type": headers.get("Content-Type"),
        "content-encoding": headers.get("Content-Encoding"),
    }


def test_a_chunked_body_reaches_the_target_whole(front: Front) -> None:
    received = front.echo(body=iter([b"one ", b"two ", b"x" * 70_000]))

    assert base64.b64decode(received["body"]) == b"one two " + b"x" * 70_000
    assert headers_of(received)["content-length"] == "70008"


@pytest.mark.parametrize(
    "subpath",
    ["", "/v1/chat/completions", "/a%2Fb/c", "/a/", "/a//b", "/%E4%BD%A0", "/x%20y", "/a;v=1", "/...", "/requests/7"],
)
def test_a_subpath_reaches_the_target_as_the_client_quoted_it(front: Front, subpath: str) -> None:
    received = front.echo(f"demo{subpath}?echo=1")

    assert received["path"] == f"/api/predict/demo{subpath}"


def test_a_slash_after_the_service_name_adds_nothing_to_the_targets_path(front: Front) -> None:
    assert front.echo("demo/?echo=1")["path"] == "/api/predict/demo"


@pytest.mark.parametrize(
    "subpath",
    [
        "/..",
        "/../other",
        "/a/../../other",
        "/.",
        "/a/./b",
        "/%2e%2e/other",
        "/.%2E/other",
        "/a%2F..%2Fother",
        "/%252e%252e/other",
        "/..%5Cother",
        "/..;/other",
        "/..%3Bx/other",
    ],
)
def test_a_dot_segment_is_refused_however_it_is_written(front: Front, subpath: str) -> None:
    before = front.stored()

    answer = front.post(f"demo{subpath}")

    assert_problem(answer, 400, "invalid-request")
    assert front.stored() == before


@pytest.mark.parametrize("path", ["/api/predict/demo%2Fother/x", "/api%2Fpredict/demo/x", "/api/predict%2Fdemo/x"])
def test_an_encoded_slash_before_the_subpath_is_refused(front: Front, path: str) -> None:
    before = front.stored()

    answer = front.call("POST", path, b"")

    assert_problem(answer, 400, "invalid-request")
    assert front.stored() == before


@pytest.mark.parametrize("subpath", ["/sink", "/s%69nk", "/sink/"])
def test_what_is_posted_to_the_sink_is_put_there_and_not_forwarded(front: Front, subpath: str) -> None:
    answer = front.post(f"demo{subpath}")

    assert (answer.status, "Location" in answer.headers) == (200, False)
    assert int(answer.body) > 0


def test_the_query_is_forwarded_in_order_but_for_the_queues_own_parameters(front: Front) -> None:
    query = "b=2&a=1&b=3&_priority_=1&empty=&flag&_other=x&quoted=%2F%20+%C3%A9&lines=1%0A2&%5Fhidden=1&c_=1&echo=1"

    received = front.echo(f"demo?{query}")

    assert received["query"] == "b=2&a=1&b=3&empty=&flag&quoted=%2F%20+%C3%A9&lines=1%0A2&c_=1&echo=1"


@pytest.mark.parametrize(
    "priority", ["abc", "-1", "1.5", "", "+1", "1e3", "2147483648", "9" * 30, "1&_priority_=1", "%D9%A1"]
)
def test_a_priority_that_is_none_is_refused(front: Front, priority: str) -> None:
    before = front.stored()

    answer = front.post(f"demo?_priority_={priority}")

    assert "_priority_" in assert_problem(answer, 400, "invalid-request")["detail"]
    assert front.stored() == before


def test_higher_priorities_start_first_and_the_highest_ones_are_one_class(front: Front) -> None:
    with front.occupied("single"):
        normal = front.submit("single")
        highest = front.submit("single?_priority_=2147483647")
        later = front.submit("single?_priority_=155")
        high = front.submit("single?_priority_=1")
        positions = [front.look(each, "single").json["position"] for each in (highest, later, high, normal)]

    assert positions == [0, 1, 2, 3]


def test_a_clients_headers_reach_the_target(front: Front) -> None:
    headers: dict[str, str | bytes] = {
        "Accept": "text/event-stream",
        "User-Agent": "mine/1.0",
        "X-Custom": "a, b;  c",
        "X-Utf8": "é".encode(),
        "X-Tab": "a\tb",
        "X-Empty": "",
        "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }

    received = headers_of(front.echo(headers=headers))

    expected = {
        name.lower(): value if isinstance(value, str) else value.decode("latin-1") for name, value in headers.items()
    }
    assert {name: received.get(name) for name in expected} == expected


def test_credentials_and_what_belongs_to_the_connection_stay_here(front: Front) -> None:
    withheld = {
        "Cookie": "session=1",
        "X-API-Key": "secret",
        "Proxy-Authorization": "Basic secret",
        "X-Forwarded-For": "10.0.0.1",
        "X-Forwarded-Proto": "https",
        "Forwarded": "for=10.0.0.1",
        "X-Real-Ip": "10.0.0.1",
        "Via": "1.1 proxy",
        "Connection": "close, X-Mine",
        "X-Mine": "1",
        "Keep-Alive": "timeout=5",
        "TE": "trailers",
        "Upgrade": "h2c",
        "Prefer": "respond-async",
        "X-Eas-Queueservice-Index": "1",
        "X_Underscore": "1",
    }

    received = headers_of(front.echo(headers=withheld))

    assert TOKEN not in str(received)
    assert {name for name in received if name in {each.lower() for each in withheld}} == set()
    assert received["host"] == f"127.0.0.1:{front.target.port}"
    assert received["accept-encoding"] == "identity"


def test_the_ids_that_the_target_sees_are_the_queues_own(front: Front) -> None:
    forged = {"X-Request-Id": "mine", "Idempotency-Key": "mine", "X-Request-Attempt": "9", "X-Fal-Request-Id": "mine"}
    request_id = front.ended("demo?echo=1", headers=forged).json["request_id"]

    received = headers_of(front.result(request_id).json)

    assert received["x-request-id"] == received["idempotency-key"] == received["x-fal-request-id"] == request_id
    assert received["x-request-attempt"] == "1"


# ------------------------------------------------------------------------------------------------------------- status


def assert_times(content: Mapping[str, Any], *, started: bool, finished: bool) -> None:
    times = [content["submitted_at"], content["started_at"], content["finished_at"]]
    assert [bool(each) for each in times] == [True, started, finished]
    assert all(TIME.fullmatch(each) for each in times if each)
    assert [each for each in times if each] == sorted(each for each in times if each)


def without_times(content: Mapping[str, Any]) -> dict[str, Any]:
    """Nor the estimate, which depends on what ran before."""
    return {name: value for name, value in content.items() if not name.endswith(("_at", "eta_s"))}


def test_waiting_requests_show_their_position_and_the_depth(front: Front) -> None:
    with front.occupied("single"):
        waiting = [front.submit("single") for _ in range(3)]
        answers = [front.look(request_id, "single") for request_id in waiting]

    assert [(answer.status, answer.headers["Retry-After"]) for answer in answers] == [(202, "1")] * 3
    assert [list(answer.json) for answer in answers] == [STATUS_KEYS] * 3
    assert [without_times(answer.json) for answer in answers] == [
        {
            "request_id": request_id,
            "status": "PENDING",
            "service_name": "single",
            "message": "Task is pending.",
            "result": None,
            "error_info": None,
            "position": position,
            "depth": 3,
            "attempts": 0,
            "progress": None,
            "logs": [],
            "redriven_as": None,
        }
        for position, request_id in enumerate(waiting)
    ]
    assert_times(answers[0].json, started=False, finished=False)


def test_a_running_request_is_started(front: Front) -> None:
    with front.occupied("single") as request_id:
        answer = front.look(request_id, "single")

    assert answer.status == 202
    assert list(answer.json) == STATUS_KEYS
    assert without_times(answer.json) == {
        "request_id": request_id,
        "status": "STARTED",
        "service_name": "single",
        "message": "Task is being processed.",
        "result": None,
        "error_info": None,
        "position": None,
        "depth": 0,
        "attempts": 1,
        "progress": None,
        "logs": [],
        "redriven_as": None,
    }
    assert_times(answer.json, started=True, finished=False)


def test_a_request_that_waits_to_be_sent_again_is_in_retry(front: Front) -> None:
    request_id = front.submit("patient?status=503")
    answer = front.await_status(request_id, "patient", "RETRY")
    front.delete(request_id, "patient")

    assert answer.status == 202
    assert list(answer.json) == STATUS_KEYS
    assert without_times(answer.json) == {
        "request_id": request_id,
        "status": "RETRY",
        "service_name": "patient",
        "message": "Task is waiting to be sent again.",
        "result": None,
        "error_info": {"type": "TargetFailed", "detail": "the target answered 503"},
        "position": None,
        "depth": 1,
        "attempts": 1,
        "progress": None,
        "logs": [],
        "redriven_as": None,
    }
    assert_times(answer.json, started=True, finished=False)


def test_a_success_shows_the_answer_of_the_target(front: Front) -> None:
    answer = front.ended("demo")

    assert answer.status == 200
    assert "Retry-After" not in answer.headers
    assert list(answer.json) == STATUS_KEYS
    assert list(answer.json["result"]) == ["status", "target_status_code", "content_type", "body"]
    assert without_times(answer.json) == {
        "request_id": answer.request_id,
        "status": "SUCCESS",
        "service_name": "demo",
        "message": "Task completed successfully.",
        "result": {
            "status": "success",
            "target_status_code": 200,
            "content_type": "application/json",
            "body": {"ok": True},
        },
        "error_info": None,
        "position": None,
        "depth": 0,
        "attempts": 1,
        "progress": None,
        "logs": [],
        "redriven_as": None,
    }
    assert_times(answer.json, started=True, finished=True)


def test_a_failure_shows_the_answer_of_the_target_and_the_error(front: Front) -> None:
    answer = front.ended("demo?status=418")

    assert answer.status == 200
    assert list(answer.json) == STATUS_KEYS
    assert without_times(answer.json) == {
        "request_id": answer.request_id,
        "status": "FAILURE",
        "service_name": "demo",
        "message": "Task failed.",
        "result": {
            "status": "error",
            "target_status_code": 418,
            "content_type": "application/json",
            "body": {"ok": False},
        },
        "error_info": {"type": "TargetFailed", "detail": "the target answered 418"},
        "position": None,
        "depth": 0,
        "attempts": 1,
        "progress": None,
        "logs": [],
        "redriven_as": None,
    }
    assert_times(answer.json, started=True, finished=True)


def test_attempts_that_are_used_up_are_told(front: Front) -> None:
    content = front.ended("demo?status=502").json

    assert (content["status"], content["attempts"]) == ("FAILURE", 4)
    assert content["error_info"] == {
        "type": "TargetFailed",
        "detail": "the target answered 502; 4 of 4 attempts were made",
    }


def test_the_error_of_an_earlier_attempt_is_history_once_it_succeeded(front: Front) -> None:
    content = front.ended("demo?fail_first=1").json

    assert (content["status"], content["attempts"], content["error_info"]) == ("SUCCESS", 2, None)


def test_a_cancelled_request_is_revoked(front: Front) -> None:
    with front.occupied("single"):
        request_id = front.submit("single")
        front.delete(request_id, "single")
    answer = front.look(request_id, "single")

    assert answer.status == 200
    assert list(answer.json) == STATUS_KEYS
    assert without_times(answer.json) == {
        "request_id": request_id,
        "status": "REVOKED",
        "service_name": "single",
        "message": "Task was cancelled.",
        "result": None,
        "error_info": {"type": "Cancelled", "detail": "cancelled by a client"},
        "position": None,
        "depth": 0,
        "attempts": 0,
        "progress": None,
        "logs": [],
        "redriven_as": None,
    }
    assert_times(answer.json, started=False, finished=True)


def test_a_request_that_waited_past_its_deadline_is_expired_and_never_sent(front: Front) -> None:
    with front.occupied("urgent"):
        request_id = front.submit("urgent")
        answer = front.await_status(request_id, "urgent", "EXPIRED")

    assert answer.status == 200
    assert list(answer.json) == STATUS_KEYS
    assert without_times(answer.json) == {
        "request_id": request_id,
        "status": "EXPIRED",
        "service_name": "urgent",
        "message": "Task expired before it was sent.",
        "result": None,
        "error_info": {"type": "Expired", "detail": "the queue deadline passed before it was sent"},
        "position": None,
        "depth": 0,
        "attempts": 0,
        "progress": None,
        "logs": [],
        "redriven_as": None,
    }
    assert_times(answer.json, started=False, finished=True)
    assert front.target.calls(request_id=request_id) == []


def test_the_sink_and_the_requests_own_url_say_the_same(front: Front) -> None:
    by_url = front.ended("demo")

    by_sink = front.call("GET", f"/api/predict/demo/sink?request_id={by_url.request_id}")

    assert (by_sink.status, by_sink.body) == (by_url.status, by_url.body)


def test_the_sink_needs_to_know_which_request(front: Front) -> None:
    answer = front.call("GET", "/api/predict/demo/sink")

    assert "request_id" in assert_problem(answer, 400, "invalid-request")["detail"]


@pytest.mark.parametrize(
    ("query", "member", "value"),
    [
        ("body_bytes=65536&content_type=text/plain", "body", "x" * 65_536),
        ("body_bytes=65537&content_type=text/plain", "body_url", None),
        ("body_bytes=10&content_type=application/octet-stream", "body_url", None),
        ("body_bytes=10&content_type=application/json", "body_url", None),
        ("body_bytes=0&content_type=text/plain", "body", ""),
    ],
    ids=["64 KiB of text", "more", "binary", "no JSON though it says so", "empty"],
)
def test_short_readable_answers_stand_in_the_status_and_others_are_linked(
    front: Front, query: str, member: str, value: str | None
) -> None:
    content = front.ended(f"demo?{query}").json
    url = f"/api/predict/demo/requests/{content['request_id']}/result"

    assert list(content["result"]) == ["status", "target_status_code", "content_type", member]
    assert content["result"][member] == (url if value is None else value)


@pytest.mark.parametrize("name", ["nan", "infinite", "deep", "coded"])
def test_an_answer_that_is_no_readable_json_is_linked_and_kept_byte_for_byte(front: Front, name: str) -> None:
    answer = front.ended(f"odd/{name}")
    url = answer.json["result"]["body_url"]

    result = front.call("GET", url)

    assert "body" not in answer.json["result"]
    assert result.body == OddTarget.answers[name][1]


# ------------------------------------------------------------------------------------------------------------- result


def test_the_result_is_the_targets_status_headers_and_bytes(front: Front) -> None:
    request_id = front.ended("demo?status=418&content_type=image/png&body_bytes=70000&retry_after=7").request_id

    answer = front.result(request_id)

    assert (answer.status, answer.body) == (418, b"x" * 70_000)
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Content-Length"] == "70000"
    assert answer.headers["Retry-After"] == "7"
    assert answer.headers["X-Result-Source"] == "target"
    assert answer.request_id == request_id


def test_a_redirect_is_a_result_and_not_followed(front: Front) -> None:
    request_id = front.ended("demo?redirect=/elsewhere").request_id

    answer = front.result(request_id)

    assert (answer.status, answer.headers["Location"]) == (302, "/elsewhere")
    assert len(front.target.calls(request_id=request_id)) == 1


def test_cookies_policies_and_forged_headers_of_a_target_are_not_relayed(front: Front) -> None:
    request_id = front.ended("odd/headers").request_id

    answer = front.result(request_id, "odd")

    assert (answer.status, answer.body) == (200, b"body")
    assert answer.headers.get_all("X-Eas-Queueservice-Request-Id") == [request_id]
    assert answer.headers.get_all("X-Result-Source") == ["target"]
    assert answer.headers["X-Name"].encode("latin-1") == "é".encode()
    assert ", ".join(answer.headers.get_all("X-Two") or []) == "1, 2"
    assert {
        name for name in answer.headers if name.lower() in ("set-cookie", "strict-transport-security", "x-bell")
    } == set()


def test_an_early_question_for_the_result_is_answered_with_the_status(front: Front) -> None:
    with front.occupied("single") as request_id:
        answer = front.result(request_id, "single")

    assert answer.status == 202
    assert (answer.json["status"], list(answer.json)) == ("STARTED", STATUS_KEYS)


@pytest.mark.parametrize(
    ("path", "code", "error_type"),
    [
        ("nowhere", 502, "TargetUnreachable"),
        ("hasty?hang=1", 504, "TargetTimeout"),
        ("hasty?drip_s=0.1&drips=99", 504, "TargetTimeout"),
    ],
)
def test_the_result_of_a_request_without_an_answer_is_a_gateway_error(
    front: Front, path: str, code: int, error_type: str
) -> None:
    service = path.partition("?")[0]
    content = front.ended(path).json

    answer = front.result(content["request_id"], service)

    problem = assert_problem(answer, code, "request-failed")
    assert problem["request_id"] == content["request_id"] == answer.request_id
    assert problem["error_type"] == content["error_info"]["type"] == error_type
    assert answer.headers["X-Result-Source"] == "queue"
    assert (content["status"], content["result"]) == ("FAILURE", None)


def test_cancelled_and_expired_requests_have_no_result(front: Front) -> None:
    with front.occupied("urgent"):
        cancelled, expired = front.submit("urgent"), front.submit("urgent")
        front.delete(cancelled, "urgent")
        front.await_status(expired, "urgent", "EXPIRED")

    assert_problem(front.result(cancelled, "urgent"), 410, "request-cancelled")
    assert_problem(front.result(expired, "urgent"), 410, "request-expired")


# ------------------------------------------------------------------------------------------------------------- cancel


def test_a_waiting_request_is_cancelled_at_once_and_never_sent(front: Front) -> None:
    with front.occupied("single"):
        request_id = front.submit("single")
        first, second = front.delete(request_id, "single"), front.delete(request_id, "single")

    assert [(answer.status, answer.json["status"]) for answer in (first, second)] == [(200, "REVOKED")] * 2
    assert front.ended("single").json["status"] == "SUCCESS"
    assert front.target.calls(request_id=request_id) == []


def test_a_running_request_is_cancelled_and_its_connection_closed(front: Front) -> None:
    request_id = front.submit("demo?hang=1")
    front.await_status(request_id, "demo", "STARTED")

    first, second = front.delete(request_id), front.delete(request_id)

    assert [(answer.status, answer.json["status"]) for answer in (first, second)] == [
        (202, "REVOKED"),
        (200, "REVOKED"),
    ]
    [call] = front.target.wait_for(lambda calls: all(call["outcome"] for call in calls), request_id=request_id)
    assert call["outcome"] == "closed_before_headers"


def test_what_has_ended_otherwise_can_not_be_cancelled(front: Front) -> None:
    with front.occupied("urgent"):
        expired = front.submit("urgent")
        front.await_status(expired, "urgent", "EXPIRED")
    ended = [
        (front.ended("demo").request_id, "demo"),
        (front.ended("demo?status=418").request_id, "demo"),
        (expired, "urgent"),
    ]

    for request_id, service in ended:
        before = front.look(request_id, service).body
        assert_problem(front.delete(request_id, service), 409, "not-cancellable")
        assert front.look(request_id, service).body == before


# ------------------------------------------------------------------------------------------------------------- access

ROUTES = [
    ("POST", "/api/predict/{service}"),
    ("POST", "/api/predict/{service}/v1/x"),
    ("GET", f"/api/predict/{{service}}/sink?request_id={UNKNOWN_ID}"),
    ("GET", f"/api/predict/{{service}}/requests/{UNKNOWN_ID}"),
    ("GET", f"/api/predict/{{service}}/requests/{UNKNOWN_ID}/result"),
    ("DELETE", f"/api/predict/{{service}}/requests/{UNKNOWN_ID}"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer no-token-of-theirs"}, {"Authorization": "Bearer"}])
def test_no_token_or_a_wrong_one_is_401_on_every_route_whether_or_not_the_service_exists(
    front: Front, method: str, path: str, headers: dict[str, str]
) -> None:
    before = front.stored()

    answers = [
        front.call(method, path.format(service=name), None, headers, token=None)
        for name in ("demo", "unlisted", "-bad-")
    ]

    for answer in answers:
        assert_problem(answer, 401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="eas_queue"'
    assert len({answer.body for answer in answers}) == 1
    assert front.stored() == before


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {TOKEN}"},
        {"authorization": f"bearer  {TOKEN}"},
        {"Authorization": f"Key {TOKEN}"},
        {"Authorization": TOKEN},
        {"X-API-Key": TOKEN},
    ],
)
def test_all_forms_of_a_token_mean_the_same(front: Front, headers: dict[str, str]) -> None:
    assert front.call("POST", "/api/predict/demo", b"", headers, token=None).status == 200


@pytest.mark.parametrize("name", ["token", "access_token", "api_key", "Authorization", "X-API-Key", "_token_"])
def test_a_token_in_the_query_string_is_no_token(front: Front, name: str) -> None:
    answer = front.call("POST", f"/api/predict/demo?{name}={TOKEN}", b"", token=None)

    assert_problem(answer, 401, "unauthorized")


def test_a_token_for_one_service_is_403_at_the_others_whether_or_not_they_exist(front: Front) -> None:
    own = front.call("POST", "/api/predict/demo", b"", token=LIMITED_TOKEN)

    assert own.status == 200
    for service in ("other", "unlisted"):
        for method, path in ROUTES:
            answer = front.call(method, path.format(service=service), token=LIMITED_TOKEN)
            assert service in assert_problem(answer, 403, "forbidden")["detail"]


def test_a_token_that_may_read_can_not_submit_or_cancel(front: Front) -> None:
    request_id = front.ended("demo").request_id
    url = f"/api/predict/demo/requests/{request_id}"

    assert front.call("GET", url, token=READER_TOKEN).status == 200
    assert front.call("GET", f"{url}/result", token=READER_TOKEN).status == 200
    assert_problem(front.call("POST", "/api/predict/demo", b"", token=READER_TOKEN), 403, "forbidden")
    assert_problem(front.call("DELETE", url, token=READER_TOKEN), 403, "forbidden")


# ------------------------------------------------------------------------------------------ what there is not: 404, 405


@pytest.mark.parametrize(("method", "path"), ROUTES[2:])
def test_unknown_malformed_and_foreign_ids_look_alike_and_the_ttl_is_named(
    front: Front, method: str, path: str
) -> None:
    foreign = front.ended("other").request_id

    details = []
    for request_id in (UNKNOWN_ID, "17", foreign, foreign.upper(), "a" * 300):
        answer = front.call(method, path.format(service="demo").replace(UNKNOWN_ID, request_id))
        problem = assert_problem(answer, 404, "request-not-found")
        details.append(problem["detail"].replace(request_id, "ID"))

    assert len(set(details)) == 1
    assert "86400 s" in details[0]
    assert "RESULT_TTL_S" in details[0]
    assert front.look(foreign, "other").json["status"] == "SUCCESS"


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_service_that_is_not_listed_is_404_and_the_mend_is_named(front: Front, method: str, path: str) -> None:
    answer = front.call(method, path.format(service="unlisted"))

    assert "services file" in assert_problem(answer, 404, "service-not-found")["detail"]


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/api", "/api/predict", "/api/predict/", "/api/predict//x", "/healthz/"]
)
def test_an_unknown_path_is_a_404_problem(front: Front, path: str) -> None:
    assert_problem(front.call("POST", path, b""), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/predict/demo", {"POST"}),
        ("PUT", "/api/predict/demo/x", {"POST"}),
        ("DELETE", "/api/predict/demo/sink", {"GET", "POST"}),
        ("PATCH", f"/api/predict/demo/requests/{UNKNOWN_ID}", {"DELETE", "GET", "POST"}),
        ("POST", "/healthz", {"GET"}),
    ],
)
def test_a_method_that_a_path_does_not_have_is_a_405_problem_with_allow(
    front: Front, method: str, path: str, allowed: set[str]
) -> None:
    answer = front.call(method, path, b"")

    assert_problem(answer, 405, "method-not-allowed")
    assert allowed <= set(answer.headers["Allow"].replace(" ", "").split(","))


# ------------------------------------------------------------------------------------------------------------- limits


def chunks(size: int) -> Iterator[bytes]:
    """*size* bytes in pieces of 10,000, of which http.client makes a chunk each."""
    for start in range(0, size, 10_000):
        yield b"x" * min(10_000, size - start)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_exactly_the_limit_passes(front: Front, chunked: bool) -> None:
    body = chunks(MAX_PAYLOAD_BYTES) if chunked else b"x" * MAX_PAYLOAD_BYTES

    request_id = front.ended("demo", body).request_id

    [call] = front.target.calls(request_id=request_id)
    assert call["body_bytes"] == MAX_PAYLOAD_BYTES


@pytest.mark.parametrize("size", [MAX_PAYLOAD_BYTES + 1, 3 * MAX_PAYLOAD_BYTES])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_longer_body_is_413_and_nothing_is_stored(front: Front, size: int, chunked: bool) -> None:
    before = front.stored()

    answer = front.post("demo", chunks(size) if chunked else b"x" * size)

    assert (
        f"{MAX_PAYLOAD_BYTES} bytes (MAX_PAYLOAD_BYTES)" in assert_problem(answer, 413, "payload-too-large")["detail"]
    )
    assert front.stored() == before


def test_a_full_queue_is_429_with_retry_after_and_nothing_is_stored(front: Front) -> None:
    with front.occupied("narrow"):
        waiting = [front.submit("narrow") for _ in range(2)]
        before = front.stored()
        refused = front.post("narrow")
        stored = front.stored()
        front.delete(waiting[0], "narrow")
        accepted = front.post("narrow")

    problem = assert_problem(refused, 429, "queue-full")
    assert "max_queue_length is 2" in problem["detail"]
    assert refused.headers["Retry-After"] == str(problem["retry_after_s"]) == "1"
    assert refused.request_id is None
    assert stored == before
    assert accepted.status == 200


# --------------------------------------------------------------------------------------------------------- smuggling

HEAD = f"POST /api/predict/demo HTTP/1.1\r\nHost: queue\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
HIDDEN = HEAD + b"Content-Length: 0\r\n\r\n"


def target_line(path: bytes) -> bytes:
    return HEAD.replace(b"/api/predict/demo", path) + b"Content-Length: 0\r\n\r\n"


def with_header(line: bytes) -> bytes:
    return HEAD + line + b"\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(data, id=name)
        for name, data in {
            "CR in a header value": with_header(b"X-A: a\rX-B: b"),
            "LF in a header value": with_header(b"X-A: a\nX-B: b"),
            "bare LF as line end": HEAD.replace(b"\r\n", b"\n") + b"Content-Length: 0\n\n",
            "bare LF before the last header": HEAD[:-2] + b"\nContent-Length: 0\r\n\r\n",
            "folded header": with_header(b"X-A: a\r\n b"),
            "NUL in a header value": with_header(b"X-A: a\0b"),
            "escape in a header value": with_header(b"X-A: \x1b[2J"),
            "DEL in a header value": with_header(b"X-A: \x7f"),
            "blank in a header name": with_header(b"X A: a"),
            "blank before the colon": with_header(b"X-A : a"),
            "control character in a header name": with_header(b"X\x01A: a"),
            "header name that is not ASCII": with_header(b"X-\xc3\xa9: a"),
            "header without a name": with_header(b": a"),
            "header without a colon": with_header(b"nonsense"),
            "overlong header": with_header(b"X-A: " + b"a" * 10_000),
            "overlong header name": with_header(b"X-" + b"a" * 10_000 + b": a"),
            "length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
            "chunks and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + HIDDEN,
            "two lengths": HEAD + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n" + HIDDEN,
            "two equal lengths": HEAD + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
            "list of lengths": HEAD + b"Content-Length: 0, 5\r\n\r\n" + HIDDEN,
            "signed length": HEAD + b"Content-Length: +0\r\n\r\n" + HIDDEN,
            "negative length": HEAD + b"Content-Length: -1\r\n\r\n" + HIDDEN,
            "coding besides chunked": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + HIDDEN,
            "chunked twice": HEAD
            + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            + HIDDEN,
            "two hosts": with_header(b"Host: elsewhere"),
            "body shorter than announced": HEAD + b"Content-Length: 100\r\n\r\nshort",
            "chunk shorter than announced": HEAD + b"Transfer-Encoding: chunked\r\n\r\n64\r\nshort",
            "chunks without an end": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
            "chunk size that is none": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nshort\r\n0\r\n\r\n",
            "encoded line end in the path": target_line(b"/api/predict/demo/a%0d%0aX-A:%20b"),
            "encoded line end in the service": target_line(b"/api/predict/demo%0d%0aX-A:b"),
            "encoded line end in the query": target_line(b"/api/predict/demo?a=1%0d%0aX-A:%20b"),
            "encoded NUL in the path": target_line(b"/api/predict/demo/a%00b"),
            "encoded NUL in the query": target_line(b"/api/predict/demo?a=%00"),
            "raw control character in the path": target_line(b"/api/predict/demo/a\x01b"),
            "raw NUL in the path": target_line(b"/api/predict/demo/a\0b"),
            "raw tab in the query": target_line(b"/api/predict/demo?a=\tb"),
            "bytes that are not ASCII in the path": target_line(b"/api/predict/demo/\xc3\xa9"),
            "blank in the path": target_line(b"/api/predict/demo/a b"),
            "blank in the service": target_line(b"/api/predict/de%20mo"),
            "braces in the service": target_line(b"/api/predict/%7Bpath%7D"),
            "key separator in the service": target_line(b"/api/predict/a%7D:b"),
            "service that starts with a dot": target_line(b"/api/predict/.demo"),
            "service that is dots": target_line(b"/api/predict/%2e%2e/x"),
            "service of other letters": target_line(b"/api/predict/d%C3%A9mo"),
            "service of 129 letters": target_line(b"/api/predict/" + b"a" * 129),
            "overlong service": target_line(b"/api/predict/" + b"a" * 5_000),
            "overlong path": target_line(b"/api/predict/demo/" + b"a" * 9_000),
            "no HTTP": b"nonsense\r\n\r\n",
        }.items()
    ],
)
def test_what_could_smuggle_is_answered_once_with_a_4xx_and_nothing_is_stored(front: Front, data: bytes) -> None:
    before = front.stored()

    received = front.raw(data)

    assert re.match(rb"HTTP/1\.1 4\d\d ", received), received[:200]
    assert received.count(b"HTTP/1.1 ") == 1
    assert front.stored() == before


def test_an_unknown_transfer_coding_is_refused(front: Front) -> None:
    before = front.stored()

    received = front.raw(HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN)

    assert received.startswith(b"HTTP/1.1 501 ")  # RFC 9112 section 6.1
    assert received.count(b"HTTP/1.1 ") == 1
    assert front.stored() == before


@pytest.mark.parametrize(
    ("head", "code"),
    [
        pytest.param(head, code, id=name)
        for name, (head, code) in {
            "no token": (b"POST /api/predict/demo HTTP/1.1\r\nHost: queue\r\n", 401),
            "unknown service": (HEAD.replace(b"/demo", b"/unknown"), 404),
            "refused before it is read": (HEAD.replace(b"/demo", b"/-demo"), 400),
            "refused after it is read": (HEAD.replace(b"/demo", b"/demo/a%00"), 400),
            "a bad header": (HEAD + b"X-Deadline: soon\r\n", 400),
            "a GET with a body": (HEAD.replace(b"POST /api/predict/demo", b"GET /api/predict/demo/sink"), 400),
            "taken": (HEAD, 200),
        }.items()
    ],
)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_is_never_taken_for_the_next_request(front: Front, head: bytes, code: int, is_chunked: bool) -> None:
    before = front.stored()
    body = HIDDEN * 3
    framed = (
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        if is_chunked
        else b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )

    received = front.raw(head + framed + HEAD.replace(b"/demo", b"/never") + b"Content-Length: 0\r\n\r\n")

    codes = [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]
    assert codes in ([code], [code, 404]), received
    assert len(front.stored() - before) == (code == 200)


# ------------------------------------------------------------------------------------------------------------- waiting


def test_a_request_that_ends_in_time_is_answered_with_its_status(front: Front) -> None:
    answer = front.post("demo?delay_s=0.3", headers={"Prefer": "respond-async, wait=10"})

    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Preference-Applied"] == f"wait={MAX_WAIT_S}"
    assert answer.headers["Location"] == f"/api/predict/demo/requests/{answer.request_id}"
    assert int(answer.headers["X-Eas-Queueservice-Index"]) > 0
    assert (answer.json["status"], list(answer.json)) == ("SUCCESS", STATUS_KEYS)
    assert answer.body == front.look(answer.request_id).body


@pytest.mark.parametrize("prefer", ["wait=0.3", 'wait="0"', "WAIT = 0.2 ; x=1"])
def test_a_request_that_does_not_is_answered_as_usual_after_the_time(front: Front, prefer: str) -> None:
    wait_s = float(re.sub(r"[^0-9.]", "", prefer.partition(";")[0]))
    began = time.monotonic()

    answer = front.post("demo?hang=1", headers={"Prefer": prefer})

    elapsed_s = time.monotonic() - began
    front.delete(answer.request_id)
    assert (answer.status, answer.body.decode()) == (200, answer.request_id)
    assert "Preference-Applied" not in answer.headers
    assert wait_s <= elapsed_s < wait_s + 1.5


def test_no_wait_is_longer_than_max_wait_s(front: Front) -> None:
    began = time.monotonic()

    answer = front.post("demo?hang=1", headers={"Prefer": "wait=999999"})

    elapsed_s = time.monotonic() - began
    front.delete(answer.request_id)
    assert answer.body.decode() == answer.request_id
    assert MAX_WAIT_S <= elapsed_s < MAX_WAIT_S + 1.5


def test_a_waiting_client_hears_at_once_that_its_request_was_cancelled(front: Front) -> None:
    answers: list[Answer] = []
    with front.occupied("single"):
        before = front.stored()
        waiting = threading.Thread(
            target=lambda: answers.append(front.post("single", headers={"Prefer": f"wait={MAX_WAIT_S}"}))
        )
        waiting.start()
        [key] = await_condition(lambda: front.stored() - before, what="the request is stored")
        began = time.monotonic()
        front.delete(key.decode().rpartition(":")[2], "single")
        waiting.join()

    assert time.monotonic() - began < 1
    assert answers[0].json["status"] == "REVOKED"


@pytest.mark.parametrize("prefer", ["wait=abc", "wait=-1", "wait", "wait=", "wait=1e3", "wait=nan", "wait=99999999"])
def test_a_wait_that_is_no_number_of_seconds_is_refused(front: Front, prefer: str) -> None:
    before = front.stored()

    answer = front.post("demo", headers={"Prefer": prefer})

    assert "Prefer: wait" in assert_problem(answer, 400, "invalid-request")["detail"]
    assert front.stored() == before


# ------------------------------------------------------------------------------------------------------------- health


def test_healthz_needs_no_token_and_names_no_host(front: Front) -> None:
    def workers_are_seen() -> Any:
        answer = front.call("GET", "/healthz", token=None)
        return answer if answer.json.get("workers") else None

    answer = await_condition(workers_are_seen, what="the worker is heard of")

    assert (answer.status, answer.json["status"], answer.json["redis"], answer.json["listener"]) == (200, *["ok"] * 3)
    assert answer.json["sweep"]["status"] == "ok"
    assert answer.json["sweep"]["age_s"] < 5
    assert [worker["seats"] for worker in answer.json["workers"]] == [100]
    assert len(answer.json["web"]) == 4
    assert max(process["age_s"] for process in answer.json["workers"] + answer.json["web"]) < 5
    assert socket.gethostname().encode() not in answer.body
