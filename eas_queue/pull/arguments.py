"""The kinds of values on the command line, each with a sentence for those it can't take."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import click


class QueueName(click.ParamType[str, str]):
    name = "queue:level"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"[^\s:]+:[0-9]", str(value)):
            self.fail(f"{value!r} is not a queue and its level: demo:0 (urgent) or demo:1 (all else)", param, ctx)
        return str(value)


class BaseUrl(click.ParamType[str, str]):
    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        url = str(value).strip().rstrip("/")
        try:
            parts = urlsplit(url)
            is_right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_right = False
        if not is_right or not re.fullmatch(r"[!-~]+", url) or re.search("[?#@]", url):
            shown = re.sub("//.*@", "//****@", url).partition("?")[0]
            self.fail(f"{shown!r} is not such a URL: it looks like http://HOST:PORT, without user or query", param, ctx)
        return url


class FunctionName(click.ParamType[str, str]):
    name = "module:function"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"\w+(\.\w+)*:\w+(\.\w+)*", str(value)):
            self.fail(f"{value!r} does not look like module:function", param, ctx)
        return str(value)


def checked_token(token: str) -> str:
    """Raises click.UsageError, which does not quote it."""
    if token and not re.fullmatch(r"[!-~]+( [!-~]+)*", token):
        raise click.UsageError("the token may hold printable ASCII characters only, and no blanks around them")
    return token
