"""`eas-queue doctor`: looks at an installation from outside and says what is wrong and what to do about it.

One module for each family of checks; a check returns results and prints nothing. It changes nothing of the queue, and
ends within fifteen seconds whatever does not answer.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import config
from eas_queue.doctor import broker, host, queues, server, settings, targets
from eas_queue.doctor.result import Result, Running, Status, warn
from eas_queue.engine.service import Services

SETTINGS_S = 2.0
SERVER_S = 4.0
BROKER_S = 7.0  # after the server; the rest goes on beside both
QUEUES_S = 1.0  # it goes on beside the workers' answers
TARGETS_S = targets.PATIENCE_S + 0.5
WEB_S = host.WEB_TIMEOUT_S + 1


def examine() -> list[Result]:
    """All checks on the installation in the current folder, in the order of the report."""
    found = settings.Found()
    results = Running("settings", lambda: settings.check(found)).results(SETTINGS_S)
    if found.settings is None:
        return results
    chosen = found.settings
    log_dir = chosen.run_dir / "log" if _make_run_is_up(chosen.run_dir) else None
    is_own_server = chosen.redis_url is None and chosen.run_dir.is_dir()

    beside = [(Running("web", lambda: host.web(chosen.port, log=_log(log_dir, "web"))), WEB_S)]
    if found.services is not None:
        beside.append((_targets(chosen, found.services), TARGETS_S))
    is_raised = log_dir is not None
    beside.append(
        (Running("open files", lambda: host.open_files(chosen.worker_concurrency, is_raised=is_raised)), WEB_S)
    )
    if is_own_server:
        beside.append((Running("disk", lambda: host.free_space(chosen.run_dir)), WEB_S))

    if found.redis_url is not None:
        results += _redis(chosen, found.redis_url, log_dir)
    for running, within_s in beside:
        results += running.results(within_s)
    return results


def _targets(chosen: config.Settings, services: Services) -> Running:
    return Running(
        "targets",
        lambda: targets.check(
            services,
            base_url=chosen.target_api_base_url,
            example_url=f"http://127.0.0.1:{chosen.example_target_port}",
            services_file=str(chosen.services_file or "services.toml"),
        ),
    )


def _redis(chosen: config.Settings, url: str, log_dir: Path | None) -> list[Result]:
    source = "REDIS_URL" if chosen.redis_url else f"{chosen.run_dir}/redis.url"
    if chosen.redis_url:
        advice = "start the server there, or correct REDIS_URL"
    elif log_dir is not None:
        advice = f"`make run` restarts this server by itself; the end of {log_dir}/redis.log says why it fails"
    else:
        advice = "it is the server that `make run` starts, and that is not running: run `make run`"
    results = Running("redis", lambda: server.check(url, source=source, advice=advice)).results(SERVER_S)
    if results[0].status is Status.FAIL:
        not_asked = warn("workers", "not asked, because Redis can't be", "mend redis first, then run this again")
        return [*results, not_asked]
    worker_log = _log(log_dir, "worker")
    waits = Running("queues", lambda: queues.check(url))
    results += Running(
        "workers", lambda: broker.check(url, worker_log=worker_log, has_webhooks=_has_webhooks(chosen))
    ).results(BROKER_S)
    return results + waits.results(QUEUES_S)


def _has_webhooks(chosen: config.Settings) -> bool:
    with contextlib.suppress(config.ConfigError):  # which the check of the settings tells
        return bool(chosen.webhook_secrets)
    return False


def _log(log_dir: Path | None, name: str) -> str | None:
    return None if log_dir is None else f"{log_dir}/{name}.log"


def _make_run_is_up(run_dir: Path) -> bool:
    """By the process id in its lock file: trying the lock itself could make a `make run` fail that starts now."""
    with contextlib.suppress(OSError, ValueError):
        os.kill(int((run_dir / "lock").read_text()), 0)
        return True
    return False
