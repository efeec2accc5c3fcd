"""What operators do: see how a service stands, pause it, and look after its dead letters."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.front import Answer, Front, assert_problem
from tests.support.own_target import Call, OwnTarget

SERVICES = "/api/services"


def fails(call: Call) -> tuple[int, bytes]:
    return 503, b'{"ok": false}'


@pytest.fixture
def letters(front: Front, own_target: OwnTarget) -> list[str]:
    """Three dead letters of the service `own`, whose target works again."""
    discard(front, {"all": True})
    own_target.act = fails
    found = [front.ended("own/path?a=1", f"body {number}".encode()).request_id for number in range(3)]
    del own_target.act
    own_target.act = lambda call: (200, json.dumps([call.path, call.body.decode()]).encode())
    return found


def ask(front: Front, what: str, content: Any) -> Answer:
    return front.call("POST", f"{SERVICES}/own/rear/{what}", json.dumps(content))


def redrive(front: Front, content: Any) -> Any:
    answer = ask(front, "redrive", content)
    assert answer.status == 200, answer.body
    return answer.json


def discard(front: Front, content: Any) -> Any:
    answer = ask(front, "discard", content)
    assert answer.status == 200, answer.body
    return answer.json


def rear(front: Front, query: str = "") -> Any:
    return front.call("GET", f"{SERVICES}/own/rear{query}").json


def test_an_overview_tells_how_a_service_stands(front: Front) -> None:
    with front.occupied("single"):
        waiting = front.submit("single")
        overview = front.call("GET", f"{SERVICES}/single").json
        front.delete(waiting, "single")

    assert list(overview) == [
        "service_name",
        "depth",
        "delayed",
        "running",
        "max_concurrency",
        "oldest_s",
        "mean_run_s",
        "paused",
        "held",
        "sink",
        "rear",
    ]
    assert (overview["depth"], overview["running"], overview["max_concurrency"]) == (1, 1, 1)
    assert 0 <= overview["oldest_s"] < 5


def test_a_service_that_nobody_used_has_an_overview_too(front: Front) -> None:
    before = front.services()

    overview = front.call("GET", f"{SERVICES}/idle").json

    assert (overview["service_name"], overview["mean_run_s"], overview["sink"]) == ("idle", None, 0)
    assert front.services() == before, "looking takes no service number"


def test_a_paused_service_accepts_and_starts_nothing(front: Front) -> None:
    assert front.call("POST", f"{SERVICES}/aside/pause").json["paused"] is True
    assert front.call("POST", f"{SERVICES}/aside/pause").json["paused"] is True, "twice is harmless"
    request_id = front.submit("aside")
    held = front.call("GET", f"/api/predict/aside/requests/{request_id}?_timeout_=1s").json
    assert (held["status"], held["position"]) == ("PENDING", 0)

    assert front.call("POST", f"{SERVICES}/aside/resume").json["paused"] is False

    front.await_status(request_id, "aside", "SUCCESS")


def test_dead_letters_are_listed_oldest_first(front: Front, letters: list[str]) -> None:
    content = rear(front)

    assert [item["request_id"] for item in content["items"]] == letters
    assert content["count"] == 3
    assert list(content["items"][0]) == [
        "request_id",
        "index",
        "error_info",
        "target_status_code",
        "attempts",
        "finished_at",
    ]
    assert content["items"][0]["error_info"]["type"] == "TargetFailed"
    assert (content["items"][0]["target_status_code"], content["items"][0]["attempts"]) == (503, 1)
    second = rear(front, f"?after={content['items'][0]['index']}&limit=1")
    assert [item["request_id"] for item in second["items"]] == letters[1:2]


def test_one_letter_is_sent_again_as_a_new_request(front: Front, letters: list[str]) -> None:
    done = redrive(front, {"request_ids": [letters[1]]})

    new = done["requests"][letters[1]]
    assert (done["redriven"], done["not_found"], done["queue_full"], done["cut_short"]) == (1, [], False, False)
    front.await_status(new, "own", "SUCCESS")
    assert front.result(new, "own").json == ["/path?a=1", "body 1"]
    old = front.look(letters[1], "own").json
    assert (old["status"], old["redriven_as"]) == ("FAILURE", new), "how it ended stays as it is"
    assert [item["request_id"] for item in rear(front)["items"]] == [letters[0], letters[2]]
    assert redrive(front, {"request_ids": [letters[1]]})["not_found"] == [letters[1]]


def test_all_letters_are_sent_again(front: Front, letters: list[str]) -> None:
    done = redrive(front, {"all": True})

    assert list(done["requests"]) == letters
    for new in done["requests"].values():
        front.await_status(new, "own", "SUCCESS")
    assert rear(front)["items"] == []


@pytest.mark.parametrize(
    ("choice", "takes"),
    [
        ({"error_type": "TargetFailed"}, 3),
        ({"error_type": "TargetTimeout"}, 0),
        ({"target_status_code": 503}, 3),
        ({"target_status_code": 503, "error_type": "Other"}, 0),
        ({"finished_before": "2100-01-01T00:00:00Z"}, 3),
        ({"finished_before": "2001-01-01T00:00:00+02:00"}, 0),
    ],
)
def test_filters_choose(front: Front, letters: list[str], choice: Any, takes: int) -> None:
    assert discard(front, choice)["discarded"] == takes
    assert rear(front)["count"] == 3 - takes


def test_a_discarded_letter_is_gone_from_the_list(front: Front, letters: list[str]) -> None:
    answer = front.call("DELETE", f"{SERVICES}/own/rear/{letters[0]}")
    again = front.call("DELETE", f"{SERVICES}/own/rear/{letters[0]}")

    assert (answer.json["discarded"], again.json["discarded"]) == (1, 0)
    assert [item["request_id"] for item in rear(front)["items"]] == letters[1:]
    assert front.look(letters[0], "own").json["status"] == "FAILURE"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'"all"',
        b'{"all": false}',
        b'{"all": 1}',
        b'{"al": true}',
        b'{"all": true, "error_type": "x"}',
        b'{"request_ids": "x"}',
        b'{"request_ids": [1]}',
        b'{"request_ids": ["x"]}',
        b'{"target_status_code": "503"}',
        b'{"error_type": 1}',
        b'{"finished_before": "yesterday"}',
        b"[" * 100_000,
        b'{"target_status_code": NaN}',
        b'{"finished_before": "2026-11-20T12:00:00"}',
    ],
)
@pytest.mark.parametrize("what", ["redrive", "discard"])
def test_an_unclear_choice_is_refused_and_touches_no_letter(
    front: Front, own_target: OwnTarget, what: str, body: bytes
) -> None:
    before = rear(front)["count"]

    answer = front.call("POST", f"{SERVICES}/own/rear/{what}", body)

    assert_problem(answer, 400, "invalid-request")
    assert rear(front)["count"] == before


def test_pages_with_odd_numbers_are_refused(front: Front) -> None:
    for query in ("?after=x", "?limit=-1", "?limit=1e3"):
        assert_problem(front.call("GET", f"{SERVICES}/own/rear{query}"), 400, "invalid-request")


def test_services_that_are_not_served_have_no_operations(front: Front) -> None:
    for method, path in (("GET", ""), ("POST", "/pause"), ("GET", "/rear"), ("POST", "/rear/redrive")):
        assert_problem(front.call(method, f"{SERVICES}/unlisted{path}", b'{"all": true}'), 404, "service-not-found")
