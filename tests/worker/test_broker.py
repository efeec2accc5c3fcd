"""Workers come back to their broker at a steady pace, however long it was away."""

from __future__ import annotations

import pytest
from kombu.exceptions import OperationalError

from eas_queue.worker.broker import RETRY_MOST_S, SteadyConnection
from tests.support.server import free_port


def test_the_pauses_between_two_tries_to_connect_do_not_grow() -> None:
    pauses: list[float] = []
    connection = SteadyConnection(f"redis://127.0.0.1:{free_port()}/0")

    with pytest.raises(OperationalError):
        connection.ensure_connection(lambda exc, pause: pauses.append(pause), 3)

    assert pauses
    assert max(pauses) <= RETRY_MOST_S
