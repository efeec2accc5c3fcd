"""Who may do what: tokens, the roles they carry, and the services they reach.

Tokens come in any of the headers that the official clients use: ``Authorization: Bearer T``, ``Authorization: Key T``,
a bare ``Authorization: T`` (PAI-EAS sends it so), or ``X-API-Key: T``. Never in a URL, which ends up in logs.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeGuard

from werkzeug.datastructures import Headers

from eas_queue.engine.request import Caller

RATE_MIN, RATE_MAX = 0.001, 1_000_000  # submits a second


class Role(StrEnum):
    SUBMIT = "submit"
    READ = "read"
    CONSUME = "consume"
    ADMIN = "admin"


class Unauthorized(Exception):
    """No token, or one that nobody was given."""


class Forbidden(Exception):
    """The token is known, but not for this."""


@dataclass(frozen=True)
class Token:
    """A token by its SHA-256 digest. ``services`` None: all of them."""

    digest: bytes
    roles: frozenset[Role] = frozenset(Role)
    services: frozenset[str] | None = None
    rate_per_s: float = 0
    burst: int = 1

    @classmethod
    def plain(cls, token: str) -> Token:
        return cls(_digest(token))

    @property
    def caller(self) -> Caller:
        return Caller(self.digest.hex()[:20], self.rate_per_s, self.burst)

    def with_rate(self, rate_per_s: float) -> Token:
        """The same with this rate, unless it has one of its own."""
        return (
            self
            if self.rate_per_s or not rate_per_s
            else replace(self, rate_per_s=rate_per_s, burst=_burst(rate_per_s))
        )

    @classmethod
    def from_file(cls, name: str, rules: object) -> Token:
        """One line of ``[tokens]``: ``"sha256:<hex>" = { services = [..], roles = [..], rate_per_s = 10, burst = 9 }``.

        Every key may be missing. Raises ValueError.
        """
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", name):
            # not repeated: it may be the token itself
            raise ValueError(
                "each name must be sha256: and the 64 hex digits that `printf %s TOKEN | sha256sum` prints"
            )
        if not isinstance(rules, dict) or set(rules) - {"services", "roles", "rate_per_s", "burst"}:
            raise ValueError(
                f"{name[:15]}..: expected {{ services = [..], roles = [..], rate_per_s = 10, burst = 20 }}"
            )
        services, roles = rules.get("services"), rules.get("roles", [role.value for role in Role])
        if services is not None and not _is_list_of_text(services):
            raise ValueError(f"{name[:15]}..: services must be a list of names")
        if not _is_list_of_text(roles) or set(roles) - {role.value for role in Role}:
            raise ValueError(f"{name[:15]}..: roles must be some of {', '.join(Role)}")
        rate_per_s = rules.get("rate_per_s", 0)
        if not _is_number(rate_per_s) or not (rate_per_s == 0 or RATE_MIN <= rate_per_s <= RATE_MAX):
            raise ValueError(
                f"{name[:15]}..: rate_per_s must be a number of submits a second, {RATE_MIN:g} to {RATE_MAX:,}, or 0"
            )
        burst = rules.get("burst", _burst(rate_per_s))
        if not isinstance(burst, int) or isinstance(burst, bool) or not 1 <= burst <= 1_000_000:
            raise ValueError(f"{name[:15]}..: burst must be a whole number of submits, 1 or more")
        return cls(
            bytes.fromhex(name.removeprefix("sha256:")),
            frozenset(Role(role) for role in roles),
            None if services is None else frozenset(services),
            rate_per_s,
            burst,
        )


@dataclass
class Access:
    """All tokens of an installation. ``is_open``: none is asked for, but only this host's clients are served."""

    tokens: tuple[Token, ...]
    is_open: bool = False

    def adopt(self, other: Access) -> None:
        """Know *other*'s tokens from now on, and only those. One assignment: a check sees the old ones or the new."""
        self.tokens = other.tokens

    def check(self, headers: Headers, peer: str, role: Role, service: str | None) -> Caller:
        """Who calls. Raises Unauthorized or Forbidden unless they may act in *role* on *service*."""
        if self.is_open:
            if not _is_this_host(headers, peer):
                raise Forbidden(
                    "AUTH=off serves programs on this host only: to serve others, set API_TOKENS and AUTH=on"
                )
            return Caller()
        token = self._find(_presented(headers))
        if role not in token.roles:
            raise Forbidden(f"this token may not {role}: its roles are {', '.join(sorted(token.roles)) or 'none'}")
        if service is not None and token.services is not None and service not in token.services:
            raise Forbidden(f"this token may not use service {service!r}")
        return token.caller

    def _find(self, presented: str) -> Token:
        digest = _digest(presented)
        found = None
        for token in self.tokens:  # all of them, always: how long it takes must not tell which one was close
            if hmac.compare_digest(token.digest, digest):
                found = token
        if found is None:
            raise Unauthorized("this token is not one of those that may use the API")
        return found


def _presented(headers: Headers) -> str:
    value = headers.get("Authorization", "").strip()
    scheme, _, rest = value.partition(" ")
    token = rest.strip() if scheme.lower() in ("bearer", "key") and rest else value
    token = token or headers.get("X-API-Key", "").strip()
    if not token:
        raise Unauthorized("no token was sent: put it in the header `Authorization: Bearer <token>`")
    return token


def _is_this_host(headers: Headers, peer: str) -> bool:
    """Whether a program on this host asks for itself: not a proxy for others, nor a browser for some web page."""
    if any(name in headers for name in ("Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via", "Origin")):
        return False
    host = re.sub(r":\d+$", "", headers.get("Host", "")).strip("[]").lower()
    return _is_loopback(peer) and (host == "localhost" or _is_loopback(host))


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _burst(rate_per_s: float) -> int:
    return max(1, math.ceil(rate_per_s))


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_list_of_text(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
