"""The account itself: what counts as lost, undone, unexplained and overlapping. No process is started here."""

from __future__ import annotations

import dataclasses

import pytest

from eas_queue.store.shapes import progress_token
from tests.chaos.history import Claim, Request
from tests.chaos.ledger import Allowed, Row, fill
from tests.chaos.load import Entry, Item
from tests.support.target import CallRecord

NOON = 1_800_000_000.0  # Unix seconds
LOST = frozenset({"WorkerLost"})


def entry(status: str = "SUCCESS", *, acknowledged_at: float = NOON) -> Entry:
    return Entry(0, Item("s"), sent=True, request_id="r", acknowledged_at=acknowledged_at, status=status)


def request(*claims: Claim, number: int = 0) -> Request:
    return Request("r", "s", number, 0, state="succeeded", ended_ms=1, claims=list(claims))


def call(token: str, started_at: float = NOON, ended_at: float | None = NOON + 1) -> CallRecord:
    return {
        "n": 1,
        "request_id": "r",
        "attempt": 1,
        "path": "/",
        "query": "",
        "started_at": started_at,
        "ended_at": ended_at,
        "outcome": None,
        "status": None,
        "body_bytes": 0,
        "running": 1,
        "progress_token": progress_token(token),
        "peer_port": 1,
    }


def account(
    allowed: Allowed,
    entries: list[Entry],
    requests: list[Request],
    calls: list[CallRecord] | None = None,
    kills: list[float] | None = None,
) -> Row:
    return fill(
        Row("s", "s"), allowed, entries=entries, requests=requests, calls=calls or [], breaches=[], kills=kills or []
    )


def test_a_request_that_ended_as_it_had_to_is_green() -> None:
    row = account(Allowed(), [entry()], [request(Claim("a", 1, 0, closed="end"))], [call("a")])

    assert row.red == set()
    assert (row.submitted, row.acknowledged, row.terminal, row.extra) == (1, 1, 1, 0)


def test_a_wrong_end_is_red() -> None:
    """Wrong for the item, or other than what the server kept."""
    assert account(Allowed(), [entry("FAILURE")], [request()]).red == {"wrong_end"}
    other = dataclasses.replace(request(), state="failed")
    assert account(Allowed(), [entry("SUCCESS")], [other]).red == {"wrong_end"}


@pytest.mark.parametrize("status", ["PENDING", "404", ""])
def test_an_acknowledged_request_without_an_end_is_lost(status: str) -> None:
    assert account(Allowed(undone=True), [entry(status)], [request()], kills=[NOON + 0.5]).red == {"lost"}


@pytest.mark.parametrize(
    ("allowed", "kill", "red"),
    [
        (Allowed(undone=True), NOON + 0.9, set()),
        (Allowed(undone=True), NOON + 1.1, {"lost"}),
        (Allowed(undone=True), NOON - 0.1, {"lost"}),
        (Allowed(), NOON + 0.9, {"lost"}),
    ],
)
def test_what_a_crash_took_away_is_undone_in_its_last_second_and_lost_otherwise(
    allowed: Allowed, kill: float, red: set[str]
) -> None:
    row = account(allowed, [entry("404")], [], kills=[kill])

    assert row.red == red
    assert row.undone == (0 if red else 1)


def test_two_records_of_one_request_are_illegal() -> None:
    assert account(Allowed(), [entry()], [request(), request()]).red == {"illegal"}


def test_a_second_call_needs_a_cut_that_the_fault_can_have() -> None:
    claims = Claim("a", 1, 0, closed="WorkerLost"), Claim("b", 2, 0, closed="end")
    calls = [call("a"), call("b", NOON + 2, NOON + 3)]

    explained = account(Allowed(LOST), [entry()], [request(*claims)], calls)
    assert (explained.red, explained.extra, explained.cuts) == (set(), 1, {"WorkerLost": 1})
    assert account(Allowed(), [entry()], [request(*claims)], calls).red == {"unexplained"}
    assert account(Allowed(LOST, only="other"), [entry()], [request(*claims)], calls).red == {"unexplained"}


def test_two_calls_under_one_lease_and_a_call_under_an_unknown_one_are_unexplained() -> None:
    kept = request(Claim("a", 1, 0, closed="end"))

    assert account(Allowed(LOST), [entry()], [kept], [call("a"), call("a", NOON + 2)]).unexplained == 1
    assert account(Allowed(LOST), [entry()], [kept], [call("x")]).unexplained == 1
    crash = account(Allowed(LOST, undone=True), [entry()], [kept], [call("x"), call("a", NOON + 2)], [NOON + 0.5])
    assert (crash.unexplained, crash.cuts) == (0, {"undone": 1})


@pytest.mark.parametrize(("ended_at", "overlaps"), [(NOON + 2.1, 0), (NOON + 2.5, 1), (None, 1)])
def test_two_attempts_at_once_are_red_unless_the_fault_brings_them_about(ended_at: float | None, overlaps: int) -> None:
    kept = request(Claim("a", 1, 0, closed="WorkerLost"), Claim("b", 2, 0, closed="end"))
    calls = [call("a", NOON, ended_at), call("b", NOON + 2, NOON + 3)]

    assert account(Allowed(LOST), [entry()], [kept], calls).overlaps == overlaps
    allowed = account(Allowed(LOST, overlaps=True), [entry()], [kept], calls)
    assert (allowed.overlaps, allowed.at_once) == (0, overlaps)
