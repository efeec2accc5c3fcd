"""A whole installation that can be broken in every part: two web replicas, two workers of each pool, a server that
keeps its whole history, a scriptable target, and TCP proxies on the three links between them. All are real processes;
one that dies is started again at once, as a supervisor does.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals
from typing import Any

from tests.chaos.history import History
from tests.support.installation import CELERY, TOKEN, Installation, Process, await_condition
from tests.support.proxy import Proxy
from tests.support.server import RedisServer, free_port
from tests.support.target_client import Target

LEASE_S = 5
GRACE_S = 2
MAX_RESULT_BYTES = 65_536
POOLS = {"gevent": 40, "threads": 8, "prefork": 2}  # requests at once in a worker of each
READY_S = 60

SERVICES = """
[defaults]
allow_unlisted = true
max_attempts = 10
retry_delay_s = 0.2
retry_delay_max_s = 1
timeout_s = 5
max_concurrency = 200
"""


@dataclass
class Member:
    """A process that has to run, and the one that does."""

    name: str
    pool: str  # "web", or the worker's pool
    command: list[str]
    env: dict[str, str]
    port: int = 0
    process: Process | None = None
    starts: int = 0
    past: list[Process] = field(default_factory=list)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def signal(self, number: Signals) -> None:
        """To its main process, as a process manager does."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def signal_all(self, number: Signals) -> None:
        """To its main process and all children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def is_ready(self) -> bool:
        assert self.process is not None
        if self.process.popen.poll() is not None:
            return False
        if self.pool != "web":
            return " ready." in self.process.log
        try:
            return get(self.port, "/healthz")[0] == 200
        except (OSError, http.client.HTTPException):
            return False


class Fleet:
    """Use as a context manager: it enters with everything ready, and leaves nothing running."""

    def __init__(
        self,
        *,
        services: str = "",
        pools: dict[str, int] = POOLS,
        workers_per_pool: int = 2,
        webs: int = 2,
        fsync: str = "everysec",
        module: str = "app",
        **settings: object,
    ) -> None:
        """*services*: sections of services.toml besides SERVICES, ``{target}`` being the target without a proxy.
        *module*: where ``app`` and ``celery_app`` are. *settings*: of the environment.
        """
        self._arguments = services, pools, workers_per_pool, webs, module, settings
        self.server = RedisServer(more=("auto-aof-rewrite-percentage 0", f"appendfsync {fsync}"))
        self.target = Target()
        self.members: list[Member] = []
        self.leaders: dict[int, int] = {}  # every process that was ever seen -> the main process it belongs to
        self._stack = contextlib.ExitStack()
        self._ending = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def __enter__(self) -> Fleet:
        with contextlib.ExitStack() as stack:
            services, pools, workers_per_pool, webs, module, settings = self._arguments
            self.server.start()
            stack.callback(self.server.stop)
            self.history = History(self.server.folder)
            stack.enter_context(self.target)
            self.web_server = stack.enter_context(Proxy("127.0.0.1", self.server.port))
            self.worker_server = stack.enter_context(Proxy("127.0.0.1", self.server.port))
            self.worker_target = stack.enter_context(Proxy("127.0.0.1", self.target.port))
            given: dict[str, object] = {
                "lease_s": LEASE_S,
                "sweep_s": 0.25,
                "stop_grace_s": GRACE_S,
                "max_result_bytes": MAX_RESULT_BYTES,
                "web_concurrency": 1,
                "services_toml": SERVICES + services.format(target=self.target.url),
            }
            installation = stack.enter_context(
                Installation(
                    self._through(self.worker_server),
                    f"http://127.0.0.1:{self.worker_target.port}",
                    **(given | settings),
                )
            )
            self.folder: Path = installation.folder
            for number in range(1, webs + 1):
                port = free_port()
                env = installation.env | {"PORT": str(port), "REDIS_URL": self._through(self.web_server)}
                self.members.append(Member(f"web{number}", "web", ["gunicorn", f"{module}:app"], env, port))
            for pool, concurrency in pools.items():
                for number in range(1, workers_per_pool + 1):
                    name = f"{pool}{number}"
                    command = [*CELERY, "-A", f"{module}:celery_app", "worker", "--loglevel=info"]
                    command += ["-Q", "celery,high_priority", "-P", pool, "-c", str(concurrency), "-n", f"{name}@%h"]
                    self.members.append(Member(name, pool, command, installation.env))
            stack.callback(self._end)
            self._keeper.start()
            self.await_ready()
            for member in self.members:  # one that can't start would be started for ever
                assert member.starts == 1, member.past[0].log[-3000:]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _through(self, proxy: Proxy) -> str:
        return self.server.url.replace(f":{self.server.port}/", f":{proxy.port}/")

    # -------------------------------------------------------------------------------------------------------- members
    @property
    def webs(self) -> list[Member]:
        return [member for member in self.members if member.pool == "web"]

    @property
    def workers(self) -> list[Member]:
        return [member for member in self.members if member.pool != "web"]

    def member(self, name: str) -> Member:
        return next(member for member in self.members if member.name == name)

    def pids(self, member: Member) -> set[int]:
        """Of its main process and all children that live now."""
        self._look()
        return {pid for pid, leader in list(self.leaders.items()) if leader == member.pid and _session(pid) == leader}

    def children(self, member: Member) -> list[int]:
        return sorted(self.pids(member) - {member.pid})

    def await_ready(self, *members: Member) -> None:
        for member in members or self.members:
            await_condition(lambda member=member: self._runs(member), timeout_s=READY_S, what=f"{member.name} runs")  # type: ignore[misc]

    @staticmethod
    def _runs(member: Member) -> bool:
        assert len(member.past) < 100, member.past[-1].log[-3000:]
        return member.process is not None and member.is_ready()

    def server_version(self) -> str:
        with self.server.client() as client:
            found: Any = client.info("server")
        name = found.get("server_name", "redis")
        return f"{name.capitalize()} {found.get(f'{name}_version') or found['redis_version']}"

    def logs(self) -> str:
        """The last lines of every process, for when something is wrong."""
        return "\n".join(f"== {m.name}\n{m.process.log[-1500:]}" for m in self.members if m.process)

    def _keep(self) -> None:
        while not self._ending.wait(0.05):
            for member in self.members:
                if member.process is None or member.process.popen.poll() is not None:
                    if member.process is not None:
                        member.past.append(member.process)
                    member.process = Process(member.name, member.command, member.env, self.folder)
                    member.starts += 1
            self._look()

    def _look(self) -> None:
        """Learn which processes there are; each main process leads a session."""
        mains = {member.pid for member in self.members if member.process is not None}
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) not in self.leaders:
                session = _session(int(entry))
                if session in mains:
                    self.leaders[int(entry)] = session

    def _end(self) -> None:
        self._ending.set()
        self._keeper.join()
        for member in self.members:
            for process in [*member.past, *([member.process] if member.process else [])]:
                process.kill()


def get(port: int, path: str) -> tuple[int, str]:
    """Status and body of what the web on *port* answers. Raises OSError, http.client.HTTPException."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def _session(pid: int) -> int:
    with contextlib.suppress(OSError):
        return os.getsid(pid)
    return -1


def wait_s(seconds: float, until: Callable[[], Any] = lambda: False) -> bool:
    """Let a fault last: return after *seconds*, or as soon as *until* holds; whether it does."""
    deadline = time.monotonic() + seconds
    while not (found := bool(until())) and time.monotonic() < deadline:
        time.sleep(min(0.02, max(0.0, deadline - time.monotonic())))
    return found
