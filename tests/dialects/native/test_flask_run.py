"""The commands of the original README work as they stand: `flask run` or gunicorn, and a prefork worker."""

from __future__ import annotations

import concurrent.futures
import signal
import time
from collections.abc import Iterator

import pytest
import requests

from tests.support.installation import TERMINAL, TOKEN, Installation, Process, await_condition
from tests.support.server import RedisServer, free_port
from tests.support.target_client import Target

WORKER = "celery -A app.celery_app worker --loglevel=info -Q celery,high_priority"
FLASK = "flask run --host=0.0.0.0 --port={port}"
GUNICORN = "gunicorn -w 4 -b 0.0.0.0:{port} app:app"
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}


@pytest.fixture(scope="module")
def with_worker(shared_target: Target) -> Iterator[Installation]:
    server = RedisServer().start()
    try:
        with Installation(server.url, shared_target.url) as installation:
            installation.start("worker", WORKER.split()).await_log(" ready.")
            yield installation
    finally:
        server.stop()


class Web:
    """One of the two web commands, and a client."""

    def __init__(self, installation: Installation, command: str) -> None:
        port = free_port()
        self.process: Process = installation.start("web", command.format(port=port).split())
        self.url = f"http://127.0.0.1:{port}"

        def listens() -> bool:
            try:
                return requests.get(f"{self.url}/healthz", timeout=2).status_code == 200
            except requests.RequestException:  # not yet, or slow: four processes start at once
                assert self.process.popen.poll() is None, self.process.log
                return False

        await_condition(listens, timeout_s=20, what=f"{command} answers")

    def post(self, path: str, prefer: str | None = None) -> requests.Response:
        headers = HEADERS | ({"Prefer": prefer} if prefer else {})
        return requests.post(f"{self.url}/api/predict/{path}", data=b'{"input": [1]}', headers=headers, timeout=60)

    def sink(self, service: str, request_id: str) -> requests.Response:
        url = f"{self.url}/api/predict/{service}/sink"
        return requests.get(url, params={"request_id": request_id}, headers=HEADERS, timeout=10)


@pytest.fixture(scope="module", params=[FLASK, GUNICORN], ids=["flask run", "gunicorn"])
def web(request: pytest.FixtureRequest, with_worker: Installation) -> Iterator[Web]:
    started = Web(with_worker, request.param)
    yield started
    started.process.kill()


@pytest.mark.parametrize("query", ["", "?_priority_=1"])
def test_a_submitted_request_is_forwarded_and_found_in_the_sink(web: Web, shared_target: Target, query: str) -> None:
    answer = web.post(f"my_image_service{query}")
    request_id = answer.text

    def ended() -> requests.Response | None:
        found = web.sink("my_image_service", request_id)
        return found if found.json()["status"] in TERMINAL else None

    sink: requests.Response = await_condition(ended, what="the request ends")

    assert answer.status_code == 200
    assert answer.headers["X-Eas-Queueservice-Request-Id"] == request_id
    assert sink.status_code == 200
    assert list(sink.json())[:5] == ["request_id", "status", "service_name", "message", "result"]
    assert (
        sink.json()
        | {
            "request_id": request_id,
            "status": "SUCCESS",
            "service_name": "my_image_service",
            "message": "Task completed successfully.",
        }
        == sink.json()
    )
    assert sink.json()["result"] | {"status": "success", "target_status_code": 200} == sink.json()["result"]
    [call] = shared_target.calls(request_id=request_id)
    assert (call["path"], call["query"], call["body_bytes"]) == ("/api/predict/my_image_service", "", 14)


def test_clients_that_wait_get_their_results_together(web: Web) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(web.post, f"s{each}?delay_s=0.2", "wait=30") for each in range(8)]
        answers = [each.result() for each in waiting]

    assert [(answer.status_code, answer.json()["status"]) for answer in answers] == [(200, "SUCCESS")] * 8
    assert {answer.headers["Preference-Applied"] for answer in answers} == {"wait=30"}


def test_a_wait_that_is_too_short_ends_with_the_id(web: Web) -> None:
    began = time.monotonic()

    answer = web.post("demo?delay_s=3", "wait=0.5")

    assert (answer.status_code, answer.text) == (200, answer.headers["X-Eas-Queueservice-Request-Id"])
    assert 0.5 <= time.monotonic() - began < 2.5
    assert web.sink("demo", answer.text).json()["status"] in {"PENDING", "STARTED"}


def test_without_a_known_token_nothing_is_accepted(web: Web) -> None:
    answer = requests.post(f"{web.url}/api/predict/demo", data=b"", headers={"Authorization": "Bearer x"}, timeout=10)

    assert (answer.status_code, answer.headers["Content-Type"]) == (401, "application/problem+json")


def test_a_gunicorn_that_is_told_to_stop_gives_waiting_clients_their_ids_first(
    with_worker: Installation, shared_target: Target
) -> None:
    web = Web(with_worker, GUNICORN)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(web.post, "stopped?delay_s=5", "wait=60")
        shared_target.wait_for(lambda calls: any("/stopped" in call["path"] for call in calls))
        began = time.monotonic()

        web.process.popen.send_signal(signal.SIGTERM)
        answer = waiting.result()
        elapsed_s = time.monotonic() - began
    web.process.kill()

    assert (answer.status_code, answer.text) == (200, answer.headers["X-Eas-Queueservice-Request-Id"])
    assert elapsed_s < 3
