"""Which paths and hosts lead into this dialect, what its links begin with, and what a path names."""

from __future__ import annotations

from typing import Any

import pytest

from eas_queue.dialects.fal import names
from eas_queue.dialects.fal.entrance import Hosts, base_of, claiming

HERE = "127.0.0.1:5000"
NO_HOSTS = Hosts("", "")
HOSTS = Hosts("Queue.example.com", "run.example.com:8443")


def environ(path: str, host: str = HERE, **more: str) -> dict[str, Any]:
    return {
        "PATH_INFO": path,
        "RAW_URI": path,
        "HTTP_HOST": host,
        "QUERY_STRING": "",
        "wsgi.url_scheme": "http",
        "SERVER_NAME": "server",
        "SERVER_PORT": "5000",
    } | more


class TestWays:
    @pytest.mark.parametrize(
        ("path", "inner"),
        [
            ("/fal/acme/demo", "/~fal/queue/acme/demo"),
            ("/fal-run/acme/demo", "/~fal/run/acme/demo"),
            ("/fal/", "/~fal/queue/"),
            ("/api/fal/proxy", "/~fal/proxy/"),
            ("/fal", ""),
            ("/falx/acme/demo", ""),
            ("/api/predict/demo", ""),
            ("/acme/demo", ""),
            ("/", ""),
        ],
    )
    def test_by_prefix(self, path: str, inner: str) -> None:
        assert claiming(NO_HOSTS, "")(environ(path)) == inner

    @pytest.mark.parametrize(
        ("path", "host", "inner"),
        [
            ("/acme/demo", "queue.example.com", "/~fal/queue/acme/demo"),
            ("/acme/demo", "QUEUE.example.com:9999", "/~fal/queue/acme/demo"),
            ("/acme/demo", "run.example.com:8443", "/~fal/run/acme/demo"),
            ("/acme/demo", "run.example.com", ""),  # it was named with its port
            ("/acme/demo", "queue.example.com.evil.example", ""),
            ("/fal/acme/demo", HERE, "/~fal/queue/acme/demo"),
            ("/healthz", "queue.example.com", ""),
            ("/.well-known/jwks.json", "queue.example.com", ""),
            ("/api/predict/demo", "queue.example.com", ""),
        ],
    )
    def test_by_host_name(self, path: str, host: str, inner: str) -> None:
        assert claiming(HOSTS, "")(environ(path, host)) == inner

    @pytest.mark.parametrize(
        ("target", "inner"),
        [
            ("https://queue.fal.run/acme/demo", "/~fal/queue/acme/demo"),
            ("https://QUEUE.fal.run/acme/demo", "/~fal/queue/acme/demo"),
            ("https://fal.run/acme/demo", "/~fal/run/acme/demo"),
            ("http://queue.example.com/acme/demo", "/~fal/queue/acme/demo"),
            (f"http://{HERE}/fal/acme/demo", "/~fal/queue/acme/demo"),
            (f"http://{HERE}/fal-run/acme/demo", "/~fal/run/acme/demo"),
            (f"http://{HERE}/healthz", "/~fal/proxy/"),
            ("https://rest.fal.ai/storage/upload/initiate", "/~fal/proxy/"),
            ("https://queue.fal.run:444/acme/demo", "/~fal/proxy/"),
            ("", "/~fal/proxy/"),
        ],
    )
    def test_by_proxy(self, target: str, inner: str) -> None:
        assert claiming(HOSTS, "")(environ("/api/fal/proxy", HTTP_X_FAL_TARGET_URL=target)) == inner


class TestLinks:
    @pytest.mark.parametrize(
        ("base_url", "path", "host", "begin"),
        [
            ("", "/fal/acme/demo", HERE, f"http://{HERE}/fal"),
            ("", "/fal-run/acme/demo", HERE, f"http://{HERE}/fal"),
            ("https://q.example.com/base", "/fal/acme/demo", HERE, "https://q.example.com/base/fal"),
            ("", "/acme/demo", "queue.example.com", "http://queue.example.com"),
            ("https://q.example.com", "/acme/demo", "queue.example.com", "http://queue.example.com"),
            ("", "/fal/acme/demo", "a b", "http://server:5000/fal"),
            ("", "/fal/acme/demo", "", "http://server:5000/fal"),
        ],
    )
    def test_they_begin_as_the_client_came_or_as_the_operator_says(
        self, base_url: str, path: str, host: str, begin: str
    ) -> None:
        came = environ(path, host)
        claiming(HOSTS, base_url)(came)

        assert base_of(came) == begin

    def test_behind_the_proxy_protocol_they_are_ours(self) -> None:
        came = environ("/api/fal/proxy", HTTP_X_FAL_TARGET_URL="https://queue.fal.run/acme/demo?a=1")
        claiming(HOSTS, "")(came)

        assert base_of(came) == f"http://{HERE}/fal"
        assert came["QUERY_STRING"] == "a=1"


class TestPaths:
    @pytest.mark.parametrize(
        ("path", "name", "rest"),
        [
            ("acme/demo", "acme/demo", ""),
            ("acme/demo/v1/x%20y", "acme/demo", "v1/x%20y"),
            ("workflows/acme/demo", "workflows/acme/demo", ""),
            ("comfy/acme/demo/v1", "comfy/acme/demo", "v1"),
            ("comfy/demo", "comfy/demo", ""),  # an owner may be called so
            ("1714827-joke", "1714827/joke", ""),
            ("1714827-joke-two", "1714827/joke-two", ""),
            ("%61cme/demo", "acme/demo", ""),
        ],
    )
    def test_of_an_endpoint(self, path: str, name: str, rest: str) -> None:
        assert names.endpoint(path) == names.Endpoint(name, rest)

    @pytest.mark.parametrize(
        "path", ["", "/", "acme", "acme/", "/demo", "acme//x", "a%2Fb/c", "-a/b", "a/.b", "joke-1"]
    )
    def test_of_none(self, path: str) -> None:
        assert names.endpoint(path) is None

    @pytest.mark.parametrize("suffix", ["", "/"])
    @pytest.mark.parametrize(
        ("path", "name", "request_id", "action"),
        [
            ("acme/demo/requests/1", "acme/demo", "1", ""),
            ("acme/demo/requests/1/response", "acme/demo", "1", ""),
            ("acme/demo/requests/1/status", "acme/demo", "1", "status"),
            ("acme/demo/requests/1/status/stream", "acme/demo", "1", "status/stream"),
            ("acme/demo/requests/1/cancel", "acme/demo", "1", "cancel"),
            ("acme/demo/v1/requests/1/status", "acme/demo", "1", "status"),
            ("acme/demo/requests/1/requests/2/status", "acme/demo", "2", "status"),
            ("1714827-joke/requests/1", "1714827/joke", "1", ""),
        ],
    )
    def test_of_what_is_asked_of_a_request(
        self, path: str, name: str, request_id: str, action: str, suffix: str
    ) -> None:
        found = names.operation(path + suffix)

        assert found is not None
        assert (found.endpoint.name, found.request_id, found.action) == (name, request_id, action)

    @pytest.mark.parametrize("path", ["acme/demo", "acme/demo/requests", "acme/demo/requests/1/other", "requests/1"])
    def test_of_nothing_that_could_be_asked(self, path: str) -> None:
        assert names.operation(path) is None
