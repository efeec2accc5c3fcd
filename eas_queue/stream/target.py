"""Which queue to talk to and as whom, and the file in which `stream config` keeps that."""

from __future__ import annotations

import json
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

KEYS = ("url", "token", "group", "user")
DEFAULTS = {"url": "", "token": "", "group": "default_group", "user": "default_user"}  # as eascmd
_IN_HEADER = re.compile(r"[!-~]+( [!-~]+)*")  # without blanks at the ends, which HTTP takes away


class Wrong(Exception):
    """A value that can't be used. The message never quotes a token."""


@dataclass(frozen=True)
class Target:
    """*url* is that of the queue itself: with `/sink` where its results are meant."""

    url: str
    token: str
    group: str
    user: str
    rear: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """What every request says of itself; Authorization is the token alone, without a scheme."""
        headers = {"X-EAS-QueueService-Uid": self.user, "X-EAS-QueueService-Gid": self.group}
        if self.token:
            headers["Authorization"] = self.token
        if self.rear:
            headers["X-EAS-QueueService-Access-Rear"] = "true"
        return headers


def path() -> Path:
    return Path.home() / ".config" / "eas_queue" / "stream.toml"


def stored() -> dict[str, str]:
    """What `stream config` has kept; empty if nothing. Raises Wrong for a file that can't be read."""
    try:
        content = tomllib.loads(path().read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        # a parser's message may quote the line, and so the token
        reason = exc.strerror if isinstance(exc, OSError) else "it is not TOML"
        raise Wrong(
            f"{path()} can't be read: {reason}; mend or remove it, then store the target again by `eas-queue stream "
            "config --url=URL --token-file=FILE`"
        ) from None
    return {key: checked(key, content[key]) for key in KEYS if key in content}


def store(values: Mapping[str, str]) -> None:
    """Replace the file; only its owner can read it, at no moment anybody else."""
    file = path()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # JSON's strings are TOML's, as long as they hold nothing that must be escaped by \u, which `checked` sees to
    text = "".join(f"{key} = {json.dumps(values[key], ensure_ascii=False)}\n" for key in KEYS if values.get(key))
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".stream-")  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as new:
            new.write(text)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def chosen(given: Mapping[str, str | None]) -> dict[str, str]:
    """The values to use: *given* (options, else the environment), else those of the file, else defaults.

    The file's token belongs to the file's URL: another host never gets it, whatever URL is given.
    """
    kept = stored()
    asked = {key: checked(key, value) for key, value in given.items() if value is not None}
    if "url" in asked and _origin(asked["url"]) != _origin(kept.get("url", "")):
        kept.pop("token", None)
    return DEFAULTS | kept | asked


def checked(key: str, value: object) -> str:
    """*value*, if it can be the *key* of a target. Raises Wrong."""
    if not isinstance(value, str):
        raise Wrong(f"{key} must be a string")
    if key == "url":
        return _checked_url(value)
    if not _IN_HEADER.fullmatch(value) and not (key == "token" and not value):
        raise Wrong(f"{key} may hold printable ASCII characters only, and no blanks around them")
    return value


def queue_url(url: str, *, sink: bool) -> str:
    return f"{url}/sink" if sink and not url.endswith("/sink") else url


def _checked_url(value: str) -> str:
    url = value.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_right = False
        parts = None
    if parts is not None and parts.username is not None:
        raise Wrong("the URL must not hold a user or password: give the token by --token-file")
    if not is_right or not re.fullmatch(r"[!-~]+", url) or "?" in url or "#" in url:
        raise Wrong(
            f"{url.partition('?')[0]!r} is not the URL of a queue: it looks like "
            "http://HOST:5000/api/predict/SERVICE, without a query, and with all but ASCII percent-encoded"
        )
    return url


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
