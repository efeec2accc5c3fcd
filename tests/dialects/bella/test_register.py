"""How a service becomes a queue, and what is asked about it: register, metadata, statistics, the event bus."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.dialects.bella.conftest import ENDPOINT, Bella, assert_refused


class TestRegister:
    def test_a_new_one_is_told_by_its_name(self, bella: Bella) -> None:
        answer = bella.register("brand-new")

        assert (answer.status, answer.body.strip()) == (200, b'"brand-new"')
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Cache-Control"] == "no-cache"

    def test_the_same_again_is_no_mistake_and_another_endpoint_is(self, bella: Bella, queue: str) -> None:
        assert bella.register(queue).json == queue
        assert_refused(bella.register(queue, "/v1/other"), 400)
        assert bella.call("GET", f"{queue}/metadata").json == {"endpoint": ENDPOINT, "queue": queue}

    @pytest.mark.parametrize("name", ["a", "0", "A_b-9", "put", "eventbus", "x" * 64])
    def test_names_that_can_be(self, bella: Bella, name: str) -> None:
        assert bella.register(name).json == name
        assert bella.taken_ids(f"{name}:0", f"{name}:1") == []

    @pytest.mark.parametrize(
        "name", ["", "-a", "_a", "x" * 65, "a.b", "a b", "a:1", "a/b", "\u00e9", "a\n", "a\u0000", "\ud800", "*"]
    )
    def test_names_that_can_not(self, bella: Bella, name: str) -> None:
        assert_refused(bella.register(name), 400)

    def test_of_two_at_the_same_time_one_is_the_first(self, bella: Bella) -> None:
        endpoints = [f"/v1/{number}" for number in range(8)]
        with ThreadPoolExecutor(len(endpoints)) as pool:
            answers = list(pool.map(lambda endpoint: bella.register("raced", endpoint), endpoints))

        assert sorted(answer.status for answer in answers) == [200] + [400] * 7
        first = [endpoint for endpoint, answer in zip(endpoints, answers, strict=True) if answer.status == 200]
        assert [bella.call("GET", "raced/metadata").json["endpoint"]] == first

    def test_it_holds_at_once_in_every_process(self, bella: Bella, queue: str) -> None:
        for _ in range(12):  # connections go to either
            bella.put(queue)
            assert len(bella.taken_ids(f"{queue}:1")) == 1

    def test_a_service_of_the_file_that_forwards_is_none(self, bella: Bella) -> None:
        assert_refused(bella.register("demo"), 400)
        assert bella.call("GET", "demo/metadata").status == 404

    def test_one_of_the_file_needs_no_registration_and_takes_the_first_endpoint(self, bella: Bella) -> None:
        assert bella.call("GET", "listed/metadata").json == {"endpoint": "", "queue": "listed"}
        task_id = bella.put("listed")
        assert bella.taken_ids("listed:1") == [task_id]

        assert bella.register("listed").json == "listed"
        assert bella.call("GET", "listed/metadata").json == {"endpoint": ENDPOINT, "queue": "listed"}
        assert_refused(bella.register("listed", "/v1/other"), 400)

    def test_where_unlisted_ones_are_not_allowed_it_is_403(self, strict: Bella) -> None:
        before = strict.front.services()

        assert_refused(strict.register("unlisted"), 403)
        assert strict.front.services() == before
        assert_refused(strict.post_put("unlisted"), 400, "Queue not registered: unlisted")
        assert strict.register("pulled").json == "pulled"
        assert_refused(strict.register("demo"), 400)


class TestMetadata:
    @pytest.mark.parametrize("name", ["nobody", "demo", "a.b"])
    def test_what_is_no_queue_is_404(self, bella: Bella, name: str) -> None:
        assert_refused(bella.call("GET", f"{name}/metadata"), 404)

    @pytest.mark.parametrize("name", ["pulled:1", "%00", "%FF", "a b", "-", "*"])
    def test_what_can_be_none_is_refused(self, bella: Bella, name: str) -> None:
        answer = bella.call("GET", f"{name.replace(' ', '%20')}/metadata")

        assert answer.status in (400, 404)
        assert_refused(answer, answer.status)


class TestStatistics:
    def test_a_row_counts_what_went_through(self, bella: Bella, queue: str) -> None:
        for _ in range(3):
            bella.put(queue)
        first, _ = bella.taken_ids(f"{queue}:1", size=2)
        bella.complete(first)

        row = bella.stats(f"{queue}:1")
        assert {name: row[name] for name in ("queue", "level")} == {"queue": queue, "level": 1}
        assert (row["total_put_cnt"], row["total_loaded_cnt"], row["total_completed_cnt"]) == (3, 2, 1)
        assert row["last_wrote_sharding_key"] == row["last_scanned_sharding_key"] == ""
        for name in ("ctime", "mtime"):
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", row[name])

    def test_both_levels_have_one_of_their_own(self, bella: Bella, queue: str) -> None:
        online = bella.put(queue, level=0)
        assert bella.taken_ids(f"{queue}:0") == [online]
        bella.complete(online)
        bella.put(queue)

        rows = [bella.stats(f"{queue}:{level}") for level in (0, 1)]
        assert [row["level"] for row in rows] == [0, 1]
        assert [row["total_put_cnt"] for row in rows] == [1, 1]
        assert [row["total_completed_cnt"] for row in rows] == [1, 0]
        assert list(rows[0]) == list(rows[1])

    @pytest.mark.parametrize(
        ("name", "status"),
        [
            ("nobody:1", 404),
            ("demo:1", 404),
            ("{queue}", 400),
            ("{queue}:2", 400),
            ("{queue}:x", 400),
            ("{queue}:", 400),
        ],
    )
    def test_what_has_none(self, bella: Bella, queue: str, name: str, status: int) -> None:
        assert_refused(bella.call("GET", f"{name.format(queue=queue)}/stats"), status)

    def test_the_colon_may_be_encoded(self, bella: Bella, queue: str) -> None:
        assert bella.stats(f"{queue}%3A1")["level"] == 1


def test_there_is_an_event_bus_to_ask_for_and_none_to_reach(bella: Bella) -> None:
    answer = bella.call("GET", "eventbus")

    assert answer.json == {"url": "redis://eventbus.invalid:6379/0", "topic": "eventbus-off:"}
    assert answer.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("path", ["/v1/batches", "/v1/batches/x", "/v1/console/queue/stats"])
def test_batches_and_console_are_not_there(bella: Bella, path: str) -> None:
    assert bella.front.call("GET", path).status == 404
    assert bella.front.call("POST", path, "{}").status in (404, 405)
