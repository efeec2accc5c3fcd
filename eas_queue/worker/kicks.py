"""How Celery receives a kick."""

from __future__ import annotations

from celery.worker.request import Request


class KickRequest(Request):  # type: ignore[misc]
    """A kick is not acknowledged: nobody keeps it for redelivery, because losing one does no harm.

    On Redis, kombu takes an acknowledgement of its consumer's ``no_ack`` messages all the same, which costs a round
    trip each, and fails loudly when a greenlet pool receives more kicks at once than kombu has connections (10).
    """

    def acknowledge(self) -> None:
        self.acknowledged = True
