"""A service: a named target behind the queue, with its own settings and limits."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal
from urllib.parse import urlsplit

import pydantic
from pydantic import Field

from eas_queue.engine import errors
from eas_queue.store.shapes import Overview as Overview  # part of what the engine hands out

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ALIAS_PART = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
ALIAS_PARTS_MOST = 3
ALIAS = re.compile(rf"{_ALIAS_PART}(/{_ALIAS_PART}){{0,{ALIAS_PARTS_MOST - 1}}}")
StatusCode = Annotated[int, Field(ge=300, le=599)]


class ServiceSettings(pydantic.BaseModel):
    """What may stand under ``[defaults]`` and ``[services.NAME]``; every key has a default that works."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    mode: Literal["push", "pull"] = Field(
        "push", description="push: requests are forwarded; pull: consumers fetch them, nothing is forwarded"
    )
    target_url: str = Field(
        "", description="where requests go; {service} and {path} are filled in; empty: from TARGET_API_BASE_URL"
    )
    max_concurrency: int = Field(64, ge=1, le=100_000, description="requests that may run at once")
    timeout_s: float = Field(600, gt=0, le=86_400, description="one attempt, from connect to the last byte, seconds")
    max_attempts: int = Field(4, ge=1, le=100, description="deliveries that count, the first one included")
    retry_on: tuple[StatusCode, ...] = Field(
        (408, 502, 503, 504), description="answers of the target after which the request is sent again"
    )
    retry_delay_s: float = Field(1, ge=0, le=3_600, description="before the second attempt, seconds; doubles each time")
    retry_delay_max_s: float = Field(60, ge=0, le=86_400, description="the longest such pause, seconds")
    max_queue_length: int = Field(100_000, ge=1, description="requests that may wait; more: 429")
    deadline_s: float = Field(
        0, ge=0, le=31_536_000, description="waiting longer: expired, never sent; seconds, 0: none"
    )
    weight: float = Field(1, gt=0, le=1_000, description="share of starts among services when workers are short")
    submit_body: Literal["request_id", "index"] = Field("request_id", description="body of the answer to a submit")
    sink: Literal["always", "off"] = Field("always", description="whether ended requests are listed in the sink queue")
    sink_full: Literal["evict", "hold"] = Field(
        "evict", description="a full sink loses its oldest items, or holds the service until there is room"
    )
    max_sink_length: int = Field(100_000, ge=1, description="ended requests listed in sink and rear; oldest leave")

    aliases: tuple[str, ...] = Field(
        (), description="further names, for dialects whose clients say `owner/name`; each stands once in the file"
    )
    adapter: Literal["", "openai_completions"] = Field(
        "", description="how bodies and answers are translated for the target; empty: they pass byte for byte"
    )

    @pydantic.field_validator("aliases")
    @classmethod
    def _are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for alias in value:
            if not ALIAS.fullmatch(alias):
                raise ValueError(f"{alias[:140]!r} is not one: use one to three names joined by /, like owner/name")
        return value

    @pydantic.field_validator("adapter")
    @classmethod
    def _is_for_what_is_forwarded(cls, value: str, info: pydantic.ValidationInfo) -> str:
        if value and info.data.get("mode") == "pull":
            raise ValueError('an adapter translates what is forwarded, but mode = "pull" forwards nothing')
        return value

    @pydantic.field_validator("target_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if not value:
            return value
        if not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        if re.search(r"[{}]", value.replace("{service}", "").replace("{path}", "")):
            raise ValueError("only {service} and {path} may stand in braces")
        parts = urlsplit(value)
        if not parts.hostname or "@" in parts.netloc:
            raise ValueError("needs a host, and must not contain a user or password: errors show it to clients")
        return value


class Service(ServiceSettings):
    """A service by its name, with the result TTL of the installation."""

    name: str
    result_ttl_s: int

    @property
    def takes_subpath(self) -> bool:
        return "{path}" in self.target_url

    def url(self, path: str, query: str) -> str:
        """Where a request with this subpath (no leading slash, still quoted) and raw query goes."""
        url = self.target_url.format(service=self.name, path=path)
        if not path and self.takes_subpath:
            url = url.rstrip("/")
        if query:
            url += ("&" if "?" in url else "?") + query
        return url


class Services:
    """The services of one installation: those listed, and, where allowed, any other valid name.

    Raises ValueError for an alias that two of them have.
    """

    def __init__(
        self,
        listed: Mapping[str, ServiceSettings],
        defaults: ServiceSettings,
        *,
        allow_unlisted: bool,
        result_ttl_s: int,
    ) -> None:
        self.allow_unlisted = allow_unlisted
        self.defaults = defaults
        self.result_ttl_s = result_ttl_s
        self._listed = {name: self._named(name, settings) for name, settings in listed.items()}
        self._by_alias: dict[str, str] = {}
        for service in self:
            for alias in service.aliases:
                other = self._by_alias.setdefault(alias, service.name)
                if other != service.name:
                    raise ValueError(f"alias {alias!r} is that of two services, {other} and {service.name}")
        self._unlisted = functools.lru_cache(maxsize=1024)(lambda name: self._named(name, defaults))

    def _named(self, name: str, settings: ServiceSettings) -> Service:
        return Service(name=name, result_ttl_s=self.result_ttl_s, **settings.model_dump())

    def __iter__(self) -> Iterator[Service]:
        return iter(self._listed.values())

    def lists(self, name: str) -> bool:
        """Whether the services file names it."""
        return name in self._listed

    def name_of(self, alias: str) -> str:
        """The service behind a name like `owner/name`: whose alias it is, else `owner.name`, whether served or not."""
        return self._by_alias.get(alias) or alias.replace("/", ".")

    def name_of_path(self, path: str) -> str:
        """The service behind a path like `name/part/part`: whose alias its beginning is, the longest one first, else
        the one that is called as its first part, whether served or not."""
        parts = path.split("/")
        for count in range(min(ALIAS_PARTS_MOST, len(parts)), 0, -1):
            found = self._by_alias.get("/".join(parts[:count]))
            if found:
                return found
        return parts[0]

    def aliases_of(self, name: str) -> tuple[str, ...]:
        """What a service is called outside: its aliases, where it has none its name."""
        found = self._listed.get(name)
        return found.aliases if found is not None and found.aliases else (name,)

    def get(self, name: str) -> Service:
        """Raises InvalidRequest for a name that can't be one, ServiceNotFound for one that is not served."""
        found = self._listed.get(name)
        if found is not None:
            return found
        if NAME.fullmatch(name) is None:
            raise errors.InvalidRequest(
                f"{name[:140]!r} is not a service name: 1 to 128 letters, digits, dots, dashes or underscores, "
                "the first one a letter or digit"
            )
        if not self.allow_unlisted:
            raise errors.ServiceNotFound(name)
        return self._unlisted(name)
