"""Can the targets be reached? A connection is opened and closed; no request is sent, which could cost GPU time."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import urlsplit

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from eas_queue.doctor.result import Result, Running, fail, ok
from eas_queue.engine.service import Service, Services

CONNECT_TIMEOUT_S = 5.0  # as the forwarder's
PATIENCE_S = 7.0  # name resolution has time-outs of its own
ANY = "any"  # stands for a service that is not listed
NAMED_MOST = 4


@dataclass
class Target:
    """One address and the services behind it."""

    url: str
    where: str  # the setting that names it
    services: list[str] = field(default_factory=list)


def check(services: Services, *, base_url: str | None, example_url: str, services_file: str) -> Iterator[Result]:
    """*base_url*: TARGET_API_BASE_URL; *example_url*: what stands in where there is none."""
    found: dict[tuple[str, str], Target] = {}
    in_use = [(service.name, service) for service in services]
    if services.allow_unlisted:
        in_use.append(("any other name" if in_use else "any name", services.get(ANY)))
    for name, service in in_use:
        parts = urlsplit(service.url("", ""))
        setting = _setting(service, base_url, example_url, services_file)
        found.setdefault((parts.scheme, parts.netloc), Target(service.url("", ""), setting)).services.append(name)
    running = [Running(_name(target), partial(_one, target)) for target in found.values()]
    for each in running:
        yield from each.results(PATIENCE_S)


def _setting(service: Service, base_url: str | None, example_url: str, services_file: str) -> str:
    if base_url is not None and service.target_url.startswith(f"{base_url}/"):
        return "TARGET_API_BASE_URL"
    if base_url is None and service.target_url.startswith(f"{example_url}/"):
        return ""  # nobody set anything: the example target
    return f"target_url in {services_file}"


def _name(target: Target) -> str:
    more = len(target.services) - NAMED_MOST
    return "target " + ", ".join(target.services[:NAMED_MOST]) + (f" and {more} more" if more > 0 else "")


def _one(target: Target) -> list[Result]:
    return [_connect(target)]


def _connect(target: Target) -> Result:
    name, parts = _name(target), urlsplit(target.url)
    mend_setting = f"correct {target.where}"
    try:
        host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return fail(name, f"{parts.netloc} has no valid port", mend_setting)
    if not host:
        return fail(name, "no address: target_url is empty", mend_setting)
    at = f"{host}:{port}"
    mend = f"start the API at {at}, or correct {target.where}"
    if not target.where:
        mend = "`make run` starts the example target there; for an API of your own set TARGET_API_BASE_URL"
    fate = "requests are retried, then fail"
    is_connected = False
    try:
        with socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S) as connection:
            is_connected = True
            if parts.scheme == "https":
                # The certificates that requests, and so the forwarder, trusts; not the system's.
                with ssl.create_default_context(cafile=DEFAULT_CA_BUNDLE_PATH).wrap_socket(
                    connection, server_hostname=host
                ):
                    return ok(name, f"{at} accepts connections, its certificate is valid")
            return ok(name, f"{at} accepts connections")
    except socket.gaierror as exc:
        return fail(name, f"no address for the host {host}: {exc.strerror}; {fate}", f"{mend_setting}, or mend DNS")
    except ssl.SSLCertVerificationError as exc:
        return fail(
            name,
            f"{at}: the certificate is not accepted: {exc.verify_message}; {fate}",
            "give the API a certificate of a public authority for this very host name, or use http:// inside a "
            f"network you trust ({target.where})",
        )
    except ssl.SSLError as exc:
        return fail(name, f"{at} does not speak TLS: {exc.reason or exc}; {fate}", f"{mend_setting}: http:// there?")
    except TimeoutError:
        if is_connected:
            fact = f"{at} accepts connections, and no TLS begins within {CONNECT_TIMEOUT_S:g} s; {fate}"
            return fail(name, fact, f"{mend_setting} (http:// there?), or restart the API if it hangs")
        return fail(name, f"{at} does not answer within {CONNECT_TIMEOUT_S:g} s; {fate}", f"{mend}; or a firewall")
    except (OSError, UnicodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        return fail(name, f"{at}: {reason}; {fate}", mend)
