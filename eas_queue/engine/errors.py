"""Everything the engine raises. Names state the fact; each carries the facts a dialect needs to render it.

EngineError
├── InvalidRequest      the submitter's fault: what is wrong, and where
├── ServiceNotFound     no such service, and unlisted ones are not allowed
├── RequestNotFound     unknown, expired, or another service's: these look the same
├── WebhookNotFound     the request has no webhook, or has not ended
├── NotCancellable      it has ended in another way
├── IdempotencyConflict the idempotency key was used for another request
├── QueueFull           too many requests wait
├── RateLimited         this token submits too fast
├── WaiterGone          nobody waits for this answer any more
├── AttemptOver         progress of an attempt that does not run (any more)
├── TooManyServices     every service number is taken
├── Unavailable         the store is away, or full
└── QueueError          only to those who put into queues or consume them
    ├── SinkFull        the sink holds what it has, and has no room
    ├── ConsumerBusy    a consumer of this name watches already
    ├── FilterMismatch  the group watches with other tags
    ├── TooManyGroups   the queue has too many groups
    ├── NotPulled       nobody pulls from this service: its requests are forwarded, or it was never enrolled
    └── NotTaken        no taker holds the request (any more), or another one

TargetFailed and WorkerLost are not raised by the engine: they are what Celery's ``AsyncResult.get()`` raises for a
failed request.
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of all expected errors; ``code`` is stable and part of the wire."""

    code = "error"

    @property
    def in_full(self) -> str:
        """For logs: it may name hosts, which answers must not."""
        return str(self)


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


class WebhookNotFound(EngineError):
    code = "webhook-not-found"

    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"there is no webhook of {request_id!r}: the request is unknown, has none, or has not ended"
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


class IdempotencyConflict(EngineError):
    code = "idempotency-conflict"

    def __init__(self, service: str) -> None:
        super().__init__(
            f"this Idempotency-Key was used for another request to {service}, with another body, path or query: "
            "nothing was stored; send a new key with a new request"
        )


class RateLimited(EngineError):
    code = "rate-limited"

    def __init__(self, rate_per_s: float, retry_after_ms: int) -> None:
        super().__init__(
            f"this token may submit {rate_per_s:g} requests a second: nothing was stored, "
            f"try again in {retry_after_ms / 1000:g} s"
        )
        self.retry_after_s = -(-retry_after_ms // 1000)


class AttemptOver(EngineError):
    code = "attempt-over"

    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"nothing was noted for {request_id}: X-Progress-Token belongs to one attempt, and no attempt with "
            "this one runs (any more); stop working on it"
        )


class WaiterGone(EngineError):
    code = "waiter-gone"

    def __init__(self, request_id: str) -> None:
        super().__init__(f"the client that waited for {request_id} is gone")


class TooManyServices(EngineError):
    code = "too-many-services"
    retry_after_s = 60

    def __init__(self, service: str) -> None:
        super().__init__(f"service {service!r} can't be added: all 65,535 service numbers are taken")


class Unavailable(EngineError):
    """Nothing is known of the call's effect unless the message says so."""

    code = "unavailable"
    retry_after_s = 1

    def __init__(self, text: str, in_full: str = "") -> None:
        super().__init__(text)
        self._in_full = in_full or text

    @property
    def in_full(self) -> str:
        return self._in_full


class QueueError(EngineError):
    """Raised by what only the dialects of queues call."""


class SinkFull(QueueError):
    code = "sink-full"

    def __init__(self, service: str, length: int) -> None:
        super().__init__(
            f"the sink of {service} holds {length} items and loses none (sink_full = hold): nothing was stored; "
            "read, commit or truncate it"
        )
        self.retry_after_s = 1


class ConsumerBusy(QueueError):
    code = "consumer-busy"

    def __init__(self, consumer: str) -> None:
        super().__init__(
            f"another connection watches as {consumer}, and is alive: use another user id, or end that one"
        )


class FilterMismatch(QueueError):
    code = "filter-mismatch"

    def __init__(self, group: str) -> None:
        super().__init__(
            f"group {group} watches with other tags, and all consumers of a group must name the same: "
            "use these, or another group"
        )


class TooManyGroups(QueueError):
    code = "too-many-groups"

    def __init__(self, queue: str) -> None:
        super().__init__(
            f"the {queue} is read by 256 groups, and each item is kept until all have had it: use one of them, "
            "or end the consumers of another; a minute later its place is free"
        )


class TargetFailed(Exception):
    """The target's final answer was not a success, or there was none."""


class WorkerLost(Exception):
    """Every worker that tried the request was lost."""


class NotPulled(QueueError):
    code = "not-pulled"

    def __init__(self, service: str) -> None:
        super().__init__(
            f"consumers can't pull from {service!r}: nobody has registered it as a queue, and the services file has no "
            f'[services.{service}] with mode = "pull"'
        )
        self.service = service


class NotTaken(QueueError):
    code = "not-taken"

    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"request {request_id} is not held: it has ended, its lease has lapsed, or another taker has it"
        )
        self.request_id = request_id
