"""What a submit may ask for beside its target: once only, not too late, not too fast; and waits of every kind."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from tests.support.front import MAX_WAIT_S, RATED_TOKEN, READER_TOKEN, Answer, Front, assert_problem
from tests.support.installation import TOKEN, await_condition

# -------------------------------------------------------------------------------------------------------- idempotency


def test_the_same_key_is_the_same_request(front: Front) -> None:
    headers = {"Idempotency-Key": "order 7 of ann"}
    first = front.post("demo/sub?a=1", b"body", headers)
    before = front.stored()

    again = front.post("demo/sub?a=1&_priority_=5", b"body", headers)

    assert (again.status, again.body, again.request_id) == (200, first.body, first.request_id)
    assert again.headers["X-Eas-Queueservice-Index"] == first.headers["X-Eas-Queueservice-Index"]
    assert (first.headers["Idempotency-Replayed"], again.headers["Idempotency-Replayed"]) == (None, "true")
    assert front.stored() == before


def test_the_same_key_waits_for_the_request_of_the_first_time(front: Front) -> None:
    headers = {"Idempotency-Key": "wait for it"}
    first = front.post("demo", b"body", headers)

    again = front.post("demo", b"body", headers | {"Prefer": "wait=5"})

    assert (again.json["status"], again.request_id) == ("SUCCESS", first.request_id)
    assert again.headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize("path", ["demo", "demo/sub", "demo?a=1"])
def test_another_request_under_a_used_key_is_refused(front: Front, path: str) -> None:
    headers = {"Idempotency-Key": f"used for {path}"}
    front.post("demo/other?b=2", b"body", headers)
    before = front.stored()

    answer = front.post(path, b"body", headers)

    assert "Idempotency-Key" in assert_problem(answer, 422, "idempotency-conflict")["detail"]
    assert front.stored() == before


def test_keys_of_different_tokens_and_services_are_apart(front: Front) -> None:
    headers = {"Idempotency-Key": "shared by chance"}
    answers = [
        front.post("demo", b"one", headers),
        front.post("other", b"two", headers),
        front.call("POST", "/api/predict/demo", b"three", headers, token=RATED_TOKEN),
    ]

    assert len({answer.request_id for answer in answers}) == 3


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "ключ".encode()])
def test_a_key_that_can_not_be_one_is_refused(front: Front, key: str | bytes) -> None:
    answer = front.post("demo", headers={"Idempotency-Key": key})

    assert "Idempotency-Key" in assert_problem(answer, 400, "invalid-request")["detail"]


def test_fifty_clients_with_one_key_at_once_make_one_request(front: Front) -> None:
    barrier, answers = threading.Barrier(50), []

    def submit() -> None:
        barrier.wait()
        answers.append(front.post("demo", b"same", {"Idempotency-Key": "fifty"}))

    threads = [threading.Thread(target=submit) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {answer.status for answer in answers} == {200}
    assert len({answer.request_id for answer in answers}) == 1
    assert sum(answer.headers["Idempotency-Replayed"] is None for answer in answers) == 1
    request_id = answers[0].request_id
    front.await_status(request_id, "demo", "SUCCESS")
    assert len(front.target.calls(request_id=request_id)) == 1


# ----------------------------------------------------------------------------------------------------------- deadlines


def test_a_request_that_waited_past_its_own_deadline_is_expired(front: Front) -> None:
    with front.occupied("single"):
        soon = front.post("single", headers={"X-Deadline": "0.3"}).request_id
        later = front.post("single", headers={"X-Deadline": "60"}).request_id

        front.await_status(soon, "single", "EXPIRED")
        assert front.look(later, "single").json["status"] == "PENDING"
    assert front.await_status(later, "single", "SUCCESS")
    assert front.target.calls(request_id=soon) == []


def test_a_requests_own_deadline_goes_before_the_services(front: Front) -> None:
    with front.occupied("urgent"):  # deadline_s = 0.2
        request_id = front.post("urgent", headers={"X-Deadline": "30"}).request_id
        later = front.post("urgent").request_id
        front.await_status(later, "urgent", "EXPIRED")
        assert front.look(request_id, "urgent").json["status"] == "PENDING"
        front.delete(request_id, "urgent")


@pytest.mark.parametrize("value", ["0", "-1", "soon", "1e3", "", "31536001", "1.2345"])
def test_a_deadline_that_is_no_time_from_now_is_refused(front: Front, value: str) -> None:
    answer = front.post("demo", headers={"X-Deadline": value})

    assert "X-Deadline" in assert_problem(answer, 400, "invalid-request")["detail"]


# --------------------------------------------------------------------------------------------------------------- rates


def test_a_token_that_submits_too_fast_is_told_when_to_come_again(front: Front) -> None:
    def submit() -> Answer:
        return front.call("POST", "/api/predict/other", b"{}", token=RATED_TOKEN)

    def bucket_is_empty() -> Answer | None:
        answer = submit()
        return answer if answer.status == 429 else None

    answer = await_condition(bucket_is_empty, what="the burst is used up")

    problem = assert_problem(answer, 429, "rate-limited")
    assert problem["retry_after_s"] == int(answer.headers["Retry-After"]) in (1, 2)
    assert "0.5 requests a second" in problem["detail"]
    assert front.post("other").status == 200, "others are not slowed down"


# --------------------------------------------------------------------------------------------------------------- waits


@pytest.mark.parametrize("value", ["2s", "1500ms", "0.03m", "1s500ms", "2", "2000000us"])
def test_timeout_in_any_unit_waits_for_the_end(front: Front, value: str) -> None:
    answer = front.post(f"demo?delay_s=0.2&_timeout_={value}")

    assert (answer.status, answer.json["status"]) == (200, "SUCCESS")
    assert float(answer.headers["Preference-Applied"].removeprefix("wait=")) == pytest.approx(1.75, abs=0.26)


def test_a_client_that_closes_its_sending_side_learns_the_id_of_what_is_stored(front: Front) -> None:
    body = b"sent whole, then closed"
    head = f"POST /api/predict/demo?hang=1&_timeout_=300s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"

    received = front.raw(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)

    assert received.startswith(b"HTTP/1.1 200 ")
    request_id = received.rpartition(b"\r\n\r\n")[2].decode()
    assert front.delete(request_id).json["status"] == "REVOKED"


@pytest.mark.parametrize("wait", ["Prefer: wait=0", "_timeout_=0"])
def test_no_wait_is_no_wait_also_for_what_has_ended(front: Front, wait: str) -> None:
    headers = {"Idempotency-Key": f"no wait by {wait}"}
    first = front.post("demo", b"", headers | {"Prefer": "wait=2"})
    assert first.headers["Preference-Applied"] == "wait=2"

    if wait.startswith("Prefer"):
        again = front.post("demo", b"", headers | {"Prefer": "wait=0"})
    else:
        again = front.post(f"demo?{wait}", b"", headers)

    assert again.body.decode() == again.request_id == first.request_id
    assert again.headers["Preference-Applied"] is None


def test_a_result_that_there_is_none_of_tells_that_it_waited(front: Front) -> None:
    request_id = front.submit("demo?hang=1")
    front.delete(request_id)

    answer = front.call("GET", f"/api/predict/demo/requests/{request_id}/result?_timeout_=1s")

    assert (answer.status, answer.headers["Preference-Applied"]) == (410, "wait=1")


@pytest.mark.parametrize("value", ["soon", "-1s", "1x", "", "s", "1e3", "1s&_timeout_=1s"])
def test_a_timeout_that_is_no_duration_is_refused(front: Front, value: str) -> None:
    before = front.stored()

    assert "_timeout_" in assert_problem(front.post(f"demo?_timeout_={value}"), 400, "invalid-request")["detail"]
    request_id = front.submit()
    answer = front.call("GET", f"/api/predict/demo/sink?request_id={request_id}&_timeout_={value}")
    assert_problem(answer, 400, "invalid-request")
    assert len(front.stored() - before) == 1


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("/api/predict/demo/sink?request_id={id}&_timeout_=2s", {}),
        ("/api/predict/demo/sink?request_id={id}", {"Prefer": "wait=2"}),
        ("/api/predict/demo/requests/{id}?_timeout_=2s", {}),
        ("/api/predict/demo/requests/{id}/result", {"Prefer": "wait=2"}),
    ],
)
def test_every_look_can_wait_for_the_end(front: Front, url: str, headers: dict[str, str]) -> None:
    request_id = front.submit("demo?delay_s=0.5")
    began = time.monotonic()

    answer = front.call("GET", url.format(id=request_id), headers=headers)

    assert time.monotonic() - began < 1.5
    assert answer.status == 200
    assert answer.headers["Preference-Applied"] == "wait=2"
    assert answer.json in ({"ok": True}, front.look(request_id).json)


def test_a_look_that_waited_in_vain_answers_as_it_stands(front: Front) -> None:
    request_id = front.submit("demo?hang=1")
    began = time.monotonic()

    answer = front.call("GET", f"/api/predict/demo/sink?request_id={request_id}&_timeout_=500ms")

    assert 0.5 <= time.monotonic() - began < MAX_WAIT_S
    assert (answer.status, answer.json["status"]) == (202, "STARTED")
    assert answer.headers["Preference-Applied"] is None
    front.delete(request_id)


def test_a_wait_for_what_does_not_exist_ends_at_once(front: Front) -> None:
    began = time.monotonic()

    answer = front.call("GET", "/api/predict/demo/sink?request_id=unknown&_timeout_=2s")

    assert_problem(answer, 404, "request-not-found")
    assert time.monotonic() - began < 1


def test_a_reader_may_wait(front: Front) -> None:
    request_id = front.submit("demo")

    answer = front.call("GET", f"/api/predict/demo/sink?request_id={request_id}&_timeout_=2s", token=READER_TOKEN)

    assert answer.json["status"] == "SUCCESS"


# -------------------------------------------------------------------------------------------------------- a full sink


def test_a_service_whose_sink_is_full_holds_its_requests(front: Front) -> None:
    for _ in range(2):
        front.ended("held")
    waiting = front.submit("held")

    def is_held() -> Any:
        overview = front.call("GET", "/api/services/held").json
        return overview if overview["held"] else None

    overview = await_condition(is_held, what="the sink is full")

    assert (overview["sink"], overview["depth"], overview["running"]) == (2, 1, 0)
    assert front.look(waiting, "held").json["status"] == "PENDING"
    assert front.delete(waiting, "held").status == 200
