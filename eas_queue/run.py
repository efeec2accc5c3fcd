"""`make run`: the whole service in the foreground, from a checked start to a clean stop.

It checks the settings and the ports, leaves in RUN_DIR what the programs need (token, server configuration, logs) and
supervises them as supervisord.conf says, until Ctrl-C, SIGTERM or a closed terminal. Any other SIGHUP makes them read
the services file again. Secrets go through files that only their owner can read, never through a command line.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import fcntl
import math
import os
import resource
import secrets
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import config
from eas_queue import embedded
from eas_queue.reload import refused
from eas_queue.terminal import Terminal

ROOT = Path(__file__).parents[1]
MAX_OPEN_FILES = 2**20  # some systems allow a billion, and programs exist that walk through all of them
RELOADED = ("web", "worker", "webhooks")
POLL_S = 0.2  # how soon a signal or the end of a program is noticed
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> None:
    os.chdir(ROOT)  # .env, services.toml and a relative RUN_DIR mean the same from wherever this was started
    try:
        settings = config.or_exit(config.settings)
        lock = config.or_exit(lambda: prepare(settings))
        supervise(settings)
        lock.close()
    except KeyboardInterrupt:  # before anything was started
        sys.exit(130)


def prepare(settings: config.Settings) -> TextIO:
    """Check what can be checked, fill RUN_DIR and the environment; returns RUN_DIR's lock. Raises ConfigError."""
    services = settings.services()
    run_dir = settings.run_dir
    os.umask(0o077)  # logs and data too
    try:
        for folder in (run_dir, run_dir / "log", run_dir / "redis"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        run_dir.chmod(0o700)
        lock = _lock(settings)
        _make_token(settings)
        _make_webhook_secret(settings)
        _raise_open_files()

        example_url = f"http://127.0.0.1:{settings.example_target_port}/"
        in_use = [*services, services.get("any")] if services.allow_unlisted else list(services)
        with_target = settings.target_api_base_url is None and any(
            service.target_url.startswith(example_url) for service in in_use
        )
        try:
            with_flower = bool(settings.flower_auth)
        except config.ConfigError:
            with_flower = False  # the banner says so: the queue works without it
        _check_ports(settings, with_flower=with_flower, with_target=with_target)
        server = _own_server(settings) if settings.redis_url is None else None
    except OSError as exc:
        raise config.ConfigError(f"RUN_DIR: {run_dir} can't be used: {exc}") from exc

    is_terminal = sys.stdout.isatty()
    os.environ.update(
        {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONUNBUFFERED": "1",
            "RUN_DIR": str(run_dir),
            "WORKER_CONCURRENCY": str(settings.worker_concurrency),
            "WEBHOOK_CONCURRENCY": str(settings.webhook_concurrency),
            "EXAMPLE_TARGET_PORT": str(settings.example_target_port),
            "EAS_QUEUE_REDIS": str(server is not None).lower(),
            "EAS_QUEUE_REDIS_SERVER": str(server or "none"),
            "EAS_QUEUE_TARGET": str(with_target).lower(),
            "EAS_QUEUE_FLOWER": str(with_flower).lower(),
            "EAS_QUEUE_WORKER_STOP_S": str(math.ceil(settings.stop_grace_s) + 5),
            "EAS_QUEUE_TERMINAL": _terminal(run_dir),
            "EAS_QUEUE_COLOUR": str(
                is_terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
            ).lower(),
        }
    )
    return lock


# ------------------------------------------------------------------------------------------------------ preparation
def _lock(settings: config.Settings) -> TextIO:
    """RUN_DIR belongs to this process until it ends, however it ends."""
    lock = (settings.run_dir / "lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        lock.seek(0)
        raise config.ConfigError(
            f"it runs already in {settings.run_dir} (process {lock.read().strip() or 'unknown'}). Stop that one, "
            "or give this one a folder and ports of its own:\n"
            f"  RUN_DIR=.run2 PORT={_another(settings.port)} FLOWER_PORT={_another(settings.flower_port)} "
            f"EXAMPLE_TARGET_PORT={_another(settings.example_target_port)} make run"
        ) from exc
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def _make_token(settings: config.Settings) -> None:
    """Where the settings name no token: one of our own, kept for later starts. Raises ConfigError."""
    token = settings.run_dir / "token"
    try:
        settings.access()
    except config.ConfigError:
        if settings.run_token is not None:
            raise
        embedded.write_private(token, f"tml-{secrets.token_hex(16)}\n")
        try:
            settings.access()
        except config.ConfigError:  # it was not for want of a token
            token.unlink()
            raise


def _make_webhook_secret(settings: config.Settings) -> None:
    """The same for what signs webhooks. Raises ConfigError."""
    if not settings.webhook_secrets:
        secret = base64.b64encode(secrets.token_bytes(32)).decode()
        embedded.write_private(settings.run_dir / "webhook.secret", f"whsec_{secret}\n")


def _own_server(settings: config.Settings) -> Path:
    """Prepare the server that comes with the project; returns its program. Raises ConfigError."""
    try:
        kept = settings.redis
    except config.ConfigError:
        kept = None
    try:
        return embedded.prepare(settings.run_dir, kept, say)
    except embedded.NoServer as exc:
        raise config.ConfigError(f"REDIS_URL is not set, and {exc}") from exc


def _raise_open_files() -> None:
    # Each waiting client and each running request holds a connection, and soft limits are often 1024.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS says "unlimited" and means less
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _check_ports(settings: config.Settings, *, with_flower: bool, with_target: bool) -> None:
    ports = {"PORT": settings.port}
    if with_flower:
        ports["FLOWER_PORT"] = settings.flower_port
    if with_target:
        ports["EXAMPLE_TARGET_PORT"] = settings.example_target_port
    seen: dict[int, str] = {}
    for name, port in ports.items():
        if port in seen:
            raise config.ConfigError(f"{name}: {port} is {seen[port]} already; set {name} to another port")
        seen[port] = name
        hosts = ["127.0.0.1"] if name != "PORT" or settings.auth == "off" else ["0.0.0.0", "127.0.0.1"]  # noqa: S104
        for host in hosts:
            try:
                embedded.bind(host, port)
            except PermissionError as exc:
                raise config.ConfigError(
                    f"{name}: this user may not listen on port {port}; set {name} to 1024 or higher"
                ) from exc
            except OSError as exc:
                raise config.ConfigError(
                    f"{name}: port {port} is taken ({exc.strerror}); end the program that listens there, "
                    f"or set another one: {name}={_another(port)} make run"
                ) from exc


def _another(port: int) -> int:
    return port + 1000 if port < 64_000 else port - 1000


def _terminal(run_dir: Path) -> str:
    """Where the banner goes: this process's output, by a name that the supervisor can open."""
    output = sys.stdout.fileno()
    if stat.S_ISREG(os.fstat(output).st_mode):  # opened twice, so both must append, or they overwrite each other
        fcntl.fcntl(output, fcntl.F_SETFL, fcntl.fcntl(output, fcntl.F_GETFL) | os.O_APPEND)
    try:
        os.close(os.open("/dev/fd/1", os.O_WRONLY | os.O_APPEND | os.O_NOCTTY))
    except OSError:  # a socket, as under systemd
        return str(run_dir / "log" / "ready.log")
    return "/dev/fd/1"


# ------------------------------------------------------------------------------------------------------ supervision
def supervise(settings: config.Settings) -> None:
    """Run supervisord.conf in this process until it is told to stop; nothing is left running afterwards."""
    from supervisor import events, options, supervisord  # type: ignore[import-untyped]
    from supervisor.medusa import asyncore_25  # type: ignore[import-untyped]

    die_with_parent, terminal = _die_with_parent(), Terminal()

    class Options(options.ServerOptions):  # type: ignore[misc]
        def get_signal(self) -> int | None:
            received: int | None = super().get_signal()
            if received != signal.SIGHUP:  # on which supervisord would restart everything
                return received
            if terminal.is_gone:
                return signal.SIGTERM
            reload()
            return None

        def setpgrp(self) -> None:
            """Called in each child between fork and exec."""
            super().setpgrp()
            die_with_parent()
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it listens itself: it reads the file only then

    class Supervisor(supervisord.Supervisor):  # type: ignore[misc]
        def runforever(self) -> None:
            events.subscribe(events.SupervisorStoppingEvent, lambda _: say(stopping))
            poller = self.options.poller
            poll = poller.poll
            poller.poll = lambda timeout: poll(min(timeout, POLL_S))  # a signal does not end it, see PEP 475
            for group in sorted(self.process_groups.values()):
                group.transition()  # the loop would wait for a second before it starts anything
            super().runforever()

    def reload() -> None:
        try:
            settings.reload()  # for its judgement only, said where somebody may be looking
        except config.ConfigError as exc:
            say(refused(exc))
            return
        for process in supervisor.process_groups["queue"].processes.values():
            if process.config.name in RELOADED and process.pid:
                chosen.kill(process.pid, signal.SIGHUP)
        say("Services and tokens are read again; the logs of web and worker say what has changed")

    stopping = f"\nStopping: running requests have {settings.stop_grace_s:g} s, then they go back to the queue"
    chosen = Options()
    chosen.realize(["-c", str(ROOT / "supervisord.conf")])
    chosen.first, chosen.test = True, False
    say(f"Starting; logs are in {os.environ['RUN_DIR']}/log")
    supervisor = Supervisor(chosen)
    with contextlib.suppress(asyncore_25.ExitNow):
        supervisor.main()
    chosen.close_logger()
    say("Stopped")


def _die_with_parent() -> Callable[[], object]:
    """To be called in a child: SIGTERM when its supervisor is killed. Linux only, elsewhere nothing."""
    if not sys.platform.startswith("linux"):
        return lambda: None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork
    return lambda: prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def say(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(text, flush=True)


if __name__ == "__main__":
    main()
