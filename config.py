"""Typed settings: the only reader of the environment and of the services file.

Every process of an installation reads the same: environment first, then `.env`, then defaults. A wrong value ends the
start with a message that names the variable and the mend. ``python config.py`` prints what is in force, secrets masked.
"""

from __future__ import annotations

import functools
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import SplitResult, urlsplit

import pydantic
from pydantic import Field, PrivateAttr, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from eas_queue.auth import RATE_MAX, RATE_MIN, Access, Token
from eas_queue.engine.service import NAME, Services, ServiceSettings
from eas_queue.webhooks.signing import secret_bytes

T = TypeVar("T")
Content = dict[str, object]  # of the services file
Port = Annotated[int, Field(ge=1, le=65_535)]
DEFAULT_TARGET_PATH = "/api/predict/{service}/{path}"


class ConfigError(Exception):
    """A setting is missing or wrong; the message names it and says what to do."""


class Settings(BaseSettings):
    """All settings, as environment variables of the same name in capitals. `.env.example` lists them for people."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", env_ignore_empty=True, hide_input_in_errors=True)

    redis_url: SecretStr | None = Field(
        None, description="redis:// or rediss:// URL; unset: the server that `make run` starts"
    )
    run_dir: Path = Field(Path(".run"), description="where `make run` keeps its server's data, token and logs")
    port: Port = Field(5000, description="the web service's port")
    flower_port: Port = Field(5555, description="Flower's port, on loopback")
    example_target_port: Port = Field(5001, description="port of the example target that `make run` starts")
    target_api_base_url: str | None = Field(
        None, description="base URL of the API that requests go to; unset: the example target"
    )
    secret_key: SecretStr | None = Field(None, description="signs Flower's login cookies; unset: new at each start")
    api_tokens: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="comma-separated tokens that may use the API"
    )
    rate_limit_per_s: float = Field(
        0, ge=0, le=RATE_MAX, description="submits a second that each token may make; more: 429; 0: no limit"
    )
    auth: Literal["on", "off"] = Field("on", description="off: no tokens asked for, clients on this host only")
    flower_basic_auth: SecretStr | None = Field(
        None, description="user:password of Flower; unset: admin and the token that `make run` made"
    )
    services_file: Path | None = Field(
        None, description="services and their settings; default: services.toml, if it is there"
    )
    default_service: str | None = Field(
        None, description="the service whose queues are also at / and /sink, for clients without a path"
    )
    fal_queue_host: str | None = Field(
        None, description="a host name under which fal clients reach the queue without the prefix /fal"
    )
    fal_sync_host: str | None = Field(
        None, description="a host name under which fal clients reach the synchronous host without the prefix /fal-run"
    )
    bella_fifo_most: int = Field(
        10, ge=1, le=1000, description="tasks that one take of bella-queue's API gets with the strategy fifo"
    )
    public_base_url: str | None = Field(None, description="how clients reach the service; unset: links are relative")
    callback_base_url: str | None = Field(
        None, description="how targets reach the web to report progress; unset: PUBLIC_BASE_URL, else this host's PORT"
    )
    result_ttl_s: int = Field(86_400, ge=1, le=31_536_000, description="how long ended requests are kept, seconds")
    max_payload_bytes: int = Field(16 * 2**20, ge=1, le=2**29, description="largest request body, bytes")
    max_result_bytes: int = Field(64 * 2**20, ge=1, le=2**29, description="largest answer of a target, bytes")
    max_wait_s: float = Field(300, ge=0, le=3_600, description="longest wait of one call, seconds")
    lease_s: float = Field(30, ge=1, le=3_600, description="a silent worker's requests go back after this, seconds")
    sweep_s: float = Field(1, ge=0.05, le=60, description="how often what is due is looked after, seconds")
    stop_grace_s: float = Field(
        10, ge=0, le=3_600, description="running requests get this long at a stop, then go back to the queue, seconds"
    )
    webhook_secret: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        description="comma-separated secrets that sign webhooks, whsec_ and base64 each; unset: what `make run` made",
    )
    webhook_allow_private: bool = Field(
        False, description="deliver webhooks to addresses of this host and of private networks, too"
    )
    webhook_timeout_s: float = Field(15, ge=0.1, le=300, description="one attempt to deliver a webhook, seconds")
    webhook_retry_delays_s: Annotated[tuple[float, ...], NoDecode] = Field(
        (5, 20, 60, 180, 420, 900, 1200, 1500, 1500, 1500),
        description="pauses before a failed webhook is tried again, comma-separated, seconds; then it is given up",
    )
    web_concurrency: int = Field(2, ge=1, le=256, description="web processes")
    worker_concurrency: int = Field(
        1000, ge=1, le=20_000, description="requests that the worker started by `make run` or the Procfile runs at once"
    )
    webhook_concurrency: int = Field(
        100, ge=1, le=10_000, description="webhooks that `make run` or the Procfile delivers at once"
    )
    worker_events: Literal["auto", "all", "off"] = Field(
        "auto", description="tell Flower of requests: auto, while somebody listens; all, always; off, never"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="how much the web logs")
    _kept: tuple[bytes, Content | None] | None = PrivateAttr(None)  # what ``reload`` accepted last

    @pydantic.field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parts = _split_url(value.get_secret_value())
            if not parts or parts.scheme not in ("redis", "rediss") or not re.fullmatch(r"/?[0-9]*", parts.path):
                raise ValueError(
                    "must be like redis://:PASSWORD@HOST:6379/0, or rediss:// with TLS; "
                    "in the password write / as %2F, # as %23, ? as %3F, @ as %40"
                )
        return value

    @pydantic.field_validator("target_api_base_url", "public_base_url", "callback_base_url")
    @classmethod
    def _is_base_url(cls, value: str | None) -> str | None:
        if value is not None:
            parts = _split_url(value)
            is_web = parts is not None and parts.scheme in ("http", "https") and parts.hostname
            if not is_web or re.search(r"[\s{}?#]", value):
                raise ValueError("must be a URL like http://localhost:5001")
            value = value.rstrip("/")
        return value

    @pydantic.field_validator("default_service")
    @classmethod
    def _is_service(cls, value: str | None) -> str | None:
        if value is not None and not NAME.fullmatch(value):
            raise ValueError("must be a service name: letters, digits, dots, dashes, underscores")
        return value

    @pydantic.field_validator("fal_queue_host", "fal_sync_host")
    @classmethod
    def _is_host(cls, value: str | None, info: pydantic.ValidationInfo) -> str | None:
        queue_host = info.data.get("fal_queue_host")
        if value is not None and queue_host is not None and value.lower() == queue_host.lower():
            raise ValueError("must be another one than FAL_QUEUE_HOST: both take the same paths")
        if value is not None and not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?", value):
            raise ValueError("must be a host name like queue.example.com, with its port where it is not the usual one")
        return value

    @pydantic.field_validator("api_tokens", mode="before")
    @classmethod
    def _split_tokens(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        tokens = [token.strip() for token in value.split(",") if token.strip()]
        for token in tokens:
            if len(token) < 16 or not re.fullmatch(r"[!-~]+", token):
                raise ValueError("each token needs at least 16 printable characters without spaces")
        return tokens

    @pydantic.field_validator("webhook_secret", mode="before")
    @classmethod
    def _split_secrets(cls, value: object) -> object:
        return _secrets(value) if isinstance(value, str) else value

    @pydantic.field_validator("webhook_retry_delays_s", mode="before")
    @classmethod
    def _split_delays(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        delays = [part.strip() for part in value.split(",")]
        if len(delays) > 100 or not all(re.fullmatch(r"\d{1,6}(\.\d{1,3})?", part, re.ASCII) for part in delays):
            raise ValueError("must be seconds like 5,60,600, at most 100 of them")
        return [float(part) for part in delays]

    @pydantic.field_validator("rate_limit_per_s")
    @classmethod
    def _is_rate(cls, value: float) -> float:
        if value and value < RATE_MIN:
            raise ValueError(f"must be 0, for no limit, or at least {RATE_MIN:g}")
        return value

    @pydantic.field_validator("flower_basic_auth")
    @classmethod
    def _has_user(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not all(value.get_secret_value().partition(":")):
            raise ValueError("must be user:password")
        return value

    # ------------------------------------------------------------------------ what `make run` leaves in RUN_DIR
    def _from_run_dir(self, name: str) -> str | None:
        try:
            return (self.run_dir / name).read_text().strip() or None
        except OSError:
            return None

    @property
    def redis(self) -> str:
        """The Redis URL in force. Raises ConfigError when there is none."""
        url = self.redis_url.get_secret_value() if self.redis_url else self._from_run_dir("redis.url")
        if url is None:
            raise ConfigError(
                f"REDIS_URL is not set, and there is no {self.run_dir}/redis.url: "
                "run `make run`, which starts a server, or set REDIS_URL=redis://HOST:6379/0"
            )
        return url

    @property
    def callback_url(self) -> str:
        """Where targets reach the web."""
        return self.callback_base_url or self.public_base_url or f"http://127.0.0.1:{self.port}"

    @property
    def run_token(self) -> str | None:
        """The token that `make run` made."""
        return self._from_run_dir("token")

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        """Those in force; none: webhooks are off. Raises ConfigError."""
        if self.webhook_secret:
            return tuple(secret.get_secret_value() for secret in self.webhook_secret)
        try:
            return tuple(_secrets(self._from_run_dir("webhook.secret") or ""))
        except ValueError as exc:
            raise ConfigError(f"{self.run_dir}/webhook.secret: {exc}") from exc

    @property
    def flower_auth(self) -> str:
        """user:password for Flower. Raises ConfigError when there is none."""
        if self.flower_basic_auth:
            return self.flower_basic_auth.get_secret_value()
        if self.run_token:
            return f"admin:{self.run_token}"
        raise ConfigError(
            "Flower shows and cancels requests, so it needs a password: set FLOWER_BASIC_AUTH=user:password, "
            f"or run `make run` once, which makes {self.run_dir}/token (user admin, the token as password)"
        )

    # --------------------------------------------------------------------------------------- services and access
    @property
    def _file(self) -> Content | None:
        return self._kept[1] if self._kept else self._parse(self._read())

    def _read(self) -> bytes:
        """The services file with a mark before it; only a mark where there is none."""
        path = self.services_file or Path("services.toml")
        try:
            return b"+" + path.read_bytes()
        except FileNotFoundError as exc:
            if self.services_file is not None:
                raise ConfigError(f"SERVICES_FILE: there is no file {path}") from exc
            return b"-"
        except OSError as exc:
            raise ConfigError(f"SERVICES_FILE: {path} can't be read: {exc}") from exc

    def _parse(self, source: bytes) -> Content | None:
        if source == b"-":
            return None
        try:
            return tomllib.loads(source[1:].decode())
        except (ValueError, RecursionError) as exc:  # not TOML, or not UTF-8
            path = self.services_file or Path("services.toml")
            raise ConfigError(f"SERVICES_FILE: {path} can't be read: {exc}") from exc

    def services(self) -> Services:
        """The services file, completed by the environment. Raises ConfigError."""
        return self._services_of(self._file)

    def access(self) -> Access:
        """Who may use the API. Raises ConfigError when nobody could."""
        return self._access_of(self._file)

    def reload(self, snapshot: bytes = b"", *, for_web: bool = True) -> tuple[Services, Access]:
        """Read the services file now; what it says, all of it or nothing. Raises ConfigError, and nothing has changed.

        From the first call on, ``services`` and ``access`` answer from the file as it was accepted last, in processes
        forked later too: a file that is being edited counts when somebody says so, not when a process is replaced.
        *snapshot*: what another process has accepted, instead of the file. Not *for_web*: it may do without tokens, if
        it did before.
        """
        source = snapshot or self._read()
        content = self._parse(source)
        services = self._services_of(content)
        had_tokens = self._kept is not None and bool(self._access_of(self._kept[1], may_be_empty=True).tokens)
        access = self._access_of(content, may_be_empty=not for_web and not had_tokens)
        self._kept = source, content
        return services, access

    @property
    def snapshot(self) -> bytes:
        """The services file as ``reload`` has accepted it last."""
        return self._kept[0] if self._kept else b""

    def _services_of(self, found: Content | None) -> Services:
        content = found or {}
        unknown = set(content) - {"defaults", "services", "tokens"}
        if unknown:
            raise ConfigError(f"services file: unknown table {sorted(unknown)[0]!r}; known: defaults, services, tokens")
        defaults = _table(content, "defaults")
        allow_unlisted = defaults.pop("allow_unlisted", found is None)
        if not isinstance(allow_unlisted, bool):
            raise ConfigError("services file: [defaults] allow_unlisted must be true or false")
        base = self.target_api_base_url or f"http://127.0.0.1:{self.example_target_port}"
        defaults.setdefault("target_url", base + DEFAULT_TARGET_PATH)
        unlisted, listed = _service_settings("[defaults]", defaults), {}
        if unlisted.aliases:
            raise ConfigError("services file: [defaults] aliases would be those of every service; give each its own")
        for name, own in _table(content, "services").items():
            if not NAME.fullmatch(name) or not isinstance(own, dict):
                raise ConfigError(f"services file: {name!r} is not a service name with settings, as in [services.name]")
            listed[name] = _service_settings(f"[services.{name}]", defaults | own)
        try:
            return Services(listed, unlisted, allow_unlisted=allow_unlisted, result_ttl_s=self.result_ttl_s)
        except ValueError as exc:
            raise ConfigError(f"services file: {exc}") from exc

    def _access_of(self, content: Content | None, *, may_be_empty: bool = False) -> Access:
        if self.auth == "off":
            return Access((), is_open=True)
        listed = _table(content or {}, "tokens")
        tokens = [Token.plain(token.get_secret_value()) for token in self.api_tokens]
        if not tokens and self.run_token and not listed:
            tokens.append(Token.plain(self.run_token))
        for name, rules in listed.items():
            try:
                tokens.append(Token.from_file(name, rules))
            except ValueError as exc:
                raise ConfigError(f"services file: [tokens] {exc}") from exc
        if not tokens and not may_be_empty:
            raise ConfigError(
                "API_TOKENS is not set, so nobody could use the API. Make a token and set it:\n"
                "  export API_TOKENS=tml-$(python3 -c 'import secrets; print(secrets.token_hex(16))')\n"
                "or run `make run`, which makes one"
            )
        return Access(tuple(token.with_rate(self.rate_limit_per_s) for token in tokens))


def _secrets(text: str) -> list[str]:
    """Raises ValueError, which does not repeat them."""
    secrets = [secret.strip() for secret in text.split(",") if secret.strip()]
    for secret in secrets:
        try:
            secret_bytes(secret)
        except ValueError as exc:
            raise ValueError("each secret must be whsec_ and the base64 of 24 to 64 random bytes") from exc
    return secrets


def _split_url(url: str) -> SplitResult | None:
    """None for what is no URL. Why is not told: the reason could quote a password."""
    try:
        parts = urlsplit(url)
        return None if parts.port == 0 else parts
    except ValueError:
        return None


def _table(content: Content, name: str) -> Content:
    table = content.get(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"services file: {name} must be a table, as in [{name}]")
    return dict(table)


def _service_settings(where: str, values: dict[str, object]) -> ServiceSettings:
    try:
        return ServiceSettings.model_validate(values)
    except pydantic.ValidationError as exc:
        raise ConfigError("services file: " + "; ".join(f"{where} {line}" for line in _lines(exc))) from exc


def _lines(exc: pydantic.ValidationError) -> list[str]:
    lines = []
    for error in exc.errors(include_url=False, include_context=False):
        name = ".".join(str(part) for part in error["loc"])
        text = "there is no such setting" if error["type"] == "extra_forbidden" else error["msg"]
        lines.append(f"{name}: {text.removeprefix('Value error, ')}")
    return lines


@functools.cache
def settings() -> Settings:
    """The settings of this process. Raises ConfigError."""
    try:
        return Settings()
    except pydantic.ValidationError as exc:
        fields = Settings.model_fields
        lines = []
        for line in _lines(exc):
            name, _, text = line.partition(": ")
            name = name.partition(".")[0]
            about = fields[name].description if name in fields else ""
            lines.append(f"{name.upper()}: {text} ({about})")
        raise ConfigError("\n".join(lines)) from exc


def or_exit(read: Callable[[], T]) -> T:
    """*read*'s answer; a ConfigError ends the process with its message instead of a traceback."""
    try:
        return read()
    except ConfigError as exc:
        print(f"eas_queue can't start: {exc}", file=sys.stderr)
        # 3 is gunicorn's "worker failed to boot": its master stops then, and starts the worker again on any other code
        sys.exit(3)


def main() -> None:
    found = or_exit(settings)
    for name, value in found.model_dump().items():
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        print(f"{name.upper()}={shown if shown is not None else ''}")
    services, access, redis = or_exit(found.services), or_exit(found.access), urlsplit(or_exit(lambda: found.redis))
    print(f"# Redis: {redis.hostname}:{redis.port or 6379}; tokens: {'off' if access.is_open else len(access.tokens)}")
    for service in services:
        print(f"# service {service.name}: {service.target_url}, {service.max_concurrency} at once")
    if services.allow_unlisted:
        service = services.get("any")
        print(f"# any other service: {service.target_url}, {service.max_concurrency} at once")


if __name__ == "__main__":
    main()
