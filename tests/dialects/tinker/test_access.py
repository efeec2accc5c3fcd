"""Who may do what: each route's role, services by token, headers that carry a token, and installations without any."""

from __future__ import annotations

from typing import Any

import pytest

from eas_queue.dialects.tinker import names
from tests.dialects.tinker.conftest import UNKNOWN_ID, Tinker, assert_refused, body_of
from tests.dialects.tinker.test_account import TRAINING
from tests.support.front import LIMITED_TOKEN, ROLE_TOKENS
from tests.support.installation import TOKEN

SESSION = names.session_id("plain", "of these tests")
EITHER = ("submit", "read")
# Method, path, body, who may.
ROUTES: list[tuple[str, str, Any, tuple[str, ...]]] = [
    ("POST", "create_sampling_session", {"base_model": "plain"}, ("submit",)),
    ("POST", "asample", body_of(SESSION), ("submit",)),
    ("POST", "cancel_future", {"request_id": UNKNOWN_ID}, ("submit",)),
    ("POST", "join_sampling_session", {"sampling_session_id": SESSION}, ("submit",)),
    ("POST", "retrieve_future", {"request_id": UNKNOWN_ID}, ("read",)),
    ("GET", f"samplers/{SESSION}", None, ("read",)),
    ("POST", "client/config", {}, EITHER),
    ("POST", "client/dynamic_config", {}, EITHER),
    ("POST", "create_session", {}, EITHER),
    ("POST", "session_heartbeat", {}, EITHER),
    ("POST", "sessions/s/finish", {}, EITHER),
    ("POST", "telemetry", {}, EITHER),
    ("GET", "get_server_capabilities", None, EITHER),
    *[("POST", name, {}, EITHER) for name in TRAINING],
]
IDS = [path.partition("/")[0] + ("/finish" if "finish" in path else "") for _, path, _, _ in ROUTES]


@pytest.mark.parametrize(("method", "path", "body", "roles"), ROUTES, ids=IDS)
class TestRoute:
    def test_it_opens_to_its_roles_only(
        self, tinker: Tinker, method: str, path: str, body: Any, roles: tuple[str, ...]
    ) -> None:
        for holder, token in ROLE_TOKENS.items():
            answer = tinker.call(method, path, body, token=token)
            if holder in roles:
                assert answer.status in (200, 404, 501), (holder, answer.body)
            else:
                assert_refused(answer, 403)

    def test_it_is_closed_to_unknown_tokens(
        self, tinker: Tinker, method: str, path: str, body: Any, roles: tuple[str, ...]
    ) -> None:
        query = f"?token={TOKEN}&api_key={TOKEN}&X-API-Key={TOKEN}"
        answers = [
            tinker.call(method, path, body, token=None),
            tinker.call(method, path + query, body, token=None),
            tinker.call(method, path, body, token="unknown-token-of-nobody"),
            tinker.call(method, path, b"{", token="unknown-token-of-nobody") if body is not None else None,
            tinker.call(method, path, body, {"Authorization": "Bearer tml-nobody"}, token=None),
        ]
        for answer in answers:
            if answer is not None:
                assert_refused(answer, 401, "token")
                assert TOKEN not in str(answer.headers) + answer.body.decode()

    def test_without_tokens_it_is_open_to_this_host(
        self, open_to_all: Tinker, method: str, path: str, body: Any, roles: tuple[str, ...]
    ) -> None:
        for token in (None, "tml-anything"):
            assert open_to_all.call(method, path, body, token=token).status in (200, 404, 501)
        for name in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-Ip", "Origin"):
            assert_refused(open_to_all.call(method, path, body, {name: "http://elsewhere.example"}, token=None), 403)
        assert_refused(open_to_all.call(method, path, body, {"Host": "elsewhere.example"}, token=None), 403)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": TOKEN},
        {"x-api-key": TOKEN},
        {"X-API-Key": f" {TOKEN} "},
        {"Authorization": f"Bearer {TOKEN}"},
        {"Authorization": f"Key {TOKEN}"},
        {"Authorization": TOKEN},
    ],
)
def test_all_headers_of_tokens_mean_the_same(tinker: Tinker, headers: dict[str, str]) -> None:
    assert tinker.call("POST", "client/config", {}, headers, token=None).status == 200


@pytest.mark.parametrize("value", ["", " ", f"{TOKEN}x", TOKEN[:-1], f"Bearer {TOKEN}", f"{TOKEN},{TOKEN}", "\xff"])
def test_what_is_no_token_is_401(tinker: Tinker, value: str) -> None:
    assert_refused(tinker.call("POST", "client/config", {}, {"X-API-Key": value}, token=None), 401)


def test_the_role_is_looked_at_before_the_body(tinker: Tinker) -> None:
    for path, role in (("asample", "read"), ("create_sampling_session", "read"), ("retrieve_future", "submit")):
        assert_refused(tinker.call("POST", path, b"{", token=ROLE_TOKENS[role]), 403)


def test_a_high_level_poll_that_may_not_is_told_at_once(tinker: Tinker) -> None:
    """Such an error is final for it."""
    headers = {"X-Tinker-Request-Type": "Sample"}
    for token, status in ((None, 401), (ROLE_TOKENS["submit"], 403)):
        assert_refused(tinker.post("retrieve_future", {"request_id": UNKNOWN_ID}, headers, token=token), status)


class TestServices:
    """A token for `demo` alone."""

    @pytest.mark.parametrize("name", ["demo", "acme/demo", "tinker://demo/w", "Qwen/Qwen3-0.6B"])
    def test_its_own_service_is_open_by_all_its_names(self, tinker: Tinker, name: str) -> None:
        member = "model_path" if name.startswith("tinker://") else "base_model"
        made = tinker.post("create_sampling_session", {member: name}, token=LIMITED_TOKEN)
        session = made.json["sampling_session_id"]
        assert tinker.call("GET", f"samplers/{session}", token=LIMITED_TOKEN).status == 200
        submitted = tinker.post("asample", body_of(session), token=LIMITED_TOKEN)
        request_id = submitted.json["request_id"]

        assert tinker.post("retrieve_future", {"request_id": request_id}, token=LIMITED_TOKEN).status == 200
        assert tinker.post("cancel_future", {"request_id": request_id}, token=LIMITED_TOKEN).status == 200

    @pytest.mark.parametrize("name", ["deep", "acme/demo/v2", "tinker://acme/demo/v2", "nobody", "a/b"])
    def test_others_are_closed(self, tinker: Tinker, name: str) -> None:
        member = "model_path" if name.startswith("tinker://") else "base_model"
        session, stored = tinker.session(name), tinker.front.stored()

        assert_refused(tinker.post("create_sampling_session", {member: name}, token=LIMITED_TOKEN), 403)
        assert_refused(tinker.call("GET", f"samplers/{session}", token=LIMITED_TOKEN), 403)
        assert_refused(tinker.post("asample", body_of(session), token=LIMITED_TOKEN), 403)
        direct = {"num_samples": 1, member: name}
        assert_refused(tinker.post("asample", direct, token=LIMITED_TOKEN), 403)
        assert tinker.front.stored() == stored

    def test_their_requests_look_unknown(self, tinker: Tinker, pulled: str) -> None:
        request_id = tinker.sample(pulled)
        content = {"request_id": request_id}

        for headers in ({}, {"X-Tinker-Request-Type": "Sample"}):
            answer = tinker.post("retrieve_future", content, headers, token=LIMITED_TOKEN)
            assert_refused(answer, 404)
            assert pulled not in answer.json["detail"]
        assert tinker.post("cancel_future", content, token=LIMITED_TOKEN).status == 200
        assert tinker.poll(request_id).status == 408

    def test_without_a_service_there_is_nothing_to_close(self, tinker: Tinker) -> None:
        content = {"sampling_session_id": SESSION}

        assert tinker.post("join_sampling_session", content, token=LIMITED_TOKEN).status == 200
        for path in ("client/config", "client/dynamic_config", "create_session", "session_heartbeat", "telemetry"):
            assert tinker.post(path, token=LIMITED_TOKEN).status == 200
