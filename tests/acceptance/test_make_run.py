"""`make run` and the Procfile as people use them: real processes, started, watched, killed and stopped.

They run in a copy of the tree, so that a developer's own .env, services.toml and .run have no part in it, and with this
interpreter's packages instead of a new environment.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from eas_queue import embedded, ready
from tests.support.installation import ROOT, TOKEN, Installation, await_condition
from tests.support.server import free_port

BODY = {"text": "A lovely, friendly hotel."}
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone would contain, with changes that are not committed yet."""
    folder = tmp_path_factory.mktemp("tree")
    ignored = (ROOT / ".gitignore").read_text().split()
    shutil.copytree(
        ROOT, folder, ignore=shutil.ignore_patterns(".git", *(name.rstrip("/") for name in ignored)), dirs_exist_ok=True
    )
    return folder


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return not Path("/proc/self").exists()


class Run:
    """One `make run` with a folder and ports of its own; start() may be called again after it has ended."""

    def __init__(self, tree: Path, folder: Path, **settings: object) -> None:
        self.tree, self.folder = tree, folder
        self.run_dir = folder / "run"
        self.ports = {name: free_port() for name in ("PORT", "FLOWER_PORT", "EXAMPLE_TARGET_PORT")}
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        self.env = kept | {name: str(port) for name, port in self.ports.items()} | {"RUN_DIR": str(self.run_dir)}
        self.env |= {name.upper(): str(value) for name, value in settings.items()}
        self.url = f"http://127.0.0.1:{self.ports['PORT']}"
        self.flower_url = f"http://127.0.0.1:{self.ports['FLOWER_PORT']}"
        self.popen: subprocess.Popen[bytes] | None = None
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Connection"] = "close"  # an idle connection would delay the web's stop

    def start(self, terminal: int | None = None) -> Run:
        """In a process group of its own, as a shell starts a job; with *terminal* as its terminal."""

        def take_terminal() -> None:
            if terminal is not None:
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        with (self.folder / "output").open("wb") as output:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "eas_queue.run"],
                cwd=self.tree,
                env=self.env,
                stdin=subprocess.DEVNULL if terminal is None else terminal,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=take_terminal,
            )
        return self

    def is_running(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def await_ready(self) -> Run:
        def is_ready() -> bool:
            assert self.popen is not None
            assert self.popen.poll() is None, self.output
            return "Ctrl-C stops all" in self.output

        await_condition(is_ready, timeout_s=60, what="the banner appears")
        self.session.headers["Authorization"] = f"Bearer {self.token}"
        return self

    def signal_and_wait(self, number: signal.Signals) -> int:
        assert self.popen is not None
        os.killpg(self.popen.pid, number)  # programs have groups of their own, so this is the supervisor only
        return self.popen.wait(40)

    def end(self) -> None:
        self.session.close()
        if self.is_running():
            self.signal_and_wait(signal.SIGTERM)
        for pid in self.pids():
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text()

    @property
    def token(self) -> str:
        return (self.run_dir / "token").read_text().strip()

    def log(self, name: str) -> str:
        path = self.run_dir / "log" / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def pid(self, name: str) -> int:
        """Of the latest start of this program."""
        return int(re.findall(rf"spawned: '{name}' with pid (\d+)", self.log("supervisord"))[-1])

    def pids(self) -> set[int]:
        """Of all that was ever started, the web's children too."""
        found = re.findall(r"spawned: '\w+' with pid (\d+)", self.log("supervisord"))
        return {int(pid) for pid in found + re.findall(r"Booting worker with pid: (\d+)", self.log("web"))}

    def post(self, query: str = "", **headers: str) -> requests.Response:
        url = f"{self.url}/api/predict/sentiment{query}"
        return self.session.post(url, json=BODY, headers=headers, timeout=20)

    def works(self) -> bool:
        """Whether a request goes all the way through."""
        try:
            answer = self.post(Prefer="wait=5")
        except requests.RequestException:
            return False
        return answer.status_code == 200 and '"SUCCESS"' in answer.text

    def status(self, request_id: str) -> dict[str, Any]:
        url = f"{self.url}/api/predict/sentiment/sink"
        content: dict[str, Any] = self.session.get(url, params={"request_id": request_id}, timeout=10).json()
        return content


@pytest.fixture(scope="module")
def run(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One run that the tests of this file share; each leaves it working."""
    made = Run(tree, tmp_path_factory.mktemp("run")).start()
    try:
        yield made.await_ready()
    finally:
        made.end()


@pytest.fixture
def another(tree: Path, tmp_path: Path) -> Iterator[Run]:
    """A run of the test's own beside the shared one, told apart by environment alone; not started yet."""
    made = Run(tree, tmp_path, stop_grace_s=1, web_concurrency=1)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture(scope="module")
def second(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The same for tests that go on where another one has left it."""
    made = Run(tree, tmp_path_factory.mktemp("second"), stop_grace_s=1, web_concurrency=1)
    try:
        yield made
    finally:
        made.end()


def pasted(run: Run, block: int) -> str:
    """The output of the *block*th group of lines that the banner shows to paste."""
    blocks = re.findall(r"(?:^  (?:id=|curl|  -H).*\n)+", run.output, re.MULTILINE)
    assert len(blocks) == 2, run.output
    shell = subprocess.run(["bash", "-ec", blocks[block]], env=run.env, capture_output=True, text=True, timeout=30)
    assert shell.returncode == 0, shell.stderr
    return shell.stdout


# -------------------------------------------------------------------------------------------------------- the start
def test_it_is_ready_within_30_s_and_says_where_everything_is(run: Run) -> None:
    assert run.url in run.output
    assert run.flower_url in run.output
    assert run.token in run.output
    assert re.fullmatch(r"tml-[0-9a-f]{32}", run.token)
    assert "Not ready" not in run.output


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_lines_it_prints_work_when_pasted(run: Run) -> None:
    waited = json.loads(pasted(run, 0))
    looked_up = json.loads(pasted(run, 1))

    assert waited["status"] == "SUCCESS"
    assert waited["result"]["body"]["label"] == "pos"
    assert looked_up["status"] in ("PENDING", "STARTED", "SUCCESS")


def test_what_it_keeps_can_be_read_by_its_owner_only(run: Run) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in [run.run_dir, *run.run_dir.rglob("*")]}

    assert {name for name, mode in modes.items() if mode & 0o077} == set()
    assert {"token", "webhook.secret", "redis.conf", "redis.url", "lock", "web.log", "webhooks.log"} <= set(modes)


@on_linux
def test_no_command_line_shows_a_secret(run: Run) -> None:
    redis_password = re.findall(r"://:(\w+)@", (run.run_dir / "redis.url").read_text())[0]
    shown = "".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in run.pids() if is_alive(pid))

    assert "flower" in shown
    assert run.token not in shown
    assert (run.run_dir / "webhook.secret").read_text().strip() not in shown
    assert redis_password not in shown


def test_flower_is_closed_without_the_password_and_knows_worker_and_queues_with_it(run: Run) -> None:
    def get(path: str, *login: str) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(run.flower_url + path, auth=login or None, timeout=10)  # type: ignore[arg-type]

    pages = ["/", "/workers", "/tasks", "/tasks/datatable", "/broker", "/api/workers", "/api/tasks", "/metrics"]

    def queues() -> set[str]:
        workers = get("/api/workers", "admin", run.token).json().values()
        return {queue["name"] for worker in workers for queue in worker.get("active_queues", [])}

    assert {get(path).status_code for path in pages} == {401}
    assert {get(path, "admin", "wrong").status_code for path in pages} == {401}
    assert get("/tasks", "admin", run.token).status_code == 200
    await_condition(lambda: queues() == {"celery", "high_priority", "webhooks"}, what="Flower knows all queues")
    request_id = run.post(Prefer="wait=10").json()["request_id"]
    await_condition(lambda: request_id in get("/api/tasks", "admin", run.token).text, what="Flower lists the request")


# -------------------------------------------------------------------------------------------------------- while it runs
@pytest.mark.parametrize("name", ["web", "worker", "redis", "target", "flower"])
def test_what_is_killed_comes_back(run: Run, name: str) -> None:
    killed = run.pid(name)
    os.kill(killed, signal.SIGKILL)

    await_condition(lambda: run.pid(name) != killed, timeout_s=15, what=f"{name} is started again")
    await_condition(run.works, timeout_s=30, what=f"requests go through after {name} was killed")


def test_a_hangup_without_a_terminal_reads_the_settings_again_and_restarts_nothing(run: Run) -> None:
    assert run.popen is not None
    before = {name: run.pid(name) for name in ("web", "worker", "redis")}

    os.kill(run.popen.pid, signal.SIGHUP)

    await_condition(lambda: "Services and tokens are read again" in run.output, what="it says so")
    await_condition(lambda: "reloaded added=" in run.log("web"), what="the web did")
    await_condition(lambda: "reloaded added=" in run.log("worker"), what="the worker did")
    assert {name: run.pid(name) for name in before} == before
    assert run.works()


def test_a_second_start_in_the_same_folder_is_refused(run: Run) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "eas_queue.run"], cwd=run.tree, env=run.env, capture_output=True, text=True, timeout=20
    )

    assert second.returncode != 0
    assert run.popen is not None
    assert f"it runs already in {run.run_dir} (process {run.popen.pid})" in second.stderr
    assert "RUN_DIR=.run2 PORT=" in second.stderr
    assert run.works()


@pytest.mark.parametrize("name", ["PORT", "FLOWER_PORT", "EXAMPLE_TARGET_PORT"])
def test_a_port_that_is_taken_is_named(run: Run, another: Run, name: str) -> None:
    env = another.env | {name: run.env[name]}
    refused = subprocess.run(
        [sys.executable, "-m", "eas_queue.run"], cwd=run.tree, env=env, capture_output=True, text=True, timeout=20
    )

    assert refused.returncode != 0
    assert f"{name}: port {run.env[name]} is taken" in refused.stderr
    assert f"{name}=" in refused.stderr


def test_a_setting_that_is_wrong_is_named_before_anything_is_started(another: Run) -> None:
    another.env["STOP_GRACE_S"] = "-1"
    assert another.start().popen is not None

    assert another.popen is not None
    assert another.popen.wait(20) != 0
    assert "STOP_GRACE_S: " in another.output
    assert not another.run_dir.exists()


# --------------------------------------------------------------------------------------------------------- the stop
def test_ctrl_c_ends_all_of_it_and_what_was_accepted_is_there_after_the_next_start(run: Run, second: Run) -> None:
    second.start().await_ready()
    done = second.post(Prefer="wait=10").json()["request_id"]
    token = second.token
    running = second.post("?delay_s=3").text  # longer than STOP_GRACE_S: it is handed back
    await_condition(lambda: second.status(running)["status"] == "STARTED", what="it runs")

    assert token != run.token
    second.session.headers["Authorization"] = f"Bearer {run.token}"
    assert second.post().status_code == 401, "each copy has a token of its own"

    assert second.signal_and_wait(signal.SIGINT) == 0
    assert second.output.endswith("then they go back to the queue\nStopped\n")
    assert {pid for pid in second.pids() if is_alive(pid)} == set()
    assert run.works(), "the other copy goes on"

    second.start().await_ready()
    assert second.token == token
    assert second.status(done)["status"] == "SUCCESS"
    ended = await_condition(lambda: (found := second.status(running))["status"] == "SUCCESS" and found, what="it ends")
    assert ended["attempts"] == 1, "handing back does not count"


def test_a_hangup_reads_the_settings_again_while_the_terminal_is_there_and_stops_all_when_it_has_closed(
    another: Run, tmp_path: Path
) -> None:
    services = tmp_path / "services.toml"
    services.write_text("[services.sentiment]\n")
    another.env["SERVICES_FILE"] = str(services)
    ours, theirs = pty.openpty()
    another.start(theirs)
    os.close(theirs)
    another.await_ready()
    assert another.popen is not None
    url = f"{another.url}/api/predict/fresh"
    assert another.session.post(url, json=BODY, timeout=20).status_code == 404

    services.write_text("[services.sentiment]\n[services.fresh]\n")
    os.kill(another.popen.pid, signal.SIGHUP)
    await_condition(
        lambda: another.session.post(url, json=BODY, headers={"Prefer": "wait=5"}, timeout=20).status_code == 200,
        what="the new service is served",
    )
    await_condition(lambda: "reloaded added=fresh" in another.log("worker"), what="the worker knows it")

    services.write_text("[services")
    os.kill(another.popen.pid, signal.SIGHUP)
    await_condition(lambda: "reload_refused error=SERVICES_FILE: " in another.output, what="the file is refused")
    assert "reload_refused" not in another.log("web") + another.log("worker"), "they were not even asked"
    assert another.works()

    os.close(ours)

    assert another.popen.wait(40) == 0
    assert another.output.endswith("Stopped\n")
    assert not any(map(is_alive, another.pids()))


@on_linux
def test_nothing_outlives_a_supervisor_that_is_killed_and_the_next_start_works(second: Run) -> None:
    if not second.is_running():
        second.start().await_ready()
    assert second.popen is not None

    second.popen.kill()
    second.popen.wait()

    await_condition(lambda: not any(map(is_alive, second.pids())), timeout_s=30, what="all programs end")

    # Where the system can't do that (macOS), the server stays, and a second one would ruin its files.
    leftover = subprocess.Popen([embedded.find_server(), second.run_dir / "redis.conf"], stdout=subprocess.DEVNULL)
    url = (second.run_dir / "redis.url").read_text().strip()
    await_condition(lambda: ready.redis_problem(url) is None, what="the leftover server answers")
    second.start().await_ready()

    assert "Ending the Redis server of an earlier run" in second.output
    assert leftover.wait(10) == 0
    assert second.works()


# ----------------------------------------------------------------------------------------------------- the Procfile
def test_the_procfile_works_with_honcho(tree: Path, installation: Installation) -> None:
    flower_port = free_port()
    env = installation.env | {
        "FLOWER_PORT": str(flower_port),
        "FLOWER_BASIC_AUTH": "ann:password-of-ann",
        "WORKER_CONCURRENCY": "20",
    }
    del env["PYTHONPATH"]
    log_path = installation.folder / "honcho.log"
    with log_path.open("wb") as log:
        honcho = subprocess.Popen(
            [sys.executable, "-m", "honcho", "start"], cwd=tree, env=env, stdout=log, stderr=log, start_new_session=True
        )
    try:
        installation.await_web()
        request_id = installation.submit()

        assert installation.await_end(request_id, timeout_s=30)["status"] == "SUCCESS"
        await_condition(
            lambda: _answers(f"http://127.0.0.1:{flower_port}/api/tasks", ("ann", "password-of-ann")),
            timeout_s=20,
            what="Flower answers",
        )
        assert TOKEN not in log_path.read_text()
    finally:
        honcho.terminate()
        honcho.wait(30)
    assert "web.1" in log_path.read_text()


def test_flower_without_a_password_does_not_start_and_says_why(tree: Path, installation: Installation) -> None:
    flower = subprocess.run(
        ["celery", "-A", "app.celery_app", "flower"],
        cwd=tree,
        env=installation.env,
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert flower.returncode != 0
    assert "set FLOWER_BASIC_AUTH=user:password" in flower.stderr
    assert "Traceback" not in flower.stderr


def _answers(url: str, login: tuple[str, str]) -> bool:
    with requests.Session() as session:
        session.trust_env = False
        try:
            return session.get(url, auth=login, timeout=5).status_code == 200
        except requests.RequestException:
            return False
