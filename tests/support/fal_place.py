"""An installation behind which every service has one slot, and a target that does what the input asks."""

from __future__ import annotations

import contextlib
import json
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from tests.support import tls
from tests.support.fal_js import FalJs
from tests.support.installation import Installation, Process, await_condition
from tests.support.own_target import Call, OwnTarget, Reply
from tests.support.server import RedisServer, free_port

LONGEST_HOLD_S = 30.0
SERVICES = """
    [defaults]
    allow_unlisted = true
    max_concurrency = 1
    retry_delay_s = 0
    [services.painter]
    aliases = ["studio/painter"]
"""


class Stage:
    """What the target does, by the input:

    {"hold": NAME}     waits, before all else, until the test releases that name
    {"answer": {..}}   *status* (default 200), and *body* as JSON, or *text* with *type*
    otherwise          says what has come
    """

    def __init__(self) -> None:
        self.target = OwnTarget()
        self.target.act = self._act
        self._changed = threading.Condition()
        self._calls: list[tuple[dict[str, Any], Call]] = []
        self._released: set[str] = set()
        self._is_closed = False

    def _act(self, call: Call) -> Reply:
        asked = json.loads(call.body or b"{}")
        name = asked.get("hold")
        with self._changed:
            self._calls.append((asked, call))
            self._changed.notify_all()
            if name:
                self._changed.wait_for(lambda: self._is_closed or name in self._released, LONGEST_HOLD_S)
        if "answer" not in asked:
            said = {"path": call.path, "headers": call.headers, "body": call.body.decode()}
            return 200, json.dumps(said).encode()
        answer = asked["answer"]
        if "text" in answer:
            return answer.get("status", 200), answer["text"].encode("latin-1"), {"Content-Type": answer["type"]}
        return answer.get("status", 200), json.dumps(answer["body"]).encode()

    def _held(self, name: str) -> list[Call]:
        return [call for asked, call in self._calls if asked.get("hold") == name]

    def await_call(self, name: str) -> Call:
        """The call that waits under this name."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._held(name), 15), f"nothing arrived for {name}"
            return self._held(name)[0]

    def has_seen(self, name: str) -> bool:
        with self._changed:
            return bool(self._held(name))

    def release(self, name: str) -> None:
        with self._changed:
            self._released.add(name)
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self.target.stop()


class Place:
    def __init__(self, installation: Installation, stage: Stage, folder: Path) -> None:
        self.installation, self.stage = installation, stage
        self.certificate, _ = tls.made(folder)
        self._key = folder / "key.pem"

    @property
    def url(self) -> str:
        return self.installation.url

    def second_web_with_tls(self) -> str:
        """Its address."""
        port = free_port()
        files = ("--certfile", str(self.certificate), "--keyfile", str(self._key))
        self.installation.start("tls", ["gunicorn", *files, "-w", "1", "-b", f"127.0.0.1:{port}", "app:app"])
        url = f"https://127.0.0.1:{port}"

        def answers() -> bool:
            with contextlib.suppress(requests.ConnectionError):
                return self.get(f"{url}/healthz").status_code == 200
            return False

        await_condition(answers, timeout_s=20, what="the web with TLS answers")
        return url

    def web(self) -> Process:
        return self.installation.web("-w", "2", "-b", f"127.0.0.1:{self.installation.port}")

    def get(self, url: str) -> requests.Response:
        """As the submitter, over TLS or without."""
        return self.installation.session.get(url, timeout=10, verify=str(self.certificate))


@contextlib.contextmanager
def place(folder: Path, **settings: object) -> Iterator[Place]:
    server, stage = RedisServer().start(), Stage()
    try:
        with Installation(
            server.url, stage.target.url, services_toml=SERVICES, sweep_s=0.1, **settings
        ) as installation:
            made = Place(installation, stage, folder)
            made.web()
            installation.worker("gevent", 50)
            yield made
    finally:
        stage.close()
        server.stop()


@contextlib.contextmanager
def occupied(fal: FalJs, stage: Stage, app: str) -> Iterator[str]:
    """The only slot of *app* is taken meanwhile, by the request of this id."""
    name = uuid.uuid4().hex
    request_id: str = fal.submit(app, input={"hold": name})["request_id"]
    stage.await_call(name)
    try:
        yield request_id
    finally:
        stage.release(name)
