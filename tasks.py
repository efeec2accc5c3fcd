"""The Celery app and its two tasks. The broker carries kicks ("look for work"); what work there is, Redis knows.

What Celery does badly on Redis is not used: no results of its own, no late acks, no retries, no ETA, no priorities.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

from celery import Celery, Task, signals
from kombu.entity import Queue
from kombu.utils.scheduling import priority_cycle

import config
from eas_queue.dialects.bella import webhook as bella_webhook
from eas_queue.dialects.fal import webhook as fal_webhook
from eas_queue.dialects.native import webhook as native_webhook
from eas_queue.dialects.native.progress import PREFIX as PROGRESS_PATH
from eas_queue.engine.engine import Engine
from eas_queue.engine.request import Webhook
from eas_queue.reload import Bell, Reload
from eas_queue.store import keys, kick
from eas_queue.store.client import Client
from eas_queue.store.store import Store
from eas_queue.webhooks.deliverer import Deliverer, Style
from eas_queue.webhooks.sender import Sender
from eas_queue.webhooks.signing import Signatures
from eas_queue.worker import broker, watchdog
from eas_queue.worker.control import hear_listeners, replace_revoke
from eas_queue.worker.hangup import ignore_hangups, on_hangup
from eas_queue.worker.runtime import Limits, Runtime
from eas_queue.worker.watchdog import Watchdog

QUEUES = (keys.QUEUE_NORMAL, keys.QUEUE_HIGH, keys.QUEUE_HOOKS)


class HighFirst(priority_cycle):
    """Asks the broker for high_priority before celery. None of kombu's own does for `-Q celery,high_priority`.

    The order of requests does not depend on it (whoever takes a kick leases the best request there is); it saves a
    high-priority request the wait for older kicks.
    """

    def consume(self, n: int) -> list[str]:
        return sorted(self.items, key=lambda name: name != keys.QUEUE_HIGH)[:n]


def make_celery(settings: config.Settings) -> Celery:
    """The Celery app for an installation. Opens no connection."""
    url = settings.redis
    app = Celery("eas_queue", broker=url, backend=url)
    broker.mend(app)
    # The last one drops a half-open connection after 5 to 9 s, before eas_queue.worker.watchdog would end the worker.
    timeouts = {"socket_timeout": 5, "socket_connect_timeout": 2, "socket_keepalive": True, "health_check_interval": 4}
    app.conf.update(
        # Not acknowledged, because losing a kick does no harm: that saves two round trips a message, and works while
        # Redis is at its memory limit, where kombu could not note what it has taken.
        task_queues=[Queue(name, no_ack=True) for name in QUEUES],  # type: ignore[no-untyped-call]
        task_default_queue=keys.QUEUE_NORMAL,
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        result_expires=settings.result_ttl_s,
        result_backend_thread_safe=True,  # else every greenlet builds a backend of its own
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,  # a kick at a busy process is of no use to an idle one
        worker_send_task_events=False,  # requests are reported by eas_queue.worker.reporter
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=timeouts | {"queue_order_strategy": "tasks:HighFirst"},
        result_backend_transport_options=timeouts,
        redis_socket_timeout=5,
        redis_socket_connect_timeout=2,
        worker_hijack_root_logger=True,
        enable_utc=True,
    )
    return app


settings = config.or_exit(config.settings)
celery_app = config.or_exit(lambda: make_celery(settings))
_runtime: Runtime | None = None


@celery_app.task(
    name=kick.TASK_NAME,
    bind=True,
    ignore_result=True,
    acks_late=False,
    send_events=False,
    track_started=False,
    Request="eas_queue.worker.kicks:KickRequest",
)
def forward(self: Task[..., Any]) -> None:
    """A kick: work on the best requests there are, for as long as this process has seats and the task's time lasts."""
    assert _runtime is not None, "tasks.forward runs in a Celery worker only"
    _runtime.pump().run(self.request.id)


@celery_app.task(
    name=kick.DELIVER,
    ignore_result=True,
    acks_late=False,
    send_events=False,
    track_started=False,
    Request="eas_queue.worker.kicks:KickRequest",
)
def deliver() -> None:
    """Deliver the webhooks that are due, for as long as there are some and the task's time lasts."""
    assert _runtime is not None, "tasks.deliver runs in a Celery worker only"
    _runtime.deliverer().run()


def _styles(engine: Engine, secrets: tuple[str, ...]) -> dict[str, Style]:
    """Each dialect's webhooks; none without a secret."""
    if not secrets:
        return {}
    signatures = Signatures(secrets)

    def standard(_: Webhook, request_id: str, at_s: int, body: bytes) -> dict[str, str]:
        return signatures.standard(request_id, at_s, body)

    return {
        native_webhook.STYLE: Style(
            native_webhook.renderer(engine, settings.public_base_url or ""),
            standard,
        ),
        bella_webhook.STYLE: Style(bella_webhook.renderer(engine), standard),
        fal_webhook.STYLE: Style(
            lambda request: fal_webhook.render(request, engine.result_body(request) if request.from_target else None),
            functools.partial(fal_webhook.headers, sign=signatures.ed25519),
        ),
    }


@signals.worker_init.connect
def _make_runtime(sender: Any, **_: Any) -> None:
    """In the main process, before the pool exists."""
    global _runtime
    bell, read = Bell(), functools.partial(settings.reload, for_web=False)

    def hung_up() -> None:
        if _runtime is None or not _runtime.forks:
            bell.ring()
            return
        # Its children take over what it has accepted, those that are forked later too; a refusal they see themselves.
        bell.ring(settings.snapshot if reload.silently() else b"")
        bell.heard()

    on_hangup(sender, hung_up)  # before the file is read: a change after that is not missed
    services = config.or_exit(read)[0]
    engine = config.or_exit(lambda: Engine(Store(Client(settings.redis, command_timeout_s=5)), services))
    replace_revoke(engine)
    reload = Reload(read, config.ConfigError, engine, None, logging.getLogger("eas_queue.worker"))
    _runtime = Runtime(
        celery_app,
        engine,
        Limits(
            settings.lease_s,
            settings.sweep_s,
            settings.stop_grace_s,
            settings.max_result_bytes,
            settings.callback_url + PROGRESS_PATH,
            settings.worker_events,
        ),
        lambda: (message := bell.heard()) is not None and reload(message),
        functools.partial(
            Deliverer,
            engine,
            Sender(timeout_s=settings.webhook_timeout_s, allow_private=settings.webhook_allow_private),
            config.or_exit(lambda: _styles(engine, settings.webhook_secrets)),
            settings.webhook_timeout_s,
            settings.webhook_retry_delays_s,
        ),
        forwards=bool({keys.QUEUE_NORMAL, keys.QUEUE_HIGH} & set(sender.app.amqp.queues.consume_from)),
        pool=sender.pool_cls.__module__.rpartition(".")[2],
        concurrency=sender.concurrency,
        hostname=sender.hostname,
    )
    hear_listeners(_runtime.board)


@signals.after_setup_logger.connect
def _quiet_kicks(**_: Any) -> None:
    # They tell of kicks: "received" of what may be no request, "succeeded" under the id of one that failed. A worker's
    # own lines say what became of requests.
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)


@signals.worker_process_init.connect
def _in_child(**_: Any) -> None:
    """In each prefork child: housekeeping runs from the start, so that an idle child takes its turn at the sweep."""
    if _runtime is not None:
        ignore_hangups()
        _runtime.pump()


@signals.worker_ready.connect
def _in_main(sender: Any, **_: Any) -> None:
    if _runtime is None:
        return
    # The only thread beside Celery's own in the parent of prefork children, where a thread could hold a lock at the
    # moment of a fork: it shares none with what children use but logging's, which Python makes anew in a child.
    Watchdog(settings.redis, sender, _runtime.board, stalled_s=watchdog.STALLED_S).start()
    if not _runtime.forks:
        _runtime.pump()


@signals.worker_shutting_down.connect
def _begin_stop(**_: Any) -> None:
    if _runtime is not None:
        _runtime.begin_stop()


@signals.worker_process_shutdown.connect
@signals.worker_shutdown.connect
def _close(**_: Any) -> None:
    if _runtime is not None:
        _runtime.close()
