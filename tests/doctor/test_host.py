"""The web, open files and disk of this host."""

from __future__ import annotations

import http.server
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from eas_queue.doctor import host
from eas_queue.doctor.result import Result, Status
from tests.support.server import free_port

LOG = ".run/log/web.log"


def one(results: Iterator[Result]) -> Result:
    [result] = results
    return result


# ------------------------------------------------------------------------------------------------------------- web
def web_that_answers(status: int) -> Result:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"as it says")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        result = one(host.web(server.server_address[1], log=None))
        thread.join()
    return result


def test_a_healthy_web_one_without_redis_and_another_program_are_told_apart() -> None:
    assert web_that_answers(200).status is Status.OK

    without_redis, another = web_that_answers(503), web_that_answers(404)
    assert without_redis.status is another.status is Status.FAIL
    assert "answers 503: as it says" in without_redis.fact
    assert "another program listens there" in another.fact


def test_no_web_is_a_failure_only_where_make_run_should_have_one() -> None:
    port = free_port()

    assert one(host.web(port, log=None)).status is Status.WARN
    under_make_run = one(host.web(port, log=LOG))
    assert under_make_run.status is Status.FAIL
    assert LOG in str(under_make_run.mend)


def test_a_web_that_hangs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "WEB_TIMEOUT_S", 0.3)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        result = one(host.web(listener.getsockname()[1], log=None))

    assert result.status is Status.FAIL
    assert "nothing answers" in result.fact


# ----------------------------------------------------------------------------------------------- open files, disk
def test_too_few_open_files_for_the_worker_are_warned_of() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1000), hard))
    try:
        by_hand = one(host.open_files(1000, is_raised=False))
        by_make_run = one(host.open_files(hard - host.SPARE_FILES, is_raised=True))
        too_many = one(host.open_files(hard, is_raised=True))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert by_hand.status is Status.WARN
    assert "a worker of WORKER_CONCURRENCY=1000 needs 1256" in by_hand.fact
    assert "ulimit -n" in str(by_hand.mend)
    assert by_make_run.status is Status.OK
    assert too_many.status is Status.WARN


def test_a_disk_that_is_nearly_full_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(tmp_path) in one(host.free_space(tmp_path)).fact

    monkeypatch.setattr(host, "FREE_BYTES", 2**60)  # more than any disk has
    result = one(host.free_space(tmp_path))

    assert result.status is Status.WARN
    assert "RUN_DIR" in str(result.mend)
