"""Entry points: `gunicorn app:app`, `flask run`, `celery -A app.celery_app worker`.

``app`` is made when it is first asked for, so that a worker's host needs no API tokens.
"""

from __future__ import annotations

import logging

from flask import Flask

import config
from eas_queue.dialects import bella, eas, fal, native, tinker
from eas_queue.engine.engine import Engine
from eas_queue.engine.receivers import Webhooks
from eas_queue.reload import Reload
from eas_queue.store.client import Client
from eas_queue.store.store import Store
from eas_queue.web import make_app
from eas_queue.webhooks.signing import Signatures
from tasks import celery_app

__all__ = ["celery_app", "create_app"]


def create_app(settings: config.Settings | None = None) -> Flask:
    """The web app for these settings (default: the environment's). Raises ConfigError."""
    settings = settings or config.settings()
    logging.basicConfig(level=settings.log_level, format="[%(asctime)s] [%(levelname)s] %(name)s %(message)s")
    signatures = Signatures(settings.webhook_secrets)
    webhooks = Webhooks(bool(settings.webhook_secrets), settings.webhook_allow_private)
    engine = Engine(Store(Client(settings.redis)), settings.services(), webhooks)
    access = settings.access()
    base_url = settings.public_base_url or ""
    dialects = [
        eas.dialect(
            engine,
            access,
            max_payload_bytes=settings.max_payload_bytes,
            max_wait_s=settings.max_wait_s,
            default_service=settings.default_service or "",
        ),
        fal.dialect(
            engine,
            access,
            base_url=base_url,
            max_wait_s=settings.max_wait_s,
            queue_host=settings.fal_queue_host or "",
            run_host=settings.fal_sync_host or "",
        ),
        bella.dialect(
            engine,
            access,
            max_wait_s=settings.max_wait_s,
            max_result_bytes=settings.max_result_bytes,
            fifo_most=settings.bella_fifo_most,
        ),
        tinker.dialect(engine, access, max_wait_s=settings.max_wait_s),
        native.dialect(engine, access, base_url=base_url, max_wait_s=settings.max_wait_s, jwks=signatures.jwks),
    ]
    app = make_app(engine, dialects, max_payload_bytes=settings.max_payload_bytes, sweep_s=settings.sweep_s)
    log = logging.getLogger("eas_queue.web")
    app.extensions["eas_queue"]["reload"] = Reload(settings.reload, config.ConfigError, engine, access, log)
    if settings.secret_key:
        app.secret_key = settings.secret_key.get_secret_value()
    return app


def __getattr__(name: str) -> Flask:
    if name in ("app", "application"):
        globals()["app"] = globals()["application"] = made = config.or_exit(create_app)
        return made
    raise AttributeError(name)
