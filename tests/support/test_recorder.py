"""The recorder passes on what it counts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from tests.support.installation import await_condition
from tests.support.own_target import OwnTarget
from tests.support.recorder import Recorder
from tests.support.server import free_port

CALLS = (("one", b"even"), ("two", b"odd"), ("one", b""))


@pytest.fixture
def target() -> Iterator[OwnTarget]:
    made = OwnTarget()
    yield made
    made.stop()


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.trust_env = False
        yield made


def test_calls_and_answers_go_through_and_are_remembered(target: OwnTarget, session: requests.Session) -> None:
    target.act = lambda call: (422 if call.body == b"odd" else 200, call.path.encode() + b" " + call.body)
    with Recorder("127.0.0.1", target.server_address[1]) as recorder:
        answers = [session.post(f"{recorder.url}/a/{name}", data=body, timeout=5) for name, body in CALLS]

        assert [(answer.status_code, answer.content) for answer in answers] == [
            (200, b"/a/one even"),
            (422, b"/a/two odd"),
            (200, b"/a/one "),
        ]
        assert [one.asked for one in recorder.of("one")] == [b"even", b""]
        [two] = recorder.of("two")
        assert (two.path, two.status, two.answer) == ("/a/two", 422, b"/a/two odd")
        assert two.began_at < two.ended_at


def test_what_the_server_does_not_answer_has_no_status(target: OwnTarget, session: requests.Session) -> None:
    def hang_up(call: object) -> tuple[int, bytes]:
        raise ConnectionAbortedError

    target.act = hang_up
    with Recorder("127.0.0.1", target.server_address[1]) as recorder:
        with pytest.raises(requests.ConnectionError):
            session.post(f"{recorder.url}/a/one", data=b"x", timeout=5)

        [one] = recorder.exchanges
        assert (one.status, one.answer) == (0, b"")


def test_without_a_server_nothing_is_remembered(session: requests.Session) -> None:
    with Recorder("127.0.0.1", free_port()) as recorder:
        with pytest.raises(requests.ConnectionError):
            session.get(f"{recorder.url}/a", timeout=5)

        assert recorder.exchanges == []
        await_condition(lambda: not recorder._connections, what="the connection is closed")
