"""gunicorn's settings, read by every `gunicorn app:app` in this folder; command line options win.

Source of the numbers: the PAI-EAS SDK keeps connections for reuse and does not repeat a POST on a dropped one, so idle
connections live at least 75 s; waiting clients hold a connection each, so there may be many.
"""

import contextlib
import resource

import config as _config

_settings = _config.or_exit(_config.settings)
for _check in (lambda: _settings.redis, _settings.services, _settings.access):
    _config.or_exit(_check)  # here, once: in a worker a refusal would end in gunicorn's traceback

bind = f"{'127.0.0.1' if _settings.auth == 'off' else '0.0.0.0'}:{_settings.port}"  # noqa: S104  tokens guard it
worker_class = "gevent"
workers = _settings.web_concurrency
worker_connections = 20_000
keepalive = 90
timeout = 60
graceful_timeout = max(1, min(10, round(_settings.stop_grace_s)))  # an idle client's connection lasts all of it
backlog = 4096
limit_request_line = 8190
loglevel = _settings.log_level.lower()
control_socket_disable = True


def post_worker_init(worker):
    """Sweep from the start, and end the waits of clients when the worker is told to stop."""
    import threading
    import time

    with contextlib.suppress(ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    parts = worker.wsgi.extensions["eas_queue"]
    parts["sweeper"].ensure_started()

    def watch():
        while worker.alive:
            time.sleep(0.25)
        parts["engine"].waits.stop()

    threading.Thread(target=watch, name="stop-watch", daemon=True).start()
