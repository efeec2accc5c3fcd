"""Which URLs a webhook may have, and which addresses it may go to."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from typing import Any

import pytest

from eas_queue.engine.errors import InvalidRequest
from eas_queue.engine.receivers import Receiver, Webhooks, is_public, receiver
from eas_queue.webhooks.addresses import NoAddress, addresses_of

# fmt: off
PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.0.8",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.1.2.3",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "2002:7f00:1::",
    "2002:a00:1::",
    "2001:0:0:0:0:0:80ff:fffe",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "100::1",
]
BAD_URLS = [
    "ftp://a.example/",
    "//a.example/",
    "a.example",
    "http:///path",
    "http://",
    "http://user@a.example/",
    "http://u:p@a.example/",
    "http://a.example:0/",
    "http://a.example:99999/",
    "http://a.example:x/",
    "http://a_.example\\@b/",
    "http://[::1",
    "http://[fe80::1%25a]/",
    "http://exämple.com/",
    "http://a.example/<x>",
    "http://-a-/",
    "http://a..%00/",
    "http://[1.2.3.4]/",
    "http://a.example/ b",
    "http://a.example/\nb",
    " http://a.example/",
    "http://a.example/" + "x" * 2040,
    "",
]
# fmt: on
PUBLIC = ["93.184.216.34", "1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]


@pytest.mark.parametrize("text", PRIVATE)
def test_an_address_that_is_not_everybodys_is_not_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_an_address_of_the_internet_is_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://Example.COM/a?b=c#d", Receiver("https", "example.com", 443, "/a?b=c")),
        ("http://example.com", Receiver("http", "example.com", 80, "/")),
        ("http://example.com.:8080?x", Receiver("http", "example.com", 8080, "/?x")),
        ("http://[2606:4700::0:1]:81/", Receiver("http", "2606:4700::1", 81, "/")),
    ],
)
def test_the_parts_of_a_url(url: str, expected: Receiver) -> None:
    assert receiver(url) == expected


def test_the_host_header_names_the_port_unless_it_is_the_usual_one() -> None:
    urls = "http://a.example/", "http://a.example:443/", "https://a.example:443/", "https://[2606:4700::1]:8443/"

    assert [receiver(url).host_header for url in urls] == [
        "a.example",
        "a.example:443",
        "a.example",
        "[2606:4700::1]:8443",
    ]


@pytest.mark.parametrize("url", BAD_URLS)
def test_what_is_no_url_for_a_webhook_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Webhooks(is_signed=True, allow_private=True).check(url)

    assert "u:p" not in str(refused.value), "it may hold a secret"


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:10.0.0.1]", "169.254.169.254"])
def test_a_literal_address_that_is_not_public_is_refused_at_once(host: str) -> None:
    with pytest.raises(InvalidRequest, match="WEBHOOK_ALLOW_PRIVATE"):
        Webhooks(is_signed=True).check(f"http://{host}/")
    Webhooks(is_signed=True, allow_private=True).check(f"http://{host}/")


def test_without_a_secret_there_are_no_webhooks() -> None:
    with pytest.raises(InvalidRequest, match="WEBHOOK_SECRET"):
        Webhooks(allow_private=True).check("http://a.example/")


def found(host: str, *, allow_private: bool = False, within_s: float = 5, **options: Any) -> list[str]:
    where = receiver(f"http://{host}/")
    until_s = time.monotonic() + within_s
    return [str(each) for each in addresses_of(where, allow_private=allow_private, until_s=until_s, **options)]


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1"])
def test_a_name_of_this_host_in_any_spelling_has_no_public_address(host: str) -> None:
    with pytest.raises(NoAddress, match="no public address"):
        found(host)
    assert "127.0.0.1" in found(host, allow_private=True)


def test_a_name_that_leads_nowhere_has_no_address() -> None:
    with pytest.raises(NoAddress, match="could not be looked up"):
        found("nowhere.invalid")


def test_of_several_addresses_only_public_ones_are_used() -> None:
    answers = [(socket.AF_INET, 1, 6, "", (address, 0)) for address in ("10.0.0.1", "1.1.1.1", "127.0.0.1")]

    assert found("mixed.example", look_up=lambda *_, **__: answers) == ["1.1.1.1"]


def test_a_lookup_that_hangs_is_given_up() -> None:
    release = threading.Event()

    def hangs(*_: Any, **__: Any) -> Any:
        release.wait()
        return []

    with pytest.raises(NoAddress, match="in time"):
        found("slow.example", within_s=0.05, look_up=hangs)
    release.set()
