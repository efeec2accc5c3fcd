"""Polls of requests that have not ended: what they tell, when they answer, and what a lost Redis makes of them."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import http.client
import itertools
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from eas_queue.auth import Access, Token
from eas_queue.dialects.tinker import dialect, pending
from eas_queue.engine.engine import Engine
from eas_queue.engine.request import Request, State
from eas_queue.engine.service import Services, ServiceSettings
from eas_queue.store.client import Client
from eas_queue.store.store import Store
from eas_queue.web import make_app
from tests.dialects.tinker.conftest import (
    BACKPRESSURE,
    HIGH_LEVEL,
    KEYS,
    MAX_WAIT_S,
    UNKNOWN_ID,
    Gate,
    Tinker,
    assert_refused,
    body_of,
    client_of,
)
from tests.support.front import Answer
from tests.support.installation import TOKEN, Installation, await_condition
from tests.support.own_target import OwnTarget
from tests.support.server import RedisServer, free_port
from tests.support.target_client import Target

HOLD_S = 20  # of the installation whose polls are held
SOON_S = 8  # that is: long before its hold is over
WITH_SAMPLE = {"sequences": [{"tokens": [1], "stop_reason": "stop"}]}


def assert_pending(answer: Answer, request_id: str) -> dict[str, Any]:
    """A 408 that clients understand; its content."""
    assert answer.status == 408, (answer.status, answer.body)
    content: dict[str, Any] = answer.json
    assert list(content) == KEYS
    assert (content["request_id"], content["type"], content["status"]) == (request_id, "pending", "queued")
    twins: dict[str, Any] = {
        "Content-Type": "application/json",
        "Cache-Control": "no-store",
        "x-should-retry": "false",
        "Retry-After": str(int(content["retry_after_s"])),
        "X-Queue-Status": "queued",
        "X-Queue-Depth": str(content["queue_depth"]),
        "X-Queue-Position": None if content["queue_position"] is None else str(content["queue_position"]),
        "X-Queue-ETA-S": None if content["estimated_wait_s"] is None else f"{content['estimated_wait_s']:.3f}",
    }
    assert {name: answer.headers[name] for name in twins} == twins
    assert b'"retry_after_s": %d.0' % content["retry_after_s"] in answer.body
    assert type(content["queue_depth"]) is int and 1 <= content["retry_after_s"] <= 30
    return content


class Patient:
    """An installation that holds polls for long, and can lose its Redis. Requests are worked on by hand."""

    def __init__(self, tinker: Tinker, installation: Installation) -> None:
        self.tinker, self.installation, self.server = tinker, installation, tinker.server

    def held(self, request_id: str, headers: dict[str, str]) -> Future[Answer]:
        """A poll that waits."""
        before = self.waiting()
        poll = self.tinker.poll_apart(request_id, headers)
        await_condition(lambda: self.waiting() > before or poll.done(), what="a poll is held")
        assert not poll.done(), poll.result().body
        return poll

    def waiting(self) -> int:
        return int(self.tinker.front.call("GET", "/healthz").json["waiting_clients"])


@pytest.fixture(scope="module")
def patient(shared_target: Target) -> Iterator[Patient]:
    server = RedisServer().start()
    listed = '[defaults]\nallow_unlisted = true\nmode = "pull"\n[services]\npulled = {}\n'
    try:
        with Installation(server.url, shared_target.url, services_toml=listed, max_wait_s=HOLD_S) as installation:
            installation.web("-w", "1", "-b", f"127.0.0.1:{installation.port}")
            with client_of(installation, shared_target, server) as tinker:
                yield Patient(tinker, installation)
    finally:
        server.stop()


class TestWaiting:
    def test_what_a_script_is_told(self, tinker: Tinker, pulled: str) -> None:
        request_ids = [tinker.sample(pulled) for _ in range(3)]
        for position, request_id in enumerate(request_ids):
            content = assert_pending(tinker.poll(request_id), request_id)

            assert content == {
                "request_id": request_id,
                "type": "pending",
                "status": "queued",
                "queue_state": "waiting",
                "queue_state_reason": f"queue position {position} of 3",
                "queue_depth": 3,
                "queue_position": position,
                "estimated_wait_s": None,
                "progress": None,
                "retry_after_s": position + 1.0,
            }

    def test_what_the_high_level_client_is_told(self, tinker: Tinker, pulled: str) -> None:
        tinker.sample(pulled)
        request_id = tinker.sample(pulled)
        content = assert_pending(tinker.poll(request_id, HIGH_LEVEL), request_id)

        assert (content["queue_state"], content["queue_state_reason"]) == ("paused_capacity", "queue position 1 of 2")
        assert (content["queue_position"], content["queue_depth"]) == (1, 2)

    def test_it_is_known_by_its_header(self, tinker: Tinker, pulled: str) -> None:
        request_id = tinker.sample(pulled)
        values = ("Sample", "sample", "", "anything")
        polls = [tinker.poll_apart(request_id, {"X-Tinker-Request-Type": value}) for value in values]

        assert [poll.result().json["queue_state"] for poll in polls] == ["paused_capacity"] * len(values)

    def test_of_many_before_it_the_pause_stays_short(self, tinker: Tinker, pulled: str) -> None:
        request_ids = [tinker.sample(pulled) for _ in range(12)]
        pauses = [int(tinker.poll(request_id).headers["Retry-After"]) for request_id in request_ids]

        assert pauses == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10]

    def test_places_move_up(self, tinker: Tinker, pulled: str) -> None:
        request_ids = [tinker.sample(pulled) for _ in range(3)]
        tinker.cancel(request_ids[0])

        places = [tinker.poll(request_id).json for request_id in request_ids[1:]]
        assert [(place["queue_position"], place["queue_depth"]) for place in places] == [(0, 2), (1, 2)]

    def test_other_services_do_not_count(self, tinker: Tinker, pulled: str) -> None:
        tinker.sample("narrow")
        content = tinker.poll(tinker.sample(pulled)).json
        tinker.cancel(tinker.take("narrow")[0])

        assert (content["queue_position"], content["queue_depth"]) == (0, 1)

    @pytest.mark.parametrize(("headers", "word"), [({}, "waiting"), (HIGH_LEVEL, "paused_capacity")])
    def test_of_one_that_will_be_sent_again(
        self, tinker: Tinker, model: OwnTarget, headers: dict[str, str], word: str
    ) -> None:
        model.act = lambda call: (503, b"busy")
        request_id = tinker.sample("patient")
        await_condition(lambda: tinker.poll(request_id).json["queue_position"] is None, what="it waits for a retry")
        answer = tinker.poll(request_id, headers)
        tinker.cancel(request_id)

        content = assert_pending(answer, request_id)
        assert (content["queue_state"], content["queue_state_reason"]) == (word, "waits for another attempt")
        assert (content["queue_position"], content["queue_depth"], content["retry_after_s"]) == (None, 1, 1)
        assert "X-Queue-Position" not in answer.headers


class TestRunning:
    @pytest.mark.parametrize(("headers", "word"), [({}, "processing"), (HIGH_LEVEL, "active")])
    def test_what_is_told(self, tinker: Tinker, pulled: str, headers: dict[str, str], word: str) -> None:
        request_ids = [tinker.sample(pulled) for _ in range(3)]
        assert tinker.take(pulled) == request_ids[:1]

        content = assert_pending(tinker.poll(request_ids[0], headers), request_ids[0])
        assert (content["queue_state"], content["queue_state_reason"]) == (word, None)
        assert (content["queue_position"], content["queue_depth"]) == (0, 3)
        assert (content["estimated_wait_s"], content["progress"], content["retry_after_s"]) == (None, None, 1)
        behind = assert_pending(tinker.poll(request_ids[2]), request_ids[2])
        assert (behind["queue_position"], behind["queue_depth"]) == (1, 3)
        assert behind["queue_state_reason"] == "queue position 1 of 3"

    @pytest.mark.parametrize("headers", [{}, HIGH_LEVEL])
    def test_progress_is_what_the_target_said_last(self, tinker: Tinker, gate: Gate, headers: dict[str, str]) -> None:
        request_id = tinker.sample()
        call = gate.await_call()
        assert call.report(progress={"tokens_generated": 1, "max_tokens": 16}) == 204
        assert call.report(progress={"tokens_generated": 3, "max_tokens": 16, "phase": "decode"}) == 204

        answer = tinker.poll(request_id, headers)
        gate.open()
        content = assert_pending(answer, request_id)
        assert content["progress"] == {"tokens_generated": 3, "max_tokens": 16, "phase": "decode"}
        assert answer.headers["X-Queue-Tokens-Generated"] == "3"
        assert answer.headers["X-Queue-Max-Tokens"] == "16"

    @pytest.mark.parametrize(
        "progress",
        [{}, {"step": 1}, {"tokens_generated": "3", "max_tokens": 1.5}, {"tokens_generated": True, "max_tokens": None}],
    )
    def test_its_headers_are_whole_numbers_or_absent(
        self, tinker: Tinker, gate: Gate, progress: dict[str, Any]
    ) -> None:
        request_id = tinker.sample()
        assert gate.await_call().report(progress=progress) == 204

        answer = tinker.poll(request_id)
        gate.open()
        assert assert_pending(answer, request_id)["progress"] == progress
        assert not {"X-Queue-Tokens-Generated", "X-Queue-Max-Tokens"} & set(answer.headers)

    def test_an_estimate_is_told_from_five_runs_on(self, tinker: Tinker, model: OwnTarget) -> None:
        run_s, waiting = 1.0, 40
        gates, calls = [Gate(), Gate()], itertools.count()
        model.act = lambda call: gates[next(calls) >= 5](call)
        runs = [tinker.sample("wide") for _ in range(5)]
        began_s = time.monotonic()
        request_ids = [tinker.sample("wide") for _ in range(5 + waiting)]
        assert tinker.poll(request_ids[-1]).json["estimated_wait_s"] is None
        await_condition(lambda: time.monotonic() > began_s + run_s)
        gates[0].open()
        for request_id in runs:
            tinker.await_end(request_id)
        for _ in range(5):
            gates[1].await_call()

        running, last = tinker.poll(request_ids[0]), tinker.poll(request_ids[-1])
        for request_id in reversed(request_ids):
            tinker.cancel(request_id)
        gates[1].open()

        found = assert_pending(running, request_ids[0])
        assert 0 < found["estimated_wait_s"] < 5 and found["retry_after_s"] == 1
        content = assert_pending(last, request_ids[-1])
        eta_s = content["estimated_wait_s"]
        assert waiting / 5 * run_s <= eta_s < (waiting / 5 + 1) * 5
        assert content["retry_after_s"] == int(eta_s / 4) >= 2
        start, _, rest = content["queue_state_reason"].partition(", about ")
        assert start == f"queue position {waiting - 1} of {waiting + 5}"
        assert eta_s <= int(rest.removesuffix(" s")) < eta_s + 1


A_REQUEST = Request(
    service="demo",
    request_id=UNKNOWN_ID,
    state=State.QUEUED,
    index=1,
    priority_class=100,
    attempts=0,
    position=0,
    depth=1,
    submitted_ms=0,
)


class TestPause:
    """Retry-After, by what is known."""

    @pytest.mark.parametrize(
        ("eta_s", "position", "pause_s"),
        [
            (0.0, 0, 1),
            (0.001, 7, 1),
            (7.999, 7, 1),
            (8.0, 0, 2),
            (119.9, 0, 29),
            (120.0, 0, 30),
            (1e9, 0, 30),
            (None, 0, 1),
            (None, 8, 9),
            (None, 9, 10),
            (None, 10, 10),
            (None, 100_000, 10),
            (None, None, 1),
        ],
    )
    def test_of_one_that_waits(self, eta_s: float | None, position: int | None, pause_s: int) -> None:
        found = dataclasses.replace(A_REQUEST, eta_s=eta_s, position=position)
        answer = pending.response(found, high_level=False)

        assert answer.headers["Retry-After"] == str(pause_s)
        assert json.loads(answer.get_data())["retry_after_s"] == pause_s

    @pytest.mark.parametrize(("eta_s", "pause_s"), [(None, 1), (0.1, 1), (9.0, 2), (500.0, 30)])
    def test_of_one_that_runs(self, eta_s: float | None, pause_s: int) -> None:
        found = dataclasses.replace(A_REQUEST, state=State.RUNNING, position=None, depth=0, running=1, eta_s=eta_s)

        assert pending.response(found, high_level=True).headers["Retry-After"] == str(pause_s)

    def test_an_estimate_has_three_places(self) -> None:
        answer = pending.response(dataclasses.replace(A_REQUEST, eta_s=5.04049), high_level=False)

        content = json.loads(answer.get_data())
        assert (content["estimated_wait_s"], answer.headers["X-Queue-ETA-S"]) == (5.04, "5.040")
        assert content["queue_state_reason"] == "queue position 0 of 1, about 6 s"


def held_for(tinker: Tinker, request_ids: list[str], headers: dict[str, str]) -> list[Answer]:
    """What polls at the same time are told, each of them as late as may be."""
    began_s = time.monotonic()
    polls = [tinker.poll_apart(request_id, headers) for request_id in request_ids]
    concurrent.futures.wait(polls, return_when=concurrent.futures.FIRST_COMPLETED)
    assert time.monotonic() - began_s >= MAX_WAIT_S
    answers = [poll.result() for poll in polls]
    assert time.monotonic() - began_s < MAX_WAIT_S + 4
    return answers


class TestHold:
    def test_a_script_that_did_not_ask_for_backpressure_waits(self, tinker: Tinker, pulled: str) -> None:
        asked: list[dict[str, str]] = [{}, *({"X-Tinker-Sampling-Backpressure": word} for word in ("0", "", "true"))]
        request_ids = [tinker.sample(pulled, headers) for headers in asked]
        for answer, request_id in zip(held_for(tinker, request_ids, {}), request_ids, strict=True):
            assert assert_pending(answer, request_id)["queue_state"] == "waiting"

    def test_the_high_level_client_waits_in_any_case(self, tinker: Tinker, pulled: str) -> None:
        request_ids = [tinker.sample(pulled, headers) for headers in (BACKPRESSURE, {})]
        for answer, request_id in zip(held_for(tinker, request_ids, HIGH_LEVEL), request_ids, strict=True):
            assert assert_pending(answer, request_id)["queue_state"] == "paused_capacity"

    def test_the_header_on_a_poll_changes_nothing(self, tinker: Tinker, pulled: str) -> None:
        held_for(tinker, [tinker.sample(pulled, {})], BACKPRESSURE)

    def test_with_backpressure_the_answer_comes_at_once(self, patient: Patient, pulled: str) -> None:
        request_id = patient.tinker.sample(pulled)
        began_s = time.monotonic()
        polls = [patient.tinker.poll(request_id) for _ in range(5)]
        patient.tinker.cancel(request_id)

        assert time.monotonic() - began_s < SOON_S
        assert [poll.status for poll in polls] == [408] * 5

    @pytest.mark.parametrize("headers", [{}, HIGH_LEVEL])
    def test_it_ends_with_the_request(self, patient: Patient, pulled: str, headers: dict[str, str]) -> None:
        request_id = patient.tinker.sample(pulled, {})
        poll = patient.held(request_id, headers)
        began_s = time.monotonic()
        assert patient.tinker.take(pulled) == [request_id]
        assert not poll.done()
        patient.tinker.complete(request_id, {"body": WITH_SAMPLE})

        assert poll.result().status == 200, poll.result().body
        assert time.monotonic() - began_s < SOON_S

    @pytest.mark.parametrize("headers", [{}, HIGH_LEVEL])
    def test_who_hangs_up_is_waited_for_no_longer(self, patient: Patient, pulled: str, headers: dict[str, str]) -> None:
        request_id = patient.tinker.sample(pulled, {})
        before = patient.waiting()
        connection = http.client.HTTPConnection("127.0.0.1", patient.installation.port, timeout=5)
        body = json.dumps({"request_id": request_id})
        connection.request("POST", "/api/v1/retrieve_future", body, {"X-API-Key": TOKEN, **headers})
        await_condition(lambda: patient.waiting() > before, what="the poll is held")
        began_s = time.monotonic()
        connection.close()
        await_condition(lambda: patient.waiting() == before, what="nobody waits")

        assert time.monotonic() - began_s < HOLD_S / 2
        assert patient.tinker.cancel(request_id).status == 200

    @pytest.mark.parametrize("is_taken", [False, True])
    @pytest.mark.parametrize("headers", [{}, HIGH_LEVEL])
    def test_it_ends_with_a_cancel(
        self, patient: Patient, pulled: str, headers: dict[str, str], is_taken: bool
    ) -> None:
        request_id = patient.tinker.sample(pulled, {})
        if is_taken:
            assert patient.tinker.take(pulled) == [request_id]
        poll = patient.held(request_id, headers)
        began_s = time.monotonic()
        assert patient.tinker.cancel(request_id).status == 200

        assert poll.result().json["error"] == "cancelled by client"
        assert time.monotonic() - began_s < SOON_S

    def test_it_ends_with_the_deadline(self, patient: Patient, pulled: str) -> None:
        request_id = patient.tinker.sample(pulled, {"X-Deadline": "0.5"})
        began_s = time.monotonic()
        answer = patient.tinker.poll(request_id, HIGH_LEVEL)

        assert "deadline" in answer.json["error"]
        assert time.monotonic() - began_s < SOON_S

    @pytest.mark.parametrize("headers", [{}, HIGH_LEVEL])
    def test_one_that_has_ended_is_not_waited_for(self, patient: Patient, pulled: str, headers: dict[str, str]) -> None:
        request_id = patient.tinker.sample(pulled, {})
        patient.tinker.complete(patient.tinker.take(pulled)[0], {"body": WITH_SAMPLE})
        began_s = time.monotonic()

        assert patient.tinker.poll(request_id, headers).status == 200
        assert time.monotonic() - began_s < SOON_S

    @pytest.mark.parametrize("headers", [{}, HIGH_LEVEL])
    def test_one_that_is_unknown_neither(self, patient: Patient, headers: dict[str, str]) -> None:
        began_s = time.monotonic()

        assert_refused(patient.tinker.poll(UNKNOWN_ID, headers), 404, UNKNOWN_ID)
        assert time.monotonic() - began_s < SOON_S

    @pytest.mark.parametrize("headers", [{}, HIGH_LEVEL])
    def test_where_nobody_may_wait_it_is_a_second(self, open_to_all: Tinker, headers: dict[str, str]) -> None:
        """The high-level client comes again at once."""
        request_id = open_to_all.sample("plain", {})
        began_s = time.monotonic()
        answer = open_to_all.poll(request_id, headers)
        elapsed_s = time.monotonic() - began_s
        open_to_all.cancel(request_id)

        assert_pending(answer, request_id)
        assert 1 <= elapsed_s < 5

    def test_many_wait_at_once(self, patient: Patient) -> None:
        request_ids = [patient.tinker.sample("many", {}) for _ in range(30)]
        polls = [patient.tinker.poll_apart(request_id, HIGH_LEVEL) for request_id in request_ids]
        await_condition(lambda: patient.waiting() >= 30, what="all are held")
        taken = [taken_id for _ in range(3) for taken_id in patient.tinker.take("many", 10)]
        assert taken == request_ids
        for request_id in request_ids:
            patient.tinker.complete(request_id, {"body": WITH_SAMPLE})

        assert [poll.result().status for poll in polls] == [200] * 30

    @pytest.mark.parametrize("headers", [{}, HIGH_LEVEL])
    def test_a_poll_that_was_abandoned_is_repeated(self, tinker: Tinker, gate: Gate, headers: dict[str, str]) -> None:
        request_id = tinker.sample(headers={})
        gate.await_call()
        body = json.dumps({"request_id": request_id}).encode()
        named = "".join(f"{name}: {value}\r\n" for name, value in {**headers, "X-API-Key": TOKEN}.items())
        with socket.create_connection(("127.0.0.1", tinker.port), timeout=10) as connection:
            head = f"POST /api/v1/retrieve_future HTTP/1.1\r\nHost: x\r\n{named}Content-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            await_condition(lambda: tinker.front.subscribers(request_id) > 0, what="the poll is held")
        gate.open()

        first = tinker.await_end(request_id, headers)
        assert first.body == tinker.poll(request_id, headers).body == tinker.poll(request_id, headers).body

    def test_a_process_that_stops_answers_the_high_level_client_no_sooner(self, patient: Patient, pulled: str) -> None:
        """It would come again at once, and again."""
        port = free_port()
        other = patient.installation.start("other", ["gunicorn", "-w", "1", "-b", f"127.0.0.1:{port}", "app:app"])
        other.await_log("Booting worker")
        request_id = patient.tinker.sample(pulled)
        request = f"POST /api/v1/retrieve_future HTTP/1.1\r\nHost: x\r\nX-API-Key: {TOKEN}\r\n"
        body = json.dumps({"request_id": request_id})
        with socket.create_connection(("127.0.0.1", port), timeout=15) as connection:
            request += f"X-Tinker-Request-Type: Sample\r\nContent-Length: {len(body)}\r\n\r\n{body}"
            began_s = time.monotonic()
            connection.sendall(request.encode())
            await_condition(lambda: patient.tinker.front.subscribers(request_id) > 0, what="the poll is held")
            other.popen.terminate()
            head = connection.makefile("rb").readline()

        assert head.startswith(b"HTTP/1.1 408 ")
        assert 1 <= time.monotonic() - began_s < HOLD_S - 5
        patient.tinker.cancel(request_id)

    def test_nor_does_it_one_that_asks_only_then(self, patient: Patient, pulled: str) -> None:
        """A web process that stops lets nobody wait any more, but what it has accepted it answers."""
        request_id = patient.tinker.sample(pulled)
        services = Services(
            {pulled: ServiceSettings(mode="pull")}, ServiceSettings(), allow_unlisted=False, result_ttl_s=60
        )
        engine = Engine(Store(Client(patient.server.url)), services)
        dialects = [dialect(engine, Access((Token.plain(TOKEN),)), max_wait_s=HOLD_S)]
        client = make_app(engine, dialects, max_payload_bytes=1_000, sweep_s=3600).test_client()
        engine.waits.stop()

        for headers, at_once in ((HIGH_LEVEL, False), (BACKPRESSURE, True)):
            began_s = time.monotonic()
            answer = client.post(
                "/api/v1/retrieve_future", json={"request_id": request_id}, headers={"X-API-Key": TOKEN, **headers}
            )
            elapsed_s = time.monotonic() - began_s

            assert answer.status_code == 408, answer.text
            assert (elapsed_s < 1) is at_once
        patient.tinker.cancel(request_id)


@dataclasses.dataclass
class Timed:
    answer: Answer
    elapsed_s: float


class TestOutage:
    """Redis is killed. Whoever would come again at once is let wait, and a wait that has begun goes on."""

    def test_the_high_level_client_is_never_told_at_once(self, patient: Patient, pulled: str) -> None:
        tinker = patient.tinker
        session, request_id = tinker.session(pulled), tinker.sample(pulled)
        patient.server.await_on_disk()
        patient.server.kill()

        def timed(call: Callable[[], Answer]) -> Timed:
            began_s = time.monotonic()
            answer = call()
            return Timed(answer, time.monotonic() - began_s)

        pool = concurrent.futures.ThreadPoolExecutor(4)
        polls = [pool.submit(timed, lambda: tinker.poll(request_id, HIGH_LEVEL)) for _ in range(4)]
        script = timed(lambda: tinker.poll(request_id))
        submit = timed(lambda: tinker.post_sample(session, seq_id=0))
        others = [
            tinker.cancel(request_id),
            tinker.post("join_sampling_session", {"sampling_session_id": session}),
            tinker.call("GET", "healthz"),
        ]
        away = [tinker.post("create_sampling_session", {"base_model": pulled}), tinker.post("client/config")]
        high_level = [poll.result() for poll in polls]
        patient.server.start()
        await_condition(lambda: tinker.call("GET", "healthz").status == 200, what="the web finds Redis again")

        for told in (script, submit):
            assert_refused(told.answer, 503, "Redis")
            assert 1 <= int(told.answer.headers["Retry-After"]) <= 60
            assert told.elapsed_s < 4
        for told in high_level:
            assert_refused(told.answer, 503, "Redis")
            assert 5 <= told.elapsed_s < 15
        assert [answer.status for answer in others] == [503] * 3
        assert [answer.status for answer in away] == [200] * 2
        assert_pending(tinker.poll(request_id), request_id)
        assert tinker.post_sample(session, seq_id=0).status == 200

    def test_a_poll_that_waits_gets_the_result_after_it(self, patient: Patient) -> None:
        tinker = patient.tinker
        request_id, left = tinker.sample("outage"), tinker.sample("outage")
        poll, script = patient.held(request_id, HIGH_LEVEL), tinker.poll(left)
        patient.server.await_on_disk()
        began_s = time.monotonic()
        patient.server.kill()
        patient.server.start()
        await_condition(lambda: tinker.call("GET", "healthz").status == 200, what="the web finds Redis again")
        assert tinker.take("outage") == [request_id]
        tinker.complete(request_id, {"body": WITH_SAMPLE})

        assert poll.result().status == 200, poll.result().body
        assert time.monotonic() - began_s < HOLD_S - 5
        assert assert_pending(script, left)["queue_position"] == 1
        assert assert_pending(tinker.poll(left), left)["queue_position"] == 0

    def test_ids_of_sessions_outlive_all_data(self, patient: Patient, pulled: str) -> None:
        session = patient.tinker.session(pulled)
        with patient.server.client() as client:
            client.flushall()

        answer = patient.tinker.post("asample", body_of(session), BACKPRESSURE)
        assert answer.status == 200, answer.body
        assert_pending(patient.tinker.poll(answer.json["request_id"]), answer.json["request_id"])
