"""Makes the deliveries that are due, one after the other; further tasks of the same kind do so beside it.

Redis decides what is due, to whom, and how many at once. What is tried here and lost (a killed process, Redis away at
the wrong moment) is due again when its lease lapses: a receiver may hear of an end twice, never not at all.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from eas_queue.engine.engine import Engine
from eas_queue.engine.errors import EngineError, RequestNotFound
from eas_queue.engine.receivers import receiver
from eas_queue.engine.request import Request, Webhook
from eas_queue.store.errors import StoreError
from eas_queue.store.hooks import Taken
from eas_queue.store.shapes import fresh_id
from eas_queue.webhooks.sender import Outcome, Sender

log = logging.getLogger("eas_queue.webhooks")

HOT_S = 10.0  # a task goes on for so long; then a fresh message takes over
LEASE_SPARE_S = 15.0  # beyond the longest attempt: to render, and to tell what has become of it
TELL_AGAIN_S = 0.2
JITTER = 0.1  # of each pause, either way


@dataclass(frozen=True)
class Style:
    """How one dialect's webhooks look: the body of a request that has ended, and the headers that vouch for it."""

    render: Callable[[Request], bytes]
    sign: Callable[[Webhook, str, int, bytes], Mapping[str, str]]  # webhook, request id, Unix seconds, body


class Deliverer:
    """Of one process; safe to share between its threads. *tell*: how many deliveries it makes at the moment."""

    def __init__(
        self,
        engine: Engine,
        sender: Sender,
        styles: Mapping[str, Style],
        timeout_s: float,
        retry_delays_s: Sequence[float],
        is_stopping: Callable[[], bool],
        tell: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._engine, self._hooks, self._sender, self._styles = engine, engine.store.hooks, sender, styles
        self._retry_delays_s = tuple(retry_delays_s)
        self._lease_s = timeout_s + LEASE_SPARE_S
        self._is_stopping = is_stopping
        self._tell = tell
        self._lock = threading.Lock()
        self.busy = 0

    def run(self) -> None:
        """Serve one message: until nothing is due, for HOT_S, or until the process stops."""
        caller, until_s = f"webhooks.{fresh_id()}", time.monotonic() + HOT_S
        while time.monotonic() < until_s and not self._is_stopping():
            try:
                found = self._hooks.take(
                    1,
                    caller=caller,
                    lease_ms=round(self._lease_s * 1000),
                    attempts_most=len(self._retry_delays_s) + 1,
                )
            except StoreError as exc:
                log.warning("webhooks_not_taken error=%s", exc.in_full)  # the next sweep sends a message
                return
            if not found:
                return
            self._count(1)
            try:
                self._deliver(found[0])
            finally:
                self._count(-1)

    def _count(self, by: int) -> None:
        with self._lock:
            self.busy += by
            self._tell(self.busy)

    def _deliver(self, taken: Taken) -> None:
        began_s = time.monotonic()
        webhook = Webhook.unpacked(taken.hook)
        try:
            outcome = self._attempt(taken, webhook)
        except RequestNotFound:
            outcome = Outcome(None, "the request's record has gone, so there is nothing to tell", is_final=True)
        except EngineError as exc:
            outcome = Outcome(None, f"the request could not be read: {exc}")
        except Exception:
            log.exception("webhook_failed request_id=%s", taken.request_id)
            outcome = Outcome(None, "a defect of the queue; its log tells more")
        what, pause_ms = self._verdict(outcome, taken.attempt)
        log.log(
            logging.INFO if what == "delivered" else logging.WARNING,
            "webhook_%s request_id=%s service=%s receiver=%s attempt=%d elapsed_ms=%d%s",
            what,
            taken.request_id,
            taken.service,
            receiver(webhook.url).server,
            taken.attempt,
            (time.monotonic() - began_s) * 1000,
            f" reason={outcome.error!r}" if outcome.error else "",
        )
        while True:
            try:
                self._hooks.done(taken, what, pause_ms=pause_ms, status=outcome.status, error=outcome.error)
                return
            except StoreError as exc:
                if time.monotonic() - began_s > self._lease_s or self._is_stopping():
                    log.warning("webhook_not_noted request_id=%s error=%s", taken.request_id, exc.in_full)
                    return
                time.sleep(TELL_AGAIN_S)

    def _attempt(self, taken: Taken, webhook: Webhook) -> Outcome:
        style = self._styles.get(webhook.style)
        if style is None:
            return Outcome(None, f"webhooks of the style {webhook.style} can't be made here: WEBHOOK_SECRET is not set")
        body = style.render(self._engine.look_anyway(taken.service, taken.request_id))
        return self._sender.post(webhook.url, style.sign(webhook, taken.request_id, int(time.time()), body), body)

    def _verdict(self, outcome: Outcome, attempt: int) -> tuple[str, int]:
        """What became of the delivery, and after how many ms it is tried again."""
        if not outcome.error:
            return "delivered", 0
        if outcome.is_final or attempt > len(self._retry_delays_s):
            return "failed", 0
        pause_s = self._retry_delays_s[attempt - 1] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  no secret
        return "retry", round(pause_s * 1000)
