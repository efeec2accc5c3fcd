"""What clients ask for around sampling: settings, sessions, numbers for copies, what is served; and what is not."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from eas_queue.store import keys
from tests.dialects.tinker.conftest import COLONS, MODEL, PULLED, Tinker, assert_refused
from tests.support.front import LIMITED_TOKEN, ROLE_TOKENS
from tests.support.installation import TOKEN

TRAINING = [
    "create_model",
    "forward",
    "forward_backward",
    "optim_step",
    "save_weights",
    "save_weights_for_sampler",
    "load_weights",
    "unload_model",
    "get_info",
    "create_custom_loss",
    "retrieve_futures",
]
# What the SDK tells of itself before it raises an error.
EVENTS = {
    "events": [{"event": "SESSION_START", "event_id": "1", "event_session_index": 0, "severity": "INFO"}],
    "platform": "Linux",
    "sdk_version": "0.38.0",
    "session_id": "s",
    "process_uuid": "00000000-0000-4000-8000-000000000000",
}


def test_the_settings_of_a_client(tinker: Tinker) -> None:
    answer = tinker.post("client/config", {"sdk_version": "0.38.0"})

    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.json == {
        "pjwt_auth_enabled": False,
        "sample_enable_stuck_detection": False,
        "sample_max_concurrent_requests": 1000,
        "sample_use_retrieve_futures": False,
        "sample_join_sampling_session": True,
    }


def test_the_settings_that_it_fetches_again(tinker: Tinker) -> None:
    answer = tinker.post("client/dynamic_config", {"sdk_version": "0.38.0"})

    expected = {"refresh_interval_sec": 300, "sample_cancel_enabled": True, "sample_cancel_max_batch_size": 64}
    assert (answer.status, answer.json) == (200, expected)


class TestSession:
    def test_one_is_made_whenever_it_is_asked_for(self, tinker: Tinker) -> None:
        sent = {"tags": ["a"], "user_metadata": {"b": "c"}, "sdk_version": "0.38.0", "type": "create_session"}
        sent |= {"project_id": None, "display_name": "\u00e9"}  # type: ignore[dict-item]
        answers = [tinker.post("create_session", sent) for _ in range(5)]

        assert [answer.status for answer in answers] == [200] * 5
        assert {answer.json["type"] for answer in answers} == {"create_session"}
        assert len({answer.json["session_id"] for answer in answers}) == 5
        assert all(len(answer.json["session_id"]) > 15 for answer in answers)

    @pytest.mark.parametrize("session", ["unknown", "\u20ac", "x" * 3000])
    def test_its_heart_may_beat_or_not(self, tinker: Tinker, session: str) -> None:
        answer = tinker.post("session_heartbeat", {"session_id": session, "type": "session_heartbeat"})

        assert (answer.status, answer.json) == (200, {"type": "session_heartbeat"})

    @pytest.mark.parametrize("session", ["s", "unknown-to-anybody", "%E2%82%AC", "x" * 3000])
    @pytest.mark.parametrize("reason", ["success", "errored", "interrupted"])
    def test_it_is_finished_whenever_it_is_said_to_be(self, tinker: Tinker, session: str, reason: str) -> None:
        answer = tinker.post(f"sessions/{session}/finish", {"reason": {"type": reason}, "detail": None})

        assert answer.status == 200 and "error" not in answer.json
        assert len(answer.body) < 2000

    def test_all_that_stores_nothing(self, tinker: Tinker) -> None:
        stored = tinker.front.stored()
        session = tinker.post("create_session").json["session_id"]
        tinker.post("session_heartbeat", {"session_id": session})
        tinker.post("telemetry", {**EVENTS, "session_id": session})
        tinker.post(f"sessions/{session}/finish", {"reason": {"type": "success"}})

        with tinker.server.client() as client:
            assert not [key for key in client.scan_iter("*", count=1000) if session.encode() in key]
        assert tinker.front.stored() == stored


def test_telemetry_is_taken_at_once(tinker: Tinker) -> None:
    tinker.post("telemetry", EVENTS)
    began_s = time.monotonic()
    answers = [tinker.post("telemetry", EVENTS) for _ in range(20)]

    assert {answer.body for answer in answers} == {b'{"status": "accepted"}\n'}
    assert [answer.status for answer in answers] == [200] * 20
    assert time.monotonic() - began_s < 10  # a client that waits for one waits 30 s for all that went wrong


class TestJoin:
    def test_copies_of_a_client_get_numbers_of_their_own(self, tinker: Tinker) -> None:
        sessions, barrier = [tinker.session(), tinker.session("tinker://demo/a")], threading.Barrier(16)

        def join(copy: int) -> list[int]:
            barrier.wait(10)
            found = []
            for call in range(6):
                content = {"sampling_session_id": sessions[(copy + call) % 2], "type": "join_sampling_session"}
                answer = tinker.post("join_sampling_session", content)
                assert answer.status == 200, answer.body
                found.append(answer.json["client_counter"])
            return found

        with ThreadPoolExecutor(16) as pool:
            numbers = list(pool.map(join, range(16)))
        assert all(type(number) is int for each in numbers for number in each)
        assert len({number for each in numbers for number in each}) == 16 * 6
        assert all(each == sorted(each) for each in numbers), "they grow"

    def test_they_begin_with_the_clock_so_that_none_is_given_twice(self, tinker: Tinker) -> None:
        content = {"sampling_session_id": tinker.session()}
        before_s = int(time.time())
        number = tinker.post("join_sampling_session", content).json["client_counter"]
        with tinker.server.client() as client:
            assert client.hdel(keys.SYS, "clones")
        later = tinker.post("join_sampling_session", content).json["client_counter"]

        assert number >= before_s and later >= before_s
        assert number < 2**63 // 1_000_000_000, "the SDK makes a seq_id of a thousand million times this"

    @pytest.mark.parametrize("session", [None, "", "x", 1, [], {}])
    def test_a_session_that_is_none_is_unknown(self, tinker: Tinker, session: Any) -> None:
        assert_refused(tinker.post("join_sampling_session", {"sampling_session_id": session}), 404)


class TestCapabilities:
    def models(self, tinker: Tinker, token: str = TOKEN) -> list[dict[str, Any]]:
        answer = tinker.call("GET", "get_server_capabilities", token=token)
        assert (answer.status, list(answer.json)) == (200, ["supported_models"])
        found: list[dict[str, Any]] = answer.json["supported_models"]
        return found

    def test_each_listed_service_is_one_or_has_several_names(self, tinker: Tinker) -> None:
        models = self.models(tinker)

        assert all(
            model == {"model_name": model["model_name"], "trainable": False, "sampleable": True} for model in models
        )
        names = [model["model_name"] for model in models]
        assert names[:6] == [MODEL, COLONS, "acme/demo", "acme.dotted", "acme/demo/v2", "subpaths"]
        assert len([name for name in names if name.startswith("acme/pulled-")]) == PULLED
        assert "demo" not in names and len(set(names)) == len(names)

    def test_a_token_is_told_of_what_it_may_use(self, tinker: Tinker) -> None:
        assert [model["model_name"] for model in self.models(tinker, LIMITED_TOKEN)] == [MODEL, COLONS, "acme/demo"]

    def test_what_is_told_is_served(self, tinker: Tinker) -> None:
        for model in self.models(tinker)[:6]:
            assert tinker.session(model["model_name"])

    def test_what_was_used_unlisted_is_not_told(self, tinker: Tinker) -> None:
        tinker.cancel(tinker.sample("used/unlisted"))

        assert not [model for model in self.models(tinker) if "used" in model["model_name"]]


def test_health_is_told_to_anybody(tinker: Tinker) -> None:
    for token in (None, "unknown-token-of-nobody", TOKEN):
        answer = tinker.call("GET", "healthz", token=token)

        assert (answer.status, answer.body) == (200, b'{"status": "ok"}\n')


class TestTraining:
    @pytest.mark.parametrize("name", TRAINING)
    @pytest.mark.parametrize("body", [b"{}", b"", b"\xff{"])
    def test_it_is_refused_once(self, tinker: Tinker, name: str, body: bytes) -> None:
        answer = tinker.call("POST", name, body)

        assert_refused(answer, 501, "is not served here")
        assert answer.headers["x-should-retry"] == "false"
        assert name in answer.json["detail"]

    @pytest.mark.parametrize("name", TRAINING)
    def test_it_is_unknown_to_the_high_level_client(self, tinker: Tinker, name: str) -> None:
        """That goes on trying whatever begins with a 5."""
        answer = tinker.post(name, {}, {"X-Sdk-Method": "create_model"})

        assert_refused(answer, 404, "is not served here")
        assert answer.headers["x-should-retry"] == "false"

    @pytest.mark.parametrize("role", ["consume", "admin"])
    def test_only_to_who_may_sample(self, tinker: Tinker, role: str) -> None:
        assert_refused(tinker.post("create_model", token=ROLE_TOKENS[role]), 403)
