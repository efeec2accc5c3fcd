"""The benchmark of futures in miniature, and what its figures stand on."""

from __future__ import annotations

import json
import socket

import pytest

from benchmarks import against, polling, report
from benchmarks.futures import QUICK
from benchmarks.parts import ALONE
from benchmarks.parts.futures import AT_ONCE, EMPTY, HELD, LARGE, SMALL
from benchmarks.polling import Calls, Poll
from benchmarks.sides import Void
from benchmarks.taking import Answer

PROTOBUF = "result, protobuf"


def test_futures_are_measured_in_miniature() -> None:
    part, rows = ALONE["futures"], {HELD, AT_ONCE, EMPTY, PROTOBUF}

    found = against.run([part], QUICK, rounds=1, rows=rows)["futures"]

    assert found["void"] == []
    samples = {name: sample for name, (sample,) in found["rows"].items()}
    assert samples.keys() == rows
    text = report.section(part, found)
    assert all(f"| {name} |" in text for name in rows)
    held = samples[HELD]
    assert 10 < held["before_mb"] <= held["after_mb"] * 1.1
    assert 0.5 <= held["renewals"] <= 2  # one in the time for which one is held
    assert held["ends"] == QUICK.poll_ends
    assert 0 < held["end_p50"] <= held["end_p95"] <= held["end_p99"] <= held["end_worst"]
    assert samples[AT_ONCE]["answers"] > 1
    assert samples[EMPTY]["answers"] > 1
    for size, tokens in (("small", SMALL), ("large", LARGE)):
        # A token and its logprob take four bytes each.
        assert 8 * tokens <= samples[PROTOBUF][f"{size}_kb"] * 1024 < 8 * tokens + 100
        assert samples[PROTOBUF][f"{size}_us"] > 0


def _http(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def test_a_poll_asks_again_until_there_is_the_result() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        poll = Poll(server.getsockname()[1], b"poll")
        web, _ = server.accept()
        with web, poll.socket:
            for answer in (_http(408, b"{}"), _http(503, b"{}"), _http(200, b"yes")):
                assert web.recv(100) == b"poll"
                for i in range(0, len(answer), 7):
                    assert not poll.is_over
                    web.sendall(answer[i : i + 7])
                    poll.receive()

            assert (poll.renewals, poll.troubles, poll.body, poll.is_over) == (1, 1, b"yes", True)


@pytest.mark.parametrize("answer", [_http(404, b"{}"), b""], ids=["no result", "closed"])
def test_a_poll_that_is_answered_otherwise_makes_the_sample_void(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        poll = Poll(server.getsockname()[1], b"poll")
        web, _ = server.accept()
        with poll.socket:
            with web:
                web.sendall(answer)

            with pytest.raises(Void):
                poll.receive()


def test_a_script_that_is_answered_otherwise_makes_the_sample_void() -> None:
    script = polling.asking(b"poll", 408, lambda: True, [], [])
    next(script)

    assert script.send(Answer(408, b"{}", 0.001)) == b"poll"
    with pytest.raises(Void, match="answered 200"):
        script.send(Answer(200, b"{}", 0.001))


def test_a_submit_has_a_length_and_names_its_service() -> None:
    head, _, body = Calls("t").submit("small", X_Tinker_Sampling_Backpressure="1").partition(b"\r\n\r\n")

    assert b"\r\nX-Tinker-Sampling-Backpressure: 1\r\n" in head
    assert b"\r\nContent-Length: %d" % len(body) in head
    assert json.loads(body)["base_model"] == "small"
    made: list[str] = []
    script = polling.submitting(b"submit", 1, made)
    next(script)
    with pytest.raises(StopIteration):
        script.send(Answer(200, b'{"request_id": "a"}', 0.001))
    assert made == ["a"]
