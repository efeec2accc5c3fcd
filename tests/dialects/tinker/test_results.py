"""Results: JSON and protobuf, failures and whose fault they are, and requests that came or ended by other protocols."""

from __future__ import annotations

import base64
import http.client
import json
import math
import struct
import time
from typing import Any

import pytest

from eas_queue.dialects.tinker import answers, parameters, sample_pb2
from eas_queue.engine import ids
from eas_queue.engine.request import Request, State
from tests.dialects.tinker.conftest import (
    BACKPRESSURE,
    HIGH_LEVEL,
    LOGPROBS,
    PROTOBUF,
    TOKENS,
    Gate,
    Tinker,
    body_of,
    fields,
    floats,
    ints,
    sequence,
)
from tests.support.front import Answer
from tests.support.installation import await_condition
from tests.support.own_target import OwnTarget

ID = ids.new_id(1)
STOP, LENGTH = {"stop_reason": "stop"}, {"stop_reason": "length"}


def assert_failed(answer: Answer, category: str, words: str = "") -> str:
    """A failure as all clients understand it; its text."""
    assert answer.status == 200, (answer.status, answer.body)
    assert answer.headers["Content-Type"] == "application/json"
    content = answer.json
    assert list(content) == ["error", "category", "request_id"]
    assert content["category"] == category, content
    assert words in content["error"], content
    assert 5 < len(content["error"]) < 900
    return str(content["error"])


def answering(model: OwnTarget, body: Any, status: int = 200, **headers: str) -> None:
    """Bytes go out as they are, all else as JSON."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    model.act = lambda call: (status, sent, {name.replace("_", "-"): value for name, value in headers.items()})


class TestJson:
    @pytest.mark.parametrize(
        ("body", "begin"),
        [
            (
                b'{"sequences":[{"tokens":[1],"logprobs":[-0.10]}] }\n',
                b'{"sequences":[{"tokens":[1],"logprobs":[-0.10]}]',
            ),
            (b' \r\n\t{ "a" :1.0, "b": 1E5 }  ', b' \r\n\t{ "a" :1.0, "b": 1E5'),
            (b'{"big":18446744073709551617123,"a":1,"a":2}', b'{"big":18446744073709551617123,"a":1,"a":2'),
            (b'{"t":"\\u00e9\xc3\xa9\\ud83d\\ude00}"}', b'{"t":"\\u00e9\xc3\xa9\\ud83d\\ude00}"'),
            (b'{"error":null,"type":"try_again"}', b'{"error":null,"type":"try_again"'),
            (b'{"a":{"request_id":"inner"}}', b'{"a":{"request_id":"inner"}'),
        ],
    )
    def test_an_object_comes_as_it_was_written_with_the_id_at_its_end(
        self, tinker: Tinker, model: OwnTarget, body: bytes, begin: bytes
    ) -> None:
        answering(model, body)
        request_id = tinker.sample()
        answer = tinker.await_end(request_id)

        assert answer.body == begin + b', "request_id": "%s"}\n' % request_id.encode()
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.json["request_id"] == request_id

    @pytest.mark.parametrize("body", [b"{}", b"{ }", b" {\n}\n"])
    def test_so_does_an_empty_one(self, tinker: Tinker, model: OwnTarget, body: bytes) -> None:
        answering(model, body)
        request_id = tinker.sample()

        assert tinker.await_end(request_id).json == {"request_id": request_id}

    @pytest.mark.parametrize("body", [b'{"request_id":"own","a" :1}', b'{"a":1, "request_id" : null }\n'])
    def test_an_id_that_is_there_stays(self, tinker: Tinker, model: OwnTarget, body: bytes) -> None:
        answering(model, body)

        assert tinker.result().body == body

    @pytest.mark.parametrize(
        "body", [b"[1, 2.50]", b'"text"', b"1.10", b" null\n", b"true", b"[]", b'[{"request_id":1}]']
    )
    def test_what_is_no_object_is_wrapped(self, tinker: Tinker, model: OwnTarget, body: bytes) -> None:
        answering(model, body)
        request_id = tinker.sample()
        answer = tinker.await_end(request_id)

        assert answer.body == b'{"result": %s, "request_id": "%s"}\n' % (body.strip(), request_id.encode())
        assert answer.json["result"] == json.loads(body)

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b" ",
            b"ok",
            b'{"a": 1',
            b'{"a": 1} {}',
            b"{'a': 1}",
            b'{"a": "\xff"}',
            b"\x00\xff\xfe",
            b"\x89PNG",
            b"[" * 20_000 + b"]" * 20_000,
            b"[" * 20_000,
            '{"a": 1}'.encode("utf-16"),
            '{"a": 1}'.encode("utf-32"),
            '{"a": 1}'.encode("utf-16-le"),
        ],
    )
    def test_what_is_no_json_is_a_failure(self, tinker: Tinker, model: OwnTarget, body: bytes) -> None:
        answering(model, body)

        assert_failed(tinker.result(), "server", "service demo")

    def test_a_mark_of_the_byte_order_does_no_harm(self, tinker: Tinker, model: OwnTarget) -> None:
        """JSON must not begin with one; some write it nevertheless."""
        answering(model, b'\xef\xbb\xbf{"a": 1}')
        answer = tinker.result()

        assert answer.json.get("a") == 1 or assert_failed(answer, "server")

    @pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-0.0", b"1" * 5000])
    def test_odd_numbers_do_no_harm(self, tinker: Tinker, model: OwnTarget, number: bytes) -> None:
        answering(model, b'{"a": %s}' % number)
        answer = tinker.result()

        assert b'{"a": %s' % number in answer.body or assert_failed(answer, "server")

    @pytest.mark.parametrize("accept", ["", "*/*", "application/json", "text/plain", "application/x-protobu"])
    def test_it_is_what_comes_unless_protobuf_is_asked_for(self, tinker: Tinker, accept: str) -> None:
        answer = tinker.result(accept=accept)

        assert answer.headers["Content-Type"] == "application/json"
        assert answer.json["sequences"] == [sequence()]

    @pytest.mark.parametrize("status", [200, 201, 299])
    def test_any_success_is_one(self, tinker: Tinker, model: OwnTarget, status: int) -> None:
        answering(model, {"a": 1}, status, Content_Type="text/plain", Set_Cookie="a=b", X_Own="1")
        answer = tinker.result()

        assert answer.json["a"] == 1
        assert answer.headers["Content-Type"] == "application/json"
        assert not {"Set-Cookie", "X-Own"} & set(answer.headers)

    def test_it_stays_whatever_is_polled(self, tinker: Tinker) -> None:
        request_id = tinker.sample(num_samples=2)
        first = tinker.await_end(request_id)

        assert [tinker.poll(request_id).body for _ in range(4)] == [first.body] * 4
        coded = [tinker.poll(request_id, HIGH_LEVEL).body for _ in range(2)]
        assert coded[0] == coded[1] != first.body
        assert tinker.poll(request_id).body == first.body

    def test_metadata_alone_is_no_other_thing(self, tinker: Tinker) -> None:
        request_id = tinker.sample()
        first = tinker.await_end(request_id)
        for flag in (True, False, None):
            answer = tinker.post("retrieve_future", {"request_id": request_id, "allow_metadata_only": flag})

            assert answer.body == first.body


class TestProtobuf:
    def coded(self, tinker: Tinker, model: OwnTarget, content: Any, samples: int = 1) -> Answer:
        answering(model, content)
        return tinker.result(accept=PROTOBUF, num_samples=samples)

    @pytest.mark.parametrize(
        "accept",
        [
            PROTOBUF,
            f"{PROTOBUF}, application/json",
            f"application/json, {PROTOBUF}",
            f"{PROTOBUF};q=1",
            PROTOBUF.upper(),
        ],
    )
    def test_it_is_what_comes_where_it_is_asked_for(self, tinker: Tinker, accept: str) -> None:
        answer = tinker.result(accept=accept)

        assert answer.headers["Content-Type"] == PROTOBUF
        assert len(sample_pb2.Sample.FromString(answer.body).sequences) == 1

    def test_a_sample_by_its_numbers(self, tinker: Tinker, model: OwnTarget) -> None:
        content = {"sequences": [sequence(), sequence(**STOP, tokens=[-1, 2**31 - 1], logprobs=None)]}
        answer = self.coded(tinker, model, content, 2)

        [first, second] = fields(answer.body)
        assert (first[0], second[0]) == (1, 1)
        assert isinstance(first[1], bytes) and isinstance(second[1], bytes)
        assert fields(first[1]) == [(1, 1), (2, struct.pack("<3i", *TOKENS)), (3, struct.pack("<3f", *LOGPROBS))]
        assert fields(second[1]) == [(2, struct.pack("<2i", -1, 2**31 - 1))]

    def test_all_fields_by_their_numbers(self, tinker: Tinker, model: OwnTarget) -> None:
        top = [[[5, -0.5], [6, -1.5]], None, [[7, -2.0]]]
        content = {
            "sequences": [sequence(topk_logprobs=top)],
            "prompt_logprobs": [None, -0.25, -3.5],
            "topk_prompt_logprobs": [None, [[1, -0.5]]],
            "prompt_cache_hit_tokens": 300,
        }
        answer = self.coded(tinker, model, content)

        found = dict(fields(answer.body))
        assert list(found) == [1, 2, 3, 4]
        logprobs = floats(_bytes(found[2]))
        assert math.isnan(logprobs[0]) and logprobs[1:] == [-0.25, -3.5]
        prompt_top = dict(fields(_bytes(found[3])))
        assert (ints(_bytes(prompt_top[1])), prompt_top[3], prompt_top[4]) == ([0, 1], 1, 2)
        assert floats(_bytes(prompt_top[2])) == [-99999.0, -0.5]
        assert found[4] == 300
        sampled_top = dict(fields(_bytes(dict(fields(_bytes(found[1])))[4])))
        assert (sampled_top[3], sampled_top[4]) == (2, 3)
        assert ints(_bytes(sampled_top[1])) == [5, 6, 0, 0, 7, 0]
        assert floats(_bytes(sampled_top[2])) == [-0.5, -1.5, -99999.0, -99999.0, -2.0, -99999.0]

    def test_the_same_as_the_message_says(self, tinker: Tinker, model: OwnTarget) -> None:
        content = {
            "sequences": [sequence(topk_logprobs=[[[5, -0.5]]] * 3), sequence(**STOP)],
            "prompt_logprobs": [None, -1.0],
            "topk_prompt_logprobs": [[], [[1, -0.5], [2, -0.75]]],
            "prompt_cache_hit_tokens": 2,
        }
        message = sample_pb2.Sample.FromString(self.coded(tinker, model, content, 2).body)

        first, second = message.sequences
        assert (first.stop_reason, second.stop_reason) == (sample_pb2.LENGTH, sample_pb2.STOP)
        assert ints(first.tokens) == ints(second.tokens) == TOKENS and floats(first.logprobs) == LOGPROBS
        assert (first.top_tokens.k, first.top_tokens.length) == (1, 3)
        assert first.HasField("top_tokens") and not second.HasField("top_tokens")
        assert (message.prompt_top_tokens.k, message.prompt_top_tokens.length) == (2, 2)
        assert ints(message.prompt_top_tokens.token_ids) == [0, 0, 1, 2]
        assert message.prompt_cache_hit_tokens == 2

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ({"sequences": [{"tokens": [], "logprobs": [], **STOP}]}, [(1, [(3, b"")])]),
            ({"sequences": [{"tokens": [], **LENGTH}]}, [(1, [(1, 1)])]),
            ({"sequences": [{"tokens": [1], **STOP}], "prompt_logprobs": []}, [(1, [(2, b"\1\0\0\0")]), (2, b"")]),
            ({"sequences": [{"tokens": [], **STOP}], "topk_prompt_logprobs": []}, [(1, []), (3, b"")]),
            ({"sequences": [{"tokens": [], **STOP, "extra": 1}], "extra": [], "request_id": "x"}, [(1, [])]),
        ],
    )
    def test_what_is_empty_or_absent(self, tinker: Tinker, model: OwnTarget, content: Any, expected: Any) -> None:
        found: list[tuple[int, Any]] = []
        for number, value in fields(self.coded(tinker, model, content).body):
            found.append((number, fields(_bytes(value)) if number == 1 else value))

        assert found == expected

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ("[NaN, Infinity, -Infinity]", [math.nan, math.inf, -math.inf]),
            ("[null, 1e-50, 0]", [math.nan, 0.0, 0.0]),
            ("[-0.0, 1, -12345]", [-0.0, 1.0, -12345.0]),
            ("[1e999, -1e39, 1e39]", [math.inf, -math.inf, math.inf]),
        ],
    )
    def test_odd_logprobs(self, tinker: Tinker, model: OwnTarget, values: str, expected: list[float]) -> None:
        answering(
            model, f'{{"sequences": [{{"tokens": [1, 2, 3], "logprobs": {values}, "stop_reason": "stop"}}]}}'.encode()
        )
        answer = tinker.result(accept=PROTOBUF)

        assert answer.headers["Content-Type"] == PROTOBUF, answer.body
        found = floats(sample_pb2.Sample.FromString(answer.body).sequences[0].logprobs)
        assert [str(each) for each in found] == [str(each) for each in expected]

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"ok", "JSON"),
            (b"[" * 20_000 + b"]" * 20_000, "JSON"),
            ([], "sequences"),
            ({}, "sequences"),
            ({"sequences": None}, "sequences"),
            ({"sequences": {}}, "sequences"),
            ({"sequences": []}, "0 sequences"),
            ({"sequences": [sequence(), sequence()]}, "2 sequences"),
            ({"sequences": [None]}, "sequences[0]"),
            ({"sequences": [{}]}, "stop_reason"),
            ({"sequences": [sequence(stop_reason="eos")]}, "eos"),
            ({"sequences": [sequence(stop_reason=None)]}, "stop_reason"),
            ({"sequences": [sequence(stop_reason=["stop"])]}, "stop_reason"),
            ({"sequences": [sequence(stop_reason="x" * 5000)]}, "stop_reason"),
            ({"sequences": [sequence(tokens=None)]}, "tokens"),
            ({"sequences": [sequence(tokens=["1", "2", "3"])]}, "tokens"),
            ({"sequences": [sequence(tokens=[1.0, 2, 3])]}, "tokens"),
            ({"sequences": [sequence(tokens=[True, 2, 3])]}, "tokens"),
            ({"sequences": [sequence(tokens=[1, 2, 2**31])]}, "tokens"),
            ({"sequences": [sequence(tokens=[1, 2, -(2**31) - 1])]}, "tokens"),
            ({"sequences": [sequence(tokens=[1, 2, 10**30])]}, "tokens"),
            ({"sequences": [sequence(tokens=[1])]}, "logprobs"),
            ({"sequences": [sequence(logprobs=[-1.0])]}, "logprobs"),
            ({"sequences": [sequence(logprobs="abc")]}, "logprobs"),
            ({"sequences": [sequence(logprobs=["a", "b", "c"])]}, "logprobs"),
            ({"sequences": [sequence(logprobs=[True, 1, 2])]}, "logprobs"),
            ({"sequences": [sequence(logprobs={"0": 1, "1": 2, "2": 3})]}, "logprobs"),
            ({"sequences": [sequence(logprobs=[10**400, 1, 2])]}, "logprobs"),
            ({"sequences": [sequence()], "prompt_logprobs": {}}, "prompt_logprobs"),
            ({"sequences": [sequence()], "prompt_logprobs": ["x"]}, "prompt_logprobs"),
            ({"sequences": [sequence()], "topk_prompt_logprobs": {}}, "topk_prompt_logprobs"),
            ({"sequences": [sequence()], "topk_prompt_logprobs": [1]}, "topk_prompt_logprobs"),
            ({"sequences": [sequence()], "topk_prompt_logprobs": [[1]]}, "topk_prompt_logprobs"),
            ({"sequences": [sequence()], "topk_prompt_logprobs": [[[1]]]}, "topk_prompt_logprobs"),
            ({"sequences": [sequence()], "topk_prompt_logprobs": [[[1, 2, 3]]]}, "topk_prompt_logprobs"),
            ({"sequences": [sequence()], "topk_prompt_logprobs": [[["1", 2.0]]]}, "topk_prompt_logprobs"),
            ({"sequences": [sequence()], "topk_prompt_logprobs": [[[1, "2"]]]}, "topk_prompt_logprobs"),
            ({"sequences": [sequence(topk_logprobs=[[[2**31, -1.0]]])]}, "topk_logprobs"),
        ],
    )
    def test_what_is_no_sample_is_a_failure(self, tinker: Tinker, model: OwnTarget, content: Any, words: str) -> None:
        answering(model, content)

        assert_failed(tinker.result(accept=f"{PROTOBUF}, application/json"), "server", words)

    @pytest.mark.parametrize("hits", [-1, 2**31, "5", 1.5, True, None, []])
    def test_cache_hits_that_are_no_number_are_left_out(self, tinker: Tinker, model: OwnTarget, hits: Any) -> None:
        answer = self.coded(tinker, model, {"sequences": [sequence()], "prompt_cache_hit_tokens": hits})

        assert [number for number, _ in fields(answer.body)] == [1]

    def test_a_number_of_samples_that_was_left_out_is_one(self, tinker: Tinker) -> None:
        answer = tinker.post("asample", {"sampling_session_id": tinker.session()})

        assert len(fields(tinker.await_end(answer.json["request_id"], HIGH_LEVEL).body)) == 1

    def test_many_samples_are_as_many(self, tinker: Tinker) -> None:
        answer = tinker.result(accept=PROTOBUF, num_samples=500)

        assert len(sample_pb2.Sample.FromString(answer.body).sequences) == 500


def _bytes(value: int | bytes) -> bytes:
    assert isinstance(value, bytes)
    return value


class TestFailure:
    @pytest.mark.parametrize("accept", ["application/json", PROTOBUF])
    @pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 422, 451, 499])
    def test_what_the_target_refuses_is_its_clients_fault(
        self, tinker: Tinker, model: OwnTarget, status: int, accept: str
    ) -> None:
        answering(model, b' {"detail": "no such \xc3\xa9"}\n', status)
        text = assert_failed(tinker.result("once", accept=accept), "user")

        assert text == f'service once: the target answered {status}: {{"detail": "no such \u00e9"}}'

    @pytest.mark.parametrize(
        ("said", "quoted"),
        [
            (b"", ""),
            (b" \n", ""),
            (b"x" * 600, ": " + "x" * 500),
            (b"\xe2\x82\xac" * 600, ": " + "\u20ac" * 500),
            (b"a\xff\x00b", ": a\ufffd\x00b"),
            (b"\xff" * 3000, ": " + "\ufffd" * 500),
        ],
    )
    def test_of_what_it_said_the_beginning_is_quoted(
        self, tinker: Tinker, model: OwnTarget, said: bytes, quoted: str
    ) -> None:
        answering(model, said, 422)

        assert assert_failed(tinker.result("once"), "user") == f"service once: the target answered 422{quoted}"

    @pytest.mark.parametrize("status", [300, 302, 304, 408, 500, 501, 502, 503, 504, 599])
    def test_anything_else_is_not(self, tinker: Tinker, model: OwnTarget, status: int) -> None:
        answering(model, b"" if status == 304 else b"sorry", status, Location="http://127.0.0.1:9/")

        assert_failed(tinker.result("once"), "server", f"service once: the target answered {status}")

    def test_a_busy_target_neither(self, tinker: Tinker, model: OwnTarget) -> None:
        """It is asked again until it says that this has no sense."""
        answering(model, b"busy", 429, X_Fal_Needs_Retry="0")

        assert_failed(tinker.result("once"), "server", "the target answered 429: busy")

    def test_an_answer_that_comes_too_late(self, tinker: Tinker, gate: Gate) -> None:
        assert_failed(tinker.result("hasty"), "server", "service hasty: ")

    def test_a_target_that_is_not_there(self, tinker: Tinker) -> None:
        text = assert_failed(tinker.result("nowhere"), "server", "service nowhere: ")
        assert "attempts" not in text or "1 of 1" in text

    @pytest.mark.parametrize("accept", ["application/json", PROTOBUF])
    @pytest.mark.parametrize("is_taken", [False, True])
    def test_one_that_was_cancelled(self, tinker: Tinker, pulled: str, is_taken: bool, accept: str) -> None:
        request_id = tinker.sample(pulled)
        if is_taken:
            assert tinker.take(pulled) == [request_id]
        answer = tinker.cancel(request_id)
        assert (answer.status, answer.json) == (200, {"type": "cancel_future"})

        text = assert_failed(tinker.poll(request_id, {"Accept": accept}), "user")
        assert text == "cancelled by client"

    def test_one_that_runs_at_its_target_is_cut_off(self, tinker: Tinker, gate: Gate) -> None:
        request_id = tinker.sample()
        gate.await_call()
        assert tinker.cancel(request_id).status == 200

        assert_failed(tinker.poll(request_id), "user", "cancelled by client")

    @pytest.mark.parametrize("times", [1, 3])
    def test_cancelling_is_always_a_success(self, tinker: Tinker, pulled: str, times: int) -> None:
        request_id = tinker.sample(pulled)
        ended = tinker.sample()
        result = tinker.await_end(ended)
        for _ in range(times):
            for each in (request_id, ended, "ffff0000-0000-8000-8000-000000000000", "nonsense", "\u20ac", "x" * 3000):
                answer = tinker.cancel(each)

                assert (answer.status, answer.json) == (200, {"type": "cancel_future"})
        assert tinker.poll(ended).body == result.body

    @pytest.mark.parametrize("accept", ["application/json", PROTOBUF])
    def test_one_that_has_expired(self, tinker: Tinker, pulled: str, accept: str) -> None:
        request_id = tinker.sample(pulled, {"X-Deadline": "0.05"})

        text = assert_failed(tinker.await_end(request_id, {"Accept": accept}), "server", "deadline")
        assert text.startswith(f"service {pulled}: ")

    def test_finishing_a_session_cancels_nothing(self, tinker: Tinker, pulled: str) -> None:
        request_id = tinker.sample(pulled)
        assert tinker.post("sessions/s/finish", {"reason": {"type": "success"}}).status == 200

        assert tinker.poll(request_id).status == 408


SAMPLE = {"sequences": [{"tokens": [4], "logprobs": [-0.5], **STOP}]}


class TestForeign:
    """Requests that came by another protocol, polled here."""

    def by_native(self, tinker: Tinker, name: str) -> str:
        return tinker.front.submit(name, json.dumps({"num_samples": 1}).encode())

    def by_fal(self, tinker: Tinker, name: str) -> str:
        sent = {"Content-Type": "application/json"}
        answer = tinker.front.call("POST", f"/fal/acme/{name}", b'{"num_samples": 1}', sent)
        return str(answer.json["request_id"])

    def by_bella(self, tinker: Tinker, name: str) -> str:
        content = {"queue": name, "endpoint": "/v1/x", "level": 1, "data": {"num_samples": 1}}
        answer = tinker.front.call("POST", "/v1/queue/put", json.dumps(content))
        return request_id_of(str(answer.json["data"]))

    @pytest.mark.parametrize("way", ["native", "fal"])
    def test_one_that_was_forwarded(self, tinker: Tinker, model: OwnTarget, way: str) -> None:
        answering(model, SAMPLE)
        request_id = getattr(self, f"by_{way}")(tinker, "demo")

        assert tinker.await_end(request_id).json == {**SAMPLE, "request_id": request_id}
        message = sample_pb2.Sample.FromString(tinker.poll(request_id, HIGH_LEVEL).body)
        assert ints(message.sequences[0].tokens) == [4]

    def test_one_that_a_taker_has(self, tinker: Tinker, pulled: str) -> None:
        submitted = [self.by_native(tinker, pulled), self.by_fal(tinker, pulled), self.by_bella(tinker, pulled)]
        polls = [tinker.poll_apart(request_id, HIGH_LEVEL) for request_id in submitted]
        waiting = [(poll.result().status, poll.result().json["queue_position"]) for poll in polls]
        assert waiting == [(408, 0), (408, 1), (408, 2)]
        for task_id in tinker.take(pulled, 3):
            tinker.complete(task_id, {"body": SAMPLE})

        for request_id in submitted:
            assert tinker.poll(request_id).json == {**SAMPLE, "request_id": request_id}
            assert tinker.poll(request_id, HIGH_LEVEL).headers["Content-Type"] == PROTOBUF

    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_nobody_knows_how_many_samples_it_asked_for(self, tinker: Tinker, model: OwnTarget, count: int) -> None:
        answering(model, {"sequences": [sequence()] * count})
        request_id = self.by_native(tinker, "demo")
        answer = tinker.await_end(request_id, HIGH_LEVEL)

        assert len(fields(answer.body)) == count and answer.headers["Content-Type"] == PROTOBUF

    def test_a_callback_is_not_ours(self, tinker: Tinker, pulled: str) -> None:
        """What bella keeps of its own request stays its own."""
        request_id = self.by_bella(tinker, pulled)
        tinker.complete(tinker.take(pulled)[0], {"status_code": 422, "body": {"a": 1}, "tinker": {"samples": 9}})

        assert_failed(tinker.poll(request_id), "user", "422")

    @pytest.mark.parametrize("way", ["native", "fal"])
    def test_one_that_was_cancelled_there(self, tinker: Tinker, pulled: str, way: str) -> None:
        request_id = getattr(self, f"by_{way}")(tinker, pulled)
        tinker.front.delete(request_id, pulled)

        assert_failed(tinker.poll(request_id), "user", "cancelled by client")

    def test_one_is_cancelled_from_here(self, tinker: Tinker, pulled: str) -> None:
        request_ids = [self.by_native(tinker, pulled), self.by_fal(tinker, pulled), self.by_bella(tinker, pulled)]
        for request_id in request_ids:
            assert tinker.cancel(request_id).status == 200

        words = [tinker.front.look(request_id, pulled).json["status"] for request_id in request_ids]
        assert words == ["REVOKED"] * 3


class TestElsewhere:
    """Requests that came from here, as other protocols see them."""

    def test_natively(self, tinker: Tinker, model: OwnTarget) -> None:
        answering(model, b'{"a" :1.50}')
        request_id = tinker.sample()
        tinker.await_end(request_id)

        status = tinker.front.look(request_id).json
        assert (status["status"], status["request_id"], status["attempts"]) == ("SUCCESS", request_id, 1)
        assert tinker.front.result(request_id).body == b'{"a" :1.50}'
        sink = tinker.front.call("GET", f"/api/predict/demo/sink?request_id={request_id}")
        assert sink.json["status"] == "SUCCESS"

    def test_by_fal(self, tinker: Tinker, gate: Gate) -> None:
        request_id = tinker.sample()
        gate.await_call()
        path = f"/fal/acme/demo/requests/{request_id}"
        assert tinker.front.call("GET", f"{path}/status").json["status"] == "IN_PROGRESS"
        gate.open()
        tinker.await_end(request_id)

        assert tinker.front.call("GET", f"{path}/status").json["status"] == "COMPLETED"
        assert tinker.front.call("GET", path).json["sequences"] == [sequence()]

    def test_by_fal_cancelled(self, tinker: Tinker, pulled: str) -> None:
        request_id = tinker.sample(pulled)
        assert tinker.front.call("PUT", f"/fal/acme/{pulled}/requests/{request_id}/cancel").status in (200, 202)

        assert_failed(tinker.poll(request_id), "user", "cancelled by client")

    def test_by_a_taker(self, tinker: Tinker, pulled: str) -> None:
        body = body_of(tinker.session(pulled), num_samples=2)
        answer = tinker.post("asample", body, BACKPRESSURE)
        request_id = answer.json["request_id"]
        task = tinker.front.call(
            "POST", "/v1/queue/take", json.dumps({"queues": [f"{pulled}:1"], "size": 1, "wait": 5})
        ).json[f"{pulled}:1"][0]
        assert (task["task_id"], task["data"]) == (request_id, body)
        assert tinker.poll(request_id).json["queue_state"] == "processing"
        progress = {"progress": {"tokens_generated": 2, "max_tokens": 8}}
        assert tinker.front.call("POST", f"/v1/queue/{request_id}/progress", json.dumps(progress)).status == 200
        assert tinker.poll(request_id).headers["X-Queue-Tokens-Generated"] == "2"
        tinker.complete(request_id, {"body": {"sequences": [sequence(), sequence(**STOP)]}})

        assert len(tinker.poll(request_id).json["sequences"]) == 2
        message = sample_pb2.Sample.FromString(tinker.poll(request_id, HIGH_LEVEL).body)
        assert [each.stop_reason for each in message.sequences] == [sample_pb2.LENGTH, sample_pb2.STOP]

    @pytest.mark.parametrize(("status", "category"), [(400, "user"), (422, "user"), (408, "server"), (500, "server")])
    def test_a_taker_refuses_it(self, tinker: Tinker, pulled: str, status: int, category: str) -> None:
        request_id = tinker.sample(pulled)
        tinker.complete(tinker.take(pulled)[0], {"status_code": status, "body": {"why": "x"}})

        assert_failed(tinker.poll(request_id), category, f'{status}: {{"why": "x"}}')

    def test_a_taker_answers_bytes(self, tinker: Tinker, pulled: str) -> None:
        request_id = tinker.sample(pulled)
        coded = base64.b64encode(b"\x00\xff").decode()
        content = {"body": {"body_base64": coded, "content_type": "image/png"}}
        tinker.complete(tinker.take(pulled)[0], content)

        assert_failed(tinker.poll(request_id), "server", f"service {pulled}")

    def test_a_sink_item_is_its_answer(self, tinker: Tinker, pulled: str) -> None:
        request_id = tinker.sample(pulled)
        path = f"/api/predict/{pulled}/sink?requestId={request_id}"
        assert tinker.front.call("POST", path, b'{"b": 4}', {"Content-Type": "application/json"}).status == 200

        found = await_condition(lambda: tinker.poll(request_id).json.get("b"))
        assert found == 4


def request_id_of(task_id: str) -> str:
    digits = "".join(task_id.split("-")[-2:])
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


class TestMuch:
    """Answers that would cost a web process dear; longer ones than the installation of these tests keeps."""

    @staticmethod
    def rendered(body: bytes, accept: str = "application/json", *, high_level: bool = False) -> Answer:
        """Of a request for one sample."""
        about = parameters.About(1, True).packed()
        found = Request("demo", ID, State.SUCCEEDED, 1, 100, 1, None, 0, 0, about=about)
        response = answers.result(found, body, accept, high_level=high_level)
        headers = http.client.HTTPMessage()
        for name, value in response.headers:
            headers[name] = value
        return Answer(response.status_code, headers, response.get_data())

    @pytest.mark.parametrize("own", [b"", b'"request_id": "own", '])
    def test_a_long_object_has_the_id_in_front_and_its_own_goes_before_it(self, own: bytes) -> None:
        body = b" {" + own + b'"tokens": [' + b"1," * 600_000 + b"1]}\n"

        answer = self.rendered(body)

        assert answer.body == b'{"request_id": "%s", ' % ID.encode() + body[2:]
        assert answer.json["request_id"] == ("own" if own else ID)

    def test_a_long_one_may_be_nothing_but_blanks(self) -> None:
        assert self.rendered(b"{" + b" " * 2_000_000 + b"}").json == {"request_id": ID}

    @pytest.mark.parametrize(
        ("value", "count"), [(b"1", 4_000_001), (b"{}", 1_000_001), (b"[]", 1_000_001), (b'{"a":1}', 500_001)]
    )
    def test_very_many_values_are_not_read(self, value: bytes, count: int) -> None:
        body = b'{"sequences": [' + (value + b",") * count + value + b"]}"
        began_s = time.process_time()
        answer = self.rendered(body, "application/x-protobuf")

        assert_failed(answer, "server", "more than 4,000,000 values")
        assert time.process_time() - began_s < 1

    def test_more_samples_than_anybody_may_ask_for_are_refused(self) -> None:
        body = json.dumps({"sequences": [sequence()] * 4097}).encode()
        found = Request("demo", ID, State.SUCCEEDED, 1, 100, 1, None, 0, 0)

        answer = answers.result(found, body, "application/x-protobuf", high_level=True)

        assert b"4097 sequences, more than 4096" in answer.get_data()

    @pytest.mark.parametrize("count", [1, 2_000_000])
    def test_one_that_is_not_utf_8_is_none(self, count: int) -> None:
        assert_failed(self.rendered(b'{"a": "\xff"' + b" " * count + b"}"), "server", "returned no sample")

    @pytest.mark.parametrize("value", [b'"\\ud800"', b"[" * 500 + b"]" * 500, b"9" * 5000, b"NaN"])
    def test_what_python_reads_is_handed_on(self, value: bytes) -> None:
        assert self.rendered(b'{"a": ' + value + b"}").body.startswith(b'{"a": ' + value)

    def test_rows_of_very_different_length_are_not_filled_up(self) -> None:
        rows = [[[1, -1.0]] * 30_000] + [[]] * 30_000
        body = json.dumps({"sequences": [sequence()], "topk_prompt_logprobs": rows}).encode()
        began_s = time.process_time()

        assert_failed(self.rendered(body, "application/x-protobuf"), "server", "rows of very different length")
        assert time.process_time() - began_s < 1

    def test_rows_of_a_few_lengths_are(self) -> None:
        rows = [None, *[[[1, -1.0]] * (number % 6) for number in range(1000)]]
        body = json.dumps({"sequences": [sequence()], "topk_prompt_logprobs": rows}).encode()

        found = sample_pb2.Sample.FromString(self.rendered(body, "application/x-protobuf").body)

        assert (found.prompt_top_tokens.k, found.prompt_top_tokens.length) == (5, 1001)


class TestOlderHighLevel:
    """Those that take samples as JSON take some members for words of the queue."""

    @pytest.mark.parametrize(
        "members",
        [
            {"type": "try_again"},
            {"status": "complete_metadata"},
            {"error": None},
            {"sequences": None},
            {"sequences": []},
        ],
    )
    def test_nothing_but_a_sample_reaches_it(self, members: dict[str, Any]) -> None:
        body = json.dumps({"type": "sample", "sequences": [sequence()]} | members).encode()

        assert_failed(TestMuch.rendered(body, high_level=True), "server", "returned no sample")

    def test_a_sample_does(self, tinker: Tinker, model: OwnTarget) -> None:
        answering(model, {"type": "sample", "sequences": [sequence()], "status": "done"})

        answer = tinker.await_end(tinker.sample(), HIGH_LEVEL | {"Accept": "application/json"})

        assert answer.json["sequences"] == [sequence()]
