"""Who may do what: tokens in their headers, roles by route, services by token; and the empty 401."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from eas_queue.dialects import bella as dialect
from tests.dialects.bella.conftest import ENDPOINT, UNKNOWN_TASK, Bella, assert_refused, request_id_of
from tests.support.front import LIMITED_TOKEN, ROLE_TOKENS
from tests.support.installation import TOKEN

TEXT = Path(dialect.__file__).with_name("PROTOCOL.md").read_text()
ROUTES = re.findall(r"^\| `([A-Z]+) /v1/queue/(\S+)` \| (\w+) \|", TEXT, re.M)
BODIES: dict[str, dict[str, Any]] = {
    "register": {"queue": "registered", "endpoint": ENDPOINT},
    "put": {"queue": "opened", "endpoint": "/v1/chat", "data": {}},
    "take": {"queues": ["opened:0"], "size": 0},
    "<task_id>/renew": {"process_timeout": 1},
    "<task_id>/progress": {"progress": {}},
}


def concrete(path: str) -> str:
    return path.replace("<queue>", "opened").replace("<level>", "1").replace("<task_id>", UNKNOWN_TASK)


def test_the_table_is_read() -> None:
    assert len(ROUTES) == 11
    assert {role for _, _, role in ROUTES} == set(ROLE_TOKENS)


@pytest.mark.parametrize(("method", "path", "role"), ROUTES)
def test_a_route_opens_to_its_role_only(bella: Bella, method: str, path: str, role: str) -> None:
    for holder, token in ROLE_TOKENS.items():
        answer = bella.call(method, concrete(path), BODIES.get(path, {}), token=token)
        if holder == role:
            assert answer.status in (200, 202, 404, 409), answer.body
        else:
            assert_refused(answer, 403)


@pytest.mark.parametrize(("method", "path", "role"), ROUTES)
def test_without_a_known_token_it_is_401_and_empty(bella: Bella, method: str, path: str, role: str) -> None:
    for token in (None, "unknown-token-of-nobody"):
        for body in (BODIES.get(path, {}), b"{"):
            answer = bella.call(method, concrete(path), body, token=token)

            assert (answer.status, answer.body) == (401, b"")


@pytest.mark.parametrize(
    "query", ["Authorization=Bearer%20{}", "authorization=Bearer%20{}", "token={}", "api_key={}", "access_token={}"]
)
def test_a_token_in_the_query_is_none(bella: Bella, query: str) -> None:
    answer = bella.call("GET", f"eventbus?{query.format(TOKEN)}", token=None)

    assert (answer.status, answer.body) == (401, b"")


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {TOKEN}"},
        {"Authorization": f"bearer {TOKEN}"},
        {"Authorization": f"Key {TOKEN}"},
        {"Authorization": TOKEN},
        {"X-API-Key": TOKEN},
    ],
)
def test_all_headers_of_tokens_mean_the_same(bella: Bella, headers: dict[str, str]) -> None:
    assert bella.call("GET", "eventbus", None, headers, token=None).status == 200


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xff"])
def test_what_is_none_is_401(bella: Bella, value: str) -> None:
    answer = bella.call("GET", "eventbus", None, {"Authorization": value}, token=None)

    assert (answer.status, answer.body) == (401, b"")


def test_the_role_is_looked_at_before_the_body(bella: Bella) -> None:
    for path, role in (("put", "read"), ("take", "submit"), ("register", "consume")):
        assert_refused(bella.call("POST", path, b"{", token=ROLE_TOKENS[role]), 403)


class TestServices:
    """A token for `pulled` alone."""

    def test_its_own_queue_is_open(self, bella: Bella) -> None:
        task_id = str(bella.post_put("pulled", level=1, token=LIMITED_TOKEN).json["data"])
        assert bella.taken_ids("pulled:1", "pulled:0", token=LIMITED_TOKEN) == [task_id]

        assert bella.complete(task_id, token=LIMITED_TOKEN).status == 200
        assert bella.call("GET", task_id, token=LIMITED_TOKEN).json["status"] == "succeeded"
        for path in ("pulled/metadata", "pulled:1/stats", "eventbus"):
            assert bella.call("GET", path, token=LIMITED_TOKEN).status == 200

    @pytest.mark.parametrize("name", ["listed", "demo", "nobody"])
    def test_no_other_name_is_told_anything(self, bella: Bella, name: str) -> None:
        assert_refused(bella.post_put(name, token=LIMITED_TOKEN), 403)
        assert_refused(bella.post_take(f"{name}:1", token=LIMITED_TOKEN), 403)
        assert_refused(bella.register(name, token=LIMITED_TOKEN), 403)
        assert_refused(bella.call("GET", f"{name}/metadata", token=LIMITED_TOKEN), 403)
        assert_refused(bella.call("GET", f"{name}:1/stats", token=LIMITED_TOKEN), 403)

    @pytest.mark.parametrize("strategy", ["fifo", "round_robin", "active_passive", "sequential"])
    def test_one_queue_that_is_closed_closes_the_take(self, bella: Bella, queue: str, strategy: str) -> None:
        ours, theirs = bella.put("pulled"), bella.put(queue)
        for names in (("pulled:1", f"{queue}:1"), (f"{queue}:1", "pulled:1")):
            assert_refused(bella.post_take(*names, size=9, strategy=strategy, token=LIMITED_TOKEN), 403)

        assert [bella.get(task_id)["status"] for task_id in (ours, theirs)] == ["waiting", "waiting"]
        bella.cancel(ours)

    @pytest.mark.parametrize("form", ["task", "request"])
    def test_others_tasks_are_closed_by_either_id(self, bella: Bella, queue: str, form: str) -> None:
        task_id = bella.held(queue)
        name = task_id if form == "task" else request_id_of(task_id)

        assert_refused(bella.call("GET", name, token=LIMITED_TOKEN), 403)
        for action, body in (
            ("complete", {}),
            ("cancel", {}),
            ("renew", {"process_timeout": 1}),
            ("progress", {"progress": {}}),
        ):
            assert_refused(bella.call("POST", f"{name}/{action}", body, token=LIMITED_TOKEN), 403)
        assert bella.get(task_id)["status"] == "queued"

    def test_an_id_that_claims_another_service_opens_nothing(self, bella: Bella, queue: str) -> None:
        task_id = bella.held(queue)
        number = bella.stats("pulled:1")["id"]
        word, _, *rest = task_id.split("-")
        forged = "-".join((word, str(number), *rest))

        assert bella.call("GET", forged, token=LIMITED_TOKEN).status in (403, 404)
        for action in ("complete", "cancel"):
            bella.call("POST", f"{forged}/{action}", {}, token=LIMITED_TOKEN)
        assert bella.get(task_id)["status"] == "queued"
