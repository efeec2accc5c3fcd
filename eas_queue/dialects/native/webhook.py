"""The native webhook: the status JSON, as Standard Webhooks has its payloads. See PROTOCOL.md."""

from __future__ import annotations

import json
from collections.abc import Callable

from eas_queue.dialects.native.schema import rfc3339
from eas_queue.dialects.native.status import status_of
from eas_queue.engine.engine import Engine
from eas_queue.engine.request import Request

STYLE = "native"


def renderer(engine: Engine, base_url: str) -> Callable[[Request], bytes]:
    """Makes the body for a request that has ended."""

    def render(request: Request) -> bytes:
        content = {
            "type": f"request.{request.state}",
            "timestamp": rfc3339(request.finished_ms),
            "data": status_of(engine, request, base_url),
        }
        return json.dumps(content).encode()

    return render
