"""1,000 webhooks of both forms to a receiver that fails and dies; killed processes; one dead receiver among others.

The full minute of a dead receiver, with the pauses as they are by default: ``python -m tests.webhooks.minute``.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from eas_queue.engine.engine import Engine
from eas_queue.engine.receivers import Webhooks
from eas_queue.engine.service import Services, ServiceSettings
from eas_queue.store import keys
from eas_queue.store.client import Client
from eas_queue.store.store import Store
from tests.support.front import Front
from tests.support.installation import Installation, await_condition
from tests.support.receiver import Receiver
from tests.support.server import RedisServer
from tests.support.target_client import Target
from tests.webhooks.conftest import SECRET
from tests.webhooks.story import FailsUpTo, await_all, judge, submit_many

COUNT = 1000
DEAD_S = 1.5


def engine_at(url: str) -> Engine:
    services = Services({}, ServiceSettings(target_url="http://127.0.0.1:9/"), allow_unlisted=True, result_ttl_s=3600)
    return Engine(Store(Client(url, command_timeout_s=5)), services, Webhooks(True, True))


@pytest.fixture
def installation(target: Target) -> Iterator[tuple[Installation, RedisServer, Engine]]:
    """One of its own: its processes and its server are killed."""
    server = RedisServer().start()
    settings = {
        "sweep_s": 0.1,
        "webhook_secret": SECRET,
        "webhook_allow_private": "true",
        "webhook_timeout_s": 1,
        "webhook_retry_delays_s": ",".join(["0.2"] * 60),
        "stop_grace_s": 2,
    }
    engine = engine_at(server.url)
    try:
        with Installation(server.url, target.url, **settings) as made:
            made.web("-w", "1", "-b", f"127.0.0.1:{made.port}")
            made.worker("gevent", 100)
            yield made, server, engine
    finally:
        engine.store.client.close()
        server.stop()


@pytest.fixture
def own_receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def test_every_webhook_arrives_and_verifies_though_the_receiver_fails_and_dies(
    installation: tuple[Installation, RedisServer, Engine], own_receiver: Receiver
) -> None:
    made, _, engine = installation
    made.webhooks()
    own_receiver.act = act = FailsUpTo(3)

    wanted = submit_many(engine, own_receiver, COUNT)
    await_condition(lambda: len(act.accepted) > 50, what="it works")
    for die in (own_receiver.close, own_receiver.fall_silent):
        die()
        time.sleep(DEAD_S)
        assert len(act.accepted) < COUNT
        own_receiver.listen()

    await_all(own_receiver, act, wanted, timeout_s=60)
    judge(own_receiver, wanted, url=made.url, secret=SECRET)
    await_condition(lambda: not engine.store.client.redis.exists(keys.HOOKS), what="nothing is left to be sent")


def test_killed_processes_and_a_killed_server_lose_no_webhook(
    installation: tuple[Installation, RedisServer, Engine], own_receiver: Receiver
) -> None:
    made, server, engine = installation
    first = made.webhooks()
    own_receiver.act = act = FailsUpTo(1)
    wanted = submit_many(engine, own_receiver, 300)
    server.await_on_disk()
    await_condition(lambda: len(act.accepted) > 20, what="it works")

    os.kill(first.pid, signal.SIGKILL)
    made.webhooks(name="second")
    server.kill()
    time.sleep(0.3)
    server.start()
    await_condition(lambda: engine.store.client.redis.ping(), what="the server is back")
    engine.store.client.redis.hincrby(keys.SYS, "skew_ms", 17_000)  # the leases of what was in flight lapse

    await_all(own_receiver, act, wanted, timeout_s=60)
    judge(own_receiver, wanted, url=made.url, secret=SECRET)


def test_a_dead_receiver_delays_neither_others_nor_requests(front: Front, receiver: Receiver) -> None:
    engine = engine_at(front.installation.env["REDIS_URL"])
    dead = Receiver()
    dead.fall_silent()
    receiver.act = act = FailsUpTo(0)
    try:
        submit_many(engine, dead, 200)
        began_s = time.monotonic()

        wanted = submit_many(engine, receiver, 100)

        await_all(receiver, act, wanted, timeout_s=10)
        assert time.monotonic() - began_s < 5
        began_s = time.monotonic()
        front.ended()
        assert time.monotonic() - began_s < 1
    finally:
        dead.close()
        engine.store.client.close()


def test_a_stop_lets_running_deliveries_end(
    installation: tuple[Installation, RedisServer, Engine], own_receiver: Receiver
) -> None:
    made, _, engine = installation
    worker = made.webhooks()

    def slow(delivery: object) -> int:
        time.sleep(0.8)
        return 200

    own_receiver.act = slow
    (request_id,) = submit_many(engine, own_receiver, 1)
    await_condition(lambda: own_receiver.deliveries)

    assert worker.stop() == 0

    assert engine.webhook("demo", request_id).state == "delivered"
    assert len(own_receiver.deliveries) == 1
