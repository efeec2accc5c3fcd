"""A small app that takes WebSockets over and tells what becomes of them: `gunicorn tests.support.websocket_app:app`."""

from __future__ import annotations

import _socket
import contextlib
import os
import select
import threading
import time
from pathlib import Path

from flask import Flask, Response, request
from flask.typing import ResponseReturnValue
from gevent import monkey

from eas_queue.dialects.eas import websocket

app = Flask(__name__)


class Watch:
    """One connection, and the thread that sends on it."""

    def __init__(self, peer: websocket.Peer) -> None:
        self.peer = peer
        self.ends: list[str] = []
        self.ends_s: list[float] = []
        self.sent = 0
        self.gone = ""

    def on_end(self, reason: str) -> None:
        self.ends.append(reason)
        self.ends_s.append(time.time())

    def send(self, size: int, count: int) -> None:
        try:
            for number in range(count):
                self.peer.send(bytes([number % 256]) * size)
                self.sent += 1
        except websocket.PeerGone as exc:
            self.gone = str(exc)


watches: dict[str, Watch] = {}


def _watch(name: str) -> Watch:
    """Waits for it: the client has its 101 before the view goes on."""
    deadline_s = time.monotonic() + 5
    while name not in watches and time.monotonic() < deadline_s:
        time.sleep(0.005)
    return watches[name]


# werkzeug matches a request with both headers of an upgrade by rules for WebSockets alone, and others never by these
@app.get("/watch/<name>", websocket=True)
@app.get("/watch/<name>", endpoint="not_upgraded")
def watch(name: str) -> ResponseReturnValue:
    peer = websocket.accept(request.environ)
    made = watches[name] = Watch(peer)
    peer.start(made.on_end)
    return websocket.Hijacked(peer)


@app.errorhandler(websocket.BadHandshake)
def refuse(exc: websocket.BadHandshake) -> ResponseReturnValue:
    return Response(f"{exc.description}\n", exc.code, exc.more, mimetype="text/plain")


@app.get("/state/<name>")
def state(name: str) -> ResponseReturnValue:
    found = _watch(name)
    return {
        "heard_ago_s": time.monotonic() - found.peer.last_heard_s,
        "has_pinged": found.peer.has_pinged,
        "ends": found.ends,
        "ends_s": found.ends_s,
        "sent": found.sent,
        "gone": found.gone,
        "pending": len(found.peer._pending),
    }


@app.post("/send/<name>")
def send(name: str) -> ResponseReturnValue:
    size, count, senders = (request.args.get(key, 1, int) for key in ("size", "count", "senders"))
    found = _watch(name)
    for _ in range(senders):
        threading.Thread(target=found.send, args=(size, count), daemon=True).start()
    return ""


@app.post("/fill/<name>")
def fill(name: str) -> ResponseReturnValue:
    """Fill the buffers on the way to the client, past the peer; answers the number of bytes."""
    filled = 0
    descriptor = os.dup(_watch(name).peer._connection.fileno())
    poll = monkey.get_original("select", "poll")()
    poll.register(descriptor, select.POLLOUT)
    with contextlib.closing(_socket.socket(fileno=descriptor)) as plain:
        while poll.poll(200):
            with contextlib.suppress(BlockingIOError):
                filled += plain.send(b"x" * 65_536, _socket.MSG_DONTWAIT)
    return str(filled)


@app.post("/ping/<name>")
def ping(name: str) -> ResponseReturnValue:
    _watch(name).peer.ping()
    return ""


@app.post("/close/<name>")
def close(name: str) -> ResponseReturnValue:
    began = time.monotonic()
    _watch(name).peer.close(request.args.get("code", 1000, int), request.args.get("reason", ""))
    return str(time.monotonic() - began)


@app.get("/process")
def process() -> ResponseReturnValue:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "rss_kb": int(status["VmRSS"].split()[0]),
        "pid": os.getpid(),
    }
