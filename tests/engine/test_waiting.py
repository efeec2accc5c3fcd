"""Waits survive their subscription: whatever breaks it, the listener comes back and wakes who waits."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from eas_queue.engine import errors, peeking
from eas_queue.engine.engine import Engine
from eas_queue.engine.request import Submission
from tests.support.server import RedisServer

CHURN = """
import sys
if sys.argv[2] == "gevent":
    from gevent import monkey
    monkey.patch_all()
import random, threading, time
from eas_queue.engine.waiting import Waits
from eas_queue.store import keys
from eas_queue.store.client import Client
from eas_queue.store.store import Store

client = Client(sys.argv[1])
waits, stop = Waits(Store(client)), threading.Event()

def churn():
    while not stop.is_set():
        with waits.watching("s", f"r{random.randrange(50)}", end_only=False) as waiter:
            until_s = time.monotonic() + 0.02 + random.random() * 0.05
            while (left_s := until_s - time.monotonic()) > 0:
                waiter.wait(left_s)

threads = [threading.Thread(target=churn) for _ in range(40)]
for thread in threads:
    thread.start()
for _ in range(20):
    time.sleep(0.15)
    client.redis.client_kill_filter(_type="pubsub")
stop.set()
for thread in threads:
    thread.join(10)
with waits.watching("s", "last", end_only=False) as waiter:
    waiter.woken.clear()
    started_s = time.monotonic()
    while not waiter.wait(0.1):
        client.redis.publish(keys.note_channel("last"), "x")
        assert time.monotonic() - started_s < 2, "nobody listens any more"
assert not waits._waiters
print("alive")
"""


@pytest.mark.parametrize("model", ["threads", "gevent"])
def test_a_subscription_that_breaks_again_and_again_is_replaced(server: RedisServer, model: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHURN, server.url, model],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.stdout.endswith("alive\n"), done.stderr[-2000:]


@pytest.fixture
def submitted(engine: Engine) -> str:
    return engine.submit("s", Submission(b"")).request_id


def test_a_client_that_hangs_up_ends_its_wait(engine: Engine, submitted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peeking, "CHECK_S", 0.1)
    hung_up = threading.Event()
    began = time.monotonic()
    threading.Timer(0.3, hung_up.set).start()

    with pytest.raises(errors.WaiterGone):
        engine.wait("s", submitted, 30, is_gone=hung_up.is_set)

    assert time.monotonic() - began < 5
    assert engine.waits.count() == 0


def test_a_change_whose_note_was_lost_is_found(engine: Engine, submitted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peeking, "CHECK_S", 0.1)
    monkeypatch.setattr(engine.waits, "_handle", lambda message: None)
    threading.Timer(0.3, lambda: engine.store.cancel("s", submitted)).start()

    assert engine.wait("s", submitted, 10).state == "cancelled"


def test_a_stop_ends_every_wait_with_what_is_known(engine: Engine, submitted: str) -> None:
    threading.Timer(0.3, engine.waits.stop).start()
    began = time.monotonic()

    found = engine.wait("s", submitted, 30)
    again = engine.wait("s", submitted, 30)

    assert (found.state, again.state) == ("queued", "queued")
    assert time.monotonic() - began < 5
    assert engine.waits.count() == 0
