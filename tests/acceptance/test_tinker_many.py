"""Five hundred samples of one official client at the same time, over a service with sixteen slots."""

from __future__ import annotations

import collections
import json

from tests.support.fleet import HIGH, Fleet, FleetTarget, services
from tests.support.installation import Installation, await_condition
from tests.support.recorder import Exchange, Recorder
from tests.support.server import RedisServer

SAMPLES, SLOTS, TARGET_S = 500, 16, 0.2
HOLD_S = 25  # so long the web holds a poll at least


def request_id_of(poll: Exchange) -> str:
    return str(json.loads(poll.asked)["request_id"])


def test_five_hundred_samples_in_flight_have_their_own_results_and_a_poll_each(server: RedisServer) -> None:
    target = FleetTarget(TARGET_S)
    try:
        with (
            Installation(server.url, target.url, services_toml=services(SLOTS)) as installation,
            Recorder("127.0.0.1", installation.port) as recorder,
        ):
            installation.start("web", ["gunicorn", "app:app"])  # it gets ready beside the worker
            installation.worker()
            installation.await_web()
            target.hold()
            with Fleet(recorder.url) as fleet:
                assert fleet.await_ready() == "0.38.0"
                begun = fleet.begin(HIGH, SAMPLES)
                await_condition(
                    lambda: sum(not poll.status for poll in recorder.of("retrieve_future")) == SAMPLES,
                    timeout_s=60,
                    what="all samples are in flight, each with a poll that is held",
                )
                assert target.running == SLOTS
                target.release()
                ended = fleet.ends(begun)
                await_condition(lambda: all(one.status for one in list(recorder.exchanges)), what="no call is open")
                exchanges, calls = list(recorder.exchanges), target.requests()
    finally:
        target.stop()

    assert {number: len(request_ids) for number, request_ids in calls.items()} == {one.number: 1 for one in begun}
    for one, said in ended.items():
        one.assert_its_own(said, calls[one.number][0])
    assert target.most_running == SLOTS

    assert [one.answer for one in exchanges if one.status >= 500][:1] == []
    statuses: dict[str, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    for exchange in exchanges:
        statuses[exchange.endpoint][exchange.status] += 1
    print(f"{SAMPLES} samples: " + ", ".join(f"{name} {dict(found)}" for name, found in statuses.items()))
    pending = statuses["retrieve_future"].pop(408, 0)
    assert statuses.pop("retrieve_future") == {200: SAMPLES}
    assert statuses.pop("asample") == {200: SAMPLES}
    assert all(set(found) == {200} for found in statuses.values()), statuses
    # A poll that is held answers at the end of its sample; only who waits longer than that has to ask again.
    polls = collections.defaultdict(list)
    for exchange in exchanges:
        if exchange.endpoint == "retrieve_future":
            polls[request_id_of(exchange)].append(exchange)
    assert polls.keys() == {request_ids[0] for request_ids in calls.values()}
    for found in polls.values():
        assert len(found) <= 1 + (found[-1].ended_at - found[0].began_at) // HOLD_S
    assert pending == sum(map(len, polls.values())) - SAMPLES
