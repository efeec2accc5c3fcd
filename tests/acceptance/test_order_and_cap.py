"""What clients and targets see of order, cap and cancel, with real workers: prefork, threads and greenlets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from eas_queue.store.client import Client
from eas_queue.store.store import Store
from tests.support.installation import Installation, await_condition
from tests.support.server import RedisServer
from tests.support.standing import Standing, standing
from tests.support.target_client import Target

SERVICES = """
[defaults]
allow_unlisted = true
[services]
single = { max_concurrency = 1 }
patient = { retry_delay_s = 0.2 }
once = { max_attempts = 1 }
strict = { max_attempts = 2, retry_delay_s = 0, timeout_s = 1 }
nowhere = { max_attempts = 1, target_url = "http://127.0.0.1:9/" }
rigid = { target_url = "http://127.0.0.1:9/predict" }
"""
POOLS = [("prefork", 2), ("gevent", 50), ("threads", 8)]


@pytest.fixture(scope="module")
def place(shared_target: Target) -> Iterator[Standing]:
    with standing(shared_target.url, services_toml=SERVICES, sweep_s=0.1, max_result_bytes=1000) as made:
        yield made


@pytest.fixture
def installation(place: Standing) -> Installation:
    """With a worker of greenlets."""
    return place.at_work()


@pytest.fixture(scope="module", params=POOLS, ids=lambda of: f"{of[0]}-{of[1]}")
def pool(request: pytest.FixtureRequest) -> tuple[str, int]:
    """Of the scope "module", so that tests with the same one follow each other and share its worker."""
    found: tuple[str, int] = request.param
    return found


def test_high_priority_starts_next_and_each_class_in_order(
    place: Standing, target: Target, pool: tuple[str, int]
) -> None:
    installation = place.at_work(*pool)
    normal = [installation.submit("single", delay_s=0.6)]  # longer than the other submits take
    target.wait_for(lambda calls: len(calls) == 1)
    normal += [installation.submit("single", delay_s=0.05) for _ in range(7)]
    high = [installation.submit("single", delay_s=0.05, _priority_=1) for _ in range(3)]

    for request_id in normal + high:
        assert installation.await_end(request_id, "single")["status"] == "SUCCESS"

    assert [call["request_id"] for call in target.calls()] == [normal[0], *high, *normal[1:]]
    assert target.stats()["max_running"] == 1


def test_a_request_cancelled_while_no_worker_runs_is_never_sent(place: Standing, target: Target) -> None:
    installation = place.emptied()
    cancelled, kept = installation.submit(), installation.submit()
    answer = installation.cancel(cancelled)
    assert (answer.status_code, answer.json()["status"]) == (200, "REVOKED")

    installation.worker()

    assert installation.await_end(kept)["status"] == "SUCCESS"
    assert [call["request_id"] for call in target.calls()] == [kept]
    assert installation.status(cancelled)["status"] == "REVOKED"


@pytest.mark.parametrize("moment", ["before headers", "mid-body"])
def test_cancelling_a_running_request_closes_its_connection_within_a_second(
    place: Standing, target: Target, pool: tuple[str, int], moment: str
) -> None:
    installation = place.at_work(*pool)
    slow: dict[str, Any] = {"hang": 1} if moment == "before headers" else {"drip_s": 0.1, "drips": 600}
    request_id = installation.submit(**slow)
    target.wait_for(lambda calls: len(calls) == 1)
    if moment == "mid-body":
        await_condition(lambda: time.time() - target.calls()[0]["started_at"] > 0.3)

    asked_at = time.time()
    first, second = installation.cancel(request_id), installation.cancel(request_id)

    (call,) = target.wait_for(lambda calls: calls[0]["ended_at"] is not None)
    assert call["outcome"] == ("closed_before_headers" if moment == "before headers" else "closed_mid_body")
    assert call["ended_at"] is not None
    assert call["ended_at"] - asked_at < 1
    assert [(answer.status_code, answer.json()["status"]) for answer in (first, second)] == [
        (202, "REVOKED"),
        (200, "REVOKED"),
    ]
    following = installation.submit()
    assert installation.await_end(following)["status"] == "SUCCESS"
    assert len(target.calls(request_id=request_id)) == 1


def test_the_cap_holds_across_two_workers_and_a_killed_one(server: RedisServer, target: Target) -> None:
    toml = "[services.demo]\nmax_concurrency = 5\n"
    with Installation(server.url, target.url, services_toml=toml, lease_s=2, sweep_s=0.1) as installation:
        installation.web()
        workers = [installation.worker("gevent", 50, name="w1"), installation.worker("prefork", 4, name="w2")]
        made = [installation.submit(delay_s=0.2) for _ in range(60)]
        target.wait_for(lambda calls: len(calls) >= 15)

        workers[0].kill()
        for request_id in made:
            assert installation.await_end(request_id, timeout_s=30)["status"] == "SUCCESS"

        assert target.stats()["max_running"] <= 5
        assert target.stats()["max_running"] >= 4
        assert len({call["request_id"] for call in target.calls()}) == 60


def test_a_target_that_fails_at_first_is_asked_again(installation: Installation, target: Target) -> None:
    request_id = installation.submit("patient", fail_first=2)

    status = installation.await_end(request_id, "patient")

    assert (status["status"], status["attempts"]) == ("SUCCESS", 3)
    assert [call["attempt"] for call in target.calls()] == [1, 2, 3]


def test_a_429_gives_the_request_back_without_counting(installation: Installation, target: Target) -> None:
    request_id = installation.submit("once", fail_first=3, fail_status=429, retry_after=0)

    status = installation.await_end(request_id, "once")

    assert (status["status"], status["attempts"]) == ("SUCCESS", 1)
    assert len(target.calls()) == 4


MISBEHAVIOUR: list[tuple[dict[str, Any], int, str]] = [
    ({"close": "early"}, 502, "TargetUnreachable"),
    ({"close": "midway"}, 502, "TargetBroken"),
    ({"close": "reset"}, 502, "TargetUnreachable"),
    ({"broken": 1}, 502, "TargetBroken"),
    ({"hang": 1}, 504, "TargetTimeout"),
    ({"drip_s": 0.2, "drips": 100}, 504, "TargetTimeout"),
    ({"body_bytes": 2000}, 502, "ResultTooLarge"),
]


def test_a_target_that_misbehaves_fails_its_request_and_nothing_else(
    installation: Installation, target: Target
) -> None:
    bad = [installation.submit("strict", **behaviour) for behaviour, _, _ in MISBEHAVIOUR]
    good = [installation.submit("strict") for _ in bad]

    assert {installation.await_end(request_id, "strict")["status"] for request_id in good} == {"SUCCESS"}
    for request_id, (behaviour, code, error_type) in zip(bad, MISBEHAVIOUR, strict=True):
        status = installation.await_end(request_id, "strict")
        assert (status["status"], status["error_info"]["type"]) == ("FAILURE", error_type), behaviour
        url = f"{installation.url}/api/predict/strict/requests/{request_id}/result"
        result = installation.session.get(url, timeout=5)
        assert (result.status_code, result.headers["X-Result-Source"]) == (code, "queue"), behaviour
        assert len(target.calls(request_id=request_id)) == (1 if error_type == "ResultTooLarge" else 2), behaviour


def test_redirects_are_answers_and_are_not_followed(installation: Installation, target: Target) -> None:
    request_id = installation.submit(redirect=f"{target.url}/elsewhere")

    status = installation.await_end(request_id)

    assert (status["status"], status["result"]["target_status_code"]) == ("FAILURE", 302)
    assert len(target.calls()) == 1


def test_an_unreachable_target_is_named(installation: Installation) -> None:
    status = installation.await_end(installation.submit("nowhere"), "nowhere")

    assert status["error_info"]["type"] == "TargetUnreachable"
    assert "127.0.0.1:9" in status["error_info"]["detail"]
    assert "refused" in status["error_info"]["detail"]


def test_a_paused_service_starts_nothing_until_resumed(installation: Installation, target: Target) -> None:
    first = installation.submit()
    assert installation.await_end(first)["status"] == "SUCCESS"
    store = Store(Client(installation.env["REDIS_URL"]))
    store.pause("demo", True)
    waiting, other = installation.submit(), installation.submit("other")

    assert installation.await_end(other, "other")["status"] == "SUCCESS"
    assert installation.status(waiting)["status"] == "PENDING"
    store.pause("demo", False)
    store.client.close()
    assert installation.await_end(waiting)["status"] == "SUCCESS"


def test_with_workers_stopped_nothing_is_forwarded_and_web_alone_keeps_the_queue(
    place: Standing, target: Target
) -> None:
    installation = place.emptied()
    assert installation.worker().stop() == 0
    made = [installation.submit() for _ in range(5)]

    statuses = [installation.status(request_id) for request_id in made]

    assert [(status["status"], status["position"]) for status in statuses] == [("PENDING", i) for i in range(5)]
    assert target.calls() == []
    assert requests.get(f"{installation.url}/healthz", timeout=5).json()["status"] == "ok"


def test_a_worker_that_does_not_know_the_service_says_so_and_goes_on(server: RedisServer, target: Target) -> None:
    toml = "[services.demo]\n[services.new]\nmax_attempts = 1\n"
    with Installation(server.url, target.url, services_toml=toml) as installation:
        installation.web()
        (installation.folder / "services.toml").write_text("[services.demo]\n")
        installation.worker("prefork", 1)
        unknown, known = installation.submit("new"), installation.submit()

        status = installation.await_end(unknown, "new", timeout_s=20)

        assert status["error_info"]["type"] == "ServiceNotConfigured"
        assert installation.await_end(known)["status"] == "SUCCESS"


def test_a_status_that_is_none_is_no_answer(installation: Installation) -> None:
    status = installation.await_end(installation.submit("once", status=999), "once")

    assert status["error_info"]["type"] == "TargetBroken"


def test_a_subpath_that_would_be_lost_is_refused(place: Standing) -> None:
    installation = place.installation
    answer = installation.session.post(f"{installation.url}/api/predict/rigid/v1/chat", data=b"{}", timeout=5)

    assert (answer.status_code, answer.json()["type"]) == (400, "urn:eas-queue:error:invalid-request")
    assert "target_url" in answer.json()["detail"]
