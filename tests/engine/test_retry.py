"""What follows an attempt: pure policy, no store."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from eas_queue.engine import retry
from eas_queue.engine.request import Retries
from eas_queue.engine.retry import Answer, NoAnswer, after_attempt, attempts_most
from eas_queue.engine.service import Service, ServiceSettings
from eas_queue.store.shapes import Ended, Leased, Requeued

DAY_MS = 86_400_000


def service(**settings: Any) -> Service:
    return Service(name="s", result_ttl_s=60, **ServiceSettings(**settings).model_dump())


def work(attempt: int = 1, *, waited_ms: int = 0, retries: Retries | None = None) -> Leased:
    meta = {} if retries is None else {"retries": dataclasses.asdict(retries)}
    return Leased("s", "id", "1.nonce", attempt, json.dumps(meta).encode(), b"", 1_000, 0, 1_000 + waited_ms)


def answer(status_code: int, *headers: tuple[str, str], body: bytes = b"") -> Answer:
    return Answer(status_code, headers, body)


def ended(got: Ended | Requeued) -> Ended:
    assert isinstance(got, Ended)
    return got


def requeued(got: Ended | Requeued) -> Requeued:
    assert isinstance(got, Requeued)
    return got


# ------------------------------------------------------------------------------------------------------------- the end


@pytest.mark.parametrize("status_code", [200, 201, 202, 204, 206, 299])
@pytest.mark.parametrize("attempt", [1, 4])
def test_any_2xx_succeeds_and_the_answer_is_kept_as_it_came(status_code: int, attempt: int) -> None:
    got = answer(status_code, ("X-A", "1"), ("Content-Type", "image/png"), ("x-a", "2"), body=b"\0\xff")

    end = ended(after_attempt(service(), work(attempt), got))

    assert (end.state, end.status_code, end.body, end.from_target) == ("succeeded", status_code, b"\0\xff", True)
    assert json.loads(end.headers) == [["X-A", "1"], ["Content-Type", "image/png"], ["x-a", "2"]]
    assert (end.error_type, end.error, end.dead_letter) == ("", "", False)
    assert json.loads(end.celery_result) == {
        "status": "success",
        "target_status_code": status_code,
        "content_type": "image/png",
    }


@pytest.mark.parametrize("status_code", [300, 302, 304, 400, 401, 404, 409, 422, 500, 501])
def test_any_other_answer_fails_at_once_and_is_kept_too(status_code: int) -> None:
    end = ended(after_attempt(service(), work(), answer(status_code, ("X-A", "1"), body=b"why")))

    assert (end.state, end.status_code, end.body, end.from_target) == ("failed", status_code, b"why", True)
    assert json.loads(end.headers) == [["X-A", "1"]]
    assert (end.error_type, end.error) == ("TargetFailed", f"the target answered {status_code}")
    assert end.dead_letter is False


def test_a_failure_is_told_to_celery_in_the_shape_that_it_turns_into_an_exception() -> None:
    end = ended(after_attempt(service(), work(), answer(400)))

    assert json.loads(end.celery_result) == {
        "exc_type": "TargetFailed",
        "exc_message": ["the target answered 400"],
        "exc_module": "eas_queue.engine.errors",
    }


# ---------------------------------------------------------------------------------------------------- sending it again


@pytest.mark.parametrize("status_code", [408, 502, 503, 504])
@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_answers_of_retry_on_are_sent_again_and_counted_while_attempts_are_left(status_code: int, attempt: int) -> None:
    again = requeued(after_attempt(service(), work(attempt), answer(status_code)))

    assert again.counted
    assert (again.error_type, again.error) == ("TargetFailed", f"the target answered {status_code}")
    assert again.delay_ms > 0


@pytest.mark.parametrize("got", [answer(503, body=b"busy"), NoAnswer(504, "TargetTimeout", "too slow")])
def test_the_last_attempt_fails_and_is_a_dead_letter(got: Answer | NoAnswer) -> None:
    end = ended(after_attempt(service(), work(4), got))

    assert (end.state, end.status_code, end.dead_letter) == ("failed", got.status_code, True)
    assert end.error.endswith("; 4 of 4 attempts were made")


def test_with_one_attempt_nothing_is_sent_again() -> None:
    once = service(max_attempts=1)

    assert ended(after_attempt(once, work(), answer(503))).dead_letter
    assert ended(after_attempt(once, work(), NoAnswer(502, "TargetUnreachable", "refused"))).dead_letter


def test_the_service_says_which_answers_are_sent_again() -> None:
    own = service(retry_on=[500])

    assert requeued(after_attempt(own, work(), answer(500))).counted
    assert ended(after_attempt(own, work(), answer(503))).state == "failed"


@pytest.mark.parametrize(("code", "error_type"), [(502, "TargetUnreachable"), (504, "TargetTimeout")])
def test_a_missing_answer_is_sent_again_whatever_retry_on_says(code: int, error_type: str) -> None:
    again = requeued(after_attempt(service(retry_on=[]), work(), NoAnswer(code, error_type, "detail")))

    assert (again.counted, again.error_type, again.error) == (True, error_type, "detail")


def test_what_could_not_be_helped_by_another_attempt_fails_at_once() -> None:
    got = NoAnswer(502, "ResultTooLarge", "more than can be kept", final=True)

    end = ended(after_attempt(service(), work(), got))

    assert (end.state, end.status_code, end.from_target, end.body, end.headers) == ("failed", 502, False, b"", "[]")
    assert (end.error_type, end.error, end.dead_letter) == ("ResultTooLarge", "more than can be kept", False)


# ------------------------------------------------------------------------------------------- what the client asked for

TIMEOUT = NoAnswer(504, "TargetTimeout", "too slow")
UNREACHABLE = NoAnswer(502, "TargetUnreachable", "refused")
BROKEN = NoAnswer(502, "TargetBroken", "cut off")


@pytest.mark.parametrize(
    ("retries", "got", "most"),
    [
        (Retries(), answer(503), 4),
        (Retries(), TIMEOUT, 4),
        (Retries(timeout=1), TIMEOUT, 2),
        (Retries(timeout=1), UNREACHABLE, 4),
        (Retries(timeout=1), answer(503), 4),
        (Retries(server_error=6), answer(503), 7),
        (Retries(server_error=6), answer(504), 7),  # the target's own 504 is an answer
        (Retries(server_error=6), TIMEOUT, 4),
        (Retries(connection_error=0), UNREACHABLE, 1),
        (Retries(connection_error=0), BROKEN, 1),
        (Retries(connection_error=0), answer(503), 4),
        (Retries(0, 0, 0), answer(503), 1),
        (Retries(0, 0, 0), TIMEOUT, 1),
        (Retries(0, 0, 0), UNREACHABLE, 1),
    ],
)
def test_its_client_says_how_often_by_what_the_attempt_failed_of(
    retries: Retries, got: Answer | NoAnswer, most: int
) -> None:
    if most > 1:
        assert requeued(after_attempt(service(), work(most - 1, retries=retries), got)).counted
    end = ended(after_attempt(service(), work(most, retries=retries), got))

    assert end.dead_letter
    assert end.error.endswith(f"; {most} of {most} attempts were made")


def test_attempts_count_together_whatever_they_failed_of() -> None:
    retries = Retries(timeout=5, server_error=1)

    assert requeued(after_attempt(service(), work(2, retries=retries), TIMEOUT)).counted
    assert ended(after_attempt(service(), work(2, retries=retries), answer(503))).error.endswith(
        "2 of 2 attempts were made"
    )


def test_a_service_that_sends_once_sends_once() -> None:
    retries = Retries(timeout=5, server_error=5, connection_error=5)

    for got in (TIMEOUT, answer(503), None):
        assert attempts_most(service(max_attempts=1), work(retries=retries), got) == 1


def test_its_client_does_not_say_which_answers_are_sent_again() -> None:
    retries = Retries(server_error=6)

    assert ended(after_attempt(service(), work(retries=retries), answer(500))).state == "failed"
    assert requeued(after_attempt(service(retry_on=[500]), work(6, retries=retries), answer(500))).counted


@pytest.mark.parametrize(
    ("retries", "most"),
    [(None, 4), (Retries(), 4), (Retries(timeout=0, server_error=0), 4), (Retries(connection_error=0), 1)],
)
def test_a_lost_worker_is_a_connection_error(retries: Retries | None, most: int) -> None:
    assert attempts_most(service(), work(retries=retries)) == most


@pytest.mark.parametrize(
    ("status_code", "says", "is_sent_again"),
    [
        (500, "1", True),
        (422, "true", True),
        (302, "TRUE", True),
        (503, "0", False),
        (503, "false", False),
        (503, "False", False),
        (503, "maybe", True),
        (503, "", True),
        (500, "yes", False),
    ],
)
def test_the_target_says_whether_its_answer_is_sent_again(status_code: int, says: str, is_sent_again: bool) -> None:
    got = after_attempt(service(), work(), answer(status_code, ("X-Fal-Needs-Retry", says)))

    assert isinstance(got, Requeued) == is_sent_again
    if isinstance(got, Ended):
        assert (got.state, got.dead_letter) == ("failed", False)


def test_but_not_how_often_nor_of_a_success() -> None:
    says = ("X-Fal-Needs-Retry", "1")

    assert ended(after_attempt(service(), work(4), answer(500, says))).dead_letter
    assert ended(after_attempt(service(), work(retries=Retries(0, 0, 0)), answer(500, says))).dead_letter
    assert ended(after_attempt(service(), work(), answer(200, says))).state == "succeeded"


# --------------------------------------------------------------------------------------------------------- 429 and when


@pytest.mark.parametrize("attempt", [1, 4, 50])
def test_a_429_gives_the_request_back_without_counting(attempt: int) -> None:
    again = requeued(after_attempt(service(), work(attempt), answer(429)))

    assert (again.counted, again.delay_ms) == (False, 1_000)


def test_a_429_that_is_listed_in_retry_on_is_still_not_counted() -> None:
    assert not requeued(after_attempt(service(retry_on=[429]), work(), answer(429))).counted


@pytest.mark.parametrize(
    ("value", "delay_ms"), [("7", 7_000), ("0.25", 500), ("0", 500), ("junk", 1_000), ("9999999", 3_600_000)]
)
def test_a_429_is_given_back_for_as_long_as_its_retry_after_says(value: str, delay_ms: int) -> None:
    again = requeued(after_attempt(service(), work(), answer(429, ("RETRY-after", value))))

    assert again.delay_ms == delay_ms


@pytest.mark.parametrize(
    ("own", "headers", "is_final"),
    [
        ({"server_error": 0}, [], True),
        ({"server_error": 1}, [], False),
        ({"timeout": 0, "connection_error": 0}, [], False),
        (None, [("X-Fal-Needs-Retry", "0")], True),
        (None, [("X-Fal-Needs-Retry", "1")], False),
    ],
)
def test_a_429_is_the_end_where_target_or_client_say_so(
    own: dict[str, int] | None, headers: list[tuple[str, str]], is_final: bool
) -> None:
    busy = work()._replace(meta=json.dumps({"retries": own}).encode())

    got = after_attempt(service(), busy, answer(429, *headers))

    if is_final:
        assert (ended(got).state, ended(got).status_code) == ("failed", 429)
    else:
        assert not requeued(got).counted


def test_after_a_day_of_429_the_request_fails() -> None:
    last = after_attempt(service(), work(waited_ms=DAY_MS - 1), answer(429))
    over = after_attempt(service(), work(waited_ms=DAY_MS), answer(429))

    assert isinstance(last, Requeued)
    assert (ended(over).state, ended(over).status_code) == ("failed", 429)


@pytest.mark.parametrize(
    ("value", "delay_s"),
    [
        ("0", 0),
        ("5", 5),
        ("1.5", 1.5),
        (" 5 ", 5),
        ("-5", 0),
        ("3600", 3600),
        ("3601", 3600),
        ("inf", 3600),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600),
        (None, None),
        ("", None),
        ("nan", None),
        ("soon", None),
        ("6m5s", None),
        ("Thu, 99 Foo 1970 00:00:00 GMT", None),
        ("Thu, 01 Jan 1970 00:00:00 -0000", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_anything_else_is_unusable(
    value: str | None, delay_s: float | None
) -> None:
    assert retry.retry_after_s(value) == delay_s


def test_a_date_in_retry_after_counts_from_now() -> None:
    at = datetime.now(UTC) + timedelta(seconds=30)

    delay_s = retry.retry_after_s(format_datetime(at, usegmt=True))

    assert delay_s == pytest.approx(30, abs=2)


# ------------------------------------------------------------------------------------------------------------- backoff


@pytest.mark.parametrize(
    ("attempt", "full_ms"), [(1, 1_000), (2, 2_000), (3, 4_000), (6, 32_000), (7, 60_000), (50, 60_000), (100, 60_000)]
)
def test_the_pause_doubles_up_to_its_limit_and_half_of_it_is_random(attempt: int, full_ms: int) -> None:
    pauses = [retry.backoff_ms(service(), attempt) for _ in range(300)]

    assert full_ms / 2 <= min(pauses) < full_ms * 0.6
    assert full_ms * 0.9 < max(pauses) <= full_ms


def test_the_service_says_how_long_the_pauses_are() -> None:
    own = service(retry_delay_s=10, retry_delay_max_s=15)

    assert 5_000 <= retry.backoff_ms(own, 1) <= 10_000
    assert 7_500 <= retry.backoff_ms(own, 9) <= 15_000
    assert retry.backoff_ms(service(retry_delay_s=0), 3) == 0
