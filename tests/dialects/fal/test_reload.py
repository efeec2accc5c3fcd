"""A service that is taken out of the settings while somebody waits for one of its requests."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.dialects.fal.conftest import Fal
from tests.support.front import Front
from tests.support.installation import Installation, await_condition
from tests.support.server import RedisServer
from tests.support.target_client import Target

SERVICES = '[services]\ndemo = { aliases = ["acme/demo"] }\n'


def test_who_waits_for_one_that_is_taken_out_has_it_cancelled(server: RedisServer, target: Target) -> None:
    slow = 'slow = { aliases = ["acme/slow"] }\n'
    with Installation(server.url, target.url, services_toml=SERVICES + slow, max_wait_s=2) as installation:
        web = installation.web("-w", "1", "-b", f"127.0.0.1:{installation.port}")
        front = Front(installation, target, server)
        fal = Fal(front)
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(fal.post, "acme/slow", host="/fal-run")
            [key] = await_condition(front.stored)
            Path(installation.env["SERVICES_FILE"]).write_text(SERVICES)
            os.kill(web.pid, signal.SIGHUP)
            await_condition(lambda: fal.post("acme/slow").status == 404, timeout_s=1.5)
            answer = waiting.result()

        assert (answer.status, answer.json["error_type"]) == (504, "request_timeout")
        assert front._redis.hget(key, "state") == b"cancelled"
        front.close()
