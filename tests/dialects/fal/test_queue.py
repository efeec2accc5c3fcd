"""Submit, status, result and cancel, as they are on the wire."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

import pytest

from eas_queue.store import keys
from tests.dialects.fal.conftest import QUEUE_HOST, RUN_HOST, Fal
from tests.support.front import LIMITED_TOKEN, MAX_PAYLOAD_BYTES, ROLE_TOKENS
from tests.support.installation import TOKEN, await_condition
from tests.support.own_target import Call, OwnTarget

UNKNOWN = "00000000-0000-8000-8000-000000000000"
KEYS = ["status", "request_id", "response_url", "status_url", "cancel_url"]


def echo(fal: Fal, endpoint: str, content: Any = None, headers: dict[str, str] | None = None) -> Any:
    _, answer = fal.ended(endpoint + ("&" if "?" in endpoint else "?") + "echo=1", content, headers)
    assert answer.status == 200, answer.body
    return answer.json


class TestSubmit:
    def test_the_answer_is_a_status_with_absolute_links(self, fal: Fal) -> None:
        answer = fal.post("acme/demo/sub/path", {"prompt": "a cat"})

        request_id = answer.json["request_id"]
        url = f"{fal.base}/acme/demo/requests/{request_id}"
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["x-fal-request-id"] == request_id
        assert answer.json == {
            "status": "IN_QUEUE",
            "request_id": request_id,
            "response_url": url,
            "status_url": url + "/status",
            "cancel_url": url + "/cancel",
            "gateway_request_id": request_id,
            "logs": None,
            "metrics": {},
            "queue_position": 0,
        }

    @pytest.mark.parametrize(
        ("forwarded", "begin"),
        [
            ({}, "http://{host}/fal"),
            ({"X-Forwarded-Proto": "https"}, "https://{host}/fal"),
            ({"X-Forwarded-Proto": "https", "X-Forwarded-Host": "queue.example.com"}, "https://queue.example.com/fal"),
            ({"X-Forwarded-Proto": "javascript", "X-Forwarded-Host": "a b/<c>"}, "http://{host}/fal"),
        ],
    )
    def test_links_begin_as_the_client_sees_the_service(self, fal: Fal, forwarded: dict[str, str], begin: str) -> None:
        answer = fal.post("acme/demo", headers=forwarded)

        expected = begin.format(host=f"127.0.0.1:{fal.port}")
        assert answer.json["response_url"] == f"{expected}/acme/demo/requests/{answer.json['request_id']}"

    def test_the_target_gets_path_query_body_and_headers_as_they_came(self, fal: Fal) -> None:
        sent = {"X-Fal-Runner-Hint": "warm", "X-Fal-Object-Lifecycle-Preference": '{"a":1}', "X-Own": "1"}
        sent |= {"X-Fal-Target-Url": "http://x", "X-Fal-Endpoint": "forged", "x-fal-request-id": "forged"}
        query = "a=1&fal_webhook_x=2&fal_max_queue_length=5&a=2"

        got = echo(fal, f"acme/demo/sub/p%61th?{query}", {"prompt": "ü"}, sent)

        headers = {name.lower(): value for name, value in got["headers"]}
        assert got["path"] == "/api/predict/demo/sub/p%61th"
        assert got["query"] == "a=1&fal_webhook_x=2&a=2&echo=1"
        assert headers["x-fal-runner-hint"] == "warm"
        assert headers["x-fal-object-lifecycle-preference"] == '{"a":1}'
        assert headers["x-own"] == "1"
        assert headers["x-fal-endpoint"] == "acme/demo/sub/p%61th"
        assert headers["x-fal-request-id"] == headers["x-request-id"] != "forged"
        assert "authorization" not in headers and "x-fal-target-url" not in headers

    @pytest.mark.parametrize(
        ("headers", "body"), [({"Content-Type": "application/json"}, b""), ({}, b""), ({"Content-Type": ""}, b"")]
    )
    def test_no_body_is_an_empty_input(
        self, fal: Fal, own_target: OwnTarget, headers: dict[str, str], body: bytes
    ) -> None:
        got: list[Call] = []
        own_target.act = lambda call: (got.append(call), (200, b"{}"))[1]  # type: ignore[func-returns-value]

        answer = fal.call("POST", "/fal/acme/own", body, headers)
        fal.await_word("acme/own", answer.json["request_id"], "COMPLETED")

        assert got[0].body == b"{}"

    @pytest.mark.parametrize("body", [b"{", b"[" * 100_000, b"\xff", b"{}{}", b"prompt=a"])
    def test_what_is_not_json_is_refused(self, fal: Fal, body: bytes) -> None:
        answer = fal.call("POST", "/fal/acme/demo", body, {"Content-Type": "application/json"})

        assert answer.status == 400
        assert answer.json["error_type"] == "bad_request" == answer.headers["X-Fal-Error-Type"]
        assert "JSON" in answer.json["detail"]

    def test_another_type_may_be_anything(self, fal: Fal, own_target: OwnTarget) -> None:
        own_target.act = lambda call: (200, json.dumps(len(call.body)).encode())

        answer = fal.call("POST", "/fal/acme/own", b"\xff{", {"Content-Type": "application/octet-stream"})
        fal.await_word("acme/own", answer.json["request_id"], "COMPLETED")

        assert fal.result("acme/own", answer.json["request_id"]).json == 2

    def test_too_much_is_refused(self, fal: Fal) -> None:
        answer = fal.post("acme/demo", "x" * MAX_PAYLOAD_BYTES)

        assert answer.status == 413
        assert str(MAX_PAYLOAD_BYTES) in answer.json["detail"] == answer.json["message"]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("X-Fal-Request-Timeout", "soon"),
            ("X-Fal-Request-Timeout", "0.1"),
            ("X-Fal-Request-Timeout", "-1"),
            ("X-Fal-Request-Start-Timeout", "nan"),
            ("X-Fal-Request-Start-Timeout", "inf"),
            ("X-Fal-Request-Start-Timeout", ""),
            ("X-Fal-Retry-Config", "{"),
            ("X-Fal-Retry-Config", "[]"),
            ("X-Fal-Retry-Config", '["timeout"]'),
            ("X-Fal-Retry-Config", '{"timeout": 3}'),
            ("X-Fal-Retry-Config", '{"timeout": {"retries": -1}}'),
            ("X-Fal-Retry-Config", '{"timeout": {"retries": true}}'),
            ("Idempotency-Key", " "),
        ],
    )
    def test_a_header_that_means_nothing_is_refused(self, fal: Fal, name: str, value: str) -> None:
        answer = fal.post("acme/demo", headers={name: value})

        assert answer.status == 400
        assert answer.json["error_type"] == "bad_request"
        assert name in answer.json["detail"]

    @pytest.mark.parametrize("value", ["-1", "many", "1.5", ""])
    def test_a_queue_length_that_is_no_number_is_refused(self, fal: Fal, value: str) -> None:
        answer = fal.post(f"acme/demo?fal_max_queue_length={value}")

        assert answer.status == 400
        assert "fal_max_queue_length" in answer.json["detail"]

    def test_more_than_so_many_waiting_is_429(self, fal: Fal, single: str) -> None:
        with fal.occupied(single):
            first = [fal.submit(f"{single}?fal_max_queue_length=1") for _ in range(2)]  # none, then one wait
            answer = fal.post(f"{single}?fal_max_queue_length=1")
            another = fal.submit(f"{single}?fal_max_queue_length=2")
            for request_id in [*first, another]:
                fal.cancel(single, request_id)

        assert (answer.status, answer.json["detail"]) == (429, "Queue is full")

    @pytest.mark.parametrize("value", ["low", "Low", "normal", "urgent", ""])
    def test_low_starts_when_nothing_normal_waits(self, fal: Fal, single: str, value: str) -> None:
        with fal.occupied(single):
            request_id = fal.submit(single, headers={"X-Fal-Queue-Priority": value})
            fal.submit(single, headers={"X-Fal-Queue-Priority": "normal"})

            position = fal.status(single, request_id).json["queue_position"]

        assert position == (1 if value.lower() == "low" else 0)


class TestNames:
    @pytest.mark.parametrize(
        ("endpoint", "name", "path"),
        [
            ("acme/demo", "acme/demo", "/api/predict/demo"),
            ("acme/demo/", "acme/demo", "/api/predict/demo"),
            ("acme/demo/a/b", "acme/demo", "/api/predict/demo/a/b"),
            ("workflows/acme/flow", "workflows/acme/flow", "/api/predict/demo"),
            ("workflows/acme/flow/a", "workflows/acme/flow", "/api/predict/demo/a"),
            ("1714827-joke", "1714827/joke", "/api/predict/demo"),
            ("1714827/joke", "1714827/joke", "/api/predict/demo"),
            ("acme/dotted", "acme/dotted", "/api/predict/acme.dotted"),
            ("acme/demo/requests/1", "acme/demo", "/api/predict/demo/requests/1"),
        ],
    )
    def test_an_endpoint_is_an_alias_or_a_name_with_a_dot(self, fal: Fal, endpoint: str, name: str, path: str) -> None:
        answer = fal.post(f"{endpoint}?echo=1")

        request_id = answer.json["request_id"]
        assert answer.json["response_url"] == f"{fal.base}/{name}/requests/{request_id}"
        fal.await_word(name, request_id, "COMPLETED")
        assert fal.result(name, request_id).json["path"] == path

    @pytest.mark.parametrize(
        "endpoint", ["acme/none", "joke", "-/-", "a%2Fb/c", "workflows/acme", "", "/", "a//b", "%C3%BC/x"]
    )
    def test_one_that_is_not_served_is_404(self, fal: Fal, endpoint: str) -> None:
        answer = fal.post(endpoint)

        assert answer.status in (400, 404)
        if answer.status == 404 and endpoint != "/":  # routing knows no such path at all
            assert answer.json["detail"].startswith('Application "')
        assert answer.json["message"] == answer.json["detail"]

    @pytest.mark.parametrize(("method", "path"), [("POST", ""), ("GET", f"/requests/{UNKNOWN}")])
    def test_nor_is_one_whose_parts_are_too_long_together(self, fal: Fal, method: str, path: str) -> None:
        name = f"{'a' * 100}/{'b' * 100}"

        answer = fal.call(method, f"/fal/{name}{path}", "{}" if method == "POST" else None)

        assert (answer.status, answer.json["detail"][:20]) == (404, 'Application "aaaaaaa')

    @pytest.mark.parametrize(
        "path",
        [
            "acme/demo/requests/{}/status/",
            "acme/demo/sub/path/requests/{}/status",
            "acme/demo/requests/first/requests/{}/status",
            "1714827/joke/requests/{}/status",
            "1714827-joke/requests/{}/status",
        ],
    )
    def test_a_request_is_found_under_every_form_of_its_endpoint(self, fal: Fal, path: str) -> None:
        request_id = fal.submit("acme/demo")

        assert fal.call("GET", "/fal/" + path.format(request_id)).json["request_id"] == request_id

    @pytest.mark.parametrize("suffix", ["", "/", "/response", "/response/"])
    def test_the_result_has_several_addresses(self, fal: Fal, suffix: str) -> None:
        request_id, expected = fal.ended("acme/demo")

        answer = fal.call("GET", f"/fal/acme/demo/requests/{request_id}{suffix}")

        assert (answer.status, answer.body) == (200, expected.body)

    @pytest.mark.parametrize("action", ["", "/status", "/status/stream"])
    @pytest.mark.parametrize("name", ["acme/own", "acme/none", "acme/demo/x/requests/y/z"])
    def test_a_request_of_another_endpoint_is_unknown(self, fal: Fal, name: str, action: str) -> None:
        request_id = fal.submit("acme/demo") if name != "acme/demo/x/requests/y/z" else UNKNOWN

        answer = fal.call("GET", f"/fal/{name}/requests/{request_id}{action}")

        assert answer.status == 404
        assert answer.json["detail"]

    @pytest.mark.parametrize("text", ["%00", "%07", "%E2%82%AC", "%FF", "a%0Ab", "%C3%A9", "a%2Fb", "a" * 7000])
    @pytest.mark.parametrize(("method", "action"), [("GET", ""), ("GET", "/status"), ("PUT", "/cancel")])
    def test_what_can_be_no_id_is_unknown(self, fal: Fal, text: str, method: str, action: str) -> None:
        answer = fal.call(method, f"/fal/acme/demo/requests/{text}{action}")

        assert answer.status == 404
        assert answer.json["detail"]
        assert "x-fal-request-id" not in answer.headers

    @pytest.mark.parametrize(
        ("method", "path", "allowed"),
        [
            ("GET", "acme/demo", "POST"),
            ("PUT", "acme/demo", "POST"),
            ("DELETE", "acme/demo/requests/{}", "GET"),
            ("PUT", "acme/demo/requests/{}/status", "GET"),
            ("GET", "acme/demo/requests/{}/cancel", "PUT"),
        ],
    )
    def test_another_method_is_405(self, fal: Fal, method: str, path: str, allowed: str) -> None:
        answer = fal.call(method, "/fal/" + path.format(UNKNOWN))

        assert (answer.status, answer.headers["Allow"]) == (405, allowed)
        assert allowed in answer.json["detail"]

    def test_host_names_need_no_prefix(self, fal: Fal) -> None:
        answer = fal.call("POST", "/acme/demo/sub?echo=1", "{}", {"Host": QUEUE_HOST})
        request_id = answer.json["request_id"]
        assert answer.json["status_url"] == f"http://{QUEUE_HOST}/acme/demo/requests/{request_id}/status"
        fal.await_word("acme/demo", request_id, "COMPLETED")

        result = fal.call("GET", f"/acme/demo/requests/{request_id}", headers={"Host": f"{QUEUE_HOST}:443"})
        at_once = fal.call("POST", "/acme/demo/sub?echo=1", "{}", {"Host": RUN_HOST})

        assert result.json["path"] == at_once.json["path"] == "/api/predict/demo/sub"
        assert fal.call("GET", "/healthz", headers={"Host": QUEUE_HOST}).status == 200
        assert fal.call("GET", f"/api/predict/demo/requests/{request_id}", headers={"Host": QUEUE_HOST}).status == 200


class TestStatus:
    def test_each_state_has_its_code_and_fields(self, fal: Fal, single: str) -> None:
        with fal.occupied(single) as first:
            second, third = fal.submit(single), fal.submit(single)
            running, next_, last = (fal.status(single, request_id) for request_id in (first, second, third))

        assert (running.status, running.json["status"], list(running.json)) == (
            202,
            "IN_PROGRESS",
            [*KEYS, "logs", "metrics"],
        )
        assert (next_.status, next_.json["status"], next_.json["queue_position"]) == (202, "IN_QUEUE", 0)
        assert last.json["queue_position"] == 1
        assert list(last.json) == [*KEYS, "queue_position", "logs", "metrics"]
        fal.await_word(single, third, "COMPLETED")
        completed = fal.status(single, third)
        assert (completed.status, list(completed.json)) == (200, [*KEYS, "logs", "metrics"])
        assert 0 <= completed.json["metrics"]["inference_time"] < 5
        assert completed.headers["x-fal-request-id"] == third

    def test_logs_are_cumulative_and_only_there_when_asked_for(self, fal: Fal, own_target: OwnTarget) -> None:
        go_on = threading.Event()

        def act(call: Call) -> tuple[int, bytes]:
            call.report(logs=[{"message": "loaded ü", "level": "info"}, {"message": "slow", "level": "warning"}])
            go_on.wait(10)
            call.report(logs=[{"message": "done", "level": "stderr"}])
            return 200, b"{}"

        own_target.act = act
        request_id = fal.submit("acme/own")
        lines = await_condition(lambda: fal.status("acme/own", request_id, "?logs=1").json["logs"])
        go_on.set()
        fal.await_word("acme/own", request_id, "COMPLETED")

        all_lines = fal.status("acme/own", request_id, "?logs=true").json["logs"]
        assert all_lines[:2] == lines
        assert [(line["message"], line["level"]) for line in all_lines] == [
            ("loaded ü", "INFO"),
            ("slow", "WARN"),
            ("done", "STDERR"),
        ]
        assert {(line["source"], len(line["timestamp"]), str(line["labels"])) for line in all_lines} == {
            ("USER", 26, "{}")
        }
        for query in ("", "?logs=0", "?logs=false", "?logs=x"):
            assert fal.status("acme/own", request_id, query).json["logs"] is None

    def test_without_lines_logs_are_a_list_when_asked_for(self, fal: Fal) -> None:
        request_id, _ = fal.ended("acme/demo")

        assert fal.status("acme/demo", request_id, "?logs=1").json["logs"] == []

    @pytest.mark.parametrize("request_id", [UNKNOWN, "x", "..", "%20", "a" * 500])
    def test_an_unknown_request_is_404(self, fal: Fal, request_id: str) -> None:
        answer = fal.status("acme/demo", request_id)

        assert answer.status == 404
        assert answer.json["detail"]


class TestResult:
    def test_before_the_end_it_is_400(self, fal: Fal, single: str) -> None:
        with fal.occupied(single) as request_id:
            answer = fal.result(single, request_id)

        assert (answer.status, answer.json["detail"]) == (400, "Request is still in progress")

    def test_it_is_what_the_target_answered(self, fal: Fal, own_target: OwnTarget) -> None:
        more = {"Content-Type": "text/html", "X-Fal-Billable-Units": "3", "Set-Cookie": "a=b", "X-Fal-Stop-Runner": "1"}
        own_target.act = lambda call: (201, b"<p>\xc3\xbc</p>", more)

        request_id, answer = fal.ended("acme/own")

        assert (answer.status, answer.body) == (201, b"<p>\xc3\xbc</p>")
        assert answer.headers["Content-Type"] == "text/html"
        assert answer.headers["X-Fal-Billable-Units"] == "3"
        assert answer.headers["x-fal-request-id"] == request_id
        assert "Set-Cookie" not in answer.headers and "X-Fal-Stop-Runner" not in answer.headers

    def test_the_targets_refusal_arrives_with_its_body(self, fal: Fal, own_target: OwnTarget) -> None:
        detail = {"detail": [{"loc": ["body", "prompt"], "msg": "field required", "type": "missing"}]}
        own_target.act = lambda call: (422, json.dumps(detail).encode())

        request_id, answer = fal.ended("acme/own")

        assert (answer.status, answer.json) == (422, detail)
        status = fal.status("acme/own", request_id)
        assert (status.status, status.json["error"]) == (200, "Invalid status code: 422")
        assert "error_type" not in status.json

    def test_the_targets_own_failure_says_so(self, fal: Fal, own_target: OwnTarget) -> None:
        own_target.act = lambda call: (500, b'{"detail": "boom"}')

        request_id, answer = fal.ended("acme/own")

        assert (answer.status, answer.json) == (500, {"detail": "boom"})
        status = fal.status("acme/own", request_id).json
        assert (status["error"], status["error_type"]) == ("Invalid status code: 500", "runner_server_error")

    @pytest.mark.parametrize(
        ("endpoint", "code", "error_type"),
        [("acme/hasty?hang=1", 504, "request_timeout"), ("acme/nowhere", 503, "runner_connection_error")],
    )
    def test_no_answer_is_told_as_fal_tells_it(self, fal: Fal, endpoint: str, code: int, error_type: str) -> None:
        request_id, answer = fal.ended(endpoint)

        assert (answer.status, answer.json["error_type"]) == (code, error_type)
        assert answer.headers["X-Fal-Error-Type"] == error_type
        assert "X-Fal-Request-Timeout-Type" not in answer.headers
        assert fal.status(endpoint.partition("?")[0], request_id).json["error_type"] == error_type

    @pytest.mark.parametrize("name", ["X-Fal-Request-Timeout", "X-Fal-Request-Start-Timeout"])
    def test_a_missed_start_deadline_is_the_callers(self, fal: Fal, single: str, name: str) -> None:
        headers = {"X-Fal-Request-Timeout": "60", name: "0.2"}
        with fal.occupied(single):
            request_id = fal.submit(single, headers=headers)
            status = fal.await_word(single, request_id, "COMPLETED")
            answer = fal.result(single, request_id)

        assert (status["error"], status["error_type"]) == ("Request timed out", "request_timeout")
        assert (answer.status, answer.json["detail"]) == (504, "Request timed out")
        assert answer.headers["X-Fal-Request-Timeout-Type"] == "user"

    def test_it_bounds_attempts_that_are_to_follow(self, fal: Fal, own_target: OwnTarget) -> None:
        own_target.act = lambda call: (429, b"{}", {"Retry-After": "3"})

        request_id, answer = fal.ended("acme/own", headers={"X-Fal-Request-Start-Timeout": "0.3"})

        assert (answer.status, answer.headers["X-Fal-Request-Timeout-Type"]) == (504, "user")
        assert fal.status("acme/own", request_id).json["metrics"] == {}

    def test_one_that_the_service_sets_is_not(self, fal: Fal) -> None:
        with fal.occupied("acme/urgent"):
            _, answer = fal.ended("acme/urgent")

        assert answer.status == 504
        assert "X-Fal-Request-Timeout-Type" not in answer.headers


class TestRetries:
    @pytest.mark.parametrize(
        ("headers", "attempts"),
        [
            ({}, 4),
            ({"X-Fal-No-Retry": "1"}, 1),
            ({"X-Fal-No-Retry": "true"}, 1),
            ({"X-Fal-No-Retry": "0"}, 4),
            ({"X-Fal-Retry-Config": '{"server_error": {"retries": 1}}'}, 2),
            ({"X-Fal-Retry-Config": '{"server_error": {"retries": 6}, "other": {"retries": 0}}'}, 7),
            ({"X-Fal-Retry-Config": '{"server_error": {"retries": 99}}'}, 10),
            ({"X-Fal-Retry-Config": '{"timeout": {"retries": 0}}'}, 4),
            ({"X-Fal-No-Retry": "yes", "X-Fal-Retry-Config": '{"server_error": {"retries": 1}}'}, 1),
        ],
    )
    def test_the_caller_says_how_often(
        self, fal: Fal, own_target: OwnTarget, headers: dict[str, str], attempts: int
    ) -> None:
        calls: list[Call] = []
        own_target.act = lambda call: (calls.append(call), (503, b"{}"))[1]  # type: ignore[func-returns-value]

        _, answer = fal.ended("acme/own", headers=headers)

        assert (answer.status, len(calls)) == (503, attempts)

    @pytest.mark.parametrize(("code", "says", "attempts"), [(500, "1", 4), (503, "0", 1), (503, "false", 1)])
    def test_the_target_says_whether(
        self, fal: Fal, own_target: OwnTarget, code: int, says: str, attempts: int
    ) -> None:
        calls: list[Call] = []

        def act(call: Call) -> tuple[int, bytes, dict[str, str]]:
            calls.append(call)
            return code, b"{}", {"X-Fal-Needs-Retry": says}

        own_target.act = act

        _, answer = fal.ended("acme/own")

        assert (answer.status, len(calls)) == (code, attempts)


class TestStored:
    def test_one_that_is_not_to_be_stored_is_in_no_list_and_goes_sooner(self, fal: Fal, own_target: OwnTarget) -> None:
        own_target.act = lambda call: (200, b'{"secret": 1}')
        redis = fal.front._redis
        before = redis.zcard(keys.service_key("own", "sink"))

        request_id, answer = fal.ended("acme/own", {"secret": 2}, {"X-Fal-Store-IO": "0"})

        key = keys.record_key("own", request_id)
        assert answer.json == {"secret": 1}
        assert redis.zcard(keys.service_key("own", "sink")) == before
        assert not redis.hexists(key, "body")
        assert 3_500_000 < int(redis.pttl(key)) <= 3_600_000

    def test_nor_is_it_a_dead_letter(self, fal: Fal, own_target: OwnTarget) -> None:
        own_target.act = lambda call: (503, b"{}")
        redis = fal.front._redis
        before = redis.zcard(keys.service_key("own", "rear"))

        request_id, _ = fal.ended("acme/own", headers={"X-Fal-Store-IO": "0", "X-Fal-No-Retry": "1"})

        assert redis.zcard(keys.service_key("own", "rear")) == before
        assert not redis.hexists(keys.record_key("own", request_id), "body")

        fal.ended("acme/own", headers={"X-Fal-Store-IO": "1", "X-Fal-No-Retry": "1"})
        assert redis.zcard(keys.service_key("own", "rear")) == before + 1


class TestCancel:
    def test_one_that_waits_is_never_sent(self, fal: Fal, single: str) -> None:
        with fal.occupied(single):
            request_id = fal.submit(single)
            answer = fal.call(
                "PUT", f"/fal/{single}/requests/{request_id}/cancel", b"", {"Content-Type": "application/json"}
            )
            status, result = fal.status(single, request_id), fal.result(single, request_id)

        assert (answer.status, answer.json) == (202, {"status": "CANCELLATION_REQUESTED"})
        assert (status.status, status.json["status"]) == (200, "COMPLETED")
        assert (status.json["error"], status.json["error_type"]) == ("Request was cancelled", "client_cancelled")
        assert (result.status, result.json["error_type"]) == (499, "client_cancelled")
        assert result.headers["X-Fal-Error-Type"] == "client_cancelled"
        last = fal.submit(single)
        fal.await_word(single, last, "COMPLETED")
        assert fal.front.target.calls(request_id=last)
        assert not fal.front.target.calls(request_id=request_id)

    def test_one_that_runs_ends_too(self, fal: Fal, single: str) -> None:
        with fal.occupied(single) as request_id:
            assert fal.cancel(single, request_id).status == 202
            assert fal.status(single, request_id).json["status"] == "COMPLETED"
            call = await_condition(
                lambda: [c for c in fal.front.target.calls(request_id=request_id) if c["outcome"] != "answered"]
            )
            assert call

    @pytest.mark.parametrize("how", ["cancelled", "completed"])
    def test_one_that_has_ended_says_so(self, fal: Fal, how: str) -> None:
        if how == "completed":
            request_id, _ = fal.ended("acme/demo")
        else:
            request_id = fal.submit("acme/demo?hang=1")
            fal.cancel("acme/demo", request_id)

        answer = fal.cancel("acme/demo", request_id)

        assert answer.status == 400
        assert answer.json["status"] == "ALREADY_COMPLETED"
        assert request_id in answer.json["detail"]

    def test_an_unknown_one_is_404(self, fal: Fal) -> None:
        answer = fal.cancel("acme/demo", UNKNOWN)

        assert (answer.status, answer.json["status"]) == (404, "NOT_FOUND")


class TestAccess:
    @pytest.mark.parametrize("authorization", [f"Key {TOKEN}", f"key {TOKEN}", f"Bearer {TOKEN}", TOKEN])
    def test_all_schemes_mean_the_same(self, fal: Fal, authorization: str) -> None:
        assert fal.call("POST", "/fal/acme/demo", "{}", {"Authorization": authorization}).status == 200

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/fal/acme/demo"),
            ("POST", "/fal/acme/none"),
            ("POST", "/fal/x"),
            ("GET", f"/fal/acme/demo/requests/{UNKNOWN}/status"),
            ("GET", f"/fal/acme/none/requests/{UNKNOWN}"),
            ("PUT", f"/fal/acme/demo/requests/{UNKNOWN}/cancel"),
            ("POST", "/fal-run/acme/demo"),
        ],
    )
    @pytest.mark.parametrize("token", [None, "wrong"])
    def test_without_a_token_nothing_is_said(self, fal: Fal, method: str, path: str, token: str | None) -> None:
        answer = fal.call(method, path, "{}" if method == "POST" else None, token=token)

        assert answer.status == 401
        assert "token" in answer.json["detail"]
        assert answer.headers["Access-Control-Allow-Origin"] == "*"

    def test_a_token_in_the_url_is_none(self, fal: Fal) -> None:
        assert fal.call("POST", f"/fal/acme/demo?fal_jwt_token={TOKEN}", "{}", token=None).status == 401

    def test_roles_and_services_hold(self, fal: Fal) -> None:
        request_id, _ = fal.ended("acme/demo")
        path = f"/fal/acme/demo/requests/{request_id}"

        assert fal.call("POST", "/fal/acme/demo", "{}", token=ROLE_TOKENS["read"]).status == 403
        assert fal.call("GET", path + "/status", token=ROLE_TOKENS["read"]).status == 200
        assert fal.call("GET", path + "/status", token=ROLE_TOKENS["submit"]).status == 403
        assert fal.call("PUT", path + "/cancel", token=ROLE_TOKENS["read"]).status == 403
        assert fal.call("POST", "/fal/acme/demo", "{}", token=LIMITED_TOKEN).status == 200
        assert fal.call("POST", "/fal/acme/own", "{}", token=LIMITED_TOKEN).status == 403
        assert fal.call("POST", "/fal-run/acme/own", "{}", token=LIMITED_TOKEN).status == 403

    def test_the_inner_paths_are_not_reached_from_outside(self, fal: Fal) -> None:
        for path in ("/~fal/queue/acme/demo", "//~fal/queue/acme/demo", "/~fal/run/acme/demo"):
            assert fal.call("POST", path, "{}").status == 404


class TestBrowsers:
    @pytest.mark.parametrize(
        "path", ["/fal/acme/demo", f"/fal/acme/demo/requests/{UNKNOWN}/status", "/fal-run/acme/demo"]
    )
    def test_a_preflight_is_answered_without_a_token(self, fal: Fal, path: str) -> None:
        wanted = "authorization,content-type,x-fal-queue-priority"
        headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}

        answer = fal.call("OPTIONS", path, None, headers | {"Access-Control-Request-Headers": wanted}, token=None)

        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert answer.headers["Access-Control-Allow-Headers"] == wanted
        assert answer.headers["Access-Control-Allow-Methods"] == "GET, POST, PUT, OPTIONS"

    def test_answers_may_be_read(self, fal: Fal) -> None:
        answer = fal.post("acme/demo", headers={"Origin": "https://app.example"})

        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "x-fal-request-id" in answer.headers["Access-Control-Expose-Headers"]

    @pytest.mark.parametrize(
        "target",
        [
            "https://queue.fal.run/acme/demo/a%20b?echo=1&x=%2F",
            f"http://{QUEUE_HOST}/acme/demo/a%20b?echo=1&x=%2F",
            "http://127.0.0.1:{port}/fal/acme/demo/a%20b?echo=1&x=%2F",
        ],
    )
    def test_the_proxy_serves_this_queue(self, fal: Fal, target: str) -> None:
        headers = {"x-fal-target-url": target.format(port=fal.port), "Content-Type": "application/json"}

        answer = fal.call("POST", "/api/fal/proxy?ignored=1", "{}", headers)
        request_id = answer.json["request_id"]
        fal.await_word("acme/demo", request_id, "COMPLETED")
        got = fal.call(
            "GET",
            "/api/fal/proxy",
            headers={"x-fal-target-url": f"https://queue.fal.run/acme/demo/requests/{request_id}"},
        )

        assert got.json["path"] == "/api/predict/demo/a%20b"
        assert got.json["query"] == "echo=1&x=%2F"
        assert answer.json["status_url"] == f"{fal.base}/acme/demo/requests/{request_id}/status"

    def test_the_proxy_serves_the_synchronous_host(self, fal: Fal) -> None:
        answer = fal.call("POST", "/api/fal/proxy", "{}", {"x-fal-target-url": "https://fal.run/acme/demo?status=201"})

        assert answer.status == 201

    @pytest.mark.parametrize(
        "target",
        [
            "",
            "https://rest.fal.ai/storage/upload",
            "http://127.0.0.1:1/fal/acme/demo",
            "https://queue.fal.run.example/acme/demo",
            "https://queue.fal.run@127.0.0.1/acme/demo",
            "https://[queue.fal.run/acme/demo",
            "ftp://queue.fal.run/acme/demo",
            "//queue.fal.run/acme/demo",
            "/fal/acme/demo",
        ],
    )
    def test_and_nothing_else(self, fal: Fal, target: str) -> None:
        answer = fal.call("POST", "/api/fal/proxy", "{}", {"x-fal-target-url": target})

        assert answer.status == 412
        assert "x-fal-target-url" in answer.json["detail"]

    def test_nor_without_a_token(self, fal: Fal) -> None:
        headers = {"x-fal-target-url": "https://queue.fal.run/acme/demo"}

        assert fal.call("POST", "/api/fal/proxy", "{}", headers, token=None).status == 401


class TestRun:
    def test_it_answers_what_the_target_answers(self, fal: Fal, own_target: OwnTarget) -> None:
        own_target.act = lambda call: (418, call.body, {"X-Own": "1"})

        answer = fal.post("acme/own/sub", {"a": 1}, host="/fal-run")

        assert (answer.status, answer.json, answer.headers["X-Own"]) == (418, {"a": 1}, "1")
        assert fal.result("acme/own", answer.headers["x-fal-request-id"]).body == answer.body

    def test_who_runs_out_of_time_has_it_cancelled(self, fal: Fal) -> None:
        answer = fal.post("acme/demo?hang=1", host="/fal-run")

        request_id = answer.headers["x-fal-request-id"]
        assert (answer.status, answer.json["error_type"]) == (504, "request_timeout")
        assert fal.result("acme/demo", request_id).status == 499

    def test_who_hangs_up_has_it_cancelled(self, fal: Fal, single: str) -> None:
        with fal.occupied(single):
            head = f"POST /fal-run/{single} HTTP/1.1\r\nHost: x\r\nAuthorization: Key {TOKEN}\r\n"
            head += "Content-Length: 2\r\n\r\n{}"
            with socket.create_connection(("127.0.0.1", fal.port), timeout=10) as connection:
                connection.sendall(head.encode())
                await_condition(lambda: waiting(fal, single) == 1)
            await_condition(lambda: waiting(fal, single) == 0, timeout_s=15)

    def test_who_sent_a_key_may_come_back_with_it(self, fal: Fal, single: str) -> None:
        key = {"Idempotency-Key": single}
        with fal.occupied(single):
            head = f"POST /fal-run/{single} HTTP/1.1\r\nHost: x\r\nAuthorization: Key {TOKEN}\r\n"
            head += f"Idempotency-Key: {single}\r\nContent-Length: 2\r\n\r\n{{}}"
            with socket.create_connection(("127.0.0.1", fal.port), timeout=10) as connection:
                connection.sendall(head.encode())
                await_condition(lambda: waiting(fal, single) == 1)
            late = fal.post(single, headers=key, host="/fal-run")  # longer than the first one's MAX_WAIT_S
            assert (late.status, waiting(fal, single)) == (504, 1)
            assert "Idempotency-Key" in late.json["detail"]

        last = fal.post(single, headers=key, host="/fal-run")
        assert last.status == 200
        assert last.headers["x-fal-request-id"] == late.headers["x-fal-request-id"]

    def test_another_method_is_405(self, fal: Fal) -> None:
        assert fal.call("GET", "/fal-run/acme/demo").status == 405


def waiting(fal: Fal, name: str) -> int:
    service = name.partition("/")[2]
    return int(fal.front.call("GET", f"/api/services/{service}").json["depth"])
