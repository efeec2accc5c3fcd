"""What `make run` prints: waits until every part answers, then says where everything is and gives a line to try it.

supervisord starts this beside the others. What does not answer in time is named, with the end of its log.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import redis
from werkzeug.datastructures import Headers

import config
from eas_queue.auth import Role, Unauthorized

PATIENCE_S = 30.0
POLL_S = 0.1
LOG_LINES = 12
FLOWER_ASKS_MOST = 5
EXAMPLE_BODY = '{"text": "A lovely, friendly hotel."}'


@dataclass(frozen=True)
class Part:
    """A program to wait for. ``problem`` asks it once: None when it answers, else what came instead."""

    name: str
    problem: Callable[[], str | None]
    advice: str
    log: Path | None = None
    others_need_it: bool = False


def main() -> None:
    settings = config.or_exit(config.settings)
    style = Style(os.environ.get("EAS_QUEUE_COLOUR") == "true")
    wait_for(parts(settings, os.environ), print_now, style)
    print_now("\n".join(banner(settings, os.environ, style)))
    if os.environ.get("EAS_QUEUE_FLOWER") == "true":
        refresh_flower(settings)


def print_now(text: str) -> None:
    print(text, flush=True)


# ---------------------------------------------------------------------------------------------------------- waiting
def parts(settings: config.Settings, started: Mapping[str, str]) -> list[Part]:
    """What has to answer, in the order in which one needs the other. *started*: the launcher's environment."""
    logs = settings.run_dir / "log"
    url = config.or_exit(lambda: settings.redis)
    own_redis = started.get("EAS_QUEUE_REDIS") == "true"
    found = [
        Part(
            "redis",
            lambda: redis_problem(url),
            "the others wait for it; its log says what it lacks"
            if own_redis
            else "the others wait for it: check REDIS_URL, and that the server there is up",
            logs / "redis.log" if own_redis else None,
            others_need_it=True,
        ),
        Part(
            "web",
            lambda: http_problem(settings.port, "/healthz"),
            "the log says what it lacks",
            logs / "web.log",
        ),
        Part(
            "worker",
            lambda: worker_problem("celery"),
            "without one, requests wait; the log says what it lacks",
            logs / "worker.log",
        ),
        Part(
            "webhooks",
            lambda: worker_problem("webhooks"),
            "the queue works without it, and nobody is told of ends; the log says what it lacks",
            logs / "webhooks.log",
        ),
    ]
    if started.get("EAS_QUEUE_FLOWER") == "true":
        found.append(
            Part(
                "flower",
                lambda: http_problem(settings.flower_port, "/healthcheck"),
                "the queue works without it; the log says what it lacks",
                logs / "flower.log",
            )
        )
    if started.get("EAS_QUEUE_TARGET") == "true":
        found.append(
            Part(
                "target",
                lambda: http_problem(settings.example_target_port, "/healthz"),
                "requests wait for it; set TARGET_API_BASE_URL to use an API of your own",
                logs / "target.log",
            )
        )
    return found


def wait_for(
    waiting: Sequence[Part], say: Callable[[str], None], style: Style, *, patience_s: float = PATIENCE_S
) -> None:
    """Return when all have answered. After *patience_s* say once what has not, and wait on: it is being restarted."""
    left = deque(waiting)
    until_s = time.monotonic() + patience_s
    while left:
        problem = left[0].problem()
        if problem is None:
            left.popleft()
            continue
        if time.monotonic() > until_s:
            until_s = float("inf")
            say("\n".join(complaint(problems(left), patience_s, style)))
        time.sleep(POLL_S)


def problems(left: Iterable[Part]) -> list[tuple[Part, str]]:
    """What does not answer now; not those that can't while another does not."""
    found = []
    for part in left:
        text = part.problem()
        if text is not None:
            found.append((part, text))
            if part.others_need_it:
                break
    return found


def complaint(found: Sequence[tuple[Part, str]], after_s: float, style: Style) -> Iterator[str]:
    """What to tell of the parts that don't answer."""
    yield ""
    yield style.bad(f"Not ready after {after_s:.0f} s: {', '.join(part.name for part, _ in found)}")
    for part, text in found:
        yield ""
        yield f"{style.strong(part.name)}: {text}"
        yield f"  {part.advice}"
        if part.log is not None:
            lines = last_lines(part.log)
            yield f"  the end of {part.log}:" if lines else f"  {part.log} is empty"
            yield from (f"    {style.dim('|')} {line}" for line in lines)
    yield ""
    yield "What ends is started again until it works. Ctrl-C stops all."


def last_lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - 8_192))
            return log.read().decode(errors="replace").splitlines()[-LOG_LINES:]
    except OSError:
        return []


def redis_problem(url: str) -> str | None:
    try:
        with redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1) as client:
            client.ping()
    except redis.RedisError as exc:
        return f"no PING: {exc}"
    return None


def http_problem(port: int, path: str) -> str | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as exc:
        return f"http://127.0.0.1:{port}{path} does not answer: {exc}"
    finally:
        connection.close()
    return None if status == 200 else f"http://127.0.0.1:{port}{path} answers {status}"


def worker_problem(name: str) -> str | None:
    from celery.utils.nodenames import gethostname, nodename
    from kombu.exceptions import OperationalError

    from tasks import celery_app

    try:
        answers = celery_app.control.broadcast(
            "ping", reply=True, limit=1, timeout=1, destination=[nodename(name, gethostname())]
        )
    except (OperationalError, OSError) as exc:
        return f"no worker could be asked: {exc}"
    return None if answers else "no worker answers a ping"


def refresh_flower(settings: config.Settings) -> None:
    """Let Flower ask the workers for their queues: otherwise it does so once, at its start, when there are none."""
    login = base64.b64encode(settings.flower_auth.encode()).decode()
    for _ in range(FLOWER_ASKS_MOST):  # the first may join the round of Flower's start, which found nobody
        connection = http.client.HTTPConnection("127.0.0.1", settings.flower_port, timeout=10)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("GET", "/api/workers?refresh=1", headers={"Authorization": f"Basic {login}"})
            if b"active_queues" in connection.getresponse().read():
                return
        time.sleep(POLL_S)


# ----------------------------------------------------------------------------------------------------------- banner
class Style:
    """ANSI colours, or none where the output is no terminal."""

    def __init__(self, is_coloured: bool) -> None:
        self._is_coloured = is_coloured

    def _wrap(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._is_coloured else text

    def good(self, text: str) -> str:
        return self._wrap("1;32", text)

    def bad(self, text: str) -> str:
        return self._wrap("1;31", text)

    def strong(self, text: str) -> str:
        return self._wrap("1", text)

    def dim(self, text: str) -> str:
        return self._wrap("2", text)

    def link(self, text: str) -> str:
        return self._wrap("36", text)


def token_in_force(settings: config.Settings) -> str | None:
    """The token that `make run` made, where it opens the API; tokens of the operator's own are not shown."""
    token = settings.run_token
    if settings.auth == "off" or token is None:
        return None
    try:
        config.or_exit(settings.access).check(Headers({"Authorization": token}), "127.0.0.1", Role.SUBMIT, None)
    except Unauthorized:
        return None
    return token


def banner(settings: config.Settings, started: Mapping[str, str], style: Style) -> Iterator[str]:
    """Where everything is, and lines to paste. *started*: the launcher's environment."""
    run_dir = settings.run_dir
    here = f"http://127.0.0.1:{settings.port}"
    own_token = token_in_force(settings)
    with_target = started.get("EAS_QUEUE_TARGET") == "true"

    def row(name: str, what: str, more: str = "") -> str:
        gap = " " * max(2, 42 - len(what))
        return f"  {style.strong(f'{name:<9}')}{style.link(what)}{gap + style.dim(more) if more else ''}"

    yield ""
    yield f"{style.good('eas_queue is ready.')} Ctrl-C stops all of it."
    yield ""
    reach = "this host only, no token asked for" if settings.auth == "off" else "on every interface, plain HTTP"
    yield row("Service", settings.public_base_url or here, reach)
    if settings.auth == "on":
        if own_token:
            yield row("Token", own_token, f"kept in {run_dir}/token")
        else:
            source = "API_TOKENS" if settings.api_tokens else "the services file"
            yield row("Token", "yours", f"one of {source}, as $TOKEN below")
    if started.get("EAS_QUEUE_FLOWER") == "true":
        user, _, password = settings.flower_auth.partition(":")
        if password == own_token:
            login = f"user {user}, the token is the password"
        elif settings.flower_basic_auth:
            login = f"user {user}, password: see FLOWER_BASIC_AUTH"
        else:
            login = f"user {user}, password: see {run_dir}/token"
        yield row("Flower", f"http://127.0.0.1:{settings.flower_port}", login)
    else:
        yield row("Flower", "not started", "it needs FLOWER_BASIC_AUTH=user:password")
    if with_target:
        target = f"http://127.0.0.1:{settings.example_target_port}"
        yield row("Target", target, "the example; TARGET_API_BASE_URL for yours")
    elif settings.target_api_base_url:
        yield row("Target", settings.target_api_base_url, "TARGET_API_BASE_URL")
    else:
        yield row("Target", "per service", "the services file")
    redis_at = urlsplit(settings.redis)
    where = f"{redis_at.hostname}:{redis_at.port or 6379}"
    if started.get("EAS_QUEUE_REDIS") == "true":
        yield row("Redis", where, f"data in {run_dir}/redis, URL in {run_dir}/redis.url")
    else:
        yield row("Redis", where, "REDIS_URL")
    names = [
        "web",
        "worker",
        "webhooks",
        *(part for part in ("flower", "target", "redis") if _is_started(started, part)),
    ]
    yield row("Logs", f"{run_dir}/log/*.log", " ".join(names))

    services = settings.services()
    service = next((service.name for service in services), "sentiment" if with_target else "demo")
    if not services.allow_unlisted and not list(services):
        yield ""
        yield style.bad("No service is served:") + " the services file lists none. Add [services.NAME] to it, or"
        yield "allow_unlisted = true under [defaults], and start again."
        return
    url = f"{here}/api/predict/{service}"
    auth = ""
    if settings.auth == "on":
        header = f"'Authorization: Bearer {own_token}'" if own_token else '"Authorization: Bearer $TOKEN"'
        auth = f" \\\n    -H {header}"  # a line of its own: all in one is wider than a terminal
    body = f"-H 'Content-Type: application/json' -d '{EXAMPLE_BODY}'"
    yield ""
    yield style.strong("Submit a sentence and wait up to 10 s for the answer:")
    yield f"  curl {url} -H 'Prefer: wait=10'{auth} \\"
    yield f"    {body}"
    yield ""
    yield style.strong("Or take the request's id at once, and look it up later:")
    yield f"  id=$(curl -s {url}{auth} \\"
    yield f"    {body})"
    yield f'  curl "{url}/sink?request_id=$id"{auth}'
    yield ""


def _is_started(started: Mapping[str, str], name: str) -> bool:
    return started.get(f"EAS_QUEUE_{name.upper()}") == "true"


if __name__ == "__main__":
    main()
