"""The Celery messages that say "look for work" and "look for webhooks to deliver".

They carry no argument and no permission: an id is all they have, and a lost or doubled one does no harm. Scripts push
them onto Celery's lists themselves, in the step that makes them necessary, so each text is built here once and joined
around the id in Lua. ``tests/store/test_kick.py`` holds them against what Celery itself would send.

Source: Celery message protocol 2 and kombu's Redis transport (celery/app/amqp.py ``as_task_v2``,
kombu/transport/virtual/base.py ``Channel.prepare_message``), 5.7.0.
"""

from __future__ import annotations

import base64
import json
from typing import Any

TASK_NAME = "tasks.forward"
DELIVER = "tasks.deliver"
_ID = "\0id\0"


def message(kick_id: str, queue: str, task: str = TASK_NAME) -> dict[str, Any]:
    """The message as kombu stores it in the list *queue*."""
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    return {
        "body": base64.b64encode(json.dumps([[], {}, embed]).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": task,
            "id": kick_id,
            "shadow": None,
            "eta": None,
            "expires": None,
            "group": None,
            "group_index": None,
            "retries": 0,
            "timelimit": [None, None],
            "root_id": kick_id,
            "parent_id": None,
            "argsrepr": "()",
            "kwargsrepr": "{}",
            "origin": "eas_queue",
            "ignore_result": True,
            "replaced_task_nesting": 0,
            "stamped_headers": None,
            "stamps": {},
        },
        "properties": {
            "correlation_id": kick_id,
            "reply_to": "",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
            "body_encoding": "base64",
            # kombu keys its un-acknowledged messages by this: it must differ between messages
            "delivery_tag": kick_id,
        },
    }


def lua_pieces(queue: str, task: str = TASK_NAME) -> str:
    """Lua table whose ``table.concat(pieces, id)`` is the message for *id*."""
    pieces = json.dumps(message(_ID, queue, task)).split(json.dumps(_ID)[1:-1])
    return "{" + ", ".join(f"[[{piece}]]" for piece in pieces) + "}"
