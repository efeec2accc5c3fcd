"""What the doctor's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.server import RedisServer


@pytest.fixture
def own() -> Iterator[RedisServer]:
    """A server of the test's own, because it is put into a bad state."""
    made = RedisServer().start()
    yield made
    made.stop()


@pytest.fixture
def own_raw(own: RedisServer) -> Iterator[Any]:
    """A plain client of that server."""
    with own.client() as client:
        yield client
