"""Waiting for longer than one poll lasts: how often clients of Tinker's API ask, and that none is left out.

One story, told once: a slot is taken for longer than a poll is held; for it wait samples of two releases of the
high-level client, and ten pollers of the queue status demo. The tests read what was seen.
"""

from __future__ import annotations

import collections
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.installation import await_condition
from tests.support.tinker_sdk import TINKER, TINKER_022, House, house

HOLD_S = 25.0  # so long lasts a poll of the high-level client at least
GIVES_UP_S = 45.0  # it, without an answer
SCRIPTS = 10
COUNTS = {TINKER: (1, 4), TINKER_022: (4, 1)}  # of the sequences in each sample that waits, for each client
SAMPLES = 1 + sum(map(len, COUNTS.values()))
MOST_S = 15.0  # the demo may sleep for 10 s when its turn comes


@dataclass
class Story:
    scripts: list[dict[str, Any]]
    """What the demo's pollers said."""
    first: Any
    results: dict[str, list[Any]]
    """By client, in the order of COUNTS."""
    polls: list[dict[str, Any]]
    errors: dict[str, str]
    """What the clients have logged."""
    lasted_s: float

    def high_level(self) -> list[dict[str, Any]]:
        return [poll for poll in self.polls if poll["type"] != "-"]

    def seen(self) -> dict[str, list[dict[str, Any]]]:
        """What each poller was shown, in order, by its request."""
        found = collections.defaultdict(list)
        for line in self.scripts:
            if line["kind"] == "queue_fields":
                found[line["request_id"]].append(line)
        return found


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with house(*COUNTS) as place:
        yield told(place)


def told(place: House) -> Story:
    model, name = place.model(), uuid.uuid4().hex
    samplers = {each: place.sdk(each).sampler(model) for each in COUNTS}
    began = time.monotonic()
    first = samplers[TINKER].begin([1], f"hold {name}")
    place.target.await_held(name)
    callings = {
        each: [samplers[each].begin([7, 8], num_samples=count) for count in counts] for each, counts in COUNTS.items()
    }
    with place.script(TINKER, model, count=SCRIPTS) as script:

        def each_was_told_to_go_on() -> bool:
            answered = [poll["status"] for poll in place.wire("retrieve_future") if poll["type"] != "-"]
            return answered.count("408") == SAMPLES

        await_condition(each_was_told_to_go_on, timeout_s=HOLD_S + MOST_S, what="every first poll is answered")
        place.target.release(name)
        results = {each: [calling.result() for calling in some] for each, some in callings.items()}
        scripts = script.rest(timeout_s=MOST_S)
    return Story(
        scripts=scripts,
        first=first.result(),
        results=results,
        polls=place.wire("retrieve_future"),
        errors={each: place.sdk(each).program.errors for each in COUNTS},
        lasted_s=time.monotonic() - began,
    )


def test_every_sample_arrives(story: Story) -> None:
    assert [sequence["tokens"] for sequence in story.first["sequences"]] == [[2]]
    for each, counts in COUNTS.items():
        for count, found in zip(counts, story.results[each], strict=True):
            assert [sequence["tokens"] for sequence in found["sequences"]] == [[8 + n, 9 + n] for n in range(count)]


def test_the_high_level_client_asks_once_in_25_s_for_each_sample(story: Story) -> None:
    polls = sorted((poll["iteration"], poll["status"]) for poll in story.high_level())

    assert polls == [("0", "408")] * SAMPLES + [("1", "200")] * SAMPLES
    held_s = [float(poll["took_s"]) for poll in story.high_level() if poll["status"] == "408"]
    assert HOLD_S - 0.5 <= min(held_s) <= max(held_s) < GIVES_UP_S


def test_the_high_level_client_logs_how_long_the_queue_is(story: Story) -> None:
    for logged in story.errors.values():
        assert logged.count("Sampling is paused for sampler") == 1
        assert "Reason: queue position" in logged
        assert "unknown" not in logged


def test_each_poller_of_the_demo_gets_its_result(story: Story) -> None:
    submitted = [line["request_id"] for line in story.scripts if line["kind"] == "request_submitted"]
    received = [line["request_id"] for line in story.scripts if line["kind"] == "result_received"]

    assert len(set(submitted)) == SCRIPTS
    assert sorted(received) == sorted(submitted)


def test_pollers_of_the_demo_see_their_places_behind_the_samples(story: Story) -> None:
    ahead = SAMPLES - 1  # one of them runs
    places = [seen[0]["queue_position"] for seen in story.seen().values()]

    assert sorted(places) == list(range(ahead, ahead + SCRIPTS))
    for seen in story.seen().values():
        waiting = [line["queue_position"] for line in seen if line["queue_state"] == "waiting"]
        assert waiting == sorted(waiting, reverse=True)
        assert all(line["queue_depth"] > line["queue_position"] for line in seen)


def test_pollers_of_the_demo_ask_as_often_as_they_are_told_to(story: Story) -> None:
    for seen in story.seen().values():
        *before_last, _ = (line["retry_after"] for line in seen)
        assert sum(before_last) <= story.lasted_s
    assert all(1 <= line["retry_after"] <= 10 for seen in story.seen().values() for line in seen)
    plain = [poll for poll in story.polls if poll["type"] == "-"]
    assert len(plain) == SCRIPTS + sum(map(len, story.seen().values()))  # the client repeats none by itself
    assert max(float(poll["took_s"]) for poll in plain) < HOLD_S / 2  # and none is held
