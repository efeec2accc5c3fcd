"""``python -m tests.webhooks.minute``: 1,000 webhooks to a receiver that is dead for a full minute, with pauses like
the first ones of the default; some minutes, so it is no test."""

from __future__ import annotations

import time

from eas_queue.store import keys
from tests.support.installation import Installation
from tests.support.receiver import Receiver
from tests.support.server import RedisServer
from tests.support.target_client import Target
from tests.webhooks.conftest import SECRET
from tests.webhooks.story import FailsUpTo, await_all, judge, submit_many
from tests.webhooks.test_story import COUNT, engine_at

DEAD_S = 60


def main() -> None:
    server, receiver = RedisServer().start(), Receiver()
    receiver.act = act = FailsUpTo(3)
    settings = {
        "webhook_secret": SECRET,
        "webhook_allow_private": "true",
        "webhook_retry_delays_s": "5,20,30,30,30,30,30,30",
    }
    try:
        with Target() as target, Installation(server.url, target.url, **settings) as made:
            made.web("-w", "1", "-b", f"127.0.0.1:{made.port}")
            made.worker("gevent", 100)
            made.webhooks()
            engine = engine_at(server.url)
            began_s = time.monotonic()
            receiver.close()
            wanted = submit_many(engine, receiver, COUNT)
            time.sleep(DEAD_S)
            receiver.listen()
            print(f"{time.monotonic() - began_s:5.1f} s: the receiver is back, {len(act.accepted)} have arrived")
            await_all(receiver, act, wanted, timeout_s=600)
            print(f"{time.monotonic() - began_s:5.1f} s: all {COUNT} have arrived, in {len(receiver.deliveries)} calls")
            judge(receiver, wanted, url=made.url, secret=SECRET)
            time.sleep(1)
            print(f"all verify; receivers left: {engine.store.client.redis.exists(keys.HOOKS)}")
            engine.store.client.close()
    finally:
        receiver.close()
        server.stop()


if __name__ == "__main__":
    main()
