"""Many requests with webhooks of both forms, to a receiver that fails each delivery up to three times and is dead for a
while: what arrived, judged by the steps that each form's receivers are told to take."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import requests
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks.webhooks import Webhook as Standard

from eas_queue.engine.engine import Engine
from eas_queue.engine.request import Submission, Webhook
from tests.support.installation import await_condition
from tests.support.receiver import Delivery, Receiver

FAL_HEADERS = ("request-id", "user-id", "timestamp", "signature")


class Forged(Exception):
    """A receiver would refuse it."""


def fetched(jwks_url: str) -> list[dict[str, str]]:
    """Receivers keep them for up to a day."""
    keys: list[dict[str, str]] = requests.get(jwks_url, timeout=10).json()["keys"]
    return keys


def verified_by_fals_steps(delivery: Delivery, keys: list[dict[str, str]]) -> Any:
    """All four headers; at most five minutes old; one of the keys fits. Raises Forged."""
    try:
        request_id, user_id, timestamp, signature = (delivery.headers[f"x-fal-webhook-{name}"] for name in FAL_HEADERS)
    except KeyError as exc:
        raise Forged(f"no header {exc}") from exc
    if abs(time.time() - int(timestamp)) > 300:
        raise Forged("too old")
    message = "\n".join([request_id, user_id, timestamp, hashlib.sha256(delivery.body).hexdigest()]).encode()
    for key in keys:
        try:
            Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"])).verify(
                bytes.fromhex(signature), message
            )
        except InvalidSignature:
            continue
        return json.loads(delivery.body)
    raise Forged("no key fits")


def verified_by_standard_webhooks(delivery: Delivery, secret: str) -> Any:
    return Standard(secret).verify(delivery.body, delivery.headers)


@dataclass
class FailsUpTo:
    """Refuses each delivery so often, a number by chance for each; by status, or by hanging up."""

    most: int
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    left: dict[str, int] = field(default_factory=dict)
    accepted: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, delivery: Delivery) -> int:
        with self._lock:
            left = self.left.setdefault(delivery.request_id, self.chance.randint(0, self.most))
            if left:
                self.left[delivery.request_id] = left - 1
                return self.chance.choice([500, 503, 302, 0])
            self.accepted[delivery.request_id] += 1
            return 200


def submit_many(engine: Engine, receiver: Receiver, count: int, service: str = "demo") -> dict[str, str]:
    """Request id to the form of its webhook. As the dialects submit, without their HTTP."""

    def submit(i: int) -> tuple[str, str]:
        style = ("native", "fal")[i % 2]
        webhook = Webhook(f"{receiver.url}/{style}", style, {"user_id": "key-id"} if style == "fal" else {})
        submission = Submission(json.dumps({"number": i}).encode(), webhook=webhook)
        return engine.submit(service, submission).request_id, style

    with ThreadPoolExecutor(16) as threads:
        return dict(threads.map(submit, range(count)))


def await_all(receiver: Receiver, act: FailsUpTo, wanted: dict[str, str], *, timeout_s: float) -> None:
    await_condition(
        lambda: set(wanted) <= set(act.accepted),
        timeout_s=timeout_s,
        what=f"all {len(wanted)} webhooks arrive",
    )


def judge(receiver: Receiver, wanted: dict[str, str], *, url: str, secret: str) -> None:
    """Every delivery that came verifies, and tells of its request."""
    keys = fetched(f"{url}/.well-known/jwks.json")
    for delivery in list(receiver.deliveries):
        _judge(delivery, wanted, keys, secret)


def _judge(delivery: Delivery, wanted: dict[str, str], keys: list[dict[str, str]], secret: str) -> None:
    style = wanted[delivery.request_id]
    assert delivery.path == f"/{style}"
    if style == "native":
        found = verified_by_standard_webhooks(delivery, secret)
        assert (found["type"], found["data"]["request_id"]) == ("request.succeeded", delivery.request_id)
    else:
        found = verified_by_fals_steps(delivery, keys)
        assert (found["status"], found["request_id"]) == ("OK", delivery.request_id)
        assert delivery.headers["x-fal-webhook-user-id"] == "key-id"
        forged = dataclasses.replace(delivery, body=delivery.body + b" ")
        try:
            verified_by_fals_steps(forged, keys)
        except Forged:
            return
        raise AssertionError("another body verifies, too")
