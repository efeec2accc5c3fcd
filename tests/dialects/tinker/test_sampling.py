"""Sampling sessions and requests: what they are called, what reaches the target, and what is the same request."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from eas_queue.dialects.tinker import names
from tests.dialects.tinker.conftest import (
    BACKPRESSURE,
    COLONS,
    MODEL,
    Gate,
    Tinker,
    assert_refused,
    body_of,
)
from tests.support.front import RATED_TOKEN, ROLE_TOKENS
from tests.support.installation import TOKEN, await_condition
from tests.support.own_target import Call, OwnTarget, Reply

SPARSE: dict[str, dict[str, Any]] = {
    "one field of each": {"prompt": {"chunks": [{"tokens": [1]}]}, "sampling_params": {}, "num_samples": 1},
    "no parameters": {"prompt": {"chunks": [{"tokens": [1, 2], "type": "encoded_text"}]}},
    "no prompt": {},
    "stop as text": {"sampling_params": {"max_tokens": 1, "stop": "\n\n", "seed": 7}},
    "stop as tokens": {"sampling_params": {"stop": [13, 198]}},
    "nulls": {"num_samples": None, "seq_id": None, "base_model": None, "model_path": None, "prompt_logprobs": None},
    "of another kind": {"prompt": {"chunks": [{"type": "image", "data": "AAAA", "format": "png"}]}, "novel": [1, {}]},
    "all that is new": {
        "topk_sample_logprobs": 2,
        "target_prompt_logprobs": None,
        "prompt_alt_tokens_k": 0,
        "prompt_logprobs_last_n": 4,
        "record_stability_info": False,
    },
}


class Seen:
    """A target that remembers the calls."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def __call__(self, call: Call) -> Reply:
        self.calls.append(call)
        return 200, b'{"sequences": []}'

    def of(self, request_id: str) -> Call:
        found: Call = await_condition(
            lambda: next((call for call in self.calls if call.headers["x-request-id"] == request_id), None)
        )
        return found


@pytest.fixture
def seen(model: OwnTarget) -> Seen:
    model.act = made = Seen()
    return made


class TestSession:
    @pytest.mark.parametrize(
        "members", [{"base_model": MODEL}, {"base_model": COLONS}, {"model_path": "tinker://demo"}]
    )
    def test_one_is_made_for_a_model(self, tinker: Tinker, members: dict[str, str]) -> None:
        sent = {"session_id": "anything", "sampling_session_seq_id": 0, "type": "create_sampling_session", **members}
        answer = tinker.post("create_sampling_session", sent)

        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
        assert list(answer.json) == ["type", "sampling_session_id"]
        assert answer.json["type"] == "create_sampling_session"
        assert 10 < len(answer.json["sampling_session_id"]) < 200

    def test_no_two_are_the_same(self, tinker: Tinker) -> None:
        assert len({tinker.session() for _ in range(20)}) == 20

    def test_a_call_that_is_repeated_gives_the_same(self, tinker: Tinker) -> None:
        def made(key: str, model: str = MODEL, **options: Any) -> str:
            headers = {"X-Idempotency-Key": key}
            answer = tinker.post("create_sampling_session", {"base_model": model}, headers, **options)
            return str(answer.json["sampling_session_id"])

        assert made("stainless-1") == made("stainless-1")
        others = [made("stainless-1"), made("stainless-2"), made("stainless-1", COLONS)]
        assert len({*others, made("stainless-1", token=RATED_TOKEN)}) == 4

    def test_it_stores_nothing(self, tinker: Tinker) -> None:
        services, stored = tinker.front.services(), tinker.front.stored()
        for number in range(5):
            tinker.session(f"nobody-uses-{number}")

        assert (tinker.front.services(), tinker.front.stored()) == (services, stored)

    def test_one_of_another_web_process_is_known(self, tinker: Tinker) -> None:
        session = tinker.session()
        answers = [tinker.call("GET", f"samplers/{session}") for _ in range(8)]

        assert [answer.status for answer in answers] == [200] * 8

    @pytest.mark.parametrize(
        "members", [{}, {"base_model": ""}, {"base_model": None, "model_path": None}, {"model_path": ""}]
    )
    def test_a_model_is_needed(self, tinker: Tinker, members: dict[str, Any]) -> None:
        assert_refused(tinker.post("create_sampling_session", members), 400, "base_model")

    @pytest.mark.parametrize(
        "path", ["demo", "demo/weights", "http://demo", "Tinker://demo", "tinker:/demo", " tinker://d"]
    )
    def test_a_path_begins_as_paths_do(self, tinker: Tinker, path: str) -> None:
        assert_refused(tinker.post("create_sampling_session", {"model_path": path}), 400, "tinker://")

    def test_where_both_are_named_the_path_counts(self, tinker: Tinker) -> None:
        sent = {"base_model": "deep", "model_path": "tinker://demo/x"}
        session = tinker.post("create_sampling_session", sent).json["sampling_session_id"]

        assert tinker.call("GET", f"samplers/{session}").json["model_path"] == "tinker://demo/x"


class TestSampler:
    def test_of_a_base_model(self, tinker: Tinker) -> None:
        session = tinker.session(COLONS)

        assert tinker.call("GET", f"samplers/{session}").json == {"sampler_id": session, "base_model": COLONS}

    @pytest.mark.parametrize(
        ("path", "base"),
        [
            (f"tinker://{MODEL}/weights/7", MODEL),
            ("tinker://demo/a", MODEL),
            ("tinker://plain/b", "plain"),
            ("tinker://acme/demo/v2/c", "acme/demo/v2"),
        ],
    )
    def test_of_a_path_the_base_model_is_what_its_service_is_called(self, tinker: Tinker, path: str, base: str) -> None:
        session = tinker.session(path)

        found = tinker.call("GET", f"samplers/{session}").json
        assert found == {"sampler_id": session, "base_model": base, "model_path": path}

    @pytest.mark.parametrize("session", ["x", "a.b", "0" * 32 + ".", "0" * 32 + ".!!", "0" * 32 + ".gA", "%00"])
    def test_one_that_is_none_is_unknown(self, tinker: Tinker, session: str) -> None:
        assert_refused(tinker.call("GET", f"samplers/{session}"), 404)

    def test_of_a_model_that_is_not_served_any_more(self, tinker: Tinker, open_to_all: Tinker) -> None:
        session = tinker.session("gone-since")

        assert_refused(open_to_all.call("GET", f"samplers/{session}"), 404, "gone-since")


class TestService:
    """Which one a name leads to."""

    @pytest.mark.parametrize(
        ("name", "service"),
        [
            (MODEL, "demo"),
            (COLONS, "demo"),
            ("demo", "demo"),
            ("acme/demo", "demo"),
            ("acme/demo/v2", "deep"),
            ("acme/dotted", "acme.dotted"),
            ("acme.dotted", "acme.dotted"),
            ("meta-llama/Llama-3.1-8B", "meta-llama.Llama-3.1-8B"),
            ("tinker://demo", "demo"),
            ("tinker://demo/sampler_weights/000010", "demo"),
            (f"tinker://{MODEL}", "demo"),
            (f"tinker://{MODEL}/sampler_weights/final", "demo"),
            ("tinker://acme/demo/v2", "deep"),
            ("tinker://acme/demo/v2/x", "deep"),
            ("tinker://acme/demo/v3", "demo"),
            ("tinker://acme/other", "acme"),
            (f"tinker://{COLONS}/w", "demo"),
        ],
    )
    def test_of_a_name(self, tinker: Tinker, seen: Seen, name: str, service: str) -> None:
        answer = tinker.post_sample(tinker.session(name))

        assert answer.json["model_id"] == name
        call = seen.of(answer.json["request_id"])
        assert call.path == f"/{service}"
        assert call.headers["x-tinker-model"] == name

    @pytest.mark.parametrize("name", ["nobody", "nobody/here", "tinker://nobody/w", "Qwen/Qwen3-0.6b", "a:b", "a/b:c"])
    def test_what_is_not_served_is_unknown_by_its_name(self, open_to_all: Tinker, tinker: Tinker, name: str) -> None:
        member = "model_path" if name.startswith("tinker://") else "base_model"
        stored = open_to_all.front.stored()
        answer = open_to_all.post("create_sampling_session", {member: name})
        assert_refused(answer, 404, repr(name))

        direct = {**body_of("x"), member: name}
        del direct["sampling_session_id"]
        assert_refused(open_to_all.post("asample", direct), 404, repr(name))
        if ":" not in name.removeprefix("tinker://"):
            assert_refused(open_to_all.post_sample(tinker.session(name)), 404, repr(name))
        assert open_to_all.front.stored() == stored

    @pytest.mark.parametrize(
        "name", ["/", "//", "a//b", "/a", "a/", ".a", "-", "a b", "a:b", "a/../b", "a/b/c/d", "x" * 129, "tinker://"]
    )
    def test_a_name_that_can_be_none_is_unknown(self, tinker: Tinker, name: str) -> None:
        member = "model_path" if name.startswith("tinker://") else "base_model"

        assert_refused(tinker.post("create_sampling_session", {member: name}), 404)

    @pytest.mark.parametrize("member", ["base_model", "model_path"])
    def test_without_a_session_the_request_names_it(self, tinker: Tinker, seen: Seen, member: str) -> None:
        name = MODEL if member == "base_model" else f"tinker://{MODEL}/w"
        answer = tinker.post("asample", {"num_samples": 2, member: name, "prompt": {"chunks": []}})

        assert answer.status == 200 and answer.json["model_id"] == name
        assert len(answer.json["sample_sequence_ids"]) == 2
        assert seen.of(answer.json["request_id"]).headers["x-tinker-model"] == name

    def test_with_a_session_its_model_counts(self, tinker: Tinker, seen: Seen) -> None:
        answer = tinker.post_sample(tinker.session(), base_model="deep", model_path="tinker://deep")

        assert answer.json["model_id"] == MODEL
        assert seen.of(answer.json["request_id"]).path == "/demo"


class TestRequest:
    @pytest.mark.parametrize("samples", [None, 1, 3, 4096])
    def test_the_answer_names_each_sample(self, tinker: Tinker, pulled: str, samples: int | None) -> None:
        content = body_of(tinker.session(pulled), num_samples=samples)
        if samples is None:
            del content["num_samples"]
        answer = tinker.post("asample", content)

        content = answer.json
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
        assert list(content) == ["type", "request_id", "model_id", "sample_sequence_ids"]
        assert content["model_id"] == pulled
        expected = [f"{content['request_id']}:{number}" for number in range(samples or 1)]
        assert content["sample_sequence_ids"] == expected

    @pytest.mark.parametrize("samples", [0, -1, 4097, 2**63, 1.0, 1.5, "1", True, [], {}])
    def test_a_number_of_samples_that_is_none_is_refused(self, tinker: Tinker, samples: Any) -> None:
        stored = tinker.front.stored()

        assert_refused(tinker.post_sample(tinker.session(), num_samples=samples), 400, "num_samples")
        assert tinker.front.stored() == stored

    @pytest.mark.parametrize("name", SPARSE)
    def test_what_older_and_newer_clients_send_is_taken(self, tinker: Tinker, seen: Seen, name: str) -> None:
        body = json.dumps({"sampling_session_id": tinker.session(), **SPARSE[name]}, separators=(",", ":")).encode()
        answer = tinker.post("asample", body)

        assert answer.status == 200, answer.body
        assert seen.of(answer.json["request_id"]).body == body

    @pytest.mark.parametrize(
        "text",
        [
            ' {"b" :1.10,\n"num_samples":1 ,"sampling_session_id":"SESSION"}\n',
            '{"big":18446744073709551617123,"e":1E5,"sampling_session_id":"SESSION"}',
            '{"a":1,"a":2,"sampling_session_id":"x","sampling_session_id":"SESSION"}',
            '{"t":"\\u00e9\u00e9\U0001f600\\ud83d\\ude00","sampling_session_id":"SESSION"}',
            '{"prompt":"[1, 2, 3] \\"[4]\\"","sampling_session_id":"SESSION"}',
        ],
    )
    def test_the_body_reaches_the_target_byte_for_byte(self, tinker: Tinker, seen: Seen, text: str) -> None:
        body = text.replace("SESSION", tinker.session()).encode()
        answer = tinker.post("asample", body)

        call = seen.of(answer.json["request_id"])
        assert call.body == body
        assert call.headers["content-type"] == "application/json"

    def test_headers_that_are_the_clients_reach_the_target_and_no_others(self, tinker: Tinker, seen: Seen) -> None:
        own = {"X-Own": "1", "User-Agent": "AsyncTinker/Python 0.38.0", "traceparent": "00-" + "a" * 32 + "-01"}
        withheld = {
            "X-Tinker-Model": "forged",
            "X-Tinker-Sampling-Backpressure": "1",
            "X-Tinker-Anything": "1",
            "X-Stainless-Retry-Count": "0",
            "x-stainless-read-timeout": "60",
            "X-Idempotency-Key": "stainless-python-retry-1",
            "x-sdk-version": "0.38.0",
            "X-Sdk-Method": "sample",
            "Idempotency-Key": "mine",
            "X-Request-Id": "forged",
            "X-Progress-Url": "http://forged/",
            "Authorization": f"Bearer {TOKEN}",
            "Cookie": "a=b",
        }
        answer = tinker.post_sample(tinker.session(), {**own, **withheld})
        request_id = answer.json["request_id"]

        got = seen.of(request_id).headers
        assert {name: got[name.lower()] for name in own} == own
        assert got["x-tinker-model"] == MODEL
        assert got["x-request-id"] == got["idempotency-key"] == request_id
        assert got["x-request-attempt"] == "1" and request_id in got["x-progress-url"] and got["x-progress-token"]
        assert not [name for name in got if name.startswith(("x-stainless", "x-sdk", "x-idempotency", "x-api-key"))]
        assert [name for name in got if name.startswith("x-tinker")] == ["x-tinker-model"]
        assert not {"authorization", "cookie"} & set(got)
        assert TOKEN not in str(got)

    @pytest.mark.parametrize("query", ["?a=1", "?_priority_=1", "?echo=1&x=%20"])
    def test_no_query_reaches_the_target(self, tinker: Tinker, seen: Seen, query: str) -> None:
        answer = tinker.post(f"asample{query}", body_of(tinker.session("subpaths")))

        assert seen.of(answer.json["request_id"]).path == "/base"

    def test_a_session_that_is_none_is_unknown(self, tinker: Tinker) -> None:
        sessions: list[Any] = ["", "x", 1, [], {}, True, "0" * 32 + "." + "A" * 4000, "0" * 32 + ".gA"]
        for session in sessions:
            assert_refused(tinker.post("asample", body_of("x") | {"sampling_session_id": session}), 404, "session")

    @pytest.mark.parametrize("name", ["tinker://demo/\u20ac", "tinker://demo/\u00e9", "tinker://demo/a\u2028b"])
    def test_nor_is_one_that_nobody_made(self, tinker: Tinker, name: str) -> None:
        """Its name could not stand in a header."""
        answer = tinker.post_sample(names.session_id(name, ""))

        assert answer.status in (400, 404), (answer.status, answer.body)

    def test_a_request_without_model_and_session_is_refused(self, tinker: Tinker) -> None:
        assert_refused(tinker.post("asample", {"num_samples": 1, "prompt": {"chunks": []}}), 400, "sampling_session_id")


class TestSameRequest:
    def test_the_same_number_in_a_session_is_the_same_request(self, tinker: Tinker, pulled: str) -> None:
        session, stored = tinker.session(pulled), tinker.front.stored()
        answers = [
            tinker.post_sample(session, {"X-Idempotency-Key": f"call-{number}", **BACKPRESSURE}, seq_id=0)
            for number in range(3)
        ]

        assert [answer.status for answer in answers] == [200] * 3
        assert answers[0].json == answers[1].json == answers[2].json
        assert len(tinker.front.stored() - stored) == 1

    def test_so_it_is_when_it_has_ended(self, tinker: Tinker) -> None:
        session = tinker.session()
        request_id = tinker.post_sample(session, seq_id=5).json["request_id"]
        tinker.await_end(request_id)

        assert tinker.post_sample(session, seq_id=5).json["request_id"] == request_id

    def test_of_sixteen_at_once_one_is_stored(self, tinker: Tinker, pulled: str) -> None:
        session, stored = tinker.session(pulled), tinker.front.stored()
        for number in range(3):
            barrier = threading.Barrier(16)

            def submit(call: int, seq_id: int = number, start: threading.Barrier = barrier) -> str:
                start.wait(10)
                answer = tinker.post_sample(session, {"X-Idempotency-Key": f"{seq_id}-{call}"}, seq_id=seq_id)
                assert answer.status == 200, answer.body
                return str(answer.json["request_id"])

            with ThreadPoolExecutor(16) as pool:
                assert len(set(pool.map(submit, range(16)))) == 1
        assert len(tinker.front.stored() - stored) == 3

    def test_other_numbers_and_other_sessions_are_other_requests(self, tinker: Tinker, pulled: str) -> None:
        sessions = [tinker.session(pulled), tinker.session(pulled)]
        numbers = [0, 1, -1, 1_000_000_000, 2**63 - 1]
        found = [
            tinker.post_sample(session, {"X-Idempotency-Key": "the-same"}, seq_id=number).json["request_id"]
            for session in sessions
            for number in numbers
        ]

        assert len(set(found)) == len(sessions) * len(numbers)

    def test_another_body_under_the_same_number_is_refused(self, tinker: Tinker, pulled: str) -> None:
        session = tinker.session(pulled)
        first = tinker.post_sample(session, seq_id=1)

        other = tinker.post_sample(session, seq_id=1, prompt={"chunks": []})
        assert_refused(other, 422)
        assert tinker.post_sample(session, seq_id=1).json == first.json

    def test_without_a_number_the_call_counts(self, tinker: Tinker, pulled: str) -> None:
        session = tinker.session(pulled)

        def submitted(headers: dict[str, str], **members: Any) -> str:
            return str(tinker.post_sample(session, headers, **members).json["request_id"])

        one, other = {"X-Idempotency-Key": "one"}, {"X-Idempotency-Key": "other"}
        assert submitted(one) == submitted(one)
        assert submitted({"X-Idempotency-Key": "x"}, seq_id=None) == submitted({"X-Idempotency-Key": "x"}, seq_id=None)
        assert len({submitted(one), submitted(other), submitted({}), submitted({}), submitted(one, seq_id=0)}) == 5
        assert_refused(tinker.post_sample(session, one, prompt={"chunks": []}), 422)

    def test_a_number_without_a_session_is_none(self, tinker: Tinker, pulled: str) -> None:
        content = {"base_model": pulled, "seq_id": 0, "prompt": {"chunks": []}}
        found = {tinker.post("asample", content).json["request_id"] for _ in range(2)}
        again = {tinker.post("asample", content, {"X-Idempotency-Key": "k"}).json["request_id"] for _ in range(2)}

        assert (len(found), len(again)) == (2, 1)

    @pytest.mark.parametrize("number", ["0", 1.0, True, [], {}, 2**63, -(2**63) - 1, 10**30])
    def test_a_number_that_is_none_is_refused(self, tinker: Tinker, number: Any) -> None:
        assert_refused(tinker.post_sample(tinker.session(), seq_id=number), 400, "seq_id")

    def test_two_tokens_share_no_requests(self, tinker: Tinker, pulled: str) -> None:
        body = body_of(tinker.session(pulled), seq_id=0)
        found = {
            tinker.post("asample", body, token=token).json["request_id"] for token in (TOKEN, ROLE_TOKENS["submit"])
        }

        assert len(found) == 2


class TestLimits:
    @pytest.mark.parametrize("headers", [{}, BACKPRESSURE])
    def test_a_full_queue_is_429(self, tinker: Tinker, headers: dict[str, str]) -> None:
        session = tinker.session("narrow")
        request_id = tinker.post_sample(session, headers).json["request_id"]
        answer = tinker.post_sample(session, headers, seq_id=7)
        tinker.cancel(request_id)

        assert_refused(answer, 429, "narrow")
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert "x-should-retry" not in answer.headers
        later = tinker.post_sample(session, headers, seq_id=7)
        assert later.status == 200
        tinker.cancel(later.json["request_id"])

    def test_a_token_that_submits_too_fast_is_429(self, tinker: Tinker, pulled: str) -> None:
        session = tinker.session(pulled)
        first, *more = [tinker.post("asample", body_of(session), token=RATED_TOKEN) for _ in range(3)]

        assert first.status == 200, first.body
        for answer in more:
            assert_refused(answer, 429)
            assert 1 <= int(answer.headers["Retry-After"]) <= 60
            assert "x-should-retry" not in answer.headers

    def test_what_is_sent_again_is_not_counted_twice(self, tinker: Tinker, gate: Gate) -> None:
        """`narrow` has one place, and the request that has it asks for it again."""
        session = tinker.session("narrow")
        first = tinker.post_sample(session, seq_id=0)
        again = tinker.post_sample(session, seq_id=0)
        tinker.cancel(first.json["request_id"])

        assert (first.status, again.status) == (200, 200)
        assert first.json == again.json
