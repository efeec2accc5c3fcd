"""fal's JavaScript client in a page of a real browser, Chromium without a window."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.fal_js import FOLDER, Runner, clean_environment, run

PROGRAMS = ("chromium", "google-chrome")
ASK_AGAIN_S = 5.0
TYPES = {".html": "text/html; charset=utf-8", ".mjs": "text/javascript; charset=utf-8"}
FLAGS = (
    "--headless",
    "--no-sandbox",  # it loads only what stands in this folder; where the tests run as root it starts no other way
    "--disable-gpu",
    "--disable-dev-shm-usage",  # containers have little of it
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


def program() -> str | None:
    """The path of Chromium, or of Chrome; None where neither is installed."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Page(Runner):
    """A page on a host of its own, as every port is one to a browser. A ``with`` block ends by closing the browser."""

    def __init__(self) -> None:
        super().__init__()
        found = program()
        assert found, "Chromium is missing; on Debian and Ubuntu: apt install chromium"
        self._asked: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        files = {f"/{name}": (FOLDER / name).read_bytes() for name in ("page.html", "page.mjs", "calls.mjs")}
        self._server = _Server(self, files | {"/client.mjs": run("bundle.mjs").encode()})
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._folder = tempfile.TemporaryDirectory(prefix="eas-queue-test-", ignore_cleanup_errors=True)
        self._log = Path(self._folder.name, "log")
        with self._log.open("wb") as log:
            self._popen = subprocess.Popen(
                [found, *FLAGS, "--enable-logging=stderr", f"--user-data-dir={self._folder.name}", self.url],
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def url(self) -> str:
        return f"{self.origin}/page.html"

    def send(self, content: Mapping[str, Any]) -> None:
        self._asked.put(content)

    def next_asked(self) -> Mapping[str, Any] | None:
        try:
            return self._asked.get(timeout=ASK_AGAIN_S)
        except queue.Empty:
            return None

    @property
    def errors(self) -> str:
        """What the console of the page says is in it, too."""
        return self._log.read_text(errors="replace")[-3000:]

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.terminate()
        self._popen.wait(10)
        self._server.shutdown()
        self._server.server_close()
        self._folder.cleanup()


class _Server(ThreadingHTTPServer):
    """Serves the page and what it loads; hands out what it is asked, and takes what it says."""

    daemon_threads = True

    def __init__(self, page: Page, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.page, self.files = page, files
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        if self.path == "/asked":
            self._answer(json.dumps(self.server.page.next_asked()).encode(), "application/json")
        elif self.path in self.server.files:
            self._answer(self.server.files[self.path], TYPES[Path(self.path).suffix])
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        self.server.page.hear(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._answer(b"", "text/plain")

    def _answer(self, body: bytes, content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass
