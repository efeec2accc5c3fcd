"""Where a request goes and what its head says; what could be taken for a head of its own is never sent."""

from __future__ import annotations

import pytest

from eas_queue.engine.retry import Answer, NoAnswer
from eas_queue.forward import _head
from tests.support.raw_target import OK, answering, attempt_at, send


def head_of(url: str, *, path: str = "", query: str = "", headers: tuple[tuple[str, str], ...] = ()) -> list[str]:
    """The lines that the target got. In *url*, PORT is the target's."""
    with answering(OK) as target:
        attempt = attempt_at(url.replace("PORT", str(target.port)), path=path, query=query, headers=headers)
        assert isinstance(send(attempt), Answer)
    return target.heads[0].decode("latin-1").replace(str(target.port), "PORT").split("\r\n")


@pytest.mark.parametrize(
    ("url", "path", "query", "target"),
    [
        ("http://127.0.0.1:PORT", "", "", "/"),
        ("http://127.0.0.1:PORT", "", "a=b", "/?a=b"),
        ("http://127.0.0.1:PORT", "", "a=b/c", "/?a=b/c"),
        ("http://127.0.0.1:PORT?x=/y", "", "", "/?x=/y"),
        ("http://127.0.0.1:PORT?path={path}", "a/b", "", "/?path=a/b"),
        ("http://127.0.0.1:PORT/", "", "", "/"),
        ("http://127.0.0.1:PORT/a/{service}/{path}", "b%2Fc/d", "e=f%20g", "/a/s/b%2Fc/d?e=f%20g"),
        ("http://127.0.0.1:PORT/a/{path}", "", "", "/a"),
        ("http://127.0.0.1:PORT/a?x=1", "", "y=2", "/a?x=1&y=2"),
        ("http://127.0.0.1:PORT/a#part", "", "", "/a"),
        ("http://127.0.0.1:PORT/ä b", "", "", "/%C3%A4%20b"),
        ("http://127.0.0.1:PORT//a//b", "", "", "//a//b"),
    ],
)
def test_the_target_is_asked_for_the_path_and_query(url: str, path: str, query: str, target: str) -> None:
    lines = head_of(url, path=path, query=query)

    assert lines[0] == f"POST {target} HTTP/1.1"
    assert lines[1] == "Host: 127.0.0.1:PORT"


def test_an_ipv6_address_keeps_its_brackets_in_the_host_header() -> None:
    with answering(OK, host="::1") as target:
        assert isinstance(send(attempt_at(target.url)), Answer)
    assert f"Host: [::1]:{target.port}".encode() in target.heads[0].split(b"\r\n")


def test_the_service_may_stand_in_the_host() -> None:
    origin, head = _head(attempt_at("http://{service}.example:5000/a?b"), "")

    assert origin == ("http", "s.example", 5000)
    assert head.startswith(b"POST /a?b HTTP/1.1\r\nHost: s.example:5000\r\n")


@pytest.mark.parametrize(
    ("url", "port", "host"),
    [
        ("http://a.example/x", 80, "a.example"),
        ("http://a.example:80/x", 80, "a.example"),
        ("http://a.example:443/x", 443, "a.example:443"),
        ("https://A.Example/x", 443, "a.example"),
        ("https://a.example:443/x", 443, "a.example"),
        ("https://a.example:80?x", 80, "a.example:80"),
        ("http://[::1]/x", 80, "[::1]"),
        ("http://[::1]:8080", 8080, "[::1]:8080"),
    ],
)
def test_the_host_header_has_the_port_unless_it_is_the_schemes_own(url: str, port: int, host: str) -> None:
    origin, head = _head(attempt_at(url), "")

    assert origin.port == port
    assert f"Host: {host}".encode() in head.split(b"\r\n")
    assert origin.host == host.removesuffix(f":{port}").strip("[]")


def test_a_clients_headers_arrive_in_order_and_as_often_as_they_were_sent() -> None:
    headers = (("X-A", "1"), ("x-b", "é"), ("X-A", "2"), ("X-A", ""))

    lines = head_of("http://127.0.0.1:PORT/", headers=headers)

    assert lines[2:6] == ["X-A: 1", "x-b: é", "X-A: 2", "X-A: "]


def test_a_client_cannot_say_what_the_forwarder_says() -> None:
    own = ("Host", "CONTENT-LENGTH", "Transfer-Encoding", "connection", "X-Request-Id", "x-progress-token")

    lines = head_of("http://127.0.0.1:PORT/", headers=tuple((name, "mine") for name in own))

    assert not any(line.endswith("mine") for line in lines)
    names = [line.partition(":")[0].lower() for line in lines[1:]]
    assert len(set(names)) == len(names)
    assert "Content-Length: 2" in lines


@pytest.mark.parametrize("evil", ["\r\nX-Evil: 1", "\nX-Evil: 1", "\rX-Evil: 1", "\r\n\r\nPOST /evil HTTP/1.1\r\n\r\n"])
@pytest.mark.parametrize("place", ["path", "quoted path", "query", "value", "name"])
def test_line_breaks_are_never_sent_and_not_tried_again(evil: str, place: str) -> None:
    with answering(OK) as target:
        attempt = attempt_at(
            target.url + "{path}",
            path={"path": f"a{evil}", "quoted path": f"ä {evil}"}.get(place, ""),
            query=f"a{evil}" if place == "query" else "",
            headers={"value": [("A", f"b{evil}")], "name": [(f"A{evil}", "b")]}.get(place, []),
        )
        got = send(attempt)

    assert isinstance(got, NoAnswer)
    assert got.final
    assert target.connections == 0
    assert not attempt.was_sent


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:99999/", "http://127.0.0.1:0/", "http://[::1/", "http://a..b/", "http://" + "a" * 64 + "/"],
)
def test_an_address_that_can_never_work_is_not_tried_again(url: str) -> None:
    attempt = attempt_at("http://127.0.0.1/")
    attempt.service = attempt.service.model_copy(update={"target_url": url})

    got = send(attempt)

    assert isinstance(got, NoAnswer)
    assert got.error_type == "TargetUnreachable"
    assert got.final


def test_a_host_without_an_address_is_tried_again() -> None:
    got = send(attempt_at("http://no-such-host.invalid/"))

    assert isinstance(got, NoAnswer)
    assert got.error_type == "TargetUnreachable"
    assert not got.final
