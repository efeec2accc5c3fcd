"""The engine: what dialects and workers may do with requests, and what they are promised.

A dialect parses, makes one call here, and renders the answer. The rules themselves are the scripts in
``eas_queue/store/lua``, because each must be one atomic step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from eas_queue import adapters
from eas_queue.adapters.errors import Unadaptable
from eas_queue.engine import deliveries, errors, ids, letters, waiting
from eas_queue.engine.queues import ServiceQueues
from eas_queue.engine.receivers import Webhooks
from eas_queue.engine.request import (
    EVENT,
    ProgressNote,
    Receipt,
    Request,
    State,
    Submission,
    priority_class,
    request_of,
)
from eas_queue.engine.service import Service, Services
from eas_queue.engine.taking import Takes
from eas_queue.engine.translation import translated
from eas_queue.engine.waiting import Turn
from eas_queue.engine.watching import Watches
from eas_queue.store.shapes import Alive, Letter, LogLine, Overview
from eas_queue.store.store import Store


class Engine:
    """One installation's engine. Opens no connection before its first use; safe to share between threads.

    Every method raises Unavailable within about a second when Redis is away; service names raise InvalidRequest or
    ServiceNotFound.

    ``services`` may be replaced at any time; what is under way goes on with the service it began with, and
    ``register_listed`` brings new limits to Redis.
    """

    def __init__(self, store: Store, services: Services, webhooks: Webhooks | None = None) -> None:
        self.store = store
        self.services = services
        self.webhooks = webhooks or Webhooks()
        self.waits = waiting.Waits(store)
        self.queues = ServiceQueues(self)
        self.watches = Watches(self)
        self.takes = Takes(self)
        self._numbers: dict[str, int] = {}
        self._told: dict[str, Service] = {}  # whose limits this process has written to Redis last
        self._registered: Services | None = None

    # ---------------------------------------------------------------------------------------------------- clients
    @translated
    def submit(self, service_name: str, submission: Submission) -> Receipt:
        """Store a request; when this returns it is in Redis, and will reach exactly one terminal state.

        Atomic and one round trip, the announcement to the workers included. Raises QueueFull, RateLimited,
        IdempotencyConflict, TooManyServices, InvalidRequest; nothing is stored then. With an idempotency key that was
        used before, it answers the request of that time and stores nothing.
        """
        service = self.services.get(service_name)
        if submission.path and not service.takes_subpath:
            raise errors.InvalidRequest(
                f"service {service.name} has one address without subpaths, so {submission.path[:100]!r} would be lost; "
                "its target_url needs {path} to take them"
            )
        if submission.webhook is not None:
            self.webhooks.check(submission.webhook.url)
        if service.adapter and not submission.only_pull:
            try:
                adapters.named(service.adapter).check(submission.body)
            except Unadaptable as exc:
                raise errors.InvalidRequest(f"service {service.name}: {exc}") from exc
        deadline_s = service.deadline_s if submission.deadline_s is None else submission.deadline_s
        idempotency, rate, meta = submission.idempotency(), submission.rate(), submission.meta()
        own, most_waiting = submission.own_fields(), submission.max_queue_length
        if most_waiting is None or most_waiting > service.max_queue_length:
            most_waiting = service.max_queue_length
        number = self._numbers.get(service.name) or self._number_for(service, submission)
        for _ in range(2):
            code, *rest = self.store.submit(
                service.name,
                ids.new_id(number),
                number=number,
                priority_class=priority_class(submission.priority),
                deadline_in_ms=math.ceil(deadline_s * 1000),
                max_queue_length=most_waiting,
                meta=meta,
                body=submission.body,
                idempotency=idempotency,
                rate=rate,
                tags=submission.tags,
                name=submission.name,
                only_pull=submission.only_pull,
                own=own,
            )
            if code == 1:
                return Receipt(service.name, str(rest[3], "ascii"), int(rest[0]), bool(rest[4]), int(rest[2]))
            if code == 0:
                raise errors.QueueFull(service.name, int(rest[0]), most_waiting)
            if code == -2:
                raise errors.RateLimited(submission.caller.rate_per_s, int(rest[0]))
            if code == -3:
                raise errors.IdempotencyConflict(service.name)
            if code == -4:
                raise errors.NotPulled(service.name)
            # Redis lost the service: it was emptied, or a crash undid the last second
            number = self._number_for(service, submission)
        raise errors.Unavailable(f"service {service.name} vanished from Redis twice while a request was submitted")

    def _number_for(self, service: Service, submission: Submission) -> int:
        """A name that nobody has made a queue does not become a service by that."""
        if submission.only_pull and not self.services.lists(service.name):
            self.takes.standing(service.name)
        return self.register(service)

    @translated
    def look(self, service_name: str, request_id: str) -> Request:
        """The request as it is now. Raises RequestNotFound, also for another service's request."""
        return self._look(self.services.get(service_name).name, request_id)

    @translated
    def _look_first(self, service_name: str, request_id: str) -> Request:
        """For who waits: a service that was taken out of the settings just now still has the request."""
        try:
            return self.look(service_name, request_id)
        except errors.ServiceNotFound as exc:
            try:
                return self._look(service_name, request_id)
            except errors.RequestNotFound:
                raise exc from None

    @translated
    def look_again(self, request: Request) -> Request:
        """The same request as it is now, though its service be taken out of the settings meanwhile."""
        return self._look(request.service, request.request_id)

    @translated
    def look_anyway(self, service_name: str, request_id: str) -> Request:
        """The request as it is now, also of a service that is in the settings no more. Raises RequestNotFound."""
        return self._look(service_name, request_id)

    def _look(self, name: str, request_id: str) -> Request:
        seen = self.store.look(name, request_id) if ids.is_id(request_id) else None
        if seen is None:
            raise errors.RequestNotFound(request_id, self.services.result_ttl_s)
        return request_of(name, request_id, seen)

    @translated
    def logs(self, request: Request, *, events: bool = False, **limits: int) -> list[LogLine]:
        """The latest lines that its target logged, oldest first; or the *events* of its stream. *limits*: as
        Store.logs."""
        lines = self.store.logs(request.service, request.request_id, **limits) if request.log_count else []
        return [line for line in lines if (line.level == EVENT) is events]

    @translated
    def note_progress(self, request_id: str, token: str, note: ProgressNote) -> None:
        """What a target says of a request while it works on it. Raises AttemptOver, also for an unknown request."""
        try:
            service = self.service_of(request_id)
        except errors.RequestNotFound:
            raise errors.AttemptOver(request_id) from None
        if not self.store.progress(service, request_id, token, progress=note.progress, lines=note.lines):
            raise errors.AttemptOver(request_id)

    @translated
    def service_of(self, request_id: str) -> str:
        """The service a request id belongs to, for dialects whose routes don't name it. Raises RequestNotFound.

        Asked anew each time: a server that has lost its data gives the numbers to other services.
        """
        name = self.store.service_of_number(ids.service_number(request_id)) if ids.is_id(request_id) else None
        if name is not None:
            return name
        raise errors.RequestNotFound(request_id, self.services.result_ttl_s)

    @translated
    def clone_number(self) -> int:
        """For a copy of a client: positive, and given to nobody else. Redis' clock in seconds, or a little more."""
        return self.store.clone()

    @translated
    def result_body(self, request: Request) -> bytes:
        """The target's answer, byte for byte; empty where there was none."""
        if request.body is not None:
            return request.body
        return self.store.result_body(request.service, request.request_id) or b""

    @translated
    def answer(self, request: Request) -> tuple[bytes, str]:
        """The answer that is kept, byte for byte, and what the dialect keeps of it besides; empty where there is
        none."""
        body, about = self.store.answer(request.service, request.request_id)
        return body or b"", (about or b"").decode()

    @translated
    def submitted(self, request: Request) -> tuple[bytes, bytes | None]:
        """What was submitted: all but the body, as JSON, and the body, byte for byte; None where it is not kept any
        more. Raises RequestNotFound."""
        meta, body = self.store.submitted(request.service, request.request_id)
        if meta is None:
            raise errors.RequestNotFound(request.request_id, self.services.result_ttl_s)
        return meta, body

    @translated
    def cancel(self, service_name: str, request_id: str) -> State:
        """Cancel, durably and with or without workers; returns the state the request was in.

        QUEUED: it is never sent. RUNNING: it has ended as cancelled, its holder closes the connection to the target.
        CANCELLED: it was before. Raises RequestNotFound, NotCancellable when it ended otherwise.
        """
        return self._cancel(self.services.get(service_name).name, request_id)

    @translated
    def abandon(self, service_name: str, request_id: str) -> State:
        """Cancel what nobody waits for any more, though its service be taken out of the settings meanwhile."""
        return self._cancel(service_name, request_id)

    def _cancel(self, name: str, request_id: str) -> State:
        was = self.store.cancel(name, request_id) if ids.is_id(request_id) else ""
        if not was:
            raise errors.RequestNotFound(request_id, self.services.result_ttl_s)
        state = State(was)
        if state.is_terminal and state is not State.CANCELLED:
            raise errors.NotCancellable(request_id, state.value)
        return state

    def wait(
        self, service_name: str, request_id: str, timeout_s: float, *, is_gone: Callable[[], bool] = waiting.nobody_asks
    ) -> Request:
        """The request once it has ended, or as it is after *timeout_s* or when this process is about to stop.

        Who waits gets an answer, though the service be taken out of the settings meanwhile. Raises WaiterGone when
        *is_gone*, asked every few seconds, says that nobody waits for the answer any more.
        """
        until_s = time.monotonic() + timeout_s
        with self.waits.watching(service_name, request_id, end_only=True, is_gone=is_gone) as waiter:
            request = self._look_first(service_name, request_id)
            away: errors.Unavailable | None = None
            left_s = timeout_s
            while not request.state.is_terminal and left_s > 0:
                turn = waiter.wait(left_s)
                if turn is Turn.GONE:
                    raise errors.WaiterGone(request_id)
                try:
                    request, away = self.look_again(request), None
                    waiter.saw(request.version, None)
                except errors.Unavailable as exc:  # it may be back before the time is up
                    away = exc
                left_s = 0 if turn is Turn.STOPPING else until_s - time.monotonic()
            if away is not None:
                raise away
            return request

    # -------------------------------------------------------------------------------------------------- operators
    @translated
    def pause(self, service_name: str) -> bool:
        """Accept requests of the service but start none, until resumed; returns whether that changed something."""
        return self._set_paused(service_name, True)

    @translated
    def resume(self, service_name: str) -> bool:
        """End a pause; returns whether there was one."""
        return self._set_paused(service_name, False)

    @translated
    def overview(self, service_name: str) -> Overview:
        """How a service stands; of one that nobody has used yet, too."""
        return self.store.overview(self.services.get(service_name).name) or Overview.empty()

    @translated
    def dead_letters(
        self, service_name: str, *, after: int = 0, most: int = letters.PAGE_MOST
    ) -> tuple[int, list[Letter]]:
        """How many dead letters a service has, and a page of them behind rear index *after*, oldest first."""
        return letters.page(self, self.services.get(service_name).name, after=after, most=most)

    @translated
    def redrive(self, service_name: str, choice: letters.Choice) -> letters.Redriven:
        """Submit dead letters again, each as a new request; see letters.redrive."""
        return letters.redrive(self, self.services.get(service_name).name, choice)

    @translated
    def discard(self, service_name: str, choice: letters.Choice) -> list[str]:
        """Take dead letters off the list for good; returns their ids."""
        return letters.discard(self, self.services.get(service_name).name, choice)

    @translated
    def webhook(self, service_name: str, request_id: str) -> deliveries.Delivery:
        """What has become of a request's webhook. Raises WebhookNotFound, also while the request has not ended."""
        return deliveries.look(self, self.services.get(service_name).name, request_id)

    @translated
    def webhook_page(
        self, service_name: str, *, failed: bool, after: int = 0, most: int = deliveries.PAGE_MOST
    ) -> tuple[int, list[deliveries.Delivery]]:
        """How many webhooks of ended requests a service has, or has given up, and a page of them behind *after*."""
        return deliveries.page(self, self.services.get(service_name).name, failed=failed, after=after, most=most)

    @translated
    def resend_webhooks(self, service_name: str, request_ids: tuple[str, ...] | None) -> list[str]:
        """Deliver webhooks again, also what was delivered; None: all that were given up. Returns the requests' ids."""
        return deliveries.resend(self, self.services.get(service_name).name, request_ids)

    @translated
    def alive(self) -> tuple[int | None, list[Alive]]:
        """Age of the last sweep, ms, and the processes of the installation that were heard of in the last minute."""
        return self.store.alive()

    def _set_paused(self, service_name: str, paused: bool) -> bool:
        service = self.services.get(service_name)
        changed = self.store.pause(service.name, paused)
        if changed is None:
            self.register(service)
            changed = self.store.pause(service.name, paused)
        return bool(changed)

    def register(self, service: Service) -> int:
        """Make the service and its limits known to Redis; returns its number in request ids."""
        while True:
            self._told.pop(service.name, None)
            number = self.store.register(
                service.name,
                max_concurrency=service.max_concurrency,
                weight=service.weight,
                max_attempts=service.max_attempts,
                ttl_ms=service.result_ttl_s * 1000,
                sink=service.sink == "always",
                max_sink_length=service.max_sink_length,
                hold=service.sink_full == "hold",
                pull=service.mode == "pull",
                listed=self.services.lists(service.name),
            )
            if number is None:
                raise errors.TooManyServices(service.name)
            self._numbers[service.name], self._told[service.name] = number, service
            newer = _find(self.services, service.name)
            if newer is None or newer == service:
                return number
            service = newer  # replaced meanwhile: its new limits may have been written before these old ones

    @translated
    def register_listed(self) -> None:
        """Tell Redis the limits of every listed service, and of those others whose limits this process has changed.

        Once for each settings: a changed services file counts from its reading on.
        """
        services = self.services
        if self._registered is services:
            return
        for service in services:
            self.register(service)
        listed = {service.name for service in services}
        for name in set(self._numbers) - listed:
            found = _find(services, name)
            if found is not None and found != self._told.get(name):
                self.register(found)
        self._registered = services


def _find(services: Services, name: str) -> Service | None:
    try:
        return services.get(name)
    except errors.EngineError:  # taken out of the settings: Redis keeps its limits for what it has left
        return None
