"""Waits survive their subscription: whatever breaks it, the listener comes back and wakes who waits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
