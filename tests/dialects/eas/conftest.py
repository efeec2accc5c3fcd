"""Two installations for all tests of this dialect: a common one, and a small one without tokens that may be broken."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from eas_queue.store import keys
from tests.support.eas_client import Queue
from tests.support.front import LIMITED_TOKEN, MAX_PAYLOAD_BYTES, ROLE_TOKENS, Front, digest
from tests.support.installation import Installation, Process
from tests.support.server import RedisServer
from tests.support.target_client import Target

MAX_WAIT_S = 3
KINDS = {
    "push": (60, ""),
    "pull": (2500, 'mode = "pull"'),
    "brief": (20, 'mode = "pull", max_attempts = 2'),  # delivers twice
    "small": (10, 'mode = "pull", max_queue_length = 2, max_sink_length = 2'),
    "holding": (10, 'mode = "pull", max_sink_length = 1, sink_full = "hold"'),
    "held": (5, 'max_sink_length = 1, sink_full = "hold"'),
    "single": (10, "max_concurrency = 1"),
    "wide": (5, "max_concurrency = 7"),
}
Services = Callable[[str], str]


@pytest.fixture(scope="package")
def front(shared_target: Target) -> Iterator[Front]:
    """Two web processes and a worker; only listed services, some of each kind."""
    services_toml = "[defaults]\nallow_unlisted = false\nretry_delay_s = 0\n[services]\ndemo = {}\nroot = {}\n"
    services_toml += '"test_group.qservice" = {}\n'
    for kind, (count, its_settings) in KINDS.items():
        services_toml += "".join(f"{kind}-{i} = {{ {its_settings} }}\n" for i in range(count))
    services_toml += f'[tokens]\n"{digest(LIMITED_TOKEN)}" = {{ services = ["demo"] }}\n'
    for role, token in ROLE_TOKENS.items():
        services_toml += f'"{digest(token)}" = {{ roles = ["{role}"] }}\n'
    server = RedisServer().start()
    settings = {
        "max_payload_bytes": MAX_PAYLOAD_BYTES,
        "max_wait_s": MAX_WAIT_S,
        "sweep_s": 0.1,
        "default_service": "root",
    }
    try:
        with Installation(server.url, shared_target.url, services_toml=services_toml, **settings) as installation:
            installation.web("-w", "2", "-b", f"127.0.0.1:{installation.port}")
            installation.worker("gevent", 50)
            client = Front(installation, shared_target, server)
            yield client
            client.close()
    finally:
        server.stop()


@pytest.fixture(scope="package")
def _numbers() -> dict[str, Iterator[int]]:
    return {kind: iter(range(count)) for kind, (count, _) in KINDS.items()}


@pytest.fixture
def fresh(_numbers: dict[str, Iterator[int]]) -> Services:
    """A service of a kind that no other test uses."""
    return lambda kind: f"{kind}-{next(_numbers[kind])}"


@pytest.fixture
def queue_of(front: Front) -> Callable[..., Queue]:
    """The input of a service."""
    return lambda service, **options: Queue(front.port, f"/api/predict/{service}", **options)


@pytest.fixture
def input_(fresh: Services, queue_of: Callable[..., Queue]) -> Queue:
    """The input of a pull service: nothing works on it but watchers."""
    return queue_of(fresh("pull"))


@pytest.fixture
def sink(input_: Queue) -> Queue:
    return input_.sink


@pytest.fixture
def rear(input_: Queue) -> Queue:
    return input_.rear


@pytest.fixture
def sink_rear(input_: Queue) -> Queue:
    return input_.sink.rear


FOUR = ("input_", "sink", "rear", "sink_rear")


@pytest.fixture(params=FOUR)
def each(request: pytest.FixtureRequest) -> Queue:
    """Each of the four queues of a pull service."""
    found: Queue = request.getfixturevalue(request.param)
    return found


class Lone:
    """One web process without tokens, and a Redis of its own; both may be stopped and killed."""

    def __init__(self, installation: Installation, server: RedisServer, web: Process) -> None:
        self.installation, self.server, self.web = installation, server, web
        self.port = installation.port
        self._names = itertools.count()

    def queue(self, service: str = "", **options: object) -> Queue:
        """The input of a new service."""
        name = service or f"lone-{next(self._names)}"
        return Queue(self.port, f"/api/predict/{name}", **{"authorization": "", **options})  # type: ignore[arg-type]

    @property
    def process(self) -> int:
        """The one process that serves."""
        [pid] = self.processes
        return pid

    @property
    def processes(self) -> list[int]:
        with open(f"/proc/{self.web.pid}/task/{self.web.pid}/children") as children:
            return [int(pid) for pid in children.read().split()]

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The web does nothing meanwhile; connections to it are made by the system."""
        process = self.process
        os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(process, signal.SIGCONT)

    def pass_time(self, ms: int) -> None:
        """For the scripts, this much time goes by."""
        with self.server.client() as client:
            client.hincrby(keys.SYS, "skew_ms", ms)


@pytest.fixture(scope="package")
def lone(shared_target: Target) -> Iterator[Lone]:
    services_toml = '[defaults]\nallow_unlisted = true\nmode = "pull"\n'
    server = RedisServer().start()
    settings = {"auth": "off", "max_payload_bytes": 2**21, "max_wait_s": 300, "sweep_s": 0.1}
    try:
        with Installation(server.url, shared_target.url, services_toml=services_toml, **settings) as installation:
            yield Lone(installation, server, installation.web("-w", "1"))
    finally:
        server.stop()
