"""What clients ask for: the bodies of put, take, complete, renew and progress. See PROTOCOL.md."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from eas_queue.dialects import reports
from eas_queue.dialects.bella import answers, names
from eas_queue.dialects.members import Members
from eas_queue.engine import errors
from eas_queue.engine.request import EVENT, Caller, ProgressNote, Submission, Webhook
from eas_queue.engine.retry import Answer
from eas_queue.engine.taking import Strategy, Wanted

STYLE = "bella"  # of its webhooks
TIMEOUT_S = 86_400  # of what nobody waits for
HELD_TIMEOUT_S = 600  # of what somebody does wait for, and the most
SECONDS_MOST = 31_536_000
ENDPOINT_MOST, TRACE_MOST = 2048, 256
QUEUES_MOST, SIZE_MOST = 50, 1000
WAIT_MOST_S = 5.0
EVENTS_MOST = 100
JSON = ("Content-Type", "application/json")
_PRINTABLE = re.compile(r"[!-~]{1,128}")
_ONE_LINE = re.compile(r"[^\r\n\0]*")
_HELD = ("blocking", "streaming")


@dataclass(frozen=True, slots=True)
class Put:
    """*timeout_s*: until when it is to be answered."""

    queue: str
    level: int
    mode: str
    timeout_s: float
    submission: Submission


def put(content: Members, caller: Caller, *, held_most_s: float, idempotency_key: str = "") -> Put:
    """*held_most_s*: how long a connection may be held. *idempotency_key*: counts where nobody waits for the answer,
    because who waits and leaves early has the task cancelled. Raises InvalidRequest."""
    values = content.values
    mode = "callback" if values.get("response_mode") is None else values["response_mode"]
    if not isinstance(mode, str) or mode not in names.MODES:
        raise errors.InvalidRequest(f"response_mode {_shown(mode)} is none of {', '.join(names.MODES)}")
    queue, endpoint = _text(values, "queue"), _text(values, "endpoint", ENDPOINT_MOST)
    if not queue:
        raise errors.InvalidRequest("queue is missing: this server does not choose one by its model")
    if not endpoint:
        raise errors.InvalidRequest("endpoint is missing")
    if not isinstance(values.get("data"), dict):
        raise errors.InvalidRequest("data must be a JSON object")
    level = names.HIGH if mode in _HELD else _level(values)
    timeout_s = _timeout_s(values, mode, held_most_s)
    about = {"endpoint": endpoint, "mode": mode, "level": level, "trace_id": _text(values, "trace_id", TRACE_MOST)}
    url = _text(values, "callback_url", 4096)
    if url:
        about["callback_url"] = url
    submission = Submission(
        content.raw("data").encode(),
        headers=(JSON,),
        priority=1 if level == names.HIGH else 0,
        deadline_s=timeout_s,
        idempotency_key="" if mode in _HELD else idempotency_key,
        caller=caller,
        webhook=Webhook(url, STYLE, answers_only=True) if url and mode == "callback" else None,
        answer_by=True,
        only_pull=True,
        about=json.dumps(about, separators=(",", ":")),
    )
    return Put(queue, level, mode, timeout_s, submission)


def take(values: dict[str, Any], caller: Caller, *, fifo_most: int) -> tuple[tuple[str, ...], Wanted]:
    """The queues as they are called, and what is wanted of them. Raises InvalidRequest."""
    queues = values.get("queues")
    if not isinstance(queues, list) or not queues:
        raise errors.InvalidRequest("queues cannot be empty")
    if len(queues) > QUEUES_MOST:
        raise errors.InvalidRequest(f"queues names {len(queues)} queues, and one take looks at {QUEUES_MOST} at most")
    if not all(isinstance(name, str) for name in queues):
        raise errors.InvalidRequest('queues must be a list of names like "orders:1"')
    if values.get("size") is None:
        raise errors.InvalidRequest("size is missing")
    size = min(_whole(values, "size"), SIZE_MOST)
    found = values.get("strategy", Strategy.FIFO.value)
    if not isinstance(found, str) or found not in list(Strategy):
        raise errors.InvalidRequest(f"No enum constant {_shown(found)}: strategy is one of {', '.join(Strategy)}")
    strategy = Strategy(found)
    retries = _whole(values, "process_max_retries", least=-1)
    taker, capacities = _worker(values)
    named = {str(names.lane(name).service) + name[-2:]: count for name, count in capacities.items()}
    lanes = tuple(
        lane if name not in named else lane._replace(most=named[name])
        for name, lane in zip(queues, map(names.lane, queues), strict=True)
    )
    turn = ""
    if strategy is Strategy.ROUND_ROBIN:
        turn = hashlib.sha256("\n".join([caller.tenant, *queues]).encode()).hexdigest()[:32]
    return tuple(queues), Wanted(
        lanes,
        min(size, fifo_most) if strategy is Strategy.FIFO else size,
        strategy,
        lease_s=_whole(values, "process_timeout", most=SECONDS_MOST),
        deliveries_most=None if retries < 0 else retries + 1,
        min_age_s=_whole(values, "min_age_seconds", most=SECONDS_MOST),
        taker=taker,
        turn=turn,
        wait_s=_wait_s(values),
    )


def complete(content: Members) -> tuple[Answer, str]:
    """The answer that it is for whoever submitted the request, and what is kept to tell the whole map again."""
    status = content.values.get("status_code", 200)
    if isinstance(status, str) and re.fullmatch(r"\d{3}", status, re.ASCII):
        status = int(status)
    code = status if type(status) is int and 200 <= status <= 599 else 200 if status is None else 500
    if "body" not in content.spans:
        return Answer(code, (JSON,), b"{}"), answers.kept_of(content.text)
    coded = answers.decoded(content.values["body"])
    raw, span = content.raw("body"), content.spans["body"]
    if coded is None:
        return Answer(code, (JSON,), raw.encode()), answers.kept_of(content.text, span)
    body, kind = coded
    about = answers.kept_of(content.text, answers.coded_span(raw, span[0], body), is_coded=True)
    return Answer(code, (("Content-Type", kind),) if kind else (), body), about


def renew(values: dict[str, Any]) -> tuple[float, str]:
    """Seconds from now, and the worker that has it, '' where it does not say. Raises InvalidRequest."""
    if values.get("process_timeout") is None:
        raise errors.InvalidRequest("process_timeout is missing: the seconds from now that it is to be held")
    return _whole(values, "process_timeout", least=1, most=SECONDS_MOST), _worker(values)[0]


def progress(values: dict[str, Any]) -> tuple[ProgressNote, str]:
    """What a worker says of a task, and which worker, '' where it does not say. Raises InvalidRequest."""
    events = values.get("events", [])
    if {"eventId", "eventName", "eventData"} & set(values):
        events = [values]
    if not isinstance(events, list) or len(events) > EVENTS_MOST:
        raise errors.InvalidRequest(f"events must be a list of at most {EVENTS_MOST}")
    note = ProgressNote("", ())
    if not events or {"progress", "logs"} & set(values):
        note = reports.parse(values)
    lines = tuple((EVENT, _event(each)) for each in events)
    return ProgressNote(note.progress, note.lines + lines, is_stream=bool(lines)), _worker(values)[0]


def _event(event: Any) -> str:
    if not isinstance(event, dict) or "eventData" not in event:
        text = '{"eventId": "0", "eventName": "message", "eventData": {"text": ".."}}'
        raise errors.InvalidRequest(f"an event is like {text}")
    shown = {"id": event.get("eventId"), "event": event.get("eventName"), "data": event["eventData"]}
    for name in ("id", "event"):
        value = shown[name]
        if value is not None and not (isinstance(value, (str, int)) and _ONE_LINE.fullmatch(str(value))):
            raise errors.InvalidRequest(f"an event's {name} must be a text of one line, or a number")
    return json.dumps(shown, separators=(",", ":"))


def _level(values: dict[str, Any]) -> int:
    if "level" in values and values["level"] is None:
        return names.NORMAL
    level = values.get("level", 0)
    if type(level) is not int or level not in (names.HIGH, names.NORMAL):
        raise errors.InvalidRequest(f"Unknown queue level: {_shown(level)} (there are 0 and 1)")
    return level


def _timeout_s(values: dict[str, Any], mode: str, held_most_s: float) -> float:
    """0 stands for none, as in clients whose field has no way to be missing."""
    asked = _whole(values, "timeout", most=SECONDS_MOST)
    if mode in _HELD:
        return min(asked or HELD_TIMEOUT_S, HELD_TIMEOUT_S, held_most_s)
    return asked or TIMEOUT_S


def _worker(values: dict[str, Any]) -> tuple[str, dict[str, int]]:
    """`"worker": {"id": "..", "capacities": {"orders:1": 2}}`: its name, and how many of a queue it has room for."""
    worker = values.get("worker")
    if worker is None:
        return "", {}
    if not isinstance(worker, dict):
        raise errors.InvalidRequest('worker must be an object like {"id": "..", "capacities": {"orders:1": 2}}')
    name, capacities = worker.get("id"), worker.get("capacities") or {}
    if name is not None and not (isinstance(name, str) and _PRINTABLE.fullmatch(name)):
        raise errors.InvalidRequest("worker.id must be 1 to 128 printable ASCII characters without blanks")
    if not isinstance(capacities, dict) or not all(type(n) is int and n >= 0 for n in capacities.values()):
        raise errors.InvalidRequest('worker.capacities must be an object like {"orders:1": 2}')
    return name or "", {queue: min(count, SIZE_MOST) for queue, count in capacities.items()}


def _wait_s(values: dict[str, Any]) -> float:
    wait = values.get("wait")
    if wait is None:
        return 0
    if isinstance(wait, bool) or not isinstance(wait, (int, float)) or wait < 0:
        raise errors.InvalidRequest(f"wait {_shown(wait)} is not a number of seconds")
    return min(wait, WAIT_MOST_S)


def _whole(values: dict[str, Any], name: str, *, least: int = 0, most: int | None = None) -> int:
    """A whole number, 0 where it is missing. Raises InvalidRequest."""
    value = values.get(name)
    if value is None:
        return 0
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or value < least or (most is not None and value > most):
        limit = f"{least} or more" if most is None else f"{least} to {most}"
        raise errors.InvalidRequest(f"{name} {_shown(value)} is not a whole number, {limit}")
    return value


def _text(values: dict[str, Any], name: str, most: int = 128) -> str:
    """'' where it is missing. Raises InvalidRequest."""
    value = values.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > most:
        raise errors.InvalidRequest(f"{name} must be a text of at most {most} characters")
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise errors.InvalidRequest(f"{name} holds half a character") from exc
    return value


def _shown(value: Any) -> str:
    return json.dumps(value)[:40]


def queue_name(values: dict[str, Any]) -> str:
    """That a client registers. Raises InvalidRequest."""
    name = values.get("queue")
    if not isinstance(name, str) or not names.QUEUE.fullmatch(name):
        raise errors.InvalidRequest(f"queue {_shown(name)} is not 1 to 64 letters, digits, dashes or underscores")
    return name


def endpoint(values: dict[str, Any]) -> str:
    """Raises InvalidRequest."""
    found = _text(values, "endpoint", ENDPOINT_MOST)
    if not found:
        raise errors.InvalidRequest("endpoint is missing")
    return found
