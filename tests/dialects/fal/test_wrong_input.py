"""What clients should not send: each is refused in fal's shape, or taken as it was meant; nothing is redirected."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.dialects.fal.conftest import QUEUE_HOST, RUN_HOST, Fal
from tests.support.front import Answer
from tests.support.installation import TOKEN

UNKNOWN = "00000000-0000-8000-8000-000000000000"


def assert_refused(answer: Answer, status: int) -> None:
    assert answer.status == status, (answer.status, answer.body)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert 3 < len(answer.json["detail"]) < 600
    assert answer.json["message"] == answer.json["detail"]


class TestIds:
    @pytest.mark.parametrize(
        "request_id",
        [
            "a%0Ab",
            "a%0D%0AX-Evil:%201",
            "%E2%82%AC",
            "%00",
            "%FF",
            "{}",
            "*",
            "[a]",
            "%2F",
            "a%20b",
            "A" * 300,
            "-1",
            "~",
        ],
    )
    @pytest.mark.parametrize(
        ("method", "action"), [("GET", ""), ("GET", "/status"), ("GET", "/status/stream"), ("PUT", "/cancel")]
    )
    def test_one_that_is_none_is_unknown(self, fal: Fal, method: str, action: str, request_id: str) -> None:
        answer = fal.call(method, f"/fal/acme/demo/requests/{request_id}{action}")

        assert answer.status in (400, 404)
        assert_refused(answer, answer.status)
        assert "X-Evil" not in answer.headers


class TestPaths:
    @pytest.mark.parametrize(
        "path",
        [
            "/fal//acme/demo",
            "/fal/acme//demo",
            "/fal/acme/demo/../other",
            "/fal/acme/demo/%2e%2e/other",
            "/fal/acme/demo/%252e%252e/other",
            "/fal/acme/demo/a%0Ab",
            "/fal/acme%2Fdemo",
            "/fal/../api/predict/demo",
            "/fal/" + "a/" * 200,
        ],
    )
    def test_of_a_submit(self, fal: Fal, path: str) -> None:
        answer = fal.call("POST", path, "{}", {"Content-Type": "application/json"})

        if path.endswith("a/" * 200):  # a long path is a path
            assert_refused(answer, 404)
        else:
            assert answer.status in (400, 404)
            assert_refused(answer, answer.status)

    @pytest.mark.parametrize(
        "path", ["/fal/acme/demo/requests", "/fal/acme/demo/requests/", "/fal/requests/x", "/fal/"]
    )
    def test_of_a_request(self, fal: Fal, path: str) -> None:
        answer = fal.call("GET", path)

        assert answer.status in (404, 405)
        assert_refused(answer, answer.status)

    @pytest.mark.parametrize("host", ["/fal", "/fal-run"])
    @pytest.mark.parametrize("end", ["", "/"])
    def test_nothing_is_redirected(self, fal: Fal, host: str, end: str) -> None:
        answer = fal.call("POST", f"{host}/acme/demo{end}", "{}", {"Content-Type": "application/json"})

        assert answer.status == 200

    @pytest.mark.parametrize("method", ["PATCH", "DELETE", "TRACE", "PROPFIND"])
    @pytest.mark.parametrize("path", ["/fal/acme/demo", f"/fal/acme/demo/requests/{UNKNOWN}", "/fal-run/acme/demo"])
    def test_of_another_method(self, fal: Fal, method: str, path: str) -> None:
        assert_refused(fal.call(method, path), 405)


class TestHeaders:
    @pytest.mark.parametrize("name", ["X-Fal-Request-Timeout", "X-Fal-Request-Start-Timeout"])
    @pytest.mark.parametrize("value", ["30.0", "30", " 30 ", "1e2", "0.11", "31536000"])
    def test_a_timeout_is_any_number_of_seconds(self, fal: Fal, name: str, value: str) -> None:
        assert fal.post("acme/demo", headers={name: value}).status == 200

    @pytest.mark.parametrize("value", ["0", "0.1", "-5", "nan", "-inf", "1e99", "31536001", "5s", "1,2", "30;q=1"])
    def test_anything_else_is_no_timeout(self, fal: Fal, value: str) -> None:
        answer = fal.post("acme/demo", headers={"X-Fal-Request-Timeout": value})

        assert_refused(answer, 400)
        assert answer.json["error_type"] == answer.headers["X-Fal-Error-Type"] == "bad_request"

    def test_of_two_timeouts_the_newer_name_counts_whatever_the_older_says(self, fal: Fal) -> None:
        headers = {"X-Fal-Request-Start-Timeout": "30", "X-Fal-Request-Timeout": "junk"}

        assert fal.post("acme/demo", headers=headers).status == 200

    @pytest.mark.parametrize(
        "value", ["{}", '{"other": 1}', '{"timeout": {"retries": 0, "x": 1}}', '{"timeout":{"retries":9999}}']
    )
    def test_a_retry_config_may_say_less_or_more(self, fal: Fal, value: str) -> None:
        assert fal.post("acme/demo", headers={"X-Fal-Retry-Config": value}).status == 200

    @pytest.mark.parametrize(
        "value",
        [
            "",
            "null",
            "1",
            '"timeout"',
            '{"timeout": null}',
            '{"timeout": {}}',
            '{"timeout":{"retries":1.5}}',
            "[" * 3000,
        ],
    )
    def test_anything_else_is_no_retry_config(self, fal: Fal, value: str) -> None:
        answer = fal.post("acme/demo", headers={"X-Fal-Retry-Config": value})

        assert_refused(answer, 400)
        assert answer.json["error_type"] == "bad_request"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("X-Fal-No-Retry", "maybe"),
            ("X-Fal-Store-IO", "no"),
            ("X-Fal-Queue-Priority", "9"),
            ("X-Fal-Runner-Hint", "x" * 4000),
            ("X-Fal-Object-Lifecycle-Preference", "{"),
            ("x-app-fal-disable-fallback", ""),
        ],
    )
    def test_others_are_no_reason_to_refuse(self, fal: Fal, name: str, value: str) -> None:
        assert fal.post("acme/demo", headers={name: value}).status == 200

    def test_a_queue_length_twice_is_the_first(self, fal: Fal) -> None:
        assert fal.post("acme/demo?fal_max_queue_length=5&fal_max_queue_length=junk").status == 200


class TestBodies:
    def test_a_body_that_breaks_off_is_none(self, fal: Fal) -> None:
        head = f"POST /fal/acme/demo HTTP/1.1\r\nHost: x\r\nAuthorization: Key {TOKEN}\r\nContent-Length: 20\r\n\r\n"

        answer = fal.front.raw(head.encode() + b"{}")

        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b'"error_type": "bad_request"' in answer

    def test_a_body_in_chunks_is_a_body(self, fal: Fal) -> None:
        answer = fal.call(
            "POST", "/fal/acme/demo?echo=1", iter([b'{"a"', b": 1}"]), {"Content-Type": "application/json"}
        )

        assert answer.status == 200

    @pytest.mark.parametrize(
        "kind", ["application/json; charset=utf-8", "application/problem+json", "APPLICATION/JSON"]
    )
    def test_every_kind_of_json_is_checked(self, fal: Fal, kind: str) -> None:
        assert_refused(fal.call("POST", "/fal/acme/demo", b"{", {"Content-Type": kind}), 400)

    @pytest.mark.parametrize("content", [None, [], "text", 1, {"a": [{}]}])
    def test_any_json_is_an_input(self, fal: Fal, content: Any) -> None:
        answer = fal.call("POST", "/fal/acme/demo", json.dumps(content), {"Content-Type": "application/json"})

        assert answer.status == 200

    @pytest.mark.parametrize("action", ["", "/status", "/status/stream"])
    def test_a_body_of_a_question_is_not_read(self, fal: Fal, action: str) -> None:
        request_id, _ = fal.ended("acme/demo")

        answer = fal.call(
            "GET", f"/fal/acme/demo/requests/{request_id}{action}", b"{", {"Content-Type": "application/json"}
        )

        assert answer.status == 200


class TestHosts:
    @pytest.mark.parametrize("host", ["other.example.test", f"{QUEUE_HOST}.example", "", "a b", "[::1"])
    def test_an_unknown_name_needs_the_prefix(self, fal: Fal, host: str) -> None:
        assert fal.call("POST", "/acme/demo", "{}", {"Host": host}).status in (400, 404)

    def test_the_letters_of_a_name_may_be_large_and_a_port_may_follow(self, fal: Fal) -> None:
        for host in (QUEUE_HOST.upper(), f"{QUEUE_HOST}:8443"):
            answer = fal.call("POST", "/acme/demo", "{}", {"Host": host})

            assert answer.json["status_url"].startswith(f"http://{host}/acme/demo/requests/")

    def test_a_queue_answers_no_synchronous_call_and_the_other_way_round(self, fal: Fal) -> None:
        assert "request_id" in fal.call("POST", "/acme/demo", "{}", {"Host": QUEUE_HOST}).json
        assert "request_id" not in fal.call("POST", "/acme/demo?echo=1", "{}", {"Host": RUN_HOST}).json

    def test_inner_paths_stay_closed(self, fal: Fal) -> None:
        for host in (QUEUE_HOST, RUN_HOST):
            assert fal.call("POST", "/~fal/queue/acme/demo", "{}", {"Host": host}).status in (400, 404)

    @pytest.mark.parametrize("path", ["/fal", "/fal-run", "/falx/acme/demo", "/api/fal/proxyx"])
    def test_a_path_that_only_looks_like_it_is_nobodys(self, fal: Fal, path: str) -> None:
        assert fal.call("POST", path, "{}").status == 404


class TestProxy:
    @pytest.mark.parametrize(
        "target",
        [
            "https://queue.fal.run",
            "https://queue.fal.run/",
            "https://queue.fal.run//acme/demo",
            "https://queue.fal.run/acme/../demo",
            "https://queue.fal.run/acme/demo/%0d%0aX: 1",
            "https://queue.fal.run/~fal/queue/acme/demo",
            "https://queue.fal.run/acme/none",
            "http://127.0.0.1:{port}/api/predict/demo",
            "http://127.0.0.1:{port}/fal",
            "https://queue.fal.run/acme/d\u00e9mo",
        ],
    )
    def test_a_target_that_is_none(self, fal: Fal, target: str) -> None:
        value = target.format(port=fal.port).encode("latin-1")

        answer = fal.call("POST", "/api/fal/proxy", "{}", {"x-fal-target-url": value})

        assert answer.status in (400, 404, 412)
        assert_refused(answer, answer.status)

    @pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
    def test_without_a_target(self, fal: Fal, method: str) -> None:
        assert_refused(fal.call(method, "/api/fal/proxy"), 412)
