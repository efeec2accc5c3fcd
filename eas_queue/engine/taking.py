"""Takers: who fetches requests, works on them, and says what came of them, all by single calls.

What a taker has is leased to it. Nothing else ties it to its requests: anybody may complete them, and the first who
does ends them.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from eas_queue.engine import errors, retry
from eas_queue.engine.request import ProgressNote
from eas_queue.engine.translation import translated
from eas_queue.engine.waiting import ARM_S, QueueWaiter, nobody_asks
from eas_queue.store import takes
from eas_queue.store.takes import Lane as Lane  # part of what the engine hands out and takes
from eas_queue.store.takes import Standing as Standing
from eas_queue.store.takes import Taken as Taken

if TYPE_CHECKING:
    from eas_queue.engine.engine import Engine

AGE_TICK_S = 0.25  # nobody tells a request's age: who waits for one that is old enough looks so often


class Strategy(StrEnum):
    """In which order a take goes through its lanes."""

    FIFO = "fifo"  # what was submitted first, of all lanes together
    ACTIVE_PASSIVE = "active_passive"  # all of the first lane before any of the next
    ROUND_ROBIN = "round_robin"  # one of each in turn; the next take goes on behind where this one ended
    SEQUENTIAL = "sequential"  # one of each lane, and none while its last one is out


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a taker asks for. *lease_s* 0: until the deadline. *deliveries_most*: what lapses after so many has failed;
    None: it goes back for ever. *min_age_s*: nothing that was submitted less long ago. *taker*: its name, '' unnamed.
    *turn*: whose round_robin takes share one turn. *wait_s*: for something to come, where there is nothing."""

    lanes: tuple[Lane, ...]
    most: int
    strategy: Strategy = Strategy.FIFO
    lease_s: float = 0
    deliveries_most: int | None = None
    min_age_s: float = 0
    taker: str = ""
    turn: str = ""
    wait_s: float = 0


class Takes:
    """What takers may do, for one Engine; every method raises as the engine's do."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._bells: dict[str, _Bell] = {}

    @translated
    def enroll(self, service_name: str, endpoint: str) -> str:
        """Make a service that no settings list one that consumers pull from, for good; returns its endpoint, which is
        that of the first call. Raises NotPulled where the settings have it forwarded."""
        service = self._engine.services.get(service_name)
        if service.mode == "push" and self._engine.services.lists(service.name):
            raise errors.NotPulled(service.name)
        while True:
            self._engine.register(service)
            found = self._engine.store.takes.enroll(service.name, endpoint)
            if found is not None:
                return found[0]

    def take(self, wanted: Wanted, *, is_gone: Callable[[], bool] = nobody_asks) -> list[Taken]:
        """Requests, leased to this taker from here on; none where there are none. One step over all lanes.

        Raises NotPulled when it names a service that consumers can't pull from, and WaiterGone when *is_gone* says,
        while it waits, that nobody would get them; nothing is taken then.
        """
        found = self._take(wanted)
        if found or wanted.wait_s <= 0:
            return found
        until_s = time.monotonic() + wanted.wait_s
        with self._waiting(dict.fromkeys(lane.service for lane in wanted.lanes)) as taker:
            while True:
                if is_gone():
                    raise errors.WaiterGone("take")
                found = self._take(wanted)
                taker.has_note = taker.has_note and not found
                left_s = until_s - time.monotonic()
                if found or left_s <= 0 or taker.is_over:
                    return found
                taker.pass_on()
                taker.wait(min(left_s, AGE_TICK_S) if wanted.min_age_s else left_s)

    @translated
    def _take(self, wanted: Wanted) -> list[Taken]:
        for _ in range(1 + len({lane.service for lane in wanted.lanes})):
            try:
                return self._engine.store.takes.take(
                    wanted.lanes,
                    wanted.strategy,
                    wanted.most,
                    lease_ms=round(wanted.lease_s * 1000),
                    deliveries_most=-1 if wanted.deliveries_most is None else wanted.deliveries_most,
                    min_age_ms=round(wanted.min_age_s * 1000),
                    taker=wanted.taker,
                    turn=wanted.turn,
                )
            except takes.NotPulled as exc:
                service = self._engine.services.get(wanted.lanes[exc.lane].service)
                if service.mode == "push":
                    raise errors.NotPulled(service.name) from None
                self._engine.register(service)  # Redis did not know of it yet
        raise errors.Unavailable("services vanished from Redis while requests were taken from them")

    @translated
    def complete(self, request_id: str, answer: retry.Answer, *, about: str = "") -> bool:
        """Whether this ended the request: True once, whoever has it; False where it had ended, or is not known.

        Raises NotPulled where the request is for the forwarder. *about*: what the dialect keeps of the answer.
        """
        try:
            service = self._engine.service_of(request_id)
        except errors.RequestNotFound:
            return False
        taken = self._engine.store.takes.complete(service, request_id, retry.ended(answer), about=about)
        if taken is None:
            raise errors.NotPulled(service)
        return taken

    @translated
    def extend(self, request_id: str, lease_s: float, *, taker: str = "") -> None:
        """The lease ends *lease_s* from now. Raises NotTaken, also where *taker*, if named, is another than who has
        it."""
        service = self._service_of(request_id)
        if not self._engine.store.takes.extend(service, request_id, lease_ms=round(lease_s * 1000), taker=taker):
            raise errors.NotTaken(request_id)

    @translated
    def note_progress(self, request_id: str, note: ProgressNote, *, taker: str = "") -> None:
        """What a taker says of what it works on. Raises NotTaken."""
        service = self._service_of(request_id)
        if not self._engine.store.progress(
            service,
            request_id,
            "",
            progress=note.progress,
            lines=note.lines,
            taker=taker,
            is_stream=note.is_stream,
        ):
            raise errors.NotTaken(request_id)

    @translated
    def standing(self, service_name: str, *, is_high: bool = False) -> Standing:
        """How a lane stands. Raises NotPulled."""
        service = self._engine.services.get(service_name)
        for _ in range(2):
            found = self._engine.store.takes.standing(service.name, is_high=is_high)
            if found is not None and found.pull:
                return found
            if service.mode == "push":
                break
            self._engine.register(service)
        raise errors.NotPulled(service.name)

    def _service_of(self, request_id: str) -> str:
        try:
            return self._engine.service_of(request_id)
        except errors.RequestNotFound:
            raise errors.NotTaken(request_id) from None

    # -------------------------------------------------------------------------------------------------- waiting
    @contextlib.contextmanager
    def _waiting(self, services: dict[str, None]) -> Iterator[_Taker]:
        """Woken when something may have come for one of *services*. Each note wakes one taker of this process."""
        taker = _Taker()
        try:
            for service in services:
                taker.bells.append(self._bell(service, taker))
            until_s = time.monotonic() + ARM_S
            for bell in taker.bells:
                bell.armed.wait(max(0.0, until_s - time.monotonic()))
            yield taker
        finally:
            taker.has_note = taker.has_note or taker.is_rung
            taker.pass_on()
            with self._lock:
                for bell in taker.bells:
                    bell.takers.remove(taker)
                    if not bell.takers and self._bells.get(bell.service) is bell:
                        del self._bells[bell.service]
                        self._engine.waits.remove(bell)

    def _bell(self, service: str, taker: _Taker) -> _Bell:
        with self._lock:
            bell = self._bells.get(service)
            if bell is None:
                bell = self._bells[service] = _Bell(service)
                self._engine.waits.add(bell)
            bell.takers.append(taker)
            if bell.over is not None:
                taker.is_over = True
            return bell


class _Taker:
    """One call that waits."""

    def __init__(self) -> None:
        self.bells: list[_Bell] = []
        self.woken = threading.Event()
        self.is_rung = False  # by a note that nobody else has heard
        self.has_note = False  # of that kind, and it has not taken what it tells of
        self.is_over = False  # the process is about to stop

    def wait(self, timeout_s: float) -> None:
        self.woken.wait(timeout_s)
        self.woken.clear()
        self.has_note, self.is_rung = self.is_rung, False

    def pass_on(self) -> None:
        """What woke it may be for somebody behind it: each note goes through the row once."""
        if self.has_note:
            self.has_note = False
            for bell in self.bells:
                bell.ring(behind=self)


class _Bell(QueueWaiter):
    """Hears for all takers of one service in this process what is put into its input."""

    is_client = False

    def __init__(self, service: str) -> None:
        super().__init__(service, "input")
        self.takers: list[_Taker] = []
        self._room = f"room {service}".encode()

    def hear(self, note: bytes) -> None:
        if note.startswith(b"put "):
            self.ring()
        elif note == self._room:
            self.wake()

    def ring(self, behind: _Taker | None = None) -> None:
        """One of them looks, of those *behind* another: more than one item has more than one note."""
        row = tuple(self.takers)
        for taker in row[row.index(behind) + 1 :] if behind in row else row:
            if not taker.is_rung:
                taker.is_rung = True
                taker.woken.set()
                return

    def wake(self) -> None:
        """All of them look."""
        super().wake()
        for taker in tuple(self.takers):
            taker.is_over = taker.is_over or self.over is not None
            taker.woken.set()
