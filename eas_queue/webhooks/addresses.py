"""Which addresses a receiver has, looked up once and checked: what is connected to is what was checked."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from eas_queue.engine.receivers import Address, Receiver, is_public

LookUp = Callable[..., list[Any]]  # as socket.getaddrinfo
CONNECT_S = 5.0  # each address, where there are several


class NoAddress(Exception):
    """There is none that may be connected to; the message says why."""


def addresses_of(
    where: Receiver, *, allow_private: bool, until_s: float, look_up: LookUp = socket.getaddrinfo
) -> list[Address]:
    """In the system's order. *until_s*: of the monotonic clock. Raises NoAddress.

    Odd spellings of addresses (`127.1`, `0x7f000001`) are looked up like names, and judged by what the system makes of
    them.
    """
    found = [where.address] if where.address is not None else _looked_up(where.host, until_s, look_up)
    good = [address for address in found if allow_private or is_public(address)]
    if not good:
        raise NoAddress(f"{where.host} has no public address, and others are not sent to")
    return good


def _looked_up(host: str, until_s: float, look_up: LookUp) -> list[Address]:
    """A lookup can't be interrupted, so it gets a thread that may outlast its caller."""
    found: list[Address] = []
    problem = [f"{host} could not be looked up in time"]
    done = threading.Event()

    def look() -> None:
        try:
            for *_, where in look_up(host, None, type=socket.SOCK_STREAM):
                address = ipaddress.ip_address(str(where[0]).partition("%")[0])
                if address not in found:
                    found.append(address)
        except (OSError, UnicodeError) as exc:
            problem[0] = f"{host} could not be looked up: {getattr(exc, 'strerror', None) or exc}"
        done.set()

    threading.Thread(target=look, name="lookup", daemon=True).start()
    if not done.wait(max(0.0, until_s - time.monotonic())) or not found:
        raise NoAddress(problem[0])
    return found


def connect(found: list[Address], port: int, until_s: float) -> socket.socket:
    """A connection to the first of these addresses that takes one. Raises OSError, TimeoutError."""
    problem: OSError = TimeoutError("no time was left")
    for address in found:
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            break
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(left_s if address is found[-1] else min(CONNECT_S, left_s))
            connection.connect((str(address), port))
        except OSError as exc:
            problem = exc
            connection.close()
            continue
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
    raise problem
