"""What all tests share: a clean environment, and one real server, emptied before each test that uses it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from eas_queue.engine.engine import Engine
from eas_queue.engine.service import Services, ServiceSettings
from eas_queue.store.client import Client
from eas_queue.store.store import Store
from tests.support.installation import Installation
from tests.support.server import RedisServer
from tests.support.target_client import Target

_SETTINGS = {
    line.partition("=")[0].lstrip("# ")
    for line in (Path(__file__).parents[1] / ".env.example").read_text().splitlines()
    if "=" in line
}
for _name in _SETTINGS:
    os.environ.pop(_name, None)  # a developer's own settings must not change what tests see

# What takes longest begins first, so that no process of several is left with it at the end.
LONG = (
    "tests/acceptance/test_readme.py",
    "tests/dialects/eas/",
    "tests/chaos/test_chaos.py",
    "tests/acceptance/test_eas_sdk_retries.py",
    "tests/webhooks/",
    "tests/acceptance/test_make_run.py",
    "tests/acceptance/test_watchdog.py",
    "tests/dialects/native/",
    "tests/acceptance/test_eas_sdk_delivery.py",
    "tests/chaos/",
    "tests/acceptance/",
    "tests/benchmarks/",
    "tests/dialects/",
    "tests/stream/",
    "tests/store/",
    "tests/support/",
)
# The files of these share an installation, so they go to one process of several, which starts it once.
TOGETHER = re.compile(r"tests/(?:dialects/\w+|webhooks|pull)/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: next((i for i, begin in enumerate(LONG) if item.nodeid.startswith(begin)), len(LONG)))


class Together(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """As --dist loadfile, but for the folders whose files belong together."""

    def _split_scope(self, nodeid: str) -> str:
        folder = TOGETHER.match(nodeid)
        return folder[0] if folder else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)  # -p no:xdist does not know it
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together | None:
    return Together(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer().start()
    yield server
    server.stop()


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    """The shared server, emptied, its scripts forgotten: as new."""
    with redis_server.client() as client:
        client.flushall()
        client.script_flush()
    return redis_server


@pytest.fixture
def raw(server: RedisServer) -> Iterator[redis.Redis]:
    """A plain client, for looking behind the store."""
    with server.client() as client:
        yield client


@pytest.fixture
def store(server: RedisServer) -> Iterator[Store]:
    made = Store(Client(server.url))
    yield made
    made.client.close()


@pytest.fixture
def engine(store: Store) -> Engine:
    """Any service name, defaults but for a target that is never asked."""
    settings = ServiceSettings(target_url="http://127.0.0.1:9/{service}/{path}")
    return Engine(store, Services({}, settings, allow_unlisted=True, result_ttl_s=3600))


@pytest.fixture(scope="session")
def shared_target() -> Iterator[Target]:
    with Target() as target:
        yield target


@pytest.fixture
def target(shared_target: Target) -> Target:
    shared_target.clear()
    return shared_target


@pytest.fixture
def installation(server: RedisServer, target: Target) -> Iterator[Installation]:
    """Settings only; the test starts what it needs."""
    with Installation(server.url, target.url) as made:
        yield made
