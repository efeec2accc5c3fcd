"""SIGHUP: a changed services file counts in all running processes, and nobody who is connected notices."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
import requests

from tests.support.installation import TOKEN, Installation, Process, await_condition
from tests.support.load import Connection, Load
from tests.support.server import RedisServer
from tests.support.target_client import Target

OLD, NEW = "tml-11111111111111111111111111111111", "tml-22222222222222222222222222222222"
WAITERS = 20


def services(*, cap: int, token: str, also: str = "") -> str:
    digest = hashlib.sha256(token.encode()).hexdigest()
    return (
        "[services.demo]\n"
        f"[services.slow]\nmax_concurrency = {cap}\n"
        f"{f'[services.{also}]' if also else ''}\n"
        f'[tokens]\n"sha256:{digest}" = {{ roles = ["submit", "read"] }}\n'
    )


class Setup:
    """An installation whose services file changes."""

    def __init__(self, installation: Installation, target: Target) -> None:
        self.installation, self.target = installation, target

    def write(self, text: str) -> None:
        Path(self.installation.env["SERVICES_FILE"]).write_text(text)

    def hang_up(self, *, group: bool = False) -> None:
        for process in self.installation.processes:
            (os.killpg if group else os.kill)(process.pid, signal.SIGHUP)

    def codes(self, token: str, service: str = "demo", *, tries: int = 12) -> set[int]:
        """What submits over new connections are answered: both web processes take some."""
        found = set()
        for _ in range(tries):
            connection = Connection(self.installation.port, token)
            found.add(connection.post(f"/api/predict/{service}")[0])
            connection.close()
        return found

    def running(self, service: str) -> int:
        path = f"/api/predict/{service}"
        return sum(call["path"] == path and call["ended_at"] is None for call in self.target.calls())

    def await_refusals(self, least: int) -> None:
        def are_there() -> bool:
            return all(process.log.count("reload_refused") >= least for process in self.installation.processes)

        await_condition(are_there, what=f"web and worker refuse the file for the {least}. time")


def submit(connection: Connection) -> str:
    status, text = connection.post("/api/predict/demo")
    assert status == 200, text
    return text


def wait(connection: Connection) -> str:
    status, text = connection.post("/api/predict/slow?delay_s=1", Prefer="wait=30")
    assert status == 200, text
    answer = json.loads(text)
    assert answer["status"] == "SUCCESS", text
    request_id: str = answer["request_id"]
    return request_id


def children(process: Process) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.parametrize(("pool", "concurrency"), [("gevent", 100), ("prefork", 10)])
def test_under_load_nothing_is_lost_and_all_of_the_new_file_counts(
    server: RedisServer, target: Target, pool: str, concurrency: int
) -> None:
    before = services(cap=1, token=OLD)
    with Installation(server.url, target.url, services_toml=before, lease_s=3, web_concurrency=2) as installation:
        web, worker = installation.web(), installation.worker(pool, concurrency)
        setup = Setup(installation, target)
        assert setup.codes(OLD) == {200}
        assert setup.codes(NEW) == {401}
        assert setup.codes(TOKEN, "fresh") == {404}
        load = Load(installation.port, TOKEN, 4, submit)
        waiters = Load(installation.port, TOKEN, WAITERS, wait, once=True)
        try:
            await_condition(lambda: setup.running("slow") == 1, what="one of the waiting requests runs")
            time.sleep(0.5)  # a second one would have started by then
            assert setup.running("slow") <= 1

            setup.write(services(cap=8, token=NEW, also="fresh"))
            hung_up_at = time.monotonic()
            setup.hang_up()
            await_condition(lambda: setup.running("slow") == 8, timeout_s=2, what="8 run at once")
            took_s = time.monotonic() - hung_up_at
            await_condition(lambda: setup.codes(OLD, tries=4) == {401}, timeout_s=2, what="the old token is refused")
            await_condition(lambda: setup.codes(OLD) == {401}, timeout_s=2, what="in all processes")
            assert setup.codes(NEW) == {200}
            assert setup.codes(TOKEN, "fresh") == {200}

            for _ in range(20):
                setup.hang_up()
            for i in range(20):
                setup.hang_up(group=i % 2 == 0)
                time.sleep(0.02)

            for number, broken in enumerate(
                ["[services", "[services.demo]\nmax_concurrency = 0", "[tokens]\nx = 1"], 1
            ):
                setup.write(broken)
                setup.hang_up()
                setup.await_refusals(number)
            waiters.stop()
        finally:
            load.stop()
            waiters.stop()

        assert load.errors + waiters.errors == []
        assert len(waiters.answers) == WAITERS
        assert len(load.answers) > 50
        for request_id in load.answers:
            assert installation.await_end(request_id)["status"] == "SUCCESS"
        print(f"{pool}: 8 at once after {took_s:.2f} s; {len(load.answers)} submits over 4 connections")

        # What is started now, while the file is broken, has what is in force.
        for pid in children(web)[:1] + (children(worker) if pool == "prefork" else []):
            os.kill(pid, signal.SIGKILL)
        for _ in range(20):
            setup.hang_up(group=True)
            time.sleep(0.05)
        assert web.popen.poll() is None
        installation.await_web()
        await_condition(lambda: len(re.findall(r"Booting worker", web.log)) == 3, what="the web worker is replaced")
        time.sleep(1)  # whom a late signal could end has ended by then
        assert setup.codes(NEW, "fresh") == {200}
        assert setup.codes(OLD) == {401}
        ids = [installation.submit("fresh", delay_s=0.2) for _ in range(20)]
        assert {installation.await_end(each, "fresh")["status"] for each in ids} == {"SUCCESS"}
        assert [process.popen.poll() for process in (web, worker)] == [None, None]
        assert len(re.findall(r"Booting worker", web.log)) == 3, "no worker was replaced but the killed one"
        assert "Restarting celery worker" not in worker.log
        assert "Traceback" not in web.log + worker.log
        assert not any(token in web.log + worker.log for token in (TOKEN, OLD, NEW))
        assert worker.stop() == 0


@pytest.mark.parametrize(("pool", "concurrency"), [("threads", 8), ("solo", 1)])
def test_a_service_that_is_taken_out_and_one_that_comes(
    server: RedisServer, target: Target, pool: str, concurrency: int
) -> None:
    text = "[defaults]\nmax_attempts = 1\n"
    services_toml = text + "[services.demo]\n"
    with Installation(server.url, target.url, services_toml=services_toml, web_concurrency=2) as installation:
        installation.web()
        worker = installation.worker(pool, concurrency)
        setup = Setup(installation, target)
        running = installation.submit("demo", delay_s=1.5)
        await_condition(lambda: setup.running("demo") == 1, what="it runs")

        with requests.Session() as session:
            session.headers["Authorization"] = f"Bearer {TOKEN}"
            setup.write(text + "[services.fresh]\n")
            setup.hang_up()
            worker.await_log("reloaded added=fresh removed=demo changed=- tokens=1")
            await_condition(lambda: setup.codes(TOKEN, "demo") == {404}, what="demo is served no longer")
            new = installation.submit("fresh")
            assert installation.await_end(new, "fresh")["status"] == "SUCCESS"

        setup.write(text + "[services.demo]\n[services.fresh]\n")
        setup.hang_up()
        await_condition(lambda: setup.codes(TOKEN, "demo") == {200}, what="demo is back")
        assert installation.await_end(running)["status"] == "SUCCESS", "it went on as it had begun"


@pytest.mark.parametrize("after_s", [0.3, 0.6, 0.9, 1.2])
def test_a_hangup_during_the_start_ends_nothing_and_is_not_lost(
    server: RedisServer, target: Target, after_s: float
) -> None:
    """Started as `make run` does it: with SIGHUP ignored until the program itself listens."""
    before = services(cap=1, token=OLD)
    with Installation(server.url, target.url, services_toml=before, web_concurrency=2) as installation:
        for name, command in (
            ("web", "gunicorn app:app"),
            ("worker", "celery -A app.celery_app worker --loglevel=info -Q celery,high_priority -c 2"),
        ):
            installation.start(name, ["sh", "-c", f"trap '' HUP; exec {command}"])
        setup = Setup(installation, target)
        time.sleep(after_s)
        setup.write(services(cap=1, token=NEW, also="fresh"))
        setup.hang_up(group=True)
        installation.await_web()
        installation.processes[1].await_log(" ready.")

        await_condition(lambda: setup.codes(OLD, tries=4) == {401}, timeout_s=3, what="the new file counts in the web")
        request_id = installation.submit("fresh")
        assert installation.await_end(request_id, "fresh")["status"] == "SUCCESS"
