"""Below this nobody gets here: a Flask view that does nothing, the submit script alone, the target called directly."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable

import requests
import urllib3

from benchmarks import client
from benchmarks.depth import Queue
from benchmarks.fast_target import FastTarget
from benchmarks.meter import Meter, cpu_us
from benchmarks.parts.part import Column, Part, Row, Sample, Sizes, Table
from eas_queue.store.client import Client
from eas_queue.store.store import Store
from tests.support.installation import Installation, await_condition
from tests.support.server import RedisServer

GUNICORN = "--worker-connections 20000 --keep-alive 90 --backlog 4096"  # as gunicorn.conf.py
ROWS = (
    Row("empty view, gevent 2", "gunicorn gevent, 2 processes, settings of gunicorn.conf.py"),
    Row("empty view, sync 4", "gunicorn sync, 4 processes"),
    Row("submit script", "the server alone; submit.lua through one connection, 500 in a pipeline"),
    Row("submit script, single", "the same, one at a time"),
    Row("target by requests", "1 thread, requests.Session, one call after the other"),
    Row("target by urllib3", "1 thread, urllib3.PoolManager, one call after the other"),
)


def _empty_view(options: str, sizes: Sizes) -> Sample:
    with Installation("redis://127.0.0.1:9/0", "http://127.0.0.1:9") as installation:
        command = f"gunicorn -c /dev/null -b 127.0.0.1:{installation.port} {options} benchmarks.floor_app:app"
        web = installation.start("floor", shlex.split(command))

        def answers() -> bool:
            with contextlib.suppress(OSError):
                return installation.session.get(installation.url, timeout=2).status_code == 405
            return False

        await_condition(answers, timeout_s=20, what="the empty view answers")
        before = cpu_us([web.pid])
        got = client.wrk(installation.url, {}, connections=16, seconds=sizes.enqueue_s)
        return {"rate": got["rate"], "cpu_us": (cpu_us([web.pid]) - before) / got["requests"]}


def _script(sizes: Sizes, *, single: bool) -> Sample:
    server = RedisServer(maxmemory_bytes=4 * 2**30).start()
    try:
        queue = Queue(Store(Client(server.url, command_timeout_s=30)), "floor")
        queue.submit()
        with server.client() as connection:
            assert server._process is not None
            meter, began = Meter(connection, {"server": [server._process.pid]}), time.perf_counter()
            if single:
                for _ in range(sizes.floor):
                    queue.submit()
            else:
                queue.fill(sizes.floor)
            took, used = time.perf_counter() - began, meter.per(sizes.floor)
        return {"rate": sizes.floor / took, "cpu_us": used["server_us"], "script_us": used["script_us"]}
    finally:
        server.stop()


def _direct(call: Callable[[str], int], count: int) -> Sample:
    with FastTarget() as target:
        call(target.url)
        began, cpu = time.perf_counter(), time.process_time()
        for _ in range(count):
            assert call(target.url) == 200
        took, used = time.perf_counter() - began, time.process_time() - cpu
        return {"rate": count / took, "cpu_us": used / count * 1e6}


def measure(row: str, sizes: Sizes) -> Sample:
    if row.startswith("empty view"):
        return _empty_view(f"-k gevent -w 2 {GUNICORN}" if "gevent" in row else "-w 4", sizes)
    if row.startswith("submit script"):
        return _script(sizes, single="single" in row)
    headers = {"Content-Type": "application/json"}
    if row == "target by requests":
        with requests.Session() as session:
            session.trust_env = False
            return _direct(
                lambda url: session.post(url, data=client.BODY, headers=headers, timeout=10).status_code, sizes.floor
            )
    with urllib3.PoolManager() as pool:
        return _direct(lambda url: pool.request("POST", url, body=client.BODY, headers=headers).status, sizes.floor)


PART = Part(
    "floors",
    "Floors",
    ROWS,
    (
        Table(
            "",
            (
                Column("rate", "a second"),
                Column("cpu_us", "CPU us"),
                Column("script_us", "of it in the script, us", "{:.1f}"),
            ),
        ),
    ),
    measure,
)
