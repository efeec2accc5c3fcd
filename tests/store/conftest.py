"""A driver on the empty server; after each test the invariants must hold and no key may be left to stay for ever."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.drive import Driver
from tests.support.server import RedisServer


@pytest.fixture
def drive(server: RedisServer) -> Iterator[Driver]:
    driver = Driver(server.url)
    yield driver
    driver.check()
    driver.check_keys()
    driver.store.client.close()
