"""What the take API refuses, and that it says so in its envelope; a key that nobody was given gets an empty 401."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.bella_sdk import ENDPOINT, Bella, BellaError, bella
from tests.support.front import LIMITED_TOKEN, ROLE_TOKENS, Answer, digest

SERVICES = f"""
    [defaults]
    allow_unlisted = false
    [services.demo]
    mode = "pull"
    [services.other]
    mode = "pull"
    [services.narrow]
    mode = "pull"
    max_queue_length = 2
    [services.pushed]
    [tokens]
    "{digest(LIMITED_TOKEN)}" = {{ services = ["demo"] }}
    {"".join(f'"{digest(token)}" = {{ roles = ["{role}"] }}{chr(10)}' for role, token in ROLE_TOKENS.items())}
"""
PUT = {"endpoint": ENDPOINT, "queue": "demo", "data": {}}
TAKE = {"queues": ["demo:1"], "size": 1}
UNKNOWN = "TASK-1-1-C-260101000000-0000-4b1d77a58226babeceef349ec306"
CALLS: list[tuple[str, str, Any, str]] = [
    ("POST", "register", {"queue": "demo", "endpoint": ENDPOINT}, "admin"),
    ("GET", "demo/metadata", None, "read"),
    ("GET", "eventbus", None, "consume"),
    ("POST", "put", PUT, "submit"),
    ("POST", "take", TAKE, "consume"),
    ("POST", "{task}/complete", {}, "consume"),
    ("POST", "{task}/cancel", None, "submit"),
    ("GET", "{task}", None, "read"),
    ("GET", "demo:1/stats", None, "read"),
    ("POST", "{task}/renew", {"process_timeout": 60}, "consume"),
    ("POST", "{task}/progress", {"progress": {}}, "consume"),
]
each_call = pytest.mark.parametrize(("method", "path", "content", "role"), CALLS, ids=[call[1] for call in CALLS])


@pytest.fixture(scope="module")
def place() -> Iterator[Bella]:
    with bella(services_toml=SERVICES) as made:
        for name in ("demo", "other", "narrow"):
            made.register(name)
        yield made


@pytest.fixture(scope="module")
def task(place: Bella) -> str:
    return place.put("other")


def assert_refused(answer: Answer, status: int, *, within: str = "") -> None:
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"].partition(";")[0] == "application/json"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert {name: type(value) for name, value in answer.json.items()} == {"code": int, "message": str, "timestamp": int}
    assert answer.json["code"] == status
    assert within in answer.json["message"] and answer.json["message"]
    assert abs(answer.json["timestamp"] - time.time() * 1000) < 60_000


# -------------------------------------------------------------------------------------------------------- 401 and 403


@each_call
@pytest.mark.parametrize("token", [None, "of-nobody"])
def test_without_a_known_key_the_answer_is_an_empty_401(
    place: Bella, task: str, token: str | None, method: str, path: str, content: Any, role: str
) -> None:
    answer = place.call(method, path.format(task=task), content, token=token)

    assert (answer.status, answer.body) == (401, b"")


def test_a_key_in_the_query_is_none(place: Bella) -> None:
    for name in ("Authorization", "token"):
        answer = place.call("GET", f"eventbus?{name}=Bearer%20{ROLE_TOKENS['consume']}", token=None)
        assert (answer.status, answer.body) == (401, b"")


@each_call
def test_a_key_has_its_roles_and_no_others(
    place: Bella, task: str, method: str, path: str, content: Any, role: str
) -> None:
    for its_role, token in ROLE_TOKENS.items():
        answer = place.call(method, path.format(task=task), content, token=token)
        if its_role == role:
            assert answer.status in (200, 202, 409), (its_role, answer.body)
        else:
            assert_refused(answer, 403)


@each_call
def test_a_key_of_one_service_is_refused_at_another(
    place: Bella, task: str, method: str, path: str, content: Any, role: str
) -> None:
    if path == "eventbus":
        assert place.call(method, path, token=LIMITED_TOKEN).status == 200  # of no service
        return
    content = {"queue": "other"} | PUT | {"queue": "other"} if path in ("put", "register") else content
    content = TAKE | {"queues": ["demo:1", "other:1"]} if path == "take" else content

    answer = place.call(method, path.format(task=task).replace("demo", "other"), content, token=LIMITED_TOKEN)

    assert_refused(answer, 403)


def test_of_a_take_that_is_refused_nothing_is_gone(place: Bella) -> None:
    task_id = place.put("demo")
    bad: list[tuple[list[str], int, str]] = [
        (["demo:1", "nowhere:1"], 400, "Queue not registered: nowhere"),
        (["demo:1", "pushed:1"], 400, "Queue not registered: pushed"),
        (["demo:1", "demo:2"], 400, "Unknown queue level: 2"),
        (["demo:1", "demo"], 400, ""),
    ]

    for queues, status, message in bad:
        for strategy in ("fifo", "round_robin", "active_passive", "sequential"):
            asked = {"queues": queues, "size": 5, "strategy": strategy}
            assert_refused(place.call("POST", "take", asked), status, within=message)
    assert place.call("POST", "take", TAKE | {"queues": ["demo:1", "other:1"]}, token=LIMITED_TOKEN).status == 403

    found = place.take("demo:1", size=1000, strategy="active_passive")["demo:1"]
    assert (found[-1]["task_id"], found[-1]["status"]) == (task_id, "waiting")


def test_a_refusal_reaches_a_client_with_the_models(place: Bella) -> None:
    with pytest.raises(BellaError, match="Queue not registered: nowhere") as caught:
        place.take("nowhere:1")

    assert caught.value.status == 400


# ----------------------------------------------------------------------------------------------------- wrong contents


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"queues": [], "size": 1}, ""),
        ({"queues": None, "size": 1}, ""),
        ({"size": 1}, ""),
        ({"queues": ["demo:1"]}, ""),
        ({"queues": ["demo:1"], "size": None}, ""),
        ({"queues": ["demo:1"], "size": -1}, ""),
        ({"queues": ["demo:1"], "size": "many"}, ""),
        ({"queues": ["demo:1"], "size": 1, "strategy": "random"}, ""),
        ({"queues": ["demo:1"], "size": 1, "strategy": "FIFO"}, ""),
        ({"queues": ["demo:1"], "size": 1, "strategy": ""}, ""),
        ({"queues": ["demo:1"], "size": 1, "strategy": None}, ""),
        ({"queues": ["demo:-1"], "size": 1}, "Unknown queue level: -1"),
        ({"queues": ["demo:2"], "size": 1}, "Unknown queue level: 2"),
        ({"queues": ["demo:x"], "size": 1}, ""),
        ({"queues": ["demo:1:1"], "size": 1}, ""),
        ({"queues": ["demo:1"] * 51, "size": 1}, ""),
        ({"queues": "demo:1", "size": 1}, ""),
    ],
)
def test_a_wrong_take_is_400(place: Bella, content: Any, message: str) -> None:
    assert_refused(place.call("POST", "take", content), 400, within=message)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"text"', b"\xff", b'{"size": NaN}'])
@pytest.mark.parametrize("path", ["register", "put", "take", f"{UNKNOWN}/complete"])
def test_a_body_that_is_no_object_of_json_is_400(place: Bella, path: str, body: bytes) -> None:
    assert_refused(place.call("POST", path, body=body), 400)


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"queue": "nowhere"}, 400, "Queue not registered: nowhere"),
        ({"queue": "pushed"}, 400, "Queue not registered: pushed"),
        ({"level": 2}, 400, "Unknown queue level: 2"),
        ({"endpoint": None}, 400, ""),
        ({"data": None}, 400, ""),
        ({"data": [1]}, 400, ""),
        ({"response_mode": "later"}, 400, ""),
        ({"timeout": "soon"}, 400, ""),
        ({"callback_url": "http://127.0.0.1:9/"}, 400, ""),  # there is no secret that would sign it
    ],
)
def test_a_wrong_put_is_refused(place: Bella, change: dict[str, Any], status: int, message: str) -> None:
    assert_refused(place.call("POST", "put", PUT | change), status, within=message)


@pytest.mark.parametrize("name", ["", "a b", "a.b", "a/b", "ä", "x" * 65])
def test_a_name_that_is_none_is_400(place: Bella, name: str) -> None:
    assert_refused(place.call("POST", "register", {"queue": name, "endpoint": ENDPOINT}), 400)


def test_where_only_listed_names_are_served_no_other_is_registered(place: Bella) -> None:
    assert_refused(place.call("POST", "register", {"queue": "mine", "endpoint": ENDPOINT}), 403)
    assert_refused(place.call("POST", "register", {"queue": "pushed", "endpoint": ENDPOINT}), 400)
    assert_refused(place.call("POST", "register", {"queue": "demo"}), 400)


# ------------------------------------------------------------------------------------------------- 404, 405, 409, 429


@pytest.mark.parametrize("path", ["nowhere/metadata", "pushed/metadata", UNKNOWN, "demo:1/unheard"])
def test_what_is_not_there_is_404(place: Bella, path: str) -> None:
    assert_refused(place.call("GET", path), 404)


@pytest.mark.parametrize(("method", "more"), [("GET", ""), ("POST", "/complete"), ("POST", "/cancel")])
def test_an_id_of_no_form_is_400(place: Bella, method: str, more: str) -> None:
    assert_refused(place.call(method, f"TASK-what{more}", {}), 400)


def test_another_method_is_405(place: Bella) -> None:
    assert_refused(place.call("DELETE", "take"), 405)


@pytest.mark.parametrize(("path", "content"), [("renew", {"process_timeout": 60}), ("progress", {"progress": {}})])
def test_what_nobody_or_another_holds_is_409(place: Bella, path: str, content: dict[str, Any]) -> None:
    task_id = place.put("other", level=0)
    assert_refused(place.call("POST", f"{task_id}/{path}", content), 409)
    for taken in place.take("other:0", size=1000, strategy="active_passive", worker={"id": "w1"})["other:0"]:
        assert taken["task_id"] == task_id

    assert_refused(place.call("POST", f"{task_id}/{path}", content | {"worker": {"id": "w2"}}), 409)
    assert place.told("POST", f"{task_id}/{path}", content | {"worker": {"id": "w1"}}) == task_id
    place.complete(task_id)
    assert_refused(place.call("POST", f"{task_id}/{path}", content), 409)


def test_a_full_queue_is_429(place: Bella) -> None:
    for _ in range(2):
        place.put("narrow")

    for mode in ("callback", "batch", "blocking", "streaming"):
        answer = place.call("POST", "put", PUT | {"queue": "narrow", "response_mode": mode})
        assert_refused(answer, 429, within="Queue full")


def test_sizes_at_the_edges(place: Bella) -> None:
    place.put("demo")

    assert place.told("POST", "take", TAKE | {"size": 0}) == {}
    found = place.told("POST", "take", TAKE | {"size": 100_000, "unheard": {"of": 1}})
    assert found["demo:1"]


def test_a_task_of_a_push_service_that_nobody_took_is_not_completed_here(place: Bella) -> None:
    request_id = place.installation.submit("pushed")

    assert_refused(place.call("POST", f"{request_id}/complete", {"body": {}}), 400)
