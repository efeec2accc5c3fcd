"""Has this host what the programs on it need?"""

from __future__ import annotations

import contextlib
import http.client
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from eas_queue.doctor.result import Result, fail, ok, program, warn

SPARE_FILES = 256  # beside one connection per request: Redis (128 at most), logs, libraries
FREE_BYTES = 2**30
WEB_TIMEOUT_S = 3.0


def web(port: int, *, log: str | None) -> Iterator[Result]:
    """The web on this host; on another one it can't be told from none. *log*: that of `make run`, which is running."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WEB_TIMEOUT_S)
    at = f"port {port} of this host"
    start = (
        f"start it, in the project's folder: {program('gunicorn')} app:app; "
        "never mind where the web runs on another host"
    )
    if log is not None:
        start = (
            f"`make run` restarts it by itself; the end of {log} says why it does not stay up. If it was started with "
            "another PORT in its environment, give that to doctor too, or put it in .env"
        )
    try:
        with contextlib.closing(connection):
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            status, said = answer.status, answer.read(500).decode(errors="replace").strip()
    except TimeoutError:
        yield fail(
            "web",
            f"{at} is open, and nothing answers within {WEB_TIMEOUT_S:g} s",
            "end the process that listens there and start the web again; its log says what it was busy with",
        )
    except (OSError, http.client.HTTPException) as exc:
        yield (warn if log is None else fail)("web", f"nobody answers at {at}: {exc}", start)
    else:
        if status == 200:
            yield ok("web", f"{at} is healthy")
        elif status == 503:
            yield fail("web", f"{at} answers 503: {said}", "mend redis; the web needs no restart after that")
        else:
            yield fail(
                "web",
                f"{at} answers {status}: another program listens there",
                "end that program, or set PORT to a free one and start the web again",
            )


def open_files(worker_concurrency: int, *, is_raised: bool) -> Iterator[Result]:
    """*is_raised*: `make run` starts the worker, and lifts the soft limit to the hard one for it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_force, which = (hard, "hard") if is_raised else (soft, "soft")
    needed = worker_concurrency + SPARE_FILES
    if in_force != resource.RLIM_INFINITY and in_force < needed:
        yield warn(
            "open files",
            f"{which} limit {in_force} here; a worker of WORKER_CONCURRENCY={worker_concurrency} needs {needed}, "
            "a web process one for each client that waits",
            "`ulimit -n 65536` in the shell that starts them (LimitNOFILE=65536 in a systemd unit, "
            "ulimits: nofile in Compose), or a lower WORKER_CONCURRENCY",
        )
        return
    shown = "unlimited" if in_force == resource.RLIM_INFINITY else in_force
    yield ok("open files", f"{which} limit {shown}; a worker needs {needed}")


def free_space(run_dir: Path) -> Iterator[Result]:
    """Where the server of `make run` keeps its data."""
    free = shutil.disk_usage(run_dir).free
    fact = f"{free / 2**30:.1f} GiB free in {run_dir}"
    if free < FREE_BYTES:
        yield warn(
            "disk",
            f"{fact}, where the server's data and the logs go; when it is full, submits get 503",
            f"free space there, or move the folder and let RUN_DIR name it ({run_dir.resolve()})",
        )
        return
    yield ok("disk", fact)
