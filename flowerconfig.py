"""Flower's settings, read by `celery -A app.celery_app flower` in this folder: loopback only, closed by a password.

The password comes from the environment or RUN_DIR, never from the command line, where `ps` would show it.
"""

import _thread
import os as _os
import time as _time

import flower.command as _command
import flower.views.monitor as _monitor
import tornado.web as _web

import config as _config

_settings = _config.or_exit(_config.settings)

address = "127.0.0.1"
port = _settings.flower_port
basic_auth = [_config.or_exit(lambda: _settings.flower_auth)]
if _settings.secret_key:
    cookie_secret = _settings.secret_key.get_secret_value()
max_tasks = 10_000
purge_offline_workers = 3_600  # seconds; workers in containers get a new name at each start
tasks_columns = "name,uuid,state,args,runtime,result,received,started,worker"  # args: the service

# Flower asks for the password everywhere but in /metrics, which names workers and tasks; /healthcheck only says OK.
_monitor.Metrics.get = _web.authenticated(_monitor.Metrics.get)

# A stop ends: Python waits at exit for Flower's threads, and one of them may try for ever to reach a Redis that went
# at the same moment. Flower looks this name up after it has read this file. A bare thread, because a signal handler
# must not wait for locks.
_on_sigterm = _command.sigterm_handler


def _end_soon():
    _time.sleep(2)
    _os._exit(0)


def _stop(signum, frame):
    _thread.start_new_thread(_end_soon, ())
    _on_sigterm(signum, frame)


_command.sigterm_handler = _stop
