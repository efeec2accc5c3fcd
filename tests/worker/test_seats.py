"""Seats: numbered, never twice given, and one waiter at most."""

from __future__ import annotations

import threading

from eas_queue.worker.seats import Seats
from tests.support.drive import race
from tests.support.installation import await_condition


def test_no_seat_is_taken_twice() -> None:
    seats = Seats(50)

    taken = race(20, lambda _: seats.take(5))

    numbers = [seat for some in taken for seat in some]
    assert sorted(numbers) == list(range(50))


def test_a_waiter_gets_the_seat_that_is_given_back_and_a_second_waiter_goes_home() -> None:
    seats = Seats(1)
    (seat,) = seats.take(1)
    got: list[list[int]] = []
    waiter = threading.Thread(target=lambda: got.append(seats.take_or_wait()))
    waiter.start()
    await_condition(lambda: seats.somebody_waits)

    assert seats.take_or_wait() == []
    seats.give([seat])
    waiter.join(5)

    assert got == [[seat]]


def test_a_seat_that_is_gone_again_leaves_the_waiter_waiting() -> None:
    seats = Seats(1)
    (seat,) = seats.take(1)
    got: list[list[int]] = []
    waiter = threading.Thread(target=lambda: got.append(seats.take_or_wait()))
    waiter.start()
    await_condition(lambda: seats.somebody_waits)

    for _ in range(100):
        seats.give([seat])
        again = seats.take(1)
        if not again:  # the waiter was faster
            break
    else:
        assert seats.somebody_waits
        seats.give([seat])
    waiter.join(5)

    assert got == [[seat]]


def test_a_stop_sends_the_waiter_home() -> None:
    seats = Seats(1)
    seats.take(1)
    got: list[list[int]] = []
    waiter = threading.Thread(target=lambda: got.append(seats.take_or_wait()))
    waiter.start()
    await_condition(lambda: seats.somebody_waits)

    seats.stop()
    waiter.join(5)

    assert got == [[]]
