"""How this process and its installation are: what `/healthz` answers and orchestrators decide by."""

from __future__ import annotations

import json
from typing import Any

from eas_queue.engine.engine import Engine
from eas_queue.engine.errors import Unavailable

SWEEP_LATE_S = 30.0


def report(engine: Engine) -> tuple[dict[str, Any], int]:
    """(JSON object, HTTP status): 200 when this process can serve, 503 when Redis or its own subscription is away.

    Workers, and a sweep that is late, are told and don't count: starting this process again would not mend them. Names
    of hosts are left out, because nobody is asked for a token here.
    """
    listens = engine.waits.is_listening()
    try:
        sweep_age_ms, processes = engine.alive()
    except Unavailable as exc:
        return {"status": "unavailable", "redis": str(exc), "listener": _word(listens)}, 503
    found = [(process.age_ms, json.loads(process.about)) for process in processes]
    sweep_age_s = None if sweep_age_ms is None else sweep_age_ms / 1000
    return {
        "status": "ok" if listens else "unavailable",
        "redis": "ok",
        "listener": _word(listens),
        "waiting_clients": engine.waits.count(),
        "sweep": {"status": _word(sweep_age_s is not None and sweep_age_s < SWEEP_LATE_S), "age_s": sweep_age_s},
        "workers": [
            {"age_s": age_ms / 1000, "seats": about.get("seats"), "busy": about.get("busy")}
            for age_ms, about in found
            if about.get("role") == "worker"
        ],
        "webhooks": [
            {"age_s": age_ms / 1000, "busy": about.get("busy")}
            for age_ms, about in found
            if about.get("role") == "webhooks"
        ],
        "web": [{"age_s": age_ms / 1000} for age_ms, about in found if about.get("role") == "web"],
    }, 200 if listens else 503


def _word(is_well: bool) -> str:
    return "ok" if is_well else "away"
