"""What clients should not send: each is refused in this dialect's shape, or taken as it was meant; nothing is kept."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dialects.tinker.conftest import (
    BACKPRESSURE,
    HIGH_LEVEL,
    MAX_PAYLOAD_BYTES,
    UNKNOWN_ID,
    Tinker,
    assert_refused,
    body_of,
)
from tests.dialects.tinker.test_account import TRAINING
from tests.support.installation import TOKEN
from tests.support.own_target import Call, OwnTarget, Reply

SMALL_MOST = 65_536  # bytes of a body that is no sampling request
NO_OBJECT = {
    "none": b"",
    "blanks": b" \n",
    "text": b"request_id=1",
    "cut": b'{"request_id": "a',
    "more": b"{} {}",
    "trailing comma": b'{"a": 1,}',
    "single quotes": b"{'a': 1}",
    "comment": b'{"a": 1 /* one */}',
    "list": b"[]",
    "null": b"null",
    "number": b"1",
    "string": b'"{}"',
    "true": b"true",
    "not UTF-8": b'{"a": "\xff"}',
    "half a character": b'{"a": "\xc3"}',
    "overlong": b'{"a": "\xc0\xaf"}',
    "a control character": b'{"a": "\x01"}',
    "NUL": b'{"a": 1}\x00',
    "bad escape": b'{"a": "\\x41"}',
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": Infinity}',
    "minus infinity": b'{"a": -Infinity}',
    "leading zero": b'{"a": 01}',
    "plus": b'{"a": +1}',
    "hexadecimal": b'{"a": 0x10}',
    "deep lists": b'{"a": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "deep and cut": b'{"a": ' + b"[" * 20_000,
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00C\xbf\xa6\xa3\x02\x00\x00\x00",
}
READ = [
    "create_sampling_session",
    "asample",
    "retrieve_future",
    "cancel_future",
    "join_sampling_session",
    "create_session",
]
UNREAD = ["client/config", "client/dynamic_config", "session_heartbeat", "telemetry", "sessions/s/finish"]


@pytest.fixture(autouse=True)
def _nothing_is_kept(request: pytest.FixtureRequest, tinker: Tinker) -> Iterator[None]:
    """But by tests of what is taken, which have a queue or a target of their own."""
    stored, services = tinker.front.stored(), tinker.front.services()
    yield
    if not {"pulled", "model"} & set(request.fixturenames):
        assert (tinker.front.stored(), tinker.front.services()) == (stored, services)


class TestBodies:
    @pytest.mark.parametrize("path", READ)
    @pytest.mark.parametrize("name", NO_OBJECT)
    def test_what_is_no_json_object_is_refused(self, tinker: Tinker, path: str, name: str) -> None:
        assert_refused(tinker.call("POST", path, NO_OBJECT[name]), 400)

    @pytest.mark.parametrize("path", UNREAD)
    def test_where_nothing_is_read_anything_goes(self, tinker: Tinker, path: str) -> None:
        for body in NO_OBJECT.values():
            answer = tinker.call("POST", path, body)

            assert answer.status == 200 and isinstance(answer.json, dict)

    def test_a_high_level_poll_is_refused_at_once_and_with_words(self, tinker: Tinker) -> None:
        """An empty 400 would be taken for a proxy's, and repeated."""
        for name in ("none", "text", "cut"):
            assert_refused(tinker.call("POST", "retrieve_future", NO_OBJECT[name], HIGH_LEVEL), 400)

    @pytest.mark.parametrize("path", [path for path in READ if path != "asample"])
    def test_too_much_is_413(self, tinker: Tinker, path: str) -> None:
        body = b'{"a": "' + b"x" * SMALL_MOST + b'"}'

        assert_refused(tinker.call("POST", path, body), 413, str(SMALL_MOST))
        assert_refused(tinker.call("POST", path, iter([body[:9], body[9:]])), 413)

    def test_of_a_sampling_request_too(self, tinker: Tinker) -> None:
        head = f"POST /api/v1/asample HTTP/1.1\r\nHost: x\r\nX-API-Key: {TOKEN}\r\n"
        announced = head + f"Content-Length: {MAX_PAYLOAD_BYTES + 1}\r\n\r\n"
        body = b'{"a": "' + b"x" * MAX_PAYLOAD_BYTES + b'"}'

        assert tinker.front.raw(announced.encode()).startswith(b"HTTP/1.1 413 ")
        assert_refused(tinker.call("POST", "asample", iter([body[:9], body[9:]])), 413, "MAX_PAYLOAD_BYTES")

    @pytest.mark.parametrize("path", READ)
    def test_one_that_breaks_off_is_none(self, tinker: Tinker, path: str) -> None:
        head = f"POST /api/v1/{path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {TOKEN}\r\nContent-Length: 99\r\n\r\n"
        answer = tinker.front.raw(head.encode() + b'{"request_id": ')

        assert answer.startswith(b"HTTP/1.1 400 ") and b'"detail"' in answer

    def test_one_in_chunks_is_one(self, tinker: Tinker, pulled: str) -> None:
        body = json.dumps(body_of(tinker.session(pulled))).encode()
        answer = tinker.call("POST", "asample", iter([body[:9], body[9:40], body[40:]]), BACKPRESSURE)

        request_id = answer.json["request_id"]
        poll = tinker.call("POST", "retrieve_future", iter([b'{"request_id":', f'"{request_id}"}}'.encode()]))
        assert poll.status == 408

    @pytest.mark.parametrize(
        "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x"]
    )
    def test_its_type_is_not_looked_at(self, tinker: Tinker, pulled: str, kind: str) -> None:
        headers = {"Content-Type": kind, **BACKPRESSURE}
        answer = tinker.call("POST", "asample", body_of(tinker.session(pulled)), headers)

        poll = tinker.call("POST", "retrieve_future", {"request_id": answer.json["request_id"]}, headers)
        assert (answer.status, poll.status) == (200, 408)

    def test_unknown_members_are_ignored(self, tinker: Tinker, pulled: str) -> None:
        more: dict[str, Any] = {"": {}, "\u00e9": None, "Num_Samples": -1, "error": 1, "type": ["x"], "priority": [1]}
        request_id = tinker.sample(pulled, **more)

        assert tinker.post("retrieve_future", {"request_id": request_id, **more}).status == 408
        assert tinker.post("create_session", more).status == 200
        assert tinker.post("cancel_future", {"request_id": request_id, **more}).status == 200

    def test_of_a_member_that_stands_twice_the_last_counts(self, tinker: Tinker, pulled: str) -> None:
        session = tinker.session(pulled)
        body = f'{{"num_samples": 0, "sampling_session_id": "x", "sampling_session_id": "{session}", "num_samples": 2}}'

        assert len(tinker.post("asample", body).json["sample_sequence_ids"]) == 2

    def test_nested_as_deep_as_people_do_is_fine(self, tinker: Tinker, pulled: str) -> None:
        deep: dict[str, Any] = {}
        for _ in range(100):
            deep = {"a": [deep]}

        assert tinker.post_sample(tinker.session(pulled), sampling_params=deep).status == 200


class TestValues:
    @pytest.mark.parametrize("member", ["base_model", "model_path"])
    @pytest.mark.parametrize(
        "value",
        [1, True, 1.5, [], {}, ["demo"], "x" * 513, "\u20ac", "a\nb", "a\u0000b", "\ud800", "tinker://\u00e9", " \t"],
    )
    def test_a_name_that_is_none_is_refused(self, tinker: Tinker, member: str, value: Any) -> None:
        for path in ("create_sampling_session", "asample"):
            answer = tinker.post(path, {member: value, "num_samples": 1})

            assert answer.status in (400, 404), answer.body
            assert_refused(answer, answer.status)

    @pytest.mark.parametrize("path", ["retrieve_future", "cancel_future"])
    @pytest.mark.parametrize("value", [None, 0, 1, True, 1.5, [], {}, "", ["x"], 10**400])
    def test_an_id_that_is_none_is_refused(self, tinker: Tinker, path: str, value: Any) -> None:
        assert_refused(tinker.post(path, {"request_id": value}), 400, "request_id")
        assert_refused(tinker.post(path, {}), 400, "request_id")

    @pytest.mark.parametrize(
        "request_id",
        [
            "x",
            "a\r\nX-Evil: 1",
            "\u20ac",
            "\ud800",
            "\u0000",
            "{}",
            "*",
            "-1",
            "x" * 5000,
            UNKNOWN_ID.upper(),
            UNKNOWN_ID + "\n",
            UNKNOWN_ID.replace("-", ""),
            UNKNOWN_ID + ":0",
            "00000000-0000-0000-0000-000000000000",
            "0000aaaa-bbbb-8ccc-9ddd-eeeeeeeeeeee",
        ],
    )
    def test_one_that_can_be_none_is_unknown(self, tinker: Tinker, request_id: str) -> None:
        for headers in ({}, HIGH_LEVEL):
            answer = tinker.poll(request_id, headers)

            assert answer.status == 404 and answer.json["status"] == 404
            assert "X-Evil" not in answer.headers and len(answer.body) < 60_000
        assert tinker.cancel(request_id).json == {"type": "cancel_future"}

    @pytest.mark.parametrize("number", ["1" * 3999, "1" * 5000, "1e400", "1e-400", "-1", "1" + "0" * 400])
    def test_a_huge_number_is_none_of_ours(self, tinker: Tinker, number: str) -> None:
        session = tinker.session()
        for member in ("num_samples", "seq_id"):
            body = f'{{"sampling_session_id": "{session}", "{member}": {number}}}'
            if (member, number) != ("seq_id", "-1"):
                assert_refused(tinker.post("asample", body), 400, member)

    @pytest.mark.parametrize("number", ["1" * 3999, "1" * 5000, "1e400", "-0", "1E+2", "0.1e-7"])
    def test_elsewhere_it_is_the_targets_matter(self, tinker: Tinker, pulled: str, number: str) -> None:
        body = f'{{"sampling_session_id": "{tinker.session(pulled)}", "sampling_params": {{"seed": {number}}}}}'

        assert tinker.post("asample", body).status == 200

    @pytest.mark.parametrize("name", ["X-Deadline", "Idempotency-Key"])
    @pytest.mark.parametrize("value", ["", "x" * 300, "-1", "nan", "\xff"])
    def test_a_header_of_the_queue_is_one(self, tinker: Tinker, name: str, value: str) -> None:
        if (name, value) not in (("Idempotency-Key", "-1"), ("Idempotency-Key", "nan")):
            assert_refused(tinker.post_sample(tinker.session(), {name: value}), 400, name)

    @pytest.mark.parametrize("value", ["", " ", "\xff", "x" * 4000, "a,b", "\t"])
    @pytest.mark.parametrize(
        "name", ["X-Idempotency-Key", "X-Tinker-Sampling-Backpressure", "X-Sdk-Method", "X-Tinker-X"]
    )
    def test_an_odd_header_of_the_client_does_no_harm(self, tinker: Tinker, pulled: str, name: str, value: str) -> None:
        session = tinker.session(pulled)
        answer = tinker.post_sample(session, {name: value})

        assert answer.status == 200
        assert tinker.post("create_sampling_session", {"base_model": pulled}, {name: value}).status == 200


class TestPaths:
    @pytest.mark.parametrize(
        "path",
        ["", "nothing", "asample/", "asample/x", "/asample", "samplers", "samplers/", "sessions/s", "%2e%2e/asample"],
    )
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_one_that_is_none_is_404(self, tinker: Tinker, method: str, path: str) -> None:
        answer = tinker.call(method, path, b"{}")

        assert answer.status in (404, 405)
        assert_refused(answer, answer.status)

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
    @pytest.mark.parametrize("path", [*READ, *UNREAD, *TRAINING])
    def test_another_method_is_405(self, tinker: Tinker, method: str, path: str) -> None:
        answer = tinker.call(method, path)

        assert_refused(answer, 405)
        assert "POST" in answer.headers["Allow"]

    @pytest.mark.parametrize("path", ["samplers/x", "get_server_capabilities", "healthz"])
    def test_what_is_read_is_not_posted(self, tinker: Tinker, path: str) -> None:
        answer = tinker.post(path)

        assert_refused(answer, 405)
        assert "GET" in answer.headers["Allow"]

    @pytest.mark.parametrize("path", ["get_server_capabilities", "healthz"])
    def test_head_is_get_without_the_body(self, tinker: Tinker, path: str) -> None:
        answer = tinker.call("HEAD", path)

        assert (answer.status, answer.body) == (200, b"")

    @pytest.mark.parametrize("session", ["a%0D%0AX-Evil:%201", "%E2%82%AC", "%FF", "%00", "x" * 6000, "*", "a%20b"])
    def test_a_session_that_is_none_does_no_harm(self, tinker: Tinker, session: str) -> None:
        sampler = tinker.call("GET", f"samplers/{session}")
        finished = tinker.post(f"sessions/{session}/finish")

        assert_refused(sampler, 404)
        assert finished.status == 200
        assert "X-Evil" not in {*sampler.headers, *finished.headers}


class Webs:
    """The web processes of an installation."""

    def __init__(self, tinker: Tinker) -> None:
        [web] = [each for each in tinker.front.installation.processes if each.name == "web"]
        children = Path(f"/proc/{web.pid}/task/{web.pid}/children").read_text().split()
        self._folders = [Path("/proc", pid) for pid in children]
        assert len(self._folders) == 2

    def cpu_s(self) -> float:
        found = [(folder / "stat").read_text().rpartition(")")[2].split()[11:13] for folder in self._folders]
        return sum(int(ticks) for pair in found for ticks in pair) / os.sysconf("SC_CLK_TCK")

    def forget_peak(self) -> None:
        for folder in self._folders:
            (folder / "clear_refs").write_text("5")

    def memory_mb(self, name: str) -> float:
        """*name*: VmRSS, or VmHWM for the peak."""
        found = [(folder / "status").read_text().partition(f"{name}:")[2].split()[0] for folder in self._folders]
        return sum(map(int, found)) / 1024


class TestMuch:
    def test_a_prompt_of_a_million_tokens_goes_through_and_holds_nobody_up(
        self, tinker: Tinker, model: OwnTarget
    ) -> None:
        got: list[str] = []

        def act(call: Call) -> Reply:
            got.append(hashlib.sha256(call.body).hexdigest())
            return 200, b'{"sequences": []}'

        model.act = act
        chance, webs, times = random.Random(1), Webs(tinker), 4
        session = tinker.session()
        tokens = [chance.randrange(150_000) for _ in range(1_000_000)]
        prompt = {"chunks": [{"tokens": tokens, "type": "encoded_text"}]}
        body = json.dumps(body_of(session, prompt=prompt), separators=(",", ":")).encode()
        tinker.await_end(tinker.post("asample", body, BACKPRESSURE).json["request_id"])
        webs.forget_peak()
        rss_mb, cpu_s = webs.memory_mb("VmRSS"), webs.cpu_s()
        request_ids = [tinker.post("asample", body, BACKPRESSURE).json["request_id"] for _ in range(times)]

        spent_s, peak_mb = (webs.cpu_s() - cpu_s) / times, webs.memory_mb("VmHWM") - rss_mb
        for request_id in request_ids:
            tinker.await_end(request_id)
        assert len(body) > 6_000_000
        assert set(got) == {hashlib.sha256(body).hexdigest()} and len(got) == 1 + times
        assert spent_s < 0.15, f"{spent_s:.3f} s"
        assert peak_mb < 10 * len(body) / 1e6, f"{peak_mb:.0f} MB"

    @pytest.mark.parametrize(
        "inside",
        [
            b"[" * 7_000_000,
            b"[" * 3_500_000 + b"]" * 3_500_000,
            b"[1," * 2_300_000,
            b"[" + b"1," * 3_500_000,
            b"[" + b"{}," * 2_300_000 + b"{}]",
            b"[" + b"[]," * 2_300_000 + b"[]]",
            b"[" + b'"",' * 2_300_000 + b'""]',
            b'"' + b'\\"' * 3_500_000,
            b'"' + b'"' * 7_000_000,
            b'"' + b"[," * 3_500_000,
            b'{"a":' * 1_300_000,
            b"1" * 7_000_000,
            b"-" * 7_000_000,
            b" " * 7_000_000,
        ],
        ids=lambda inside: f"{inside[:6].decode()}..",
    )
    def test_a_body_that_would_take_long_to_read_is_refused(self, tinker: Tinker, inside: bytes) -> None:
        webs = Webs(tinker)
        cpu_s = webs.cpu_s()
        answer = tinker.post("asample", b'{"sampling_session_id": "x", "a": ' + inside + b"}")

        assert answer.status in (400, 404), answer.body[:300]
        assert_refused(answer, answer.status)
        assert webs.cpu_s() - cpu_s < 1

    def test_small_bodies_are_read_no_further(self, tinker: Tinker) -> None:
        """However long they claim to be."""
        head = (
            f"POST /api/v1/retrieve_future HTTP/1.1\r\nHost: x\r\nX-API-Key: {TOKEN}\r\nContent-Length: 7000000\r\n\r\n"
        )
        began_s = time.monotonic()
        answer = tinker.front.raw(head.encode())

        assert answer.startswith(b"HTTP/1.1 413 ")
        assert time.monotonic() - began_s < 5
