"""Where a webhook goes: what may stand in its URL, and which addresses belong to everybody's internet."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from eas_queue.engine import errors

URL_MOST = 2048
_PRINTABLE = re.compile(r"[!-~]+")
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,252})")
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: an IPv4 address in its last 32 bits
_ASSIGNMENTS = ipaddress.ip_network("192.0.0.0/24")  # RFC 6890; versions of Python differ about parts of it
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Receiver:
    """The server of a URL, and what it is asked for. *host*: lower case, an IPv6 address without brackets."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def address(self) -> Address | None:
        """The address, where the URL names one instead of a host."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"

    @property
    def server(self) -> str:
        """What all deliveries to the same server have in common."""
        return f"{self.scheme}://{self.host}:{self.port}"


def receiver(url: str) -> Receiver:
    """The parts of a webhook's URL. Raises InvalidRequest, which does not repeat the URL: it may hold a secret."""
    if len(url) > URL_MOST:
        raise errors.InvalidRequest(f"the webhook's URL is longer than {URL_MOST} characters")
    if not _PRINTABLE.fullmatch(url) or re.search(r'[\\<>"^`{}|]', url):
        raise errors.InvalidRequest(
            "the webhook's URL must be printable ASCII without blanks; percent-encode other characters"
        )
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
        if ":" in host:
            host = str(ipaddress.IPv6Address(host))
            if "%" in host:
                raise ValueError("a zone is of this host only")
    except ValueError as exc:
        raise errors.InvalidRequest("the webhook's URL names no server that can be used") from exc
    if parts.scheme not in ("http", "https"):
        raise errors.InvalidRequest("the webhook's URL must start with http:// or https://")
    if "@" in parts.netloc:
        raise errors.InvalidRequest("the webhook's URL must not contain a user or password")
    if not host or port == 0 or not (":" in host or _NAME.fullmatch(host)):
        raise errors.InvalidRequest("the webhook's URL names no server that can be used")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Receiver(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), target)


def is_public(address: Address) -> bool:
    """Whether it may be asked for by anybody: not this host, its networks, or what only they can reach.

    An IPv6 address that stands for an IPv4 one is judged as that.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and address in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None and not is_public(inner):
            return False
        if address.ipv4_mapped is not None or address in _TRANSLATED:
            return True
        if address.is_site_local:
            return False
    elif address in _ASSIGNMENTS:
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved and not address.is_unspecified


@dataclass(frozen=True)
class Webhooks:
    """What this installation allows. *is_signed*: it has a secret, without which nothing is delivered."""

    is_signed: bool = False
    allow_private: bool = False

    def check(self, url: str) -> None:
        """Raises InvalidRequest for what can't or must not be delivered to. Names are looked up at delivery only."""
        if not self.is_signed:
            raise errors.InvalidRequest(
                "webhooks are off here, because nothing could be signed: WEBHOOK_SECRET is not set (operator: "
                "`make run` makes one, or see the README)"
            )
        address = receiver(url).address
        if address is not None and not self.allow_private and not is_public(address):
            raise errors.InvalidRequest(
                f"webhooks are not sent to {address}, which is not a public address (operator: WEBHOOK_ALLOW_PRIVATE)"
            )
