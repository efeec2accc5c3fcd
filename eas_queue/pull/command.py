"""The command pull. What it needs besides click is imported when it runs: `doctor` needs none of it."""

from __future__ import annotations

import logging
import os
import secrets
import sys

import click

from eas_queue.pull.arguments import BaseUrl, FunctionName, QueueName, checked_token

TOKEN_VARIABLES = ("EAS_QUEUE_PULL_TOKEN", "EAS_QUEUE_STREAM_TOKEN")
_ADVICE = {
    400: "correct what it says",
    401: f"give a token that the queue knows, in {TOKEN_VARIABLES[0]}",
    403: "the token is known but may not take from there: it needs the role `consume` for each of the queues",
}


class _Refused(click.ClickException):
    exit_code = 2


@click.command(name="pull", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("queues", metavar="QUEUE:LEVEL...", nargs=-1, required=True, type=QueueName())
@click.option("--call", "url", type=BaseUrl(), help="Call this URL: a task's endpoint below it, its data as the body.")
@click.option("--function", type=FunctionName(), help="Call this function, f(data) or f(data, task).")
@click.option("--slots", type=click.IntRange(1, 1000), default=1, show_default=True, help="Tasks at once.")
@click.option(
    "--strategy",
    type=click.Choice(["fifo", "round_robin", "active_passive", "sequential"]),
    default="fifo",
    show_default=True,
    help="From which queue first.",
)
@click.option(
    "--process-timeout",
    type=click.IntRange(1, 86_400),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="A task of a worker that is silent for so long is delivered again. While it runs it is renewed.",
)
@click.option(
    "--retries",
    type=click.IntRange(-1),
    default=3,
    show_default=True,
    help="Deliveries after the first; -1: any number.",
)
@click.option(
    "--wait",
    type=click.FloatRange(0, 5),
    default=5,
    show_default=True,
    metavar="SECONDS",
    help="How long the queue may hold a take that finds nothing.",
)
@click.option(
    "--drain-timeout",
    type=click.FloatRange(0),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="At a stop: time to finish for what runs.",
)
@click.option(
    "--server",
    type=BaseUrl(),
    envvar="EAS_QUEUE_PULL_SERVER",
    default="http://127.0.0.1:5000",
    show_default=True,
    show_envvar=True,
    metavar="URL",
    help="The queue.",
)
def pull_command(
    queues: tuple[str, ...],
    url: str | None,
    function: str | None,
    slots: int,
    strategy: str,
    process_timeout: int,
    retries: int,
    wait: float,
    drain_timeout: float,
    server: str,
) -> None:
    """Work on the tasks of queues: take, call, complete, until SIGTERM or Ctrl-C.

    A queue has two levels, 0 for urgent tasks and 1 for all others: `eas-queue pull demo:0 demo:1 --call
    http://127.0.0.1:9000`. It needs only the queue's HTTP API. The token is read from the environment,
    EAS_QUEUE_PULL_TOKEN, or else EAS_QUEUE_STREAM_TOKEN; its role is `consume`.

    The answer of the URL completes the task, whatever its status is; an error that a function raises, with status 500.
    A target that does not answer at all gives its task back, to be delivered again, and nothing more is taken until it
    can be reached.

    SIGTERM or Ctrl-C ends it when what runs has finished, at most after the drain timeout (what is left then is given
    back); a second one at once. Exits with 0 then, with 2 for wrong usage and when the queue refuses to give tasks.
    """
    if (url is None) == (function is None):
        raise click.UsageError("what to call? Give one of --call URL and --function MODULE:FUNCTION")
    token = checked_token(next(filter(None, map(os.environ.get, TOKEN_VARIABLES)), ""))
    try:
        from eas_queue.pull import function as functions
        from eas_queue.pull.client import Client
        from eas_queue.pull.errors import Refused
        from eas_queue.pull.url import Url
        from eas_queue.pull.worker import Plan, Worker
    except ModuleNotFoundError as exc:
        raise click.ClickException(
            f"the package {exc.name} is not installed for {sys.executable}: "
            "`make run` installs all; a worker needs `pip install click requests`"
        ) from exc
    log = _logging()
    target: Url | functions.Function
    if url is not None:
        target = Url(url)
    else:
        try:
            target = functions.loaded(str(function))
        except ValueError as exc:
            raise click.UsageError(str(exc)) from exc
    worker_id = secrets.token_hex(8)
    client = Client(server, token, worker_id, threads=slots + 2)
    worker = Worker(client, target, Plan(queues, strategy, slots, process_timeout, retries, wait, drain_timeout))
    log.info(
        "started worker_id=%s server=%s queues=%s target=%s slots=%d",
        worker_id,
        server,
        ",".join(queues),
        target.name,
        slots,
    )
    try:
        worker.run()
    except Refused as exc:
        advice = _ADVICE.get(exc.status, "check the URL of --server: this is no queue, or one without the take API")
        if exc.status == 401 and not token:
            advice = f"no token was sent: give one in {TOKEN_VARIABLES[0]}"
        said = f": {exc.said}" if exc.said else ""
        raise _Refused(f"take from {server}: the queue answered {exc.status}{said}\n-> {advice}") from exc


def _logging() -> logging.Logger:
    """Lines on stderr of our own events only: how a function logs is its own affair."""
    log = logging.getLogger("eas_queue.pull")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    return log
