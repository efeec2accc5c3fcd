"""The two that are compared, eas_queue and the plain app, each with a server of its own and real processes.

Both get the same server configuration (append-only file, fsync each second), the same target and the same clients. Ours
runs as its Procfile and gunicorn.conf.py say, with a token; nothing in it exists for the benchmark.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.fast_target import FastTarget
from benchmarks.meter import Meter
from eas_queue.store import keys
from tests.support.installation import ROOT, TOKEN, Installation, Process, await_condition
from tests.support.server import RedisServer

SERVICE = "demo"
PLAIN_FOLDER = Path(__file__).parent / "plain_app"
LOOK_S = 0.02  # how late the end of all requests is seen at most
BATCH = 1000
TUNED = {"result_backend_thread_safe": True, "task_ignore_result": True}
TUNED_WORKER = "--loglevel=warning --without-gossip --without-mingle --without-heartbeat"


class Void(Exception):
    """The run does not count: what was promised did not happen."""


class Side:
    """One installation and its server; a context manager that leaves nothing running."""

    path = f"/api/predict/{SERVICE}"

    def __init__(self, target: FastTarget, **settings: object) -> None:
        self.target = target
        self.webs: list[Process] = []
        self.workers: list[Process] = []
        self.headers = {"Content-Type": "application/json"}
        self._stack = contextlib.ExitStack()
        self.server = RedisServer(maxmemory_bytes=4 * 2**30).start()
        self._stack.callback(self.server.stop)
        self.redis = self._stack.enter_context(self.server.client())
        self.installation = self._stack.enter_context(Installation(self.server.url, target.url, **settings))
        self.port = self.installation.port

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def meter(self) -> Meter:
        assert self.server._process is not None
        pids = {"web": [p.pid for p in self.webs], "worker": [p.pid for p in self.workers]}
        return Meter(self.redis, pids | {"server": [self.server._process.pid], "target": [self.target.pid]})

    def start_web(self, options: str) -> None:
        raise NotImplementedError

    def spawn_workers(self, options: str, count: int = 1) -> None:
        """Start *count* worker processes, with the children that they make, at once."""
        raise NotImplementedError

    def await_workers(self) -> None:
        """Return when all of them ask for messages."""
        await_condition(self._all_have_asked, timeout_s=30, what="the workers ask for messages")

    def _all_have_asked(self) -> bool:
        clients: Any = self.redis.client_list()
        asking = [client for client in clients if client["cmd"] == "brpop"]
        return len(asking) >= len(self.workers)

    def await_first_call(self, timeout_s: float = 30) -> None:
        """Return within LOOK_S of the first call at the target: the workers have started."""
        await_condition(lambda: self.target.stats()["calls"], timeout_s=timeout_s, what="a call at the target")

    def await_ends(self, count: int, *, timeout_s: float) -> float:
        """The unix time at which *count* results were stored, at most LOOK_S late. Raises Void."""
        deadline = time.monotonic() + timeout_s
        while self._ended() < count:
            if time.monotonic() > deadline:
                raise Void(f"{self._ended()} of {count} had ended after {timeout_s:g} s")
            time.sleep(LOOK_S)
        return self._ended_at()

    def verify(self, made: Iterable[str]) -> None:
        """Every one of *made* has ended in success and was at the target once. Raises Void."""
        found: dict[str, int] = {}
        ids = list(made)
        for i in range(0, len(ids), BATCH):
            for state in self._states(ids[i : i + BATCH]):
                found[state] = found.get(state, 0) + 1
        calls = self.target.stats()["calls"]
        if found != {"SUCCESS": len(ids)} or calls != len(ids) or len(set(ids)) != len(ids):
            raise Void(f"of {len(ids)} submitted: {found or 'nothing'}, {calls} calls at the target")

    def submitted(self) -> int:
        """How many requests are stored, whether or not their client had an answer."""
        raise NotImplementedError

    def _ended(self) -> int:
        raise NotImplementedError

    def _ended_at(self) -> float:
        return time.time()

    def _states(self, ids: list[str]) -> Iterable[str]:
        raise NotImplementedError


class Ours(Side):
    """eas_queue with its default settings, but for those given."""

    def __init__(self, target: FastTarget, **settings: object) -> None:
        super().__init__(target, **settings)
        self.headers["Authorization"] = f"Bearer {TOKEN}"

    def start_web(self, options: str) -> None:
        self.webs.append(self.installation.web(*shlex.split(options)))

    def spawn_workers(self, options: str, count: int = 1) -> None:
        """The Procfile's worker; *options* come last and win."""
        lines = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
        command = shlex.split(lines["worker"].replace("${WORKER_CONCURRENCY:-1000}", "1000"))
        for number in range(count):
            options_now = ["-n", f"w{number}@%h", *shlex.split(options)]
            self.workers.append(self.installation.start(f"w{number}", [*command, *options_now]))

    def submitted(self) -> int:
        return self._last_index("input")

    def _ended(self) -> int:
        return self._last_index("sink")

    def _last_index(self, queue: str) -> int:
        found: Any = self.redis.hget(keys.service_key(SERVICE, "seq"), queue)
        return int(found or 0)

    def _states(self, ids: list[str]) -> Iterable[str]:
        pipeline: Any = self.redis.pipeline(transaction=False)
        for request_id in ids:
            pipeline.hmget(keys.record_key(SERVICE, request_id), "state", "result_bytes")
        for state, size in pipeline.execute():
            yield "SUCCESS" if state == b"succeeded" and int(size or 0) > 0 else f"{state!r} with {size!r} bytes"


class Plain(Side):
    """The plain app. *tuned*: with TUNED settings; *results*: whether Celery keeps them."""

    def __init__(self, target: FastTarget, *, tuned: bool = False, results: bool = True) -> None:
        super().__init__(target)
        self.tuned, self.results = tuned, results
        celery = TUNED | {"task_ignore_result": not results} if tuned else {}
        self.env = {name: value for name, value in self.installation.env.items() if name != "PYTHONPATH"}
        self.env["CELERY_SETTINGS"] = json.dumps(celery)

    def _start(self, name: str, command: list[str]) -> Process:
        process = Process(name, command, self.env, self.installation.folder, PLAIN_FOLDER)
        self.installation.processes.append(process)
        return process

    def start_web(self, options: str) -> None:
        command = f"gunicorn {options} --no-control-socket -b 127.0.0.1:{self.port} app:app"
        self.webs.append(self._start("web", shlex.split(command)))

        def answers() -> bool:
            with contextlib.suppress(OSError):
                return self.installation.session.get(self.installation.url, timeout=2).status_code == 404
            return False

        await_condition(answers, timeout_s=20, what="the plain web answers")

    def spawn_workers(self, options: str, count: int = 1) -> None:
        log = TUNED_WORKER if self.tuned else "--loglevel=info"
        for number in range(count):
            command = f"celery -A app.celery_app worker {log} -Q celery,high_priority -n w{number}@%h {options}"
            self.workers.append(self._start(f"w{number}", shlex.split(command)))

    def submitted(self) -> int:
        return sum(int(self.redis.llen(name)) for name in (keys.QUEUE_NORMAL, keys.QUEUE_HIGH))

    def _ended(self) -> int:
        """Results that were stored, as the server counts them; without any, answers of the target."""
        if not self.results:
            return self.target.stats()["ended"]
        stats: Any = self.redis.info("commandstats")
        return int(stats.get("cmdstat_setex", {"calls": 0})["calls"])

    def _ended_at(self) -> float:
        return time.time() if self.results else self.target.stats()["last_answer_at"]

    def _states(self, ids: list[str]) -> Iterable[str]:
        if not self.results:
            return ["SUCCESS"] * len(ids)  # nobody can know; the calls at the target are counted
        found: Any = self.redis.mget([keys.celery_result_key(task_id) for task_id in ids])
        return [json.loads(value)["status"] if value else "lost" for value in found]
