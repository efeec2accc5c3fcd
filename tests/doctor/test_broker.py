"""Who takes the messages: nobody, somebody else, or workers that don't take all. A real worker is in test_cli.py."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from eas_queue.doctor import broker
from eas_queue.doctor.result import Result, Status
from eas_queue.store import keys, kick
from tests.support.drive import Driver
from tests.support.server import RedisServer

BOTH = (keys.QUEUE_NORMAL, keys.QUEUE_HIGH)
WORKER_LOG = ".run/log/worker.log"


@contextlib.contextmanager
def answering(
    server: RedisServer, name: str, queues: tuple[str, ...] = BOTH, tasks: tuple[str, ...] = (kick.TASK_NAME,)
) -> Iterator[None]:
    """What answers as a Celery worker does when it is asked, and takes no message."""
    handlers = {
        "active_queues": lambda state, **_: [{"name": queue} for queue in queues],
        "registered": lambda state, **_: list(tasks),
        "active": lambda state, **_: [],
    }
    app = Celery("double", broker=server.url, set_as_current=False)
    stop, is_listening = threading.Event(), threading.Event()

    def serve() -> None:
        with app.connection_for_read() as connection:
            channel = connection.channel()
            node: Any = app.control.mailbox.Node(name, None, channel, handlers)
            node.listen(callback=node.handle_message)
            while not stop.is_set():
                with contextlib.suppress(socket.timeout):
                    connection.drain_events(timeout=0.1)
                is_listening.set()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert is_listening.wait(10)
        yield
    finally:
        stop.set()
        thread.join(10)
        app.close()


def check(server: RedisServer, *, worker_log: str | None = None, has_webhooks: bool = False) -> dict[str, Result]:
    results = list(broker.check(server.url, worker_log=worker_log, has_webhooks=has_webhooks))
    found = {result.name: result for result in results}
    assert len(found) == len(results), results
    return found


@pytest.fixture
def driver(server: RedisServer) -> Iterator[Driver]:
    made = Driver(server.url)
    yield made
    made.store.client.close()


def test_no_worker_is_a_failure_that_counts_who_waits_and_says_how_to_start_one(
    server: RedisServer, driver: Driver
) -> None:
    for _ in range(3):
        driver.submit()

    found = check(server)

    assert found["workers"].status is Status.FAIL
    assert found["workers"].fact == "none: requests are accepted and none is forwarded; 3 wait"
    assert re.search(r"start a worker.*: \S*celery -A app.celery_app worker .* -Q ", str(found["workers"].mend))
    assert found["broker lists"].fact == "high_priority 0, celery 3"


def test_under_make_run_the_log_of_its_worker_is_named(server: RedisServer) -> None:
    assert WORKER_LOG in str(check(server, worker_log=WORKER_LOG)["workers"].mend)


def test_workers_of_both_lists_are_named(server: RedisServer) -> None:
    with answering(server, "w1@host"), answering(server, "w2@host"):
        found = check(server)

    assert {result.status for result in found.values()} == {Status.OK}
    assert found["workers"].fact == "2: w1@host, w2@host; requests that wait: 0"


def test_a_list_that_nobody_consumes_is_a_failure(server: RedisServer) -> None:
    with answering(server, "w1@host", queues=(keys.QUEUE_HIGH,)):
        found = check(server)

    assert found["workers"].status is Status.FAIL
    assert found["workers"].fact.startswith("none consumes celery: requests of normal priority wait for ever")


def test_a_worker_of_one_list_beside_one_of_both_is_a_warning(server: RedisServer) -> None:
    with answering(server, "w1@host"), answering(server, "w2@host", queues=(keys.QUEUE_HIGH,)):
        results = list(broker.check(server.url, worker_log=None))

    [warning] = [result for result in results if result.status is not Status.OK]
    assert warning.fact == "w2@host consumes high_priority only, not celery"
    assert "-Q celery,high_priority" in str(warning.mend)


def test_a_worker_of_another_program_is_told_from_ours(server: RedisServer) -> None:
    with answering(server, "w1@host"), answering(server, "mailer@host", tasks=("shop.send_mail",)):
        results = list(broker.check(server.url, worker_log=None))

    [failure] = [result for result in results if result.status is not Status.OK]
    assert failure.status is Status.FAIL
    assert failure.fact.startswith("mailer@host belongs to another program")


def test_messages_that_idle_workers_leave_alone_are_a_warning(server: RedisServer, driver: Driver) -> None:
    driver.submit()

    with answering(server, "w1@host"):
        found = check(server)

    assert found["messages"].status is Status.WARN
    assert found["messages"].fact == "celery: the same message has been waiting while all workers are idle"


def test_a_database_of_another_program_is_told(server: RedisServer, raw: Any) -> None:
    raw.set(keys.QUEUE_NORMAL, "something else")

    found = check(server)

    assert found["broker lists"].status is Status.FAIL
    assert "another program uses this database" in str(found["broker lists"].mend)


def test_no_message_is_sent_or_taken_and_no_key_of_the_queue_is_written(server: RedisServer, raw: Any) -> None:
    check(server)

    left = {key for key in raw.keys("*") if not key.startswith(b"_kombu.")}  # Celery's own notes on who asked
    assert left == set()


def test_webhooks_that_nobody_delivers_are_told(server: RedisServer) -> None:
    with answering(server, "w@host"):
        found = check(server, has_webhooks=True)

        assert found["webhooks"].status is Status.FAIL
        assert "-Q webhooks" in str(found["webhooks"].mend)
        assert "webhooks" not in check(server)


def test_who_delivers_webhooks_is_told(server: RedisServer) -> None:
    with answering(server, "webhooks@host", queues=(keys.QUEUE_HOOKS,), tasks=(kick.TASK_NAME, kick.DELIVER)):
        assert check(server, has_webhooks=True)["webhooks"].status is Status.OK
