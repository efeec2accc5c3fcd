"""The engine: what dialects and workers may do with requests, and what they are promised.

A dialect parses, makes one call here, and renders the answer. The rules themselves are the scripts in
``eas_queue/store/lua``, because each must be one atomic step.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, TypeVar

from eas_queue.engine import errors, ids, waiting
from eas_queue.engine.request import Receipt, Request, State, Submission, priority_class
from eas_queue.engine.service import Service, Services
from eas_queue.store import errors as store_errors
from eas_queue.store.store import Store

_F = TypeVar("_F", bound=Callable[..., Any])


def _translated(call: _F) -> _F:
    """Callers of the engine see the engine's errors only."""

    @functools.wraps(call)
    def inner(*args: Any, **options: Any) -> Any:
        try:
            return call(*args, **options)
        except store_errors.StoreError as exc:
            raise errors.Unavailable(str(exc)) from exc

    return inner  # type: ignore[return-value]


class Engine:
    """One installation's engine. Opens no connection before its first use; safe to share between threads.

    Every method raises Unavailable within about a second when Redis is away; service names raise InvalidRequest or
    ServiceNotFound.
    """

    def __init__(self, store: Store, services: Services) -> None:
        self.store = store
        self.services = services
        self.waits = waiting.Waits(store.client)
        self._numbers: dict[str, int] = {}
        self._names: dict[int, str] = {}

    # ---------------------------------------------------------------------------------------------------- clients
    @_translated
    def submit(self, service_name: str, submission: Submission) -> Receipt:
        """Store a request; when this returns it is in Redis, and will reach exactly one terminal state.

        Atomic and one round trip, the announcement to the workers included. Raises QueueFull, TooManyServices,
        InvalidRequest; nothing is stored then.
        """
        service = self.services.get(service_name)
        if submission.path and not service.takes_subpath:
            raise errors.InvalidRequest(
                f"service {service.name} has one address without subpaths, so {submission.path[:100]!r} would be lost; "
                "its target_url needs {path} to take them"
            )
        number = self._numbers.get(service.name) or self.register(service)
        for _ in range(2):
            request_id = ids.new_id(number)
            reply = self.store.submit(
                service.name,
                request_id,
                number=number,
                priority_class=priority_class(submission.priority),
                deadline_in_ms=round(service.deadline_s * 1000),
                max_queue_length=service.max_queue_length,
                meta=submission.meta(),
                body=submission.body,
            )
            if reply[0] == 1:
                return Receipt(service.name, request_id, int(reply[1]))
            if reply[0] == 0:
                raise errors.QueueFull(service.name, int(reply[1]), service.max_queue_length)
            # Redis lost the service: it was emptied, or a crash undid the last second
            number = self.register(service)
        raise errors.Unavailable(f"service {service.name} vanished from Redis twice while a request was submitted")

    @_translated
    def look(self, service_name: str, request_id: str) -> Request:
        """The request as it is now. Raises RequestNotFound, also for another service's request."""
        service = self.services.get(service_name)
        found = self.store.look(service.name, request_id) if ids.is_id(request_id) else None
        if found is None:
            raise errors.RequestNotFound(request_id, service.result_ttl_s)
        position, depth, fields = found

        def number(name: str) -> int | None:
            return int(fields[name]) if name in fields else None

        state = State(fields["state"])
        return Request(
            service=service.name,
            request_id=request_id,
            state=state,
            index=int(fields["index"]),
            priority_class=int(fields["class"]),
            attempts=number("attempt") or 0,
            position=position if position >= 0 else None,
            depth=depth,
            submitted_ms=int(fields["submitted_ms"]),
            started_ms=number("started_ms"),
            finished_ms=number("finished_ms"),
            status_code=number("status_code"),
            from_target=fields.get("from_target") == "1",
            result_bytes=number("result_bytes") or 0,
            error_type=fields.get("error_type", ""),
            error=fields.get("error", ""),
            headers=tuple((name, value) for name, value in json.loads(fields.get("headers") or "[]")),
        )

    @_translated
    def service_of(self, request_id: str) -> str:
        """The service a request id belongs to, for dialects whose routes don't name it. Raises RequestNotFound."""
        if ids.is_id(request_id):
            number = ids.service_number(request_id)
            if number not in self._names:
                name = self.store.service_of_number(number)
                if name is not None:
                    self._names[number] = name
            if number in self._names:
                return self._names[number]
        raise errors.RequestNotFound(request_id, self.services.result_ttl_s)

    @_translated
    def result_body(self, request: Request) -> bytes:
        """The target's answer, byte for byte; empty where there was none."""
        return self.store.result_body(request.service, request.request_id) or b""

    @_translated
    def cancel(self, service_name: str, request_id: str) -> State:
        """Cancel, durably and with or without workers; returns the state the request was in.

        QUEUED: it is never sent. RUNNING: it has ended as cancelled, its holder closes the connection to the target.
        CANCELLED: it was before. Raises RequestNotFound, NotCancellable when it ended otherwise.
        """
        service = self.services.get(service_name)
        was = self.store.cancel(service.name, request_id) if ids.is_id(request_id) else ""
        if not was:
            raise errors.RequestNotFound(request_id, service.result_ttl_s)
        state = State(was)
        if state.is_terminal and state is not State.CANCELLED:
            raise errors.NotCancellable(request_id, state.value)
        return state

    def wait(self, service_name: str, request_id: str, timeout_s: float) -> Request:
        """The request once it has ended, or as it is after *timeout_s* or when this process is about to stop."""
        with self.waits.watching(request_id) as waiter:
            request = self.look(service_name, request_id)
            waiter.starts(timeout_s)
            away: errors.Unavailable | None = None
            while not request.state.is_terminal and waiter.wait():
                try:
                    request, away = self.look(service_name, request_id), None
                except errors.Unavailable as exc:  # it may be back before the time is up
                    away = exc
            if away is not None:
                raise away
            return request

    # -------------------------------------------------------------------------------------------------- operators
    @_translated
    def pause(self, service_name: str) -> bool:
        """Accept requests of the service but start none, until resumed; returns whether that changed something."""
        return self._set_paused(service_name, True)

    @_translated
    def resume(self, service_name: str) -> bool:
        """End a pause; returns whether there was one."""
        return self._set_paused(service_name, False)

    def _set_paused(self, service_name: str, paused: bool) -> bool:
        service = self.services.get(service_name)
        changed = self.store.pause(service.name, paused)
        if changed is None:
            self.register(service)
            changed = self.store.pause(service.name, paused)
        return bool(changed)

    def register(self, service: Service) -> int:
        """Make the service and its limits known to Redis; returns its number in request ids."""
        number = self.store.register(
            service.name,
            max_concurrency=service.max_concurrency,
            weight=service.weight,
            max_attempts=service.max_attempts,
            ttl_ms=service.result_ttl_s * 1000,
            sink=service.sink == "always",
            max_sink_length=service.max_sink_length,
        )
        if number is None:
            raise errors.TooManyServices(service.name)
        self._numbers[service.name] = number
        return number

    @_translated
    def register_listed(self) -> None:
        """Tell Redis the limits of every listed service: a changed services file counts from the start on."""
        for service in self.services:
            self.register(service)
