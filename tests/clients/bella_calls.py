"""Makes calls of the take API with bella-openapi's models as they are asked for: lines of JSON in, lines of JSON out.

    {"call": "take", "kwargs": {"queues": ["q:1"], "size": 1, "process_timeout": 60}}
    {"call": "complete", "kwargs": {"task_id": .., "status_code": 200, "body": {..}}}
    {"call": "tell", ..}, {"call": "eventbus"}

The answer has *result*, or *error* with the exception's name and text, of a refusal also *status* and *body*.
"""

from __future__ import annotations

import json
import sys

from tests.clients.bella_common import Refused, Server, models, say

server = Server()
for line in sys.stdin:
    asked = json.loads(line)
    try:
        result = getattr(server, asked["call"])(**asked.get("kwargs", {}))
    except Refused as exc:
        say(error="Refused", text=str(exc), status=exc.status, body=exc.body)
    except Exception as exc:
        say(error=type(exc).__name__, text=str(exc))
    else:
        say(result=result.model_dump() if isinstance(result, models.EventBusConfig) else result)
