"""How many listen to the events of requests: Flower, ``celery events``, exporters."""

from __future__ import annotations

import base64
import json
from typing import Any

ROUTING_KEY = "task.multi"  # what batches of task events are published under


def count_listeners(channel: Any, exchange: str) -> int:
    """Publish an empty batch of task events and return how many subscriptions it has reached.

    Listeners subscribe to patterns, which PUBSUB can count only all together, those of workers among them. *channel* is
    kombu's, and knows the names; it would keep PUBLISH's answer to itself.
    """
    topic = channel._get_publish_topic(exchange, ROUTING_KEY)
    return int(channel.client.publish(topic, _empty_batch(exchange)))


def _empty_batch(exchange: str) -> str:
    """As kombu sends it, see ``kombu.transport.virtual.Channel.prepare_message``."""
    return json.dumps(
        {
            "body": base64.b64encode(b"[]").decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {},
            "properties": {
                "delivery_mode": 1,
                "delivery_info": {"exchange": exchange, "routing_key": ROUTING_KEY},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": "who-listens",
            },
        }
    )
