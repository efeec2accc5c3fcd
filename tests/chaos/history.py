"""Replays what a server has kept and holds every step against the engine's rules (docs/engine.md, "Invariants").

A breach has one of these kinds:

- ``illegal``: a state that does not follow from the one before, a request in no or two places, ready work without a
  kick, more than 64 kicks, more leases and ghosts than the cap at a claim, a lease taken away before its time
- ``twice``: an end or a result was written over an end
- ``unfenced``: an end, a result or a return to the queue by somebody who did not hold the live lease
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from eas_queue.store import keys
from tests.chaos.aof import AppendOnlyFile, Command, Transaction
from tests.chaos.model import Model, pairs, text
from tests.support.drive import KICKS_MAX

TERMINAL = frozenset({"succeeded", "failed", "cancelled", "expired"})
_LEGAL = {
    "": {"queued"},
    "queued": {"queued", "running", "expired", "cancelled"},  # to itself when a retry is due
    "running": {"queued", "succeeded", "failed", "cancelled"},
}
_PLACES = {"queued": (["wait"], ["delay"]), "running": (["lease"],)}
CALL_TTL_MS = 120_000  # of the note that a caller's last call leaves: its end tells when it was made


def _pattern(key_of_at: str, more: str = "") -> re.Pattern[str]:
    """Of the keys that are like *key_of_at*, that of a service named "@"."""
    return re.compile(re.escape(key_of_at).replace("@", "(?P<service>[^}]*)") + more)


_RECORD = _pattern(keys.record_key("@", ""), "(?P<id>.+)")
_LEASE = _pattern(keys.service_key("@", "lease"))


@dataclass
class Claim:
    """One lease. Milliseconds of the server's clock."""

    token: str
    attempt: int
    started_ms: int
    process: str = ""  # "<pid>-<random>", as the worker calls itself
    closed: str = ""  # "" while it is live; "end", or why the request went back to the queue
    lapsed: bool = False  # taken away by the sweep, not given up by its holder


@dataclass
class Request:
    """What became of one request."""

    id: str
    service: str
    number: int  # "n" in its JSON body: which of the client's requests it is; -1 without
    submitted_ms: int
    state: str = "queued"
    error_type: str = ""
    ended_ms: int = 0
    claims: list[Claim] = field(default_factory=list)


@dataclass(frozen=True)
class Breach:
    kind: str
    service: str
    what: str


class History:
    """All requests that the server in *folder* has kept so far. Call ``read`` to take in what is new.

    *pulled*: takers work on them, so that whoever completes a request ends it, also while it waits for the next one.
    """

    def __init__(self, folder: Path, *, pulled: bool = False) -> None:
        self.pulled = pulled
        self._file = AppendOnlyFile(folder)
        self._model = Model()
        self.requests: dict[str, Request] = {}
        self.asked_ms: dict[int, list[int]] = {}  # when each worker process took a kick or got work, by pid
        self._services: dict[str, list[Request]] = {}
        self.breaches: list[Breach] = []
        self.transactions = 0

    def read(self) -> History:
        for transaction in self._file.news():
            self.transactions += 1
            _Step(self, self._model, transaction).run()
        return self

    def of(self, service: str) -> list[Request]:
        return self._services.get(service, [])

    def add(self, request: Request) -> None:
        self.requests[request.id] = request
        self._services.setdefault(request.service, []).append(request)


class _Step:
    """One transaction: applied command by command, then looked at as a whole."""

    def __init__(self, history: History, model: Model, transaction: Transaction) -> None:
        self._history, self._model, self._transaction = history, model, transaction
        self._tokens: dict[str, str] = {}  # record key -> the live token before this step, "" without one
        self._leases: dict[tuple[str, str], float] = {}  # (service, id) -> lease end, of those taken off the list
        self._won: dict[str, str] = {}
        self._writers: dict[str, str] = {}  # records with a result, end or return to the queue -> what was written
        self._claims: dict[str, list[Claim]] = {}  # by service
        self._caller, self._asked_ms = "", 0

    def run(self) -> None:
        for command in self._transaction:
            self._apply(command)
        if self._caller and (self._claims or not self._won):  # an end that takes nothing new is no sign of life
            self._history.asked_ms.setdefault(pid_of(self._caller), []).append(self._asked_ms)
        for key, what in self._writers.items():
            self._check_fence(key, what)
        for key in self._tokens:
            self._check_place(key)
        for service, claims in self._claims.items():
            for claim in claims:
                claim.process = self._caller
            cap = int(self._model.hash(keys.service_key(service, "cfg")).get("cap", "0"))
            taken = len(self._set(service, "lease")) + len(self._set(service, "ghost"))
            if taken > cap:
                self._breach("illegal", service, f"{taken} leases and ghosts at a claim, the cap is {cap}")
        if self._model.set(keys.READY) and not self._model.set(keys.KICKS):
            service = next(iter(self._model.set(keys.READY)))
            self._breach("illegal", service, "work is ready and no kick is outstanding")
        if len(self._model.set(keys.KICKS)) > KICKS_MAX:
            self._breach("illegal", "", f"{len(self._model.set(keys.KICKS))} kicks are outstanding")

    def _set(self, service: str, suffix: str) -> dict[str, float]:
        return self._model.set(keys.service_key(service, suffix))

    def _breach(self, kind: str, service: str, what: str) -> None:
        self._history.breaches.append(Breach(kind, service, f"step {self._history.transactions}: {what}"))

    # ----------------------------------------------------------------------------------------------------- commands
    def _apply(self, command: Command) -> None:
        name = command[0].upper()
        key = command[1].decode(errors="replace") if len(command) > 1 else ""
        if name == b"SET" and key.startswith(keys.CALL_PREFIX):
            self._caller = key.removeprefix(keys.CALL_PREFIX).rpartition(".")[0]
            self._asked_ms = int(command[-1]) - CALL_TTL_MS
        record = _RECORD.fullmatch(key)
        if record is not None and name.startswith(b"H"):
            self._tokens.setdefault(key, self._model.hash(key).get("token", ""))
            if name in (b"HSET", b"HMSET"):
                before = self._model.hash(key).get("state", "")
                self._model.apply(command)
                self._written(key, record["service"], record["id"], before, pairs(text(command[2:])))
                return
        lease = _LEASE.fullmatch(key)
        if lease is not None and name == b"ZREM":
            for request_id in text(command[2:]):
                if request_id in self._model.set(key):
                    self._leases[lease["service"], request_id] = self._model.set(key)[request_id]
        self._model.apply(command)

    def _written(self, key: str, service: str, request_id: str, before: str, fields: dict[str, str]) -> None:
        """The record at *key* was *before* and got *fields*."""
        if "won" in fields:
            self._won[key] = fields["won"]
        if before in TERMINAL and fields.keys() & {"state", "result", "status_code"}:
            self._breach("twice", service, f"{request_id} was {before} and got {sorted(fields)}")
            return
        if "result" in fields:
            self._writers[key] = "a result"
        if "state" not in fields:
            return
        state, record = fields["state"], self._model.hash(key)
        is_completed = self._history.pulled and before == "queued" and state in ("succeeded", "failed")
        if state not in _LEGAL.get(before, ()) and not is_completed:
            self._breach("illegal", service, f"{request_id}: {before or 'nothing'} -> {state}")
        if before == "":
            request = Request(request_id, service, _number(record.get("body", "")), int(record["submitted_ms"]))
            self._history.add(request)
            return
        request = self._history.requests[request_id]
        request.state, request.error_type = state, record.get("error_type", "")
        if before == "running" and state in ("queued", "succeeded", "failed"):
            self._writers[key] = "the return to the queue" if state == "queued" else "the end"
        if state == "running":
            request.claims.append(Claim(record["token"], int(record["attempt"]), int(record["started_ms"])))
            self._claims.setdefault(service, []).append(request.claims[-1])
        elif before == "running" and request.claims:
            request.claims[-1].closed = request.error_type if state == "queued" else "end"
            request.claims[-1].lapsed = key not in self._won
        if state in TERMINAL:
            request.ended_ms = int(record["finished_ms"])

    # -------------------------------------------------------------------------------------------------- whole steps
    def _check_fence(self, key: str, what: str) -> None:
        found = _RECORD.fullmatch(key)
        assert found is not None
        service, request_id = found["service"], found["id"]
        before, won = self._tokens[key], self._won.get(key)
        if won is not None and self._history.pulled and what != "the return to the queue":
            return  # a completion names no lease
        if won is not None:
            if won != before:
                self._breach(
                    "unfenced", service, f"{request_id}: {what} by {won}, the lease was {before or 'nobody'}'s"
                )
            return
        # Nobody claims to hold the lease: only the sweep may do that, once the lease is over.
        lease_ms = self._leases.get((service, request_id))
        swept_ms = int(self._model.hash(keys.SYS).get("swept_ms", "0"))
        if what == "a result" or lease_ms is None:
            self._breach("unfenced", service, f"{request_id}: {what} without a lease")
        elif lease_ms > swept_ms:
            self._breach("illegal", service, f"{request_id}: lease taken away {lease_ms - swept_ms:.0f} ms too early")

    def _check_place(self, key: str) -> None:
        found = _RECORD.fullmatch(key)
        assert found is not None
        service, request_id = found["service"], found["id"]
        record = self._model.hash(key)
        if not record:  # past its time to live, or flushed
            return
        state = record.get("state", "")
        places = [place for place in ("wait", "delay", "lease") if request_id in self._set(service, place)]
        if places not in _PLACES.get(state, ([],)):
            self._breach("illegal", service, f"{request_id} is {state or 'nothing'} and in {places}")
        if ("token" in record) != (state == "running"):
            self._breach("illegal", service, f"{request_id} is {state} with token {record.get('token')}")


def pid_of(process: str) -> int:
    """Of the name that a worker process gives itself; -1 for others."""
    pid = process.partition("-")[0]
    return int(pid) if pid.isdecimal() else -1


def _number(body: str) -> int:
    try:
        return int(json.loads(body)["n"])
    except (ValueError, KeyError, TypeError):
        return -1
