"""Clients that go by the clock: so many submits a second over all web replicas, whatever becomes of them.

Each submit has an Idempotency-Key of its own. One that is refused or breaks off is sent again under the same key to the
next replica, until it is answered: it is the same request.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.support.installation import TERMINAL, TOKEN

CLIENTS = 10
ANSWER_S = 4.0  # a client's patience with one call
AGAIN_S = 0.1
TRICKLE_PER_S = 40.0  # after the planned number, until it is stopped: what shows that work goes on
GIVE_UP_S = 40.0  # after the stop


@dataclass(frozen=True)
class Item:
    """One request to make. *query*: the target's script; *expect*: the ends that are right."""

    service: str
    query: str = ""
    expect: frozenset[str] = frozenset({"SUCCESS"})
    interrupted: bool = False  # the client is gone between sending it and the answer, then comes back
    cancelled: bool = False  # the client cancels it as soon as it has an id


@dataclass
class Entry:
    """What a client knows of a request. Unix seconds."""

    number: int
    item: Item
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    sent: bool = False  # or the load was stopped before its moment came
    request_id: str = ""
    acknowledged_at: float = 0.0  # 0: never
    refused: int = 0
    status: str = ""  # the last one that was looked up; "404" when it is unknown


class Load:
    """Submits *count* requests in *duration_s*, then a trickle, until ``stop``. *plan*: the item of each number."""

    def __init__(self, ports: list[int], plan: Callable[[int], Item], *, count: int, duration_s: float) -> None:
        self.entries: list[Entry] = []
        self.errors: list[str] = []
        self._ports, self._plan, self._count = ports, plan, count
        self._rate_per_s = count / duration_s
        self._started_s = time.monotonic()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._give_up_s = float("inf")
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    @property
    def is_complete(self) -> bool:
        """Whether the planned number was sent."""
        return len(self.entries) >= self._count + CLIENTS  # the last ones wait for their moment

    def stop(self) -> None:
        """Return when each client has had its last answer."""
        self._give_up_s = time.monotonic() + GIVE_UP_S
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        assert not self.errors, self.errors[:3]

    def look_up(self, patience_s: float) -> None:
        """Ask for each acknowledged request until it has ended, *patience_s* for all together."""
        until_s = time.monotonic() + patience_s
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda share: self._look(share, until_s), (self.entries[i::4] for i in range(4))))

    # ------------------------------------------------------------------------------------------------------- a client
    def _run(self, number: int) -> None:
        client = _Client(self._ports, number)
        try:
            while not self._stopping.is_set():
                entry, due_s = self._next()
                if self._stopping.wait(max(0.0, due_s - time.monotonic())):
                    return
                self._submit(client, entry)
        except Exception as exc:
            self.errors.append(repr(exc))
        finally:
            client.close()

    def _next(self) -> tuple[Entry, float]:
        with self._lock:
            number = len(self.entries)
            over = max(0, number - self._count)
            due_s = self._started_s + (number - over) / self._rate_per_s + over / TRICKLE_PER_S
            # Who was held up by a fault catches up on the plan, but not on the trickle.
            if over:
                due_s = max(due_s, time.monotonic() + CLIENTS / TRICKLE_PER_S)
            entry = Entry(number, self._plan(number))
            self.entries.append(entry)
            return entry, due_s

    def _submit(self, client: _Client, entry: Entry) -> None:
        item, entry.sent = entry.item, True
        path = f"/api/predict/{item.service}" + (f"?{item.query}" if item.query else "")
        body = json.dumps({"n": entry.number}).encode()
        if item.interrupted:
            client.interrupt(path, body, entry.key)
        while True:
            status, content = client.call("POST", path, body, {"Idempotency-Key": entry.key})
            if 200 <= status < 300:
                entry.request_id, entry.acknowledged_at = content, time.time()
                break
            if status not in (0, 429, 500, 502, 503, 504):
                raise AssertionError(f"a submit was answered with {status}: {content[:300]}")
            entry.refused += 1
            if time.monotonic() > self._give_up_s:
                return
            time.sleep(AGAIN_S)
        while item.cancelled and time.monotonic() < self._give_up_s:
            status, _ = client.call("DELETE", f"/api/predict/{item.service}/requests/{entry.request_id}")
            if 200 <= status < 500 and status != 429:
                return
            time.sleep(AGAIN_S)

    def _look(self, entries: Iterable[Entry], until_s: float) -> None:
        client = _Client(self._ports, random.randrange(2))
        for entry in entries:
            while entry.request_id and entry.status not in TERMINAL and entry.status != "404":
                url = f"/api/predict/{entry.item.service}/requests/{entry.request_id}"
                status, content = client.call("GET", url)
                if status == 404:
                    entry.status = "404"
                elif status in (200, 202):
                    entry.status = json.loads(content)["status"]
                if entry.status in TERMINAL or time.monotonic() > until_s:
                    break
                time.sleep(0.05)
        client.close()


class _Client:
    """Keeps a connection to each replica and takes turns; *turn*: which replica is first."""

    def __init__(self, ports: list[int], turn: int) -> None:
        self._ports, self._turn = ports, turn
        self._kept: dict[int, http.client.HTTPConnection] = {}
        self._headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}

    def call(
        self, method: str, path: str, body: bytes | None = None, more: dict[str, str] | None = None
    ) -> tuple[int, str]:
        """Status and content; status 0 when there was no answer."""
        self._turn += 1
        port = self._ports[self._turn % len(self._ports)]
        connection = self._kept.get(port)
        if connection is None:
            connection = self._kept[port] = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
        try:
            connection.request(method, path, body, self._headers | (more or {}))
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException) as exc:
            connection.close()
            del self._kept[port]
            return 0, repr(exc)

    def interrupt(self, path: str, body: bytes, key: str) -> None:
        """Send the whole submit and be gone without reading a byte of the answer."""
        port = self._ports[self._turn % len(self._ports)]
        headers = self._headers | {"Idempotency-Key": key, "Content-Length": str(len(body)), "Host": "localhost"}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), ANSWER_S) as sock:
            sock.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
            time.sleep(random.uniform(0, 0.005))  # anywhere in what the web does with it
            if random.random() < 0.5:  # RST, which may overtake what was sent; otherwise FIN
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        for connection in self._kept.values():
            connection.close()
