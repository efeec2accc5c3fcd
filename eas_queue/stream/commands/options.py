"""What the commands share: the options that name a queue, kinds of values, and how a failure is told."""

from __future__ import annotations

import csv
import functools
import json
import select
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from eas_queue.stream import durations, errors, rendering, target
from eas_queue.stream.client import Client

INDEX = click.IntRange(min=0, max=2**64 - 1)
START = click.IntRange(min=-1, max=2**64 - 1)
_TURN_S = 0.2


class Command(click.Command):
    """Says what went wrong on stderr, and exits with the code for it."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except errors.Failed as exc:
            tell(exc)
            ctx.exit(exc.exit_code)
        except target.Wrong as exc:
            raise click.UsageError(str(exc), ctx) from exc


def tell(failure: errors.Failed) -> None:
    info(f"[ERROR] {failure.message}")
    info(f"-> {failure.advice}")


def info(line: str) -> None:
    """For the person in front of it; what a program reads goes to stdout."""
    click.echo(line, err=True)


@dataclass(frozen=True)
class Queue:
    """The queue that the options name."""

    target: target.Target
    client: Client
    as_json: bool

    def say(self, line: str, content: Mapping[str, Any] | None = None) -> None:
        """*line* for people, *content* for programs; None: these don't need to know."""
        if not self.as_json:
            click.echo(line)
        elif content is not None:
            click.echo(json.dumps(content))  # in ASCII, which no terminal takes for a control sequence


class Duration(click.ParamType[int, str]):
    """Nanoseconds, from 3s, 500ms, 1m30s or seconds without a unit."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return durations.parse(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


def _parse_tags(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """As Go's flags: `a=1,b=2`, and `"a=1,2"` in quotes where a value has a comma."""
    found: dict[str, str] = {}
    for value in values:
        try:
            pairs = next(csv.reader([value], strict=True), [])
        except csv.Error as exc:
            raise click.BadParameter(f"{value!r} can't be split at its commas: {exc}", ctx, param) from exc
        for pair in pairs:
            key, equals, text = pair.partition("=")
            if not equals or not key:
                raise click.BadParameter(f"{pair!r} is not of the form key=value", ctx, param)
            if key.startswith("_"):
                raise click.BadParameter(f"{key!r}: names that start with `_` are the queue's own", ctx, param)
            found[key] = text
    return found


def tags_option(help_text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option("--tags", multiple=True, metavar="K=V,..", callback=_parse_tags, help=help_text)


def token_from(file: str) -> str:
    """The first line of *file*, `-` for stdin."""
    try:
        if file == "-":
            return sys.stdin.readline().strip()
        lines = Path(file).read_text("utf-8").splitlines()
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not text"
        raise click.UsageError(f"the token file {file} can't be read: {reason}") from exc
    return lines[0].strip() if lines else ""


_TARGET_OPTIONS = (
    click.option("--url", envvar="EAS_QUEUE_STREAM_URL", metavar="URL", help="The queue; default: what config stored."),
    click.option(
        "--token",
        envvar="EAS_QUEUE_STREAM_TOKEN",
        metavar="TOKEN",
        help="Token of the service. Here others can read it (ps): rather EAS_QUEUE_STREAM_TOKEN or --token-file.",
    ),
    click.option("--token-file", metavar="FILE", help="Read the token from the first line of FILE, - for stdin."),
    click.option("--group", metavar="NAME", help="Act as a member of this group; default default_group."),
    click.option("--user", metavar="NAME", help="Act as this user of the group; default default_user."),
)
_QUEUE_OPTIONS = (
    click.option("-k", "--sink", is_flag=True, help="The queue of results instead (adds /sink to the URL)."),
    click.option("--rear", is_flag=True, help="The rear queue: items that were delivered too often."),
    *_TARGET_OPTIONS,
    click.option("--json", "as_json", is_flag=True, help="JSON objects on stdout, one a line, and nothing else there."),
)


def target_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_TARGET_OPTIONS):
        function = option(function)
    return function


def given(
    url: str | None, token: str | None, token_file: str | None, group: str | None, user: str | None
) -> dict[str, str | None]:
    """The values of the target's options. A file named on the command line goes before a token of the environment."""
    ctx = click.get_current_context()
    if token_file is not None:
        if ctx.get_parameter_source("token") is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError("--token and --token-file say the same: give one of them")
        token = token_from(token_file)
    return {"url": url, "token": token, "group": group, "user": user}


def talks_to_queue(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that name a queue; *function* gets them as its first argument, a `Queue`."""

    @functools.wraps(function)
    def with_queue(
        *,
        sink: bool,
        rear: bool,
        url: str | None,
        token: str | None,
        token_file: str | None,
        group: str | None,
        user: str | None,
        as_json: bool,
        **others: Any,
    ) -> Any:
        chosen = target.chosen(given(url, token, token_file, group, user))
        if not chosen["url"]:
            raise click.UsageError(
                "which queue? Store it once by `eas-queue stream config --url=URL --token-file=FILE`, or give --url"
            )
        chosen["url"] = target.queue_url(chosen["url"], sink=sink)
        client = Client(target.Target(**chosen, rear=rear))
        try:
            return function(Queue(client.target, client, as_json), **others)
        finally:
            client.close()

    for option in reversed(_QUEUE_OPTIONS):
        with_queue = option(with_queue)
    return with_queue


def confirmed(question: str, *, default: bool) -> bool:
    """Asks on stderr, so that stdout holds data only. Raises click.Abort at the end of stdin and at Ctrl-C."""
    while True:
        click.echo(f"{rendering.plain(question)} [{'Y/n' if default else 'y/N'}]", nl=False, err=True)
        answer = _line().strip().lower()
        if answer in ("", "y", "yes", "n", "no"):
            return answer[0] == "y" if answer else default
        info("y or n?")


def _line() -> str:
    """What one types. A file's or a program's answers are shown as well, as a terminal shows those that are typed."""
    try:
        # Not click's confirm, which reads at once: a Ctrl-C that comes just before that, Python notices only after the
        # line. A terminal gives a line at a time, so none is in a buffer, where select would not see it.
        is_typed = sys.stdin.isatty()
        while is_typed and not select.select([sys.stdin], [], [], _TURN_S)[0]:
            pass
        line = sys.stdin.readline()
    except KeyboardInterrupt:
        raise click.Abort from None
    if not line:
        raise click.Abort
    if not is_typed:
        info(line.rstrip("\n"))
    return line
