"""What has ended leaves after RESULT_TTL_S, with all that belongs to it: nothing is left behind but what may stay."""

from __future__ import annotations

import redis
import requests

from eas_queue.store import keys
from tests.support.front import READER_TOKEN, digest
from tests.support.installation import TOKEN, Installation, await_condition
from tests.support.own_target import Call, OwnTarget
from tests.support.server import RedisServer

TOML = f"""
[services.demo]
max_attempts = 1
deadline_s = 0.3
max_concurrency = 1
[tokens]
"{digest(TOKEN)}" = {{ rate_per_s = 1000 }}
"{digest(READER_TOKEN)}" = {{ roles = ["read"] }}
"""
STAY = {keys.SYS, keys.SERVICES, keys.NUMBERS, keys.DUE, keys.ALIVE, keys.SWEEP_LOCK} | {
    keys.service_key("demo", suffix) for suffix in ("cfg", "seq")
}


def act(call: Call) -> tuple[int, bytes]:
    call.report(progress={"step": 1}, logs=[{"message": "line"}])
    return (503, b"{}") if call.body == b"fails" else (200, b"{}")


def test_nothing_of_an_ended_request_outlives_its_time(server: RedisServer, raw: redis.Redis) -> None:
    target = OwnTarget()
    target.act = act
    try:
        settings = {"result_ttl_s": 2, "sweep_s": 0.1, "worker_events": "off"}
        with Installation(server.url, target.url, services_toml=TOML, **settings) as installation:
            installation.web()
            installation.worker()
            session, url = installation.session, f"{installation.url}/api/predict/demo"
            first = session.post(url, b"works", headers={"Idempotency-Key": "key"}, timeout=5).text
            dead = session.post(url, b"fails", timeout=5).text
            for request_id in (first, dead):
                installation.await_end(request_id)
            session.post(f"{installation.url}/api/services/demo/pause", timeout=5)
            late = session.post(url, b"late", timeout=5).text
            cancelled = session.post(url, b"cancelled", timeout=5).text
            installation.cancel(cancelled)
            assert installation.await_end(late)["status"] == "EXPIRED"
            again = session.post(url, b"works", headers={"Idempotency-Key": "key"}, timeout=5)
            assert again.text == first
            assert session.get(f"{installation.url}/api/services/demo", timeout=5).json()["rear"] == 1

            def are_gone() -> bool:
                answers = [look(session, url, request_id) for request_id in (first, dead, late, cancelled)]
                return {answer.status_code for answer in answers} == {404}

            await_condition(are_gone, what="all have left")
            problem = look(session, url, first).json()
            assert problem["type"] == "urn:eas-queue:error:request-not-found"
            assert "2 s ago (RESULT_TTL_S)" in problem["detail"]
            await_condition(lambda: left(raw) <= STAY, what=f"nothing else is left: {left(raw) - STAY}")
            new = session.post(url, b"other", headers={"Idempotency-Key": "key"}, timeout=5)
            assert (new.status_code, new.text == first) == (200, False), "the key is free again"
    finally:
        target.stop()


def look(session: requests.Session, url: str, request_id: str) -> requests.Response:
    return session.get(f"{url}/requests/{request_id}", timeout=5)


def left(raw: redis.Redis) -> set[str]:
    """Keys without a TTL, Celery's own left out, and those whose TTL is a request's."""
    found = {key.decode() for key in raw.scan_iter(count=1000)}
    kombu = {key for key in found if key.startswith(("_kombu", "unacked"))}
    return {key for key in found - kombu if raw.ttl(key) == -1 or key.startswith(keys.CELERY_RESULT_PREFIX)}
