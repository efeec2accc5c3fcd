"""Webhooks in the store: an end leaves a delivery, which is taken, done, tried again, given up and sent anew."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from eas_queue.engine.request import Submission, Webhook
from eas_queue.store import keys, kick
from eas_queue.store.hooks import Taken
from tests.support.drive import DEAD, FAILED, LEASE_MS, RETRY, SUCCEEDED, Driver

HOOK_LEASE_MS = 30_000
ATTEMPTS_MOST = 3
ONE, TWO = "https://one.example/a?b=c", "http://two.example:8080/"


def hooked(drive: Driver, url: str = ONE, service: str = "s", **changes: Any) -> str:
    """A request that has a webhook."""
    own = Submission(b"", webhook=Webhook(url, "native")).own_fields()
    return drive.submit(service, own=[*own, *changes.pop("own", [])], **changes)


def ended(drive: Driver, url: str = ONE, service: str = "s", **changes: Any) -> str:
    request_id = hooked(drive, url, service, **changes)
    (work,) = drive.start()
    assert work.request_id == request_id
    drive.finish(work)
    return request_id


def take(drive: Driver, most: int = 1, **changes: Any) -> list[Taken]:
    options: dict[str, Any] = {
        "caller": drive.caller(),
        "lease_ms": HOOK_LEASE_MS,
        "attempts_most": ATTEMPTS_MOST,
    } | changes
    return drive.store.hooks.take(most, **options)


def ids(taken: list[Taken]) -> list[str]:
    return [each.request_id for each in taken]


def fields(drive: Driver, request_id: str, service: str = "s") -> dict[str, str]:
    found = drive.store.hooks.look(service, request_id)
    assert found is not None
    return found.fields


def messages(drive: Driver) -> list[dict[str, Any]]:
    return [json.loads(text) for text in drive.raw.lrange(keys.QUEUE_HOOKS, 0, -1)]


def cancelled(drive: Driver, request_id: str) -> None:
    drive.store.cancel("s", request_id)


def cancelled_while_it_runs(drive: Driver, request_id: str) -> None:
    (work,) = drive.start()
    drive.store.cancel("s", request_id)
    drive.finish(work, None)


def expired(drive: Driver, request_id: str) -> None:
    drive.pass_time(60_001)
    drive.sweep()


def lost(drive: Driver, request_id: str) -> None:
    for _ in range(3):
        drive.start()
        drive.pass_time(LEASE_MS + 1)
        drive.sweep()


def committed(drive: Driver, request_id: str) -> None:
    queues = drive.store.queues
    (work,) = drive.start()
    index = drive.store.look("s", request_id).fields["index"]  # type: ignore[union-attr]
    queues.settle("s", "input", "", [int(index)], done=True, code="", reason="")
    drive.finish(work, None)


ENDS: dict[str, tuple[str, Callable[[Driver, str], object]]] = {
    "succeeded": ("succeeded", lambda drive, _: drive.finish(drive.start()[0], SUCCEEDED)),
    "failed": ("failed", lambda drive, _: drive.finish(drive.start()[0], FAILED)),
    "dead": ("failed", lambda drive, _: drive.finish(drive.start()[0], DEAD)),
    "lost": ("failed", lost),
    "cancelled": ("cancelled", cancelled),
    "cancelled-running": ("cancelled", cancelled_while_it_runs),
    "expired": ("expired", expired),
    "committed": ("succeeded", committed),
}


@pytest.mark.parametrize("way", ENDS)
def test_every_end_leaves_one_delivery(drive: Driver, way: str) -> None:
    state, end = ENDS[way]
    request_id = hooked(drive, deadline_in_ms=60_000 if way == "expired" else 0)
    assert take(drive) == []

    end(drive, request_id)

    assert drive.state(request_id) == state
    (taken,) = take(drive, 5)
    assert (taken.service, taken.request_id, taken.attempt) == ("s", request_id, 1)
    assert Webhook.unpacked(taken.hook) == Webhook(ONE, "native", {})
    assert take(drive, 5) == []


def test_a_retry_is_no_end(drive: Driver) -> None:
    hooked(drive)

    drive.finish(drive.start()[0], RETRY)

    assert take(drive) == []


def test_a_request_without_a_webhook_leaves_nothing(drive: Driver) -> None:
    drive.submit()
    drive.finish(drive.start()[0])

    assert take(drive) == []
    assert messages(drive) == []
    assert drive.raw.exists(keys.HOOKS) == 0


def test_an_end_pushes_a_message_unless_one_waits(drive: Driver) -> None:
    first = ended(drive)
    ended(drive)

    (message,) = messages(drive)

    assert message == kick.message(f"webhook-{first}", keys.QUEUE_HOOKS, kick.DELIVER)
    assert json.loads(base64.b64decode(message["body"]))[:2] == [[], {}]


def test_who_takes_one_of_several_pushes_a_message_for_the_rest(drive: Driver) -> None:
    ended(drive)
    ended(drive)
    drive.raw.delete(keys.QUEUE_HOOKS)

    take(drive)
    assert len(messages(drive)) == 1
    drive.raw.delete(keys.QUEUE_HOOKS)
    take(drive)

    assert messages(drive) == []


def test_the_sweep_pushes_a_lost_message_again(drive: Driver) -> None:
    ended(drive)
    drive.raw.delete(keys.QUEUE_HOOKS)

    drive.sweep()

    assert len(messages(drive)) == 1
    take(drive)
    drive.raw.delete(keys.QUEUE_HOOKS)
    drive.sweep()
    assert messages(drive) == []


def test_a_delivery_is_done(drive: Driver) -> None:
    request_id = ended(drive)
    (taken,) = take(drive)

    assert drive.store.hooks.done(taken, "delivered", status=204)

    found = fields(drive, request_id)
    assert (found["state"], found["attempts"], found["last_status"]) == ("delivered", "1", "204")
    assert int(found["delivered_ms"]) > 0
    assert "next_ms" not in found
    drive.pass_time(HOOK_LEASE_MS + 1)
    assert take(drive) == []


def test_a_failed_attempt_is_made_again_after_its_pause(drive: Driver) -> None:
    request_id = ended(drive)
    (taken,) = take(drive)

    assert drive.store.hooks.done(taken, "retry", pause_ms=5000, status=500, error="the receiver answered 500")

    found = fields(drive, request_id)
    assert (found["state"], found["last_error"]) == ("pending", "the receiver answered 500")
    assert take(drive) == []
    drive.pass_time(5000)
    drive.raw.delete(keys.QUEUE_HOOKS)
    drive.sweep()
    assert len(messages(drive)) == 1
    (again,) = take(drive)
    assert (again.request_id, again.attempt) == (request_id, 2)
    assert again.token != taken.token


def test_what_is_given_up_is_listed_and_not_sent(drive: Driver) -> None:
    delivered, request_id = ended(drive), ended(drive)
    first, second = take(drive, 2)
    drive.store.hooks.done(first, "delivered", status=200)

    drive.store.hooks.done(second, "failed", status=410, error="gone")

    drive.pass_time(10 * HOOK_LEASE_MS)
    assert take(drive) == []
    count, reached, page = drive.store.hooks.page("s", failed=True, after=0, most=10)
    assert (count, [row.request_id for row in page], page[0].fields["state"]) == (1, [request_id], "failed")
    assert reached == page[0].at
    count, _, page = drive.store.hooks.page("s", failed=False, after=0, most=1)
    assert (count, [row.request_id for row in page]) == (2, [delivered])
    _, _, rest = drive.store.hooks.page("s", failed=False, after=page[0].at, most=10)
    assert [row.request_id for row in rest] == [request_id]


def test_an_old_token_can_do_nothing(drive: Driver) -> None:
    request_id = ended(drive)
    (taken,) = take(drive)
    drive.pass_time(HOOK_LEASE_MS + 1)
    (again,) = take(drive)

    assert not drive.store.hooks.done(taken, "failed", error="late")

    assert fields(drive, request_id)["state"] == "pending"
    assert drive.store.hooks.done(again, "delivered", status=200)


def test_an_end_of_an_attempt_that_is_told_twice_counts_once(drive: Driver) -> None:
    request_id = ended(drive)
    (taken,) = take(drive)

    assert [drive.store.hooks.done(taken, "retry", pause_ms=1000) for _ in range(2)] == [True, True]

    drive.pass_time(1000)
    assert ids(take(drive, 5)) == [request_id]


def test_a_lease_that_lapses_makes_the_delivery_due_again_as_often_as_attempts_are_given(drive: Driver) -> None:
    request_id = ended(drive)

    for attempt in range(1, ATTEMPTS_MOST + 1):
        (taken,) = take(drive)
        assert (taken.request_id, taken.attempt) == (request_id, attempt)
        drive.pass_time(HOOK_LEASE_MS + 1)

    assert take(drive) == []
    assert fields(drive, request_id)["state"] == "failed"
    assert "lost" in fields(drive, request_id)["last_error"]


def test_a_take_that_is_sent_twice_hands_out_the_same(drive: Driver) -> None:
    for _ in range(3):
        ended(drive)
    call = {"caller": drive.caller(), "nonce": "the-nonce"}

    first, second = take(drive, 2, **call), take(drive, 2, **call)

    assert first == second
    assert len(ids(take(drive, 5))) == 1


def test_receivers_take_turns_whatever_their_backlog(drive: Driver) -> None:
    drive.register(max_concurrency=100)
    ones: list[str] = []
    twos: list[str] = []
    for url, found, count in ((ONE, ones, 4), (TWO, twos, 2)):
        for _ in range(count):
            found.append(ended(drive, url))
            drive.pass_time(1)  # those of one millisecond have no order

    order = [each for _ in range(6) for each in ids(take(drive))]

    assert order == [ones[0], twos[0], ones[1], twos[1], ones[2], ones[3]]


def test_one_receiver_gets_sixteen_at_a_time(drive: Driver) -> None:
    for _ in range(18):
        ended(drive, ONE)
    other = ended(drive, TWO)

    taken = take(drive, 40)

    assert len(taken) == 17
    assert other in ids(taken)
    drive.raw.delete(keys.QUEUE_HOOKS)
    drive.sweep()
    assert messages(drive) == [], "nothing can be sent now"
    one = next(each for each in taken if each.request_id != other)
    drive.store.hooks.done(one, "delivered", status=200)
    assert len(messages(drive)) == 1
    assert len(take(drive, 40)) == 1


def test_a_receiver_that_fails_gets_two_at_a_time_until_it_succeeds(drive: Driver) -> None:
    for _ in range(20):
        ended(drive, ONE)
    (first,) = take(drive)
    drive.store.hooks.done(first, "retry", pause_ms=3_600_000, error="refused")

    slow = take(drive, 40)
    assert len(slow) == 2
    drive.store.hooks.done(slow[0], "delivered", status=200)

    assert len(take(drive, 40)) == 15


def test_sets_of_a_receiver_without_deliveries_are_gone(drive: Driver) -> None:
    ended(drive)
    (taken,) = take(drive)
    drive.store.hooks.done(taken, "retry", pause_ms=1000, error="refused")
    assert drive.raw.smembers(keys.HOOKS_FAILING) == {b"https://one.example:443"}
    drive.pass_time(1000)
    (taken,) = take(drive)

    drive.store.hooks.done(taken, "failed", error="refused")

    assert not list(drive.raw.scan_iter(keys.HOOKS + "*"))


class TestResend:
    def test_what_was_delivered_is_due_again_with_fresh_attempts(self, drive: Driver) -> None:
        request_id = ended(drive)
        (taken,) = take(drive)
        drive.store.hooks.done(taken, "delivered", status=200)

        assert drive.store.hooks.resend("s", [request_id, "unknown"]) == [request_id]

        (again,) = take(drive)
        assert (again.request_id, again.attempt) == (request_id, 1)

    def test_what_was_given_up_leaves_that_list(self, drive: Driver) -> None:
        request_id = ended(drive)
        drive.store.hooks.done(take(drive)[0], "failed", error="gone")
        drive.raw.delete(keys.QUEUE_HOOKS)

        drive.store.hooks.resend("s", [request_id])

        assert drive.store.hooks.page("s", failed=True, after=0, most=10)[0] == 0
        assert fields(drive, request_id)["state"] == "pending"
        assert len(messages(drive)) == 1

    def test_what_waits_for_a_retry_is_due_now(self, drive: Driver) -> None:
        request_id = ended(drive)
        drive.store.hooks.done(take(drive)[0], "retry", pause_ms=60_000, error="no")

        drive.store.hooks.resend("s", [request_id])

        assert [each.attempt for each in take(drive)] == [1]

    @pytest.mark.parametrize("outcome", ["retry", "failed"])
    def test_what_is_being_sent_is_not_sent_beside_that_and_again_if_it_fails(
        self, drive: Driver, outcome: str
    ) -> None:
        request_id = ended(drive)
        (taken,) = take(drive)

        assert drive.store.hooks.resend("s", [request_id]) == [request_id]

        assert take(drive) == []
        drive.store.hooks.done(taken, outcome, pause_ms=60_000, error="no")
        assert [(each.request_id, each.attempt) for each in take(drive)] == [(request_id, 1)]

    def test_what_is_being_sent_and_succeeds_is_not_sent_again(self, drive: Driver) -> None:
        request_id = ended(drive)
        (taken,) = take(drive)
        drive.store.hooks.resend("s", [request_id])

        drive.store.hooks.done(taken, "delivered", status=200)

        assert take(drive) == []
        assert fields(drive, request_id)["state"] == "delivered"

    def test_a_lost_attempt_that_was_the_last_is_made_again(self, drive: Driver) -> None:
        request_id = ended(drive)
        take(drive, attempts_most=1)
        drive.store.hooks.resend("s", [request_id])

        drive.pass_time(HOOK_LEASE_MS + 1)

        assert [each.attempt for each in take(drive, attempts_most=1)] == [1]

    def test_a_request_that_has_not_ended_has_nothing_to_be_sent(self, drive: Driver) -> None:
        request_id = hooked(drive)

        assert drive.store.hooks.resend("s", [request_id]) == []
        assert drive.store.hooks.look("s", request_id) is None


class TestLife:
    def test_deliveries_go_with_their_record(self, drive: Driver) -> None:
        drive.register(ttl_ms=200)
        request_id = ended(drive)
        assert fields(drive, request_id)["state"] == "pending"
        drive.raw.delete(keys.record_key("s", request_id))  # as the server does when its time is up
        assert drive.store.hooks.page("s", failed=False, after=0, most=10)[1:] == (1, [])

        drive.pass_time(201)
        drive.sweep()

        assert not list(drive.raw.scan_iter(keys.HOOKS + "*"))
        assert drive.raw.exists(keys.hook_key("s", request_id), keys.service_key("s", "hooks")) == 0

    def test_a_delivery_without_its_record_is_dropped_when_it_is_taken(self, drive: Driver) -> None:
        gone, there = ended(drive), ended(drive)
        drive.raw.delete(keys.record_key("s", gone))

        assert ids(take(drive)) == [there]

        assert drive.raw.exists(keys.hook_key("s", gone)) == 0
        assert drive.store.hooks.resend("s", [gone]) == []

    def test_its_fields_outlive_the_record_by_an_hour(self, drive: Driver) -> None:
        request_id = ended(drive)

        record, delivery = keys.record_key("s", request_id), keys.hook_key("s", request_id)
        assert 0 <= drive.raw.pttl(delivery) - drive.raw.pttl(record) - 3_600_000 < 1000

    def test_a_brief_request_has_a_webhook_too(self, drive: Driver) -> None:
        request_id = ended(drive, own=[("brief_ms", "60000")])

        assert ids(take(drive)) == [request_id]
        assert drive.raw.pttl(keys.hook_key("s", request_id)) <= 3_660_000

    def test_a_redriven_letter_keeps_its_webhook(self, drive: Driver) -> None:
        request_id = hooked(drive)
        drive.finish(drive.start()[0], DEAD)
        assert ids(take(drive)) == [request_id]

        ((_, new),) = drive.redrive(request_id)
        drive.finish(drive.start()[0])

        assert ids(take(drive)) == [new]

    def test_an_index_of_a_delivery_is_never_used_twice(self, drive: Driver) -> None:
        requests = [ended(drive) for _ in range(3)]

        _, _, page = drive.store.hooks.page("s", failed=False, after=0, most=10)

        assert [row.request_id for row in page] == requests
        assert [row.at for row in page] == [1, 2, 3]
