"""Everything the engine raises. Names state the fact; each carries the facts a dialect needs to render it.

EngineError
├── InvalidRequest      the submitter's fault: what is wrong, and where
├── ServiceNotFound     no such service, and unlisted ones are not allowed
├── RequestNotFound     unknown, expired, or another service's: these look the same
├── NotCancellable      it has ended in another way
├── QueueFull           too many requests wait
├── TooManyServices     every service number is taken
└── Unavailable         the store is away, or full

TargetFailed and WorkerLost are not raised by the engine: they are what Celery's ``AsyncResult.get()`` raises for a
failed request.
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of all expected errors; ``code`` is stable and part of the wire."""

    code = "error"


class InvalidRequest(EngineError):
    code = "invalid-request"


class ServiceNotFound(EngineError):
    code = "service-not-found"

    def __init__(self, service: str) -> None:
        super().__init__(
            f"service {service!r} is not served here: the services file does not list it "
            f"(operator: add [services.{service}], or allow_unlisted = true under [defaults])"
        )
        self.service = service


class RequestNotFound(EngineError):
    code = "request-not-found"

    def __init__(self, request_id: str, result_ttl_s: int) -> None:
        super().__init__(
            f"no request {request_id!r} in this service: it never existed, or it ended more than "
            f"{result_ttl_s} s ago (RESULT_TTL_S)"
        )
        self.request_id = request_id


class NotCancellable(EngineError):
    code = "not-cancellable"

    def __init__(self, request_id: str, state: str) -> None:
        super().__init__(f"request {request_id} has already {state}: there is nothing left to cancel")
        self.request_id, self.state = request_id, state


class QueueFull(EngineError):
    code = "queue-full"

    def __init__(self, service: str, waiting: int, limit: int) -> None:
        super().__init__(
            f"{waiting} requests wait for {service}, and its max_queue_length is {limit}: nothing was stored, try later"
        )
        self.service, self.waiting, self.limit = service, waiting, limit
        self.retry_after_s = 1


class TooManyServices(EngineError):
    code = "too-many-services"
    retry_after_s = 60

    def __init__(self, service: str) -> None:
        super().__init__(f"service {service!r} can't be added: all 65,535 service numbers are taken")


class Unavailable(EngineError):
    """Nothing is known of the call's effect unless the message says so."""

    code = "unavailable"
    retry_after_s = 1


class TargetFailed(Exception):
    """The target's final answer was not a success, or there was none."""


class WorkerLost(Exception):
    """Every worker that tried the request was lost."""
