"""The estimate against what really happens: a target of one second, four slots, a hundred requests that wait."""

from __future__ import annotations

import random
import time
from datetime import datetime
from typing import Any

from tests.support.installation import Installation, await_condition
from tests.support.server import RedisServer
from tests.support.target_client import Target

COUNT = 104
SLOTS = 4


def test_nine_of_ten_estimates_are_within_a_quarter_of_the_truth(server: RedisServer, target: Target) -> None:
    toml = f"[services.demo]\nmax_concurrency = {SLOTS}\n"
    with Installation(server.url, target.url, services_toml=toml) as installation:
        installation.web()
        installation.worker("gevent", 20)
        made = [installation.submit(delay_s=1) for _ in range(COUNT)]
        draw = random.Random(1)  # which are read does not depend on the day
        reads: list[tuple[str, float, dict[str, Any]]] = []

        def all_ended() -> bool:
            open_ones = [request_id for request_id in made if request_id not in ended]
            for request_id in draw.sample(open_ones, min(10, len(open_ones))):
                at = time.time()
                content = installation.status(request_id)
                if content["finished_at"]:
                    ended[request_id] = datetime.fromisoformat(content["finished_at"]).timestamp()
                else:
                    reads.append((request_id, at, content))
            return len(ended) == COUNT

        ended: dict[str, float] = {}
        await_condition(all_ended, timeout_s=60, what="all have ended")

    fifth = sorted(ended.values())[4]
    early = [content["eta_s"] for _, at, content in reads if at < fifth - 0.05]
    assert early
    assert set(early) == {None}, "nothing is said before five runs are known"
    later = [(content["eta_s"], ended[request_id] - at) for request_id, at, content in reads if at > fifth + 0.05]
    told = [(eta_s, truth_s) for eta_s, truth_s in later if eta_s is not None]
    right = [1 for eta_s, truth_s in told if abs(eta_s - truth_s) <= truth_s / 4]
    print(f"{len(later)} reads, {len(told)} with an estimate, {len(right) / len(told):.1%} of these within a quarter")
    assert len(told) > 0.9 * len(later) > 500
    assert len(right) >= 0.9 * len(told)
