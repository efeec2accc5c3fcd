"""gunicorn's settings, read by every `gunicorn app:app` in this folder; command line options win.

Source of the numbers: the PAI-EAS SDK keeps connections for reuse and does not repeat a POST on a dropped one, so idle
connections live at least 75 s; waiting clients hold a connection each, so there may be many.
"""

import contextlib
import resource
import signal

import config as _config
from eas_queue.reload import Bell as _Bell
from eas_queue.reload import refused as _refused

_bell = _Bell()
signal.signal(signal.SIGHUP, lambda *_: _bell.ring())  # until gunicorn listens itself

_settings = _config.or_exit(_config.settings)
for _check in (lambda: _settings.redis, _settings.reload):
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


def when_ready(server):
    """SIGHUP: read the services file and tell the workers, which take it over in place.

    gunicorn's own answer is to read this file again and to replace the workers: waiting clients would be cut off after
    graceful_timeout, and a typo would end the master. The environment stays as it was at the start.
    """

    def reload():
        try:
            _settings.reload()
        except Exception as exc:  # noqa: BLE001  whatever it is: raised here, it would end the master
            server.log.error(_refused(exc))  # noqa: TRY400  what is wrong stands in it
            return
        _bell.ring(_settings.snapshot)
        _bell.heard()  # for workers that are forked later: they begin with it

    server.handle_hup = reload
    if _bell.heard() is not None:
        reload()


def post_fork(server, worker):
    """The bell tells a worker; a SIGHUP to the whole process group must not end it, also while it starts."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def post_worker_init(worker):
    """Sweep from the start, take changed settings over, and end the waits of clients when the worker is to stop."""
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
            message = _bell.heard()
            if message is not None:
                parts["reload"](message)
        parts["engine"].waits.stop()

    threading.Thread(target=watch, name="stop-watch", daemon=True).start()
