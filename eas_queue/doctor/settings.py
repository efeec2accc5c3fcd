"""Are the settings valid, and do they say what their author meant?"""

from __future__ import annotations

import difflib
import io
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from dotenv.parser import parse_stream

import config
from eas_queue.doctor.result import Result, fail, ok, warn
from eas_queue.engine.service import Services

ALIKE_ENOUGH = 0.75  # API_TOKEN and REDIS_URI are caught, REDIS_HOST and other programs' names are not
ENV_FILE = Path(".env")


@dataclass
class Found:
    """What the settings say, for the checks that follow; None where it is not known."""

    settings: config.Settings | None = None
    redis_url: str | None = None
    services: Services | None = None


def check(found: Found) -> Iterator[Result]:
    """Fills *found* and yields what is wrong with the settings, in the current folder."""
    try:
        wrong = _wrong_settings()
        # The other checks go on with defaults in place of what is wrong.
        defaults = {name: config.Settings.model_fields[name].default for name in wrong}
        found.settings = settings = config.Settings(**defaults)
    except (OSError, ValueError):
        yield fail(
            "settings",
            f"{ENV_FILE} can't be read as text in UTF-8",
            f"check the permissions and the encoding of {ENV_FILE.resolve()}",
        )
        return
    for line in wrong.values():
        name = line.partition(":")[0]
        yield fail("settings", line, f"correct {name} in the environment or in {ENV_FILE}, then start again")
    if not wrong:
        read_too = f", {ENV_FILE} read" if ENV_FILE.exists() else f", no {ENV_FILE}"
        yield ok("settings", f"all {len(config.Settings.model_fields)} valid{read_too}")
    yield from _env_file()

    said = yield from _services(found, wrong)
    yield from _tokens(settings, said, wrong)
    yield _flower(settings, wrong)
    if "webhook_secret" not in wrong:
        yield _webhooks(settings)
    if "redis_url" not in wrong:
        try:
            found.redis_url = settings.redis
        except config.ConfigError as exc:
            fact, _, mend = str(exc).partition(": ")
            yield fail("redis", fact, mend)


def _wrong_settings() -> dict[str, str]:
    """Field name to message for each setting that is not valid."""
    try:
        config.settings()
    except config.ConfigError as exc:
        return {line.partition(":")[0].lower(): line for line in str(exc).splitlines()}
    return {}


def _env_file() -> Iterator[Result]:
    """What in .env is read by nobody, though somebody wrote it for a purpose."""
    try:
        text = ENV_FILE.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    known = [name.upper() for name in config.Settings.model_fields]
    for binding in parse_stream(io.StringIO(text)):
        written = binding.original.string
        blank_above = written[: len(written) - len(written.lstrip())].count("\n")
        number = binding.original.line + blank_above
        if binding.error or (binding.key is not None and binding.value is None):
            # The line itself is not shown: it may be a secret on its own.
            yield warn(
                str(ENV_FILE),
                f"line {number} is not NAME=value and is ignored",
                "write it as NAME=value, with quotes around a value with spaces, or begin it with #",
            )
        elif binding.key is not None and binding.key.upper() not in known:
            meant = difflib.get_close_matches(binding.key.upper(), known, 1, ALIKE_ENOUGH)
            if meant:
                yield warn(
                    str(ENV_FILE),
                    f"line {number}: there is no setting {binding.key}; it has no effect",
                    f"if {meant[0]} is meant, write that, then start again",
                )


def _services(found: Found, wrong: dict[str, str]) -> Generator[Result, None, str]:
    """Returns the error's text, "" for none."""
    settings = found.settings
    assert settings is not None
    path = settings.services_file or Path("services.toml")
    try:
        services = settings.services()
    except config.ConfigError as exc:
        yield fail(
            "services",
            str(exc),
            f"correct {path} (or SERVICES_FILE); what runs keeps the settings before, until SIGHUP or a start",
        )
        return str(exc)
    if not {"target_api_base_url", "example_target_port", "services_file"} & set(wrong):
        found.services = services
    names = [service.name for service in services]
    if not path.exists():
        yield ok("services", "no services file: every name is served, with the defaults")
    elif names or services.allow_unlisted:
        others = "others are served with [defaults]" if services.allow_unlisted else "other names are refused"
        yield ok("services", f"{path}: {len(names)} listed; {others}")
    else:
        yield fail(
            "services",
            f"{path} lists no service and allow_unlisted is not true: every submit is refused",
            "add [services.NAME] to it, or allow_unlisted = true under [defaults], then start again",
        )
    return ""


def _tokens(settings: config.Settings, said: str, wrong: dict[str, str]) -> Iterator[Result]:
    if {"api_tokens", "auth"} & set(wrong):
        return  # the defaults in their place would only add a second, untrue complaint
    try:
        access = settings.access()
    except config.ConfigError as exc:
        if str(exc) != said:  # the same unreadable file
            fact, _, mend = str(exc).partition(". ")
            yield fail("tokens", fact, mend or "correct [tokens] in the services file, then start the web again")
        return
    if access.is_open:
        yield ok("tokens", "AUTH=off: none asked for, programs on this host only are served")
        return
    is_own = not settings.api_tokens and len(access.tokens) == 1 and settings.run_token is not None
    count = "1 token" if len(access.tokens) == 1 else f"{len(access.tokens)} tokens"
    yield ok("tokens", f"{count}, made by `make run`" if is_own else count)


def _webhooks(settings: config.Settings) -> Result:
    try:
        count = len(settings.webhook_secrets)
    except config.ConfigError as exc:
        return fail("webhooks", str(exc), "correct it, or remove it: `make run` makes another; then start again")
    if not count:
        return ok("webhooks", "off: WEBHOOK_SECRET is not set")
    return ok("webhooks", "signed with 1 secret" if count == 1 else f"signed with {count} secrets")


def _flower(settings: config.Settings, wrong: dict[str, str]) -> Result:
    try:
        settings.flower_auth  # noqa: B018  a property that raises
    except config.ConfigError as exc:
        _, _, mend = str(exc).partition(": ")
        return warn("flower", "no password, so Flower does not start; the queue works without it", mend)
    source = "FLOWER_BASIC_AUTH" if settings.flower_basic_auth else "user admin, the token of `make run`"
    note = "" if settings.secret_key or "secret_key" in wrong else "; SECRET_KEY unset: logins end with Flower"
    return ok("flower", f"password set ({source}){note}")
