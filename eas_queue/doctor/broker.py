"""Does anybody take the messages that say "look for work"?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from eas_queue.doctor.result import Result, fail, ok, program, warn
from eas_queue.store import keys, kick
from eas_queue.store.client import Client

ASK_S = 1.0
ASK_AGAIN_S = 2.0  # a worker under load may need more than a second for an answer
QUEUES = (keys.QUEUE_HIGH, keys.QUEUE_NORMAL)
ARGUMENTS = "-A app.celery_app worker -P gevent -c 1000 -Q celery,high_priority"  # as in the Procfile
WEBHOOK_ARGUMENTS = "-A app.celery_app worker -P gevent -c 100 -Q webhooks -n webhooks@%h"
_TIMEOUTS = {"socket_timeout": 3, "socket_connect_timeout": 1}


def check(url: str, *, worker_log: str | None, has_webhooks: bool = False) -> Iterator[Result]:
    """*worker_log*: where `make run`, which is running, keeps its worker's log. *has_webhooks*: clients may ask for
    some."""
    client = Client(url, command_timeout_s=2)
    app = Celery("doctor", broker=url, set_as_current=False)
    app.conf.broker_transport_options = _TIMEOUTS
    app.conf.broker_connection_retry = False
    try:
        raw: Any = client.redis
        before = _oldest(raw)
        consumers, tasks = _ask(app)
        lengths = {queue: int(raw.llen(queue)) for queue in QUEUES}
        waiting = _waiting(raw)
        # The same oldest message before and after: in the seconds between, nobody took any.
        stuck = [queue for queue, message in _oldest(raw).items() if message and message == before[queue]]
        yield ok("broker lists", ", ".join(f"{queue} {length}" for queue, length in lengths.items()))
        yield from _workers(consumers, tasks, waiting, worker_log)
        if has_webhooks:
            yield _webhooks(consumers)
        ours = {queue for queues in consumers.values() for queue in queues}
        stuck = [queue for queue in stuck if queue in ours]
        if stuck and not any((app.control.inspect(timeout=ASK_S).active() or {}).values()):
            yield warn(
                "messages",
                f"{' and '.join(stuck)}: the same message has been waiting while all workers are idle",
                "restart the workers: what they were connected to is gone, and they have not noticed",
            )
    except redis.ResponseError as exc:
        yield fail(
            "broker lists",
            f"{' or '.join(QUEUES)} is not a list of messages: {exc}",
            "another program uses this database; let REDIS_URL name another one (the number at its end)",
        )
    except (redis.RedisError, OperationalError, OSError) as exc:
        yield fail("workers", f"could not be asked: {exc}", "mend the connection to Redis, then run this again")
    finally:
        client.close()
        app.close()


def _oldest(raw: Any) -> dict[str, bytes | None]:
    return {queue: raw.lindex(queue, -1) for queue in QUEUES}


def _ask(app: Celery) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Worker name to the queues it consumes, and to the tasks it knows."""
    found = app.control.inspect(timeout=ASK_S).active_queues()
    if not found:
        found = app.control.inspect(timeout=ASK_AGAIN_S).active_queues()
    if not found:
        return {}, {}
    tasks = app.control.inspect(timeout=ASK_S).registered() or {}
    queues = {name: [str(queue["name"]) for queue in queues or ()] for name, queues in found.items()}
    return queues, {name: [str(task) for task in known or ()] for name, known in tasks.items()}


def _waiting(raw: Any) -> int:
    """Requests that could start now, if anybody started them."""
    return sum(int(raw.zcard(keys.service_key(name.decode(), "wait"))) for name in raw.hkeys(keys.SERVICES))


def _webhooks(consumers: dict[str, list[str]]) -> Result:
    names = sorted(name for name, queues in consumers.items() if keys.QUEUE_HOOKS in queues)
    if names:
        return ok("webhooks", f"{len(names)}: {', '.join(names)}")
    return fail(
        "webhooks",
        "no process delivers them: they are accepted and wait",
        f"start one, in the project's folder: {program('celery')} {WEBHOOK_ARGUMENTS}",
    )


def _workers(
    consumers: dict[str, list[str]], tasks: dict[str, list[str]], waiting: int, worker_log: str | None
) -> Iterator[Result]:
    strangers = [
        name
        for name, queues in sorted(consumers.items())
        if set(queues) & set(QUEUES) and name in tasks and kick.TASK_NAME not in tasks[name]
    ]
    for name in strangers:
        yield fail(
            "workers",
            f"{name} belongs to another program and takes this queue's messages away",
            "give that program a Redis database of its own: both use this one, and Celery's list names",
        )
    ours = {name: queues for name, queues in consumers.items() if name not in strangers and set(queues) & set(QUEUES)}
    start = f"start a worker, in the project's folder: {program('celery')} {ARGUMENTS}"
    if worker_log is not None:
        start = (
            f"`make run` restarts a worker that ends; the end of {worker_log} says why it does not stay up. "
            "One that hangs: end it with kill -9"
        )
    if not ours:
        yield fail("workers", f"none: requests are accepted and none is forwarded; {waiting} wait", start)
        return
    unheard = [queue for queue in QUEUES if not any(queue in queues for queues in ours.values())]
    for queue in unheard:
        what = "of high priority" if queue == keys.QUEUE_HIGH else "of normal priority"
        yield fail("workers", f"none consumes {queue}: requests {what} wait for ever; {waiting} wait now", start)
    for name, queues in sorted(ours.items()):
        missing = [queue for queue in QUEUES if queue not in queues]
        if missing and not unheard:
            yield warn(
                "workers",
                f"{name} consumes {queues[0]} only, not {missing[0]}",
                f"start that one with -Q {keys.QUEUE_NORMAL},{keys.QUEUE_HIGH}, so that all have both",
            )
    if not unheard:
        yield ok("workers", f"{len(ours)}: {', '.join(sorted(ours))}; requests that wait: {waiting}")
