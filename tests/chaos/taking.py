"""Takers that are killed while they work: `python -m tests.chaos takers`, and a short one in `make test`.

They are real processes that know nothing but the API. Tasks come back when the time that their taker asked for is over.
Their logs say who was given what; the account holds that against what the status of each task says, what the queue
counts, and every step that the server's append-only file has kept.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.history import History
from tests.chaos.taker import __file__ as PROGRAM
from tests.support.installation import TOKEN, Installation, await_condition
from tests.support.server import RedisServer

QUEUE = "work"
LEVELS = (0, 1)
MAX_ATTEMPTS = 4  # of the service, which a take with process_max_retries -1 is not bound by
PROCESS_TIMEOUT_S = 1
WAIT_S = 0.5  # that a take waits for a first task
PAUSE_S = (0.02, 0.12)  # between two kills
AT_ONCE = 4  # tasks a take
WORK_MS = (5, 60)
END_S = 60.0  # for all tasks to end, once nobody is killed any more

SERVICES = f"""
[services.{QUEUE}]
mode = "pull"
max_attempts = {MAX_ATTEMPTS}
max_concurrency = 100000
"""


@dataclass
class Account:
    """What is left to say of a run. *problems*: the first of what was promised and is not so."""

    takers: int
    tasks: int
    kills: int = 0
    completed: int = 0
    deliveries: int = 0  # as the tasks' statuses count them
    unread: int = 0  # of them: no taker has noted it, because it was killed before it could
    most: int = 0  # of one task
    late: int = 0  # completes of a task that had ended
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def expect(self, is_so: object, text: str) -> None:
        if not is_so and len(self.problems) < 8:
            self.problems.append(text)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Log:
    """What one taker has noted."""

    name: str
    got: list[tuple[str, str]] = field(default_factory=list)  # (task id, status)
    completes: list[str] = field(default_factory=list)
    completed: list[str] = field(default_factory=list)
    broke_off: bool = False  # in a take whose answer it has not noted

    @classmethod
    def read(cls, path: Path) -> Log:
        found = cls(path.stem)
        for line in path.read_text().splitlines():
            word, *rest = line.split()
            if word in ("asks", "has"):
                found.broke_off = word == "asks"
            elif word == "got":
                found.got.append((rest[0], rest[1]))
            else:
                getattr(found, word).append(rest[0])
        return found


class Takers:
    """So many taker processes; one that dies is replaced at once. Use as a context manager."""

    def __init__(self, port: int, folder: Path, count: int) -> None:
        self._port, self._folder, self._count = port, folder, count
        self._lock = threading.Lock()
        self._running: list[subprocess.Popen[bytes]] = []
        self._made = 0
        self._ending = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self.ended: list[int] = []  # the exit code of each that has ended before it was told to

    def __enter__(self) -> Takers:
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._keeper.join()
        for process in self._running:
            process.kill()
            process.wait()

    def kill_one(self) -> None:
        """SIGKILL to any of them."""
        with self._lock:
            running = [process for process in self._running if process.poll() is None]
            if running:
                random.choice(running).kill()

    def logs(self) -> list[Log]:
        return [Log.read(path) for path in sorted(self._folder.glob("taker-*.log"))]

    def _keep(self) -> None:
        while not self._ending.wait(0.01):
            with self._lock:
                self.ended += [code for process in self._running if (code := process.poll()) is not None]
                self._running = [process for process in self._running if process.returncode is None]
                while len(self._running) < self._count:
                    self._start()

    def _start(self) -> None:
        self._made += 1
        name = f"taker-{self._made}"
        take = {
            "queues": [f"{QUEUE}:{level}" for level in LEVELS],
            "size": AT_ONCE,
            "strategy": random.choice(("fifo", "active_passive", "round_robin")),
            "process_timeout": PROCESS_TIMEOUT_S,
            "process_max_retries": -1,
            "wait": WAIT_S,
            "worker": {"id": name},
        }
        log = str(self._folder / f"{name}.log")
        given = {"port": self._port, "log": log, "name": name, "work_ms": WORK_MS, "take": take}
        env = {"TAKER": json.dumps(given), "TAKER_TOKEN": TOKEN, "PATH": os.environ["PATH"]}
        with (self._folder / "errors").open("ab") as errors:
            self._running.append(subprocess.Popen([sys.executable, "-I", "-S", PROGRAM], env=env, stderr=errors))


class Site:
    """An installation with one pull service, its server keeping its whole history."""

    def __init__(self, installation: Installation, server: RedisServer) -> None:
        self.installation, self.server = installation, server
        self.folder = installation.folder

    def ask(self, method: str, path: str, content: object = None) -> Any:
        answer = self.installation.session.request(method, f"{self.installation.url}{path}", json=content, timeout=10)
        assert answer.status_code == 200, (path, answer.status_code, answer.text)
        return answer.json()

    def put(self, number: int, kills: int) -> str:
        """The id of a new task. One of five has high priority."""
        data = {"n": number, "kills": kills} if kills else {"n": number}
        task = {"queue": QUEUE, "level": 0 if number % 5 == 0 else 1, "endpoint": "/v1/work", "data": data}
        task_id: str = self.ask("POST", "/v1/queue/put", task | {"response_mode": "callback"})["data"]
        return task_id

    def counts(self) -> list[int]:
        """Of both levels together: put, given out, completed."""
        rows = [self.ask("GET", f"/v1/queue/{QUEUE}:{level}/stats") for level in LEVELS]
        return [sum(row[f"total_{name}_cnt"] for row in rows) for name in ("put", "loaded", "completed")]

    def attempts(self, task_id: str) -> int:
        found: int = self.ask("GET", f"/api/predict/{QUEUE}/requests/{request_id(task_id)}")["attempts"]
        return found


def request_id(task_id: str) -> str:
    """The last two parts of a task's id are its request's."""
    return str(uuid.UUID("".join(task_id.split("-")[-2:])))


@contextlib.contextmanager
def site() -> Iterator[Site]:
    server = RedisServer(more=("auto-aof-rewrite-percentage 0",)).start()
    try:
        with Installation(server.url, "http://127.0.0.1:9", services_toml=SERVICES, sweep_s=0.25) as installation:
            installation.web()
            yield Site(installation, server)
    finally:
        server.stop()


def run(place: Site, *, takers: int, tasks: int, kills: int, deadly: Sequence[int] = ()) -> Account:
    """Put *tasks*, let *takers* work on them and kill some of them, one after the other; the account of it.

    *deadly*: tasks that kill their taker, so many times each.
    """
    account = Account(takers, tasks, kills)
    deadly_ones = dict(zip(range(tasks - 1, 0, -1), deadly, strict=False))
    put = [place.put(number, deadly_ones.get(number, 0)) for number in range(tasks)]
    began = time.monotonic()
    with Takers(place.installation.port, place.folder, takers) as working:
        for _ in range(kills):
            time.sleep(random.uniform(*PAUSE_S))
            working.kill_one()
        await_condition(
            lambda: place.counts()[2] >= tasks,
            timeout_s=END_S,
            what=f"all tasks are completed; {(place.folder / 'errors').read_text()[-2000:]}",
        )
        account.seconds = round(time.monotonic() - began, 1)
        ended = collections.Counter(working.ended)
    account.expect(set(ended) <= {-signal.SIGKILL}, f"takers ended by themselves: {ended}")
    account.kills = ended[-signal.SIGKILL]
    attempts = [place.attempts(task_id) for task_id in put]
    _add_up(account, place, dict(zip(put, attempts, strict=True)), deadly_ones, working.logs())
    _replay(account, place, dict(zip(put, attempts, strict=True)))
    return account


def _add_up(account: Account, place: Site, attempts: dict[str, int], deadly: dict[int, int], logs: list[Log]) -> None:
    """The tasks' statuses and the queue's counts against what takers have noted."""
    put = list(attempts)
    seen = collections.Counter(task_id for log in logs for task_id, _ in log.got)
    new = collections.Counter(task_id for log in logs for task_id, status in log.got if status == "waiting")
    given = {(task_id, log.name) for log in logs for task_id in log.completes}
    account.deliveries, account.most = sum(attempts.values()), max(attempts.values())
    account.unread = account.deliveries - seen.total()
    account.late = sum(len(log.completes) for log in logs) - len(put)
    account.expect(seen.keys() <= set(put), f"takers got tasks that nobody put: {seen.keys() - set(put)}")
    for number, task_id in enumerate(put):
        found = place.ask("GET", f"/v1/queue/{task_id}")
        account.completed += found["status"] == "succeeded"
        account.expect(found["status"] == "succeeded", f"{task_id} is {found['status']}")
        body = (found.get("result") or {}).get("body") or {}
        account.expect(
            (task_id, body.get("by")) in given and body == {"by": body["by"], "n": number},
            f"{task_id} has the result {found.get('result')}, which none of its takers gave",
        )
        many, noted = attempts[task_id], seen[task_id]
        account.expect(noted <= many, f"{task_id} was given to {noted} takers, and has {many} attempts")
        account.expect(new[task_id] <= 1, f"{task_id} was new to {new[task_id]} takers")
        account.expect(noted < many or new[task_id], f"{task_id} was new to nobody")
        wanted = deadly.get(number, 0) + 1
        account.expect(many >= wanted, f"{task_id} has killed its taker {wanted - 1} times, and has {many} attempts")
    # A taker that was killed in a take may have been given as much as one take gives; nobody else has missed anything.
    broke_off = sum(log.broke_off for log in logs)
    account.expect(
        account.unread <= broke_off * AT_ONCE,
        f"{account.unread} deliveries were noted by no taker, and {broke_off} takers were killed in a take",
    )
    counts, wanted_counts = place.counts(), [len(put), account.deliveries, len(put)]
    account.expect(counts == wanted_counts, f"put, given out and completed are {counts}, and should be {wanted_counts}")


def _replay(account: Account, place: Site, attempts: dict[str, int]) -> None:
    """Each step that the server kept: it follows the rules, and a task went back only when its time was over."""
    place.server.await_on_disk()
    history = History(place.server.folder, pulled=True).read()
    for breach in history.breaches:
        account.expect(False, f"{breach.kind}: {breach.what}")
    for task_id, many in attempts.items():
        request = history.requests[request_id(task_id)]
        account.expect(request.state == "succeeded", f"{task_id} was kept as {request.state}")
        # The last one may have been too late as well, and completed the task before anybody else had it.
        *lost, last = [claim.closed for claim in request.claims]
        account.expect(
            lost == ["TakerLost"] * (many - 1) and last in ("end", "TakerLost"),
            f"{task_id} has {many} attempts, which ended by {[*lost, last]}",
        )
