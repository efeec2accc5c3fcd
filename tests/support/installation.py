"""A whole installation for acceptance tests: real gunicorn or `flask run`, real Celery workers, on free ports."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from tests.support.server import free_port

ROOT = Path(__file__).parents[2]
TOKEN = "tml-00112233445566778899aabbccddeeff"
TERMINAL = {"SUCCESS", "FAILURE", "REVOKED", "EXPIRED"}
CELERY = [sys.executable, "-m", "tests.support.celery_program"]


def await_condition(condition: Callable[[], Any], *, timeout_s: float = 10, what: str = "") -> Any:
    """The first true answer of *condition*, asked every 20 ms."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not so after {timeout_s} s: {what or condition}")
        time.sleep(0.02)


class Process:
    """One process in a group of its own, its output in a file."""

    def __init__(self, name: str, command: list[str], env: dict[str, str], folder: Path, cwd: Path = ROOT) -> None:
        self.name = name
        self.log_path = folder / f"{name}-{time.monotonic_ns()}.log"
        with self.log_path.open("wb") as log:
            self.popen = subprocess.Popen(
                command, cwd=cwd, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def await_log(self, text: str, *, timeout_s: float = 20) -> None:
        def seen() -> bool:
            if self.popen.poll() is not None:
                raise AssertionError(f"{self.name} ended with {self.popen.returncode}:\n{self.log[-3000:]}")
            return text in self.log

        await_condition(seen, timeout_s=timeout_s, what=f"{self.name} prints {text!r}; it printed:\n{self.log[-3000:]}")

    def stop(self, *, timeout_s: float = 20) -> int:
        """SIGTERM to the main process, as a process manager does; returns its exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        try:
            return self.popen.wait(timeout_s)
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to the whole group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


class Installation:
    """Settings, and the processes started with them. Use as a context manager: at its end nothing is left running."""

    def __init__(self, redis_url: str, target_url: str, **settings: object) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="eas-queue-test-")
        self.folder = Path(self._folder.name)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        kept = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")}
        self.env = kept | {
            "REDIS_URL": redis_url,
            "TARGET_API_BASE_URL": target_url,
            "API_TOKENS": TOKEN,
            "PORT": str(self.port),
            "WEB_CONCURRENCY": "1",  # a second of CPU time each; where several matter, the test says so
            "RUN_DIR": str(self.folder / "run"),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        self.env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{self.env['PATH']}"
        services = settings.pop("services_toml", None)
        if services is not None:
            path = self.folder / "services.toml"
            path.write_text(str(services))
            self.env["SERVICES_FILE"] = str(path)
        self.env |= {name.upper(): str(value) for name, value in settings.items()}
        self.processes: list[Process] = []
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Bearer {TOKEN}"

    def __enter__(self) -> Installation:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()
        for process in reversed(self.processes):
            process.kill()
        self._folder.cleanup()

    # ------------------------------------------------------------------------------------------------ processes
    def start(self, name: str, command: list[str]) -> Process:
        process = Process(name, command, self.env, self.folder)
        self.processes.append(process)
        return process

    def web(self, *options: str) -> Process:
        process = self.start("web", ["gunicorn", *options, "app:app"])
        self.await_web()
        return process

    def web_and_worker(self, pool: str = "gevent", concurrency: int = 100) -> tuple[Process, Process]:
        """Both start at the same time."""
        web = self.start("web", ["gunicorn", "app:app"])
        worker = self.worker(pool, concurrency)
        self.await_web()
        return web, worker

    def await_web(self) -> None:
        webs = [process for process in self.processes if process.name == "web"]

        def ready() -> bool:
            for web in webs[-1:]:
                if web.popen.poll() is not None:
                    raise AssertionError(f"the web ended with {web.popen.returncode}:\n{web.log[-3000:]}")
            try:
                # a connection kept for later would hold the web's next stop up
                headers = {"Connection": "close"}
                return self.session.get(f"{self.url}/healthz", timeout=2, headers=headers).status_code == 200
            except requests.RequestException:
                return False

        await_condition(ready, timeout_s=20, what="the web answers")

    def worker(
        self, pool: str = "gevent", concurrency: int = 100, name: str = "w1", app: str = "app.celery_app"
    ) -> Process:
        command = [*CELERY, "-A", app, "worker", "--loglevel=info", "-Q", "celery,high_priority"]
        process = self.start(f"worker-{name}", [*command, "-P", pool, "-c", str(concurrency), "-n", f"{name}@%h"])
        process.await_log(" ready.")
        return process

    def webhooks(self, concurrency: int = 100, name: str = "webhooks") -> Process:
        """The worker that delivers webhooks."""
        command = [*CELERY, "-A", "app.celery_app", "worker", "--loglevel=info", "-Q", "webhooks", "-P", "gevent"]
        process = self.start(name, [*command, "-c", str(concurrency), "-n", f"{name}@%h"])
        process.await_log(" ready.")
        return process

    # --------------------------------------------------------------------------------------------------- client
    def submit(self, service: str = "demo", *, body: bytes = b'{"a": 1}', path: str = "", **query: object) -> str:
        """The request id. *query*: parameters; those of the queue start with an underscore."""
        response = self.session.post(
            f"{self.url}/api/predict/{service}{path}",
            params={name: str(value) for name, value in query.items()},
            data=body,
            headers={"Content-Type": "application/json"},
            timeout=10,
        )
        assert response.status_code == 200, response.text
        assert response.text == response.headers["X-Eas-Queueservice-Request-Id"]
        return response.text

    def status(self, request_id: str, service: str = "demo") -> dict[str, Any]:
        url = f"{self.url}/api/predict/{service}/sink"
        response = self.session.get(url, params={"request_id": request_id}, timeout=10)
        assert response.status_code in (200, 202), response.text
        content: dict[str, Any] = response.json()
        assert (response.status_code == 200) == (content["status"] in TERMINAL)
        return content

    def await_end(self, request_id: str, service: str = "demo", *, timeout_s: float = 15) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            content = self.status(request_id, service)
            return content if content["status"] in TERMINAL else None

        content: dict[str, Any] = await_condition(ended, timeout_s=timeout_s, what=f"{request_id} ends")
        return content

    def cancel(self, request_id: str, service: str = "demo") -> requests.Response:
        return self.session.delete(f"{self.url}/api/predict/{service}/requests/{request_id}", timeout=10)

    def set_paused(self, service: str, paused: bool) -> None:
        url = f"{self.url}/api/services/{service}/{'pause' if paused else 'resume'}"
        response = self.session.post(url, timeout=10)
        assert response.status_code == 200, response.text
