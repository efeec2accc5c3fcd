"""What becomes of a request: through several attempts, over several dialects, until it is forgotten."""

from __future__ import annotations

import time
from typing import Any

import pytest

from eas_queue.engine.service import ServiceSettings
from eas_queue.store import keys
from tests.dialects.fal.conftest import Fal
from tests.support.front import RATED_TOKEN, Answer
from tests.support.installation import await_condition
from tests.support.own_target import Call, OwnTarget

LOGS_KEPT = 500


def natively(fal: Fal, service: str, request_id: str) -> dict[str, Any]:
    found: dict[str, Any] = fal.front.call("GET", f"/api/predict/{service}/requests/{request_id}").json
    return found


class TestAttempts:
    def test_one_that_will_be_sent_again_is_in_the_queue_again(self, fal: Fal, own_target: OwnTarget) -> None:
        own_target.act = lambda call: (503, b"{}")
        request_id = fal.submit("acme/patient")
        await_condition(lambda: natively(fal, "patient", request_id)["status"] == "RETRY")

        status = fal.status("acme/patient", request_id)

        assert (status.status, status.json["status"], status.json["queue_position"]) == (202, "IN_QUEUE", 0)
        assert "error" not in status.json and status.json["metrics"] == {}
        assert fal.result("acme/patient", request_id).status == 400
        assert fal.cancel("acme/patient", request_id).status == 202
        assert fal.result("acme/patient", request_id).status == 499

    @pytest.mark.parametrize(
        ("endpoint", "config", "attempts"),
        [
            ("acme/nowhere", '{"connection_error": {"retries": 2}}', 3),
            ("acme/nowhere", '{"timeout": {"retries": 2}}', 2),
            ("acme/hasty?hang=1", '{"timeout": {"retries": 2}}', 3),
            ("acme/hasty?hang=1", '{"connection_error": {"retries": 2}}', 2),
        ],
    )
    def test_they_go_by_what_went_wrong(self, fal: Fal, endpoint: str, config: str, attempts: int) -> None:
        request_id, _ = fal.ended(endpoint, headers={"X-Fal-Retry-Config": config})

        service = endpoint.partition("?")[0].removeprefix("acme/")
        assert natively(fal, service, request_id)["attempts"] == attempts

    def test_the_time_is_that_of_the_last_one(self, fal: Fal, own_target: OwnTarget) -> None:
        def act(call: Call) -> tuple[int, bytes]:
            if call.headers["x-request-attempt"] == "1":
                time.sleep(0.3)  # what is measured
                return 503, b"{}"
            return 200, b"{}"

        own_target.act = act
        request_id, _ = fal.ended("acme/own")

        assert 0 <= fal.status("acme/own", request_id).json["metrics"]["inference_time"] < 0.3

    def test_each_has_the_same_id_and_its_number(self, fal: Fal, own_target: OwnTarget) -> None:
        calls: list[Call] = []
        own_target.act = lambda call: (calls.append(call), (503, b"{}"))[1]  # type: ignore[func-returns-value]

        request_id, _ = fal.ended("acme/own")

        assert [call.headers["x-request-attempt"] for call in calls] == ["1", "2", "3", "4"]
        assert len(calls) == ServiceSettings().max_attempts
        assert {call.headers["x-fal-request-id"] for call in calls} == {request_id}

    def test_a_redirect_of_the_target_is_its_answer(self, fal: Fal, own_target: OwnTarget) -> None:
        own_target.act = lambda call: (307, b"", {"Location": "http://elsewhere.example/"})

        request_id, answer = fal.ended("acme/own")

        assert (answer.status, answer.headers["Location"]) == (307, "http://elsewhere.example/")
        assert fal.status("acme/own", request_id).json["error"] == "Invalid status code: 307"


class TestRefusals:
    def test_a_service_that_is_full_is_429(self, fal: Fal) -> None:
        with fal.occupied("acme/narrow"):
            waiting = fal.submit("acme/narrow")
            answers = [fal.post("acme/narrow"), fal.post("acme/narrow?fal_max_queue_length=9")]
            fal.cancel("acme/narrow", waiting)

        for answer in answers:
            assert (answer.status, answer.json["detail"]) == (429, "Queue is full")
            assert int(answer.headers["Retry-After"]) >= 1
            assert "x-fal-request-id" not in answer.headers

    def test_who_submits_too_fast_is_429_too(self, fal: Fal) -> None:
        answers = [fal.call("POST", "/fal/acme/demo", "{}", token=RATED_TOKEN) for _ in range(2)]

        assert [answer.status for answer in answers] == [200, 429]
        assert answers[1].json["detail"] != "Queue is full"

    def test_a_path_that_the_service_can_not_take_is_refused(self, fal: Fal) -> None:
        answer = fal.post("acme/flat/sub")

        assert (answer.status, answer.json["error_type"]) == (400, "bad_request")

    def test_a_coded_body_is_no_json(self, fal: Fal) -> None:
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}

        assert fal.call("POST", "/fal/acme/demo", b"\x1f\x8b\x08", headers).status == 400


class TestKeys:
    def test_the_same_key_is_the_same_request(self, fal: Fal, single: str) -> None:
        key = {"Idempotency-Key": f"key of {single}"}
        first, second = (fal.post(single, {"a": 1}, key).json for _ in range(2))
        other = fal.post(single, {"a": 2}, key)

        assert first["request_id"] == second["request_id"]
        assert other.status == 422 and "x-fal-request-id" not in other.headers

    def test_a_start_deadline_of_fals_goes_before_ours(self, fal: Fal, single: str) -> None:
        with fal.occupied(single):
            soon = fal.submit(single, headers={"X-Deadline": "60", "X-Fal-Request-Timeout": "0.15"})
            later = fal.submit(single, headers={"X-Deadline": "0.15", "X-Fal-Request-Timeout": "60"})
            ours = fal.submit(single, headers={"X-Deadline": "0.15"})
            for request_id in (soon, ours):
                fal.await_word(single, request_id, "COMPLETED")
                assert fal.result(single, request_id).headers["X-Fal-Request-Timeout-Type"] == "user"
            assert fal.status(single, later).json["status"] == "IN_QUEUE"
            fal.cancel(single, later)

    def test_it_does_not_bound_the_run(self, fal: Fal) -> None:
        _, answer = fal.ended("acme/demo?delay_s=0.4", headers={"X-Fal-Request-Timeout": "0.3"})

        assert answer.status == 200


class TestLogs:
    def test_the_latest_lines_are_kept(self, fal: Fal, own_target: OwnTarget) -> None:
        def act(call: Call) -> tuple[int, bytes]:
            for number in range(0, LOGS_KEPT + 100, 100):
                call.report(logs=[{"message": str(number + i)} for i in range(100)])
            return 200, b"{}"

        own_target.act = act
        request_id, _ = fal.ended("acme/own")

        lines = fal.status("acme/own", request_id, "?logs=1").json["logs"]
        assert [line["message"] for line in lines] == [str(number) for number in range(100, LOGS_KEPT + 100)]


class TestOverDialects:
    def test_one_that_came_natively_is_followed_and_cancelled_here(self, fal: Fal, single: str) -> None:
        service = single.partition("/")[2]
        with fal.occupied(single):
            request_id = fal.front.call("POST", f"/api/predict/{service}", "{}").body.decode().strip()
            status = fal.status(single, request_id)
            answer = fal.cancel(single, request_id)

        assert (status.status, status.json["queue_position"]) == (202, 0)
        assert answer.status == 202
        assert natively(fal, service, request_id)["status"] == "REVOKED"

    def test_one_that_came_from_here_is_followed_and_cancelled_natively(self, fal: Fal, single: str) -> None:
        service = single.partition("/")[2]
        with fal.occupied(single):
            request_id = fal.submit(single)
            assert natively(fal, service, request_id)["status"] == "PENDING"
            fal.front.call("DELETE", f"/api/predict/{service}/requests/{request_id}")

        assert fal.status(single, request_id).json["error_type"] == "client_cancelled"

    def test_a_consumers_answer_is_the_result(self, fal: Fal) -> None:
        request_id = fal.submit("acme/pulled", {"a": 1})
        headers = {"Content-Type": "application/json"}
        put = fal.front.call("POST", f"/api/predict/pulled/sink?requestId={request_id}", b'{"b": 2}', headers)
        assert put.status == 200, put.body

        fal.await_word("acme/pulled", request_id, "COMPLETED")
        assert fal.result("acme/pulled", request_id).json == {"b": 2}


class TestAnswers:
    def test_each_one_of_a_request_names_it(self, fal: Fal, single: str) -> None:
        with fal.occupied(single) as running:
            answers: list[Answer] = [fal.status(single, running), fal.result(single, running)]
            answers += [fal.cancel(single, running), fal.cancel(single, running), fal.result(single, running)]

        assert [answer.status for answer in answers] == [202, 400, 202, 400, 499]
        assert {answer.headers["x-fal-request-id"] for answer in answers} == {running}

    def test_a_status_is_not_to_be_kept_by_proxies(self, fal: Fal) -> None:
        submitted = fal.post("acme/demo")
        status = fal.status("acme/demo", submitted.json["request_id"])

        assert submitted.headers["Cache-Control"] == status.headers["Cache-Control"] == "no-store"

    def test_a_result_may_be_had_again_and_by_its_head(self, fal: Fal) -> None:
        request_id, first = fal.ended("acme/demo?echo=1", {"a": 1})
        again = fal.result("acme/demo", request_id)
        head = fal.call("HEAD", f"/fal/acme/demo/requests/{request_id}")

        assert again.body == first.body
        assert (head.status, head.body) == (200, b"")
        assert head.headers["x-fal-request-id"] == request_id

    def test_what_is_past_its_time_is_unknown(self, fal: Fal) -> None:
        request_id, _ = fal.ended("acme/demo")
        fal.front._redis.delete(keys.record_key("demo", request_id))

        assert [fal.status("acme/demo", request_id).status, fal.result("acme/demo", request_id).status] == [404, 404]
        assert fal.cancel("acme/demo", request_id).json["status"] == "NOT_FOUND"

    def test_headers_that_could_not_be_are_not_allowed(self, fal: Fal) -> None:
        for wanted in ("a b;<script>", "x" * 5000):
            answer = fal.call("OPTIONS", "/fal/acme/demo", None, {"Access-Control-Request-Headers": wanted}, token=None)

            assert answer.status == 204
            assert "Access-Control-Allow-Headers" not in answer.headers
