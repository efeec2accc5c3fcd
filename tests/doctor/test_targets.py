"""Targets are connected to and nothing more; what is wrong is told with the host, the reason and the setting."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from eas_queue.doctor import targets
from eas_queue.doctor.result import Result, Status
from eas_queue.engine.service import Services, ServiceSettings
from tests.support import tls
from tests.support.server import free_port
from tests.support.target_client import Target

EXAMPLE = "http://127.0.0.1:5001"


def check(urls: dict[str, str], *, unlisted: str | None = None, base_url: str | None = None) -> list[Result]:
    services = Services(
        {name: ServiceSettings(target_url=url) for name, url in urls.items()},
        ServiceSettings(target_url=unlisted or ""),
        allow_unlisted=unlisted is not None,
        result_ttl_s=60,
    )
    return list(targets.check(services, base_url=base_url, example_url=EXAMPLE, services_file="services.toml"))


@contextlib.contextmanager
def listening(*, answers_with: ssl.SSLContext | None = None) -> Iterator[int]:
    """A port that takes connections; without a context it never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        assert answers_with is not None
                        answers_with.wrap_socket(connection, server_side=True).close()

        if answers_with is not None:
            threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def test_one_connection_for_each_address_and_no_request(target: Target) -> None:
    [result] = check({"a": f"{target.url}/x", "b": f"{target.url}/y"}, unlisted=f"{target.url}/{{service}}")

    assert result == Result("target a, b, any other name", Status.OK, f"127.0.0.1:{target.port} accepts connections")
    assert target.calls() == []


def test_a_closed_port_is_named_with_the_reason_and_the_setting() -> None:
    port = free_port()

    [result] = check({"a": f"http://127.0.0.1:{port}/x"})

    assert result.status is Status.FAIL
    assert result.fact == f"127.0.0.1:{port}: Connection refused; requests are retried, then fail"
    assert result.mend == f"start the API at 127.0.0.1:{port}, or correct target_url in services.toml"


def test_the_setting_to_mend_is_the_one_that_names_the_target() -> None:
    base = f"http://127.0.0.1:{free_port()}"

    [from_base] = check({}, unlisted=f"{base}/api/predict/{{service}}", base_url=base)
    assert str(from_base.mend).endswith("or correct TARGET_API_BASE_URL")

    [of_example] = check({}, unlisted=f"{EXAMPLE}/api/predict/{{service}}")
    assert of_example.status is Status.OK or "`make run` starts the example target" in str(of_example.mend)


def test_a_host_without_an_address_is_told_from_one_that_refuses() -> None:
    [result] = check({"a": "http://no-such-host.invalid/x"})

    assert result.status is Status.FAIL
    assert result.fact.startswith("no address for the host no-such-host.invalid: ")
    assert str(result.mend) == "correct target_url in services.toml, or mend DNS"


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/x", ""])
def test_an_address_that_is_none_is_a_complaint_not_a_traceback(url: str) -> None:
    [result] = check({"a": url})

    assert result.status is Status.FAIL
    assert "this check itself broke" not in result.fact


def test_tls_towards_a_plain_port_is_told() -> None:
    def refuse() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse)
        thread.start()
        [result] = check({"a": f"https://127.0.0.1:{listener.getsockname()[1]}/"})
        thread.join()

    assert result.status is Status.FAIL
    assert "does not speak TLS" in result.fact
    assert "http:// there?" in str(result.mend)


def test_a_certificate_that_nobody_vouches_for_is_told(tmp_path: Path) -> None:
    _, context = tls.made(tmp_path)

    with listening(answers_with=context) as port:
        [result] = check({"a": f"https://localhost:{port}/"})

    assert result.status is Status.FAIL
    assert "the certificate is not accepted: self" in result.fact


def test_silent_targets_are_given_up_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "CONNECT_TIMEOUT_S", 1.0)
    began_s = time.monotonic()

    with listening() as one, listening() as other:
        results = check({"a": f"https://127.0.0.1:{one}/", "b": f"https://127.0.0.1:{other}/"})

    assert time.monotonic() - began_s < 1.9
    assert ["accepts connections, and no TLS begins within 1 s" in result.fact for result in results] == [True, True]
