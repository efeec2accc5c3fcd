"""One connection for many callers: each gets its own answer, in groups, and nobody waits for one who is gone."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hiredis
import pytest
import redis

from eas_queue.store.client import Client
from eas_queue.store.shared import SharedConnection
from tests.support.drive import race
from tests.support.installation import await_condition
from tests.support.proxy import Proxy
from tests.support.server import RedisServer


@pytest.fixture
def shared(server: RedisServer) -> Iterator[SharedConnection]:
    client = Client(server.url)
    yield client.shared
    client.close()


def via(server: RedisServer, proxy: Proxy, *, timeout_s: float = 1.0) -> Client:
    return Client(f"redis://:{server.password}@127.0.0.1:{proxy.port}/0", command_timeout_s=timeout_s)


def test_every_caller_gets_its_own_answer(shared: SharedConnection) -> None:
    def call(i: int) -> list[bytes]:
        return [shared.call("ECHO", f"{i}.{k}") for k in range(50)]

    answers = race(40, call)

    assert answers == [[f"{i}.{k}".encode() for k in range(50)] for i in range(40)]


def test_calls_that_come_during_a_round_trip_go_out_together(server: RedisServer) -> None:
    with Proxy("127.0.0.1", server.port) as proxy:
        client = via(server, proxy, timeout_s=5)
        client.shared.call("PING")
        proxy.latency(0.1)

        began = time.monotonic()
        answers = race(100, lambda i: client.shared.call("ECHO", str(i)))
        took_s = time.monotonic() - began

        client.close()
        assert answers == [str(i).encode() for i in range(100)]
        assert proxy.accepted == 1
        assert took_s < 1, "one after the other they would take 20 s, together two round trips"


def test_a_refusal_is_one_calls_alone(shared: SharedConnection) -> None:
    def call(i: int) -> Any:
        if i % 2:
            with pytest.raises(redis.ResponseError):
                shared.call("EVALSHA", "0" * 40, 0)
            return None
        return shared.call("ECHO", str(i))

    answers = race(30, call)

    assert answers == [None if i % 2 else str(i).encode() for i in range(30)]


def test_arguments_larger_than_a_group_may_be_go_through(shared: SharedConnection) -> None:
    answers = race(8, lambda i: shared.call("ECHO", bytes([65 + i]) * 700_000))

    assert [(len(answer), answer[:1]) for answer in answers] == [(700_000, bytes([65 + i])) for i in range(8)]


def test_when_the_server_is_silent_nobody_waits_for_the_time_out_of_another(server: RedisServer) -> None:
    with Proxy("127.0.0.1", server.port) as proxy:
        client = via(server, proxy, timeout_s=0.5)
        client.shared.call("PING")
        proxy.blackhole()
        began = time.monotonic()
        took: list[float] = []

        def call(i: int) -> None:
            with pytest.raises(redis.TimeoutError):
                client.shared.call("PING")
            took.append(time.monotonic() - began)

        race(30, call)
        proxy.pass_on()

        assert max(took) < 1.2
        assert client.shared.call("ECHO", "again") == b"again"
        client.close()


def test_nor_behind_the_group_that_is_out(server: RedisServer) -> None:
    with Proxy("127.0.0.1", server.port) as proxy:
        client = via(server, proxy, timeout_s=0.5)
        client.shared.call("PING")
        proxy.blackhole()

        took_s = [took for took, answered in times(client.shared, 40, "ECHO", bytes(250_000)) if not answered]

        client.close()
    assert len(took_s) == 40
    assert max(took_s) < 1.5, "ten groups, one after the other"


def test_nor_where_connections_end_before_it_is_time() -> None:
    with slow(0, timeout_s=0.5, ends_after_s=0.4) as shared:
        took_s = [took for took, answered in times(shared, 40, "SILENCE", bytes(250_000)) if not answered]

    assert len(took_s) == 40
    assert max(took_s) < 1.5, "ten connections, one after the other"


def test_a_connection_that_broke_fails_what_was_out_and_is_made_anew(server: RedisServer) -> None:
    with Proxy("127.0.0.1", server.port) as proxy:
        client = via(server, proxy, timeout_s=5)
        client.shared.call("PING")
        proxy.latency(0.3)
        failed = []

        def call() -> None:
            try:
                client.shared.call("PING")
            except redis.ConnectionError as exc:
                failed.append(exc)

        thread = threading.Thread(target=call)
        thread.start()
        time_out_s = time.monotonic() + 0.1
        await_condition(lambda: time.monotonic() > time_out_s)
        proxy.reset()
        thread.join(5)
        proxy.pass_on()

        assert len(failed) == 1
        assert client.shared.call("ECHO", "again") == b"again"
        client.close()


def test_a_lone_call_costs_one_command(server: RedisServer, shared: SharedConnection) -> None:
    shared.call("PING")
    before = server.commands("echo")

    shared.call("ECHO", "x")

    assert server.commands("echo") == before + 1


KILLED = """
from gevent import monkey; monkey.patch_all()
import sys, gevent
from eas_queue.store.client import Client
shared = Client(sys.argv[1], command_timeout_s=5).shared
shared.call("PING")
leader = gevent.spawn(shared.call, "BLPOP", "nothing", 3)   # on its way, and its leader will be killed
gevent.sleep(0.05)
waiting = [gevent.spawn(shared.call, "ECHO", str(i)) for i in range(5)]
gevent.sleep(0.05)
gevent.kill(waiting[0])                                     # one that waits is killed as well
gevent.kill(leader)
gevent.joinall(waiting, timeout=2)
print([greenlet.value for greenlet in waiting[1:]], shared.call("ECHO", "end"))
"""


def in_gevent(program: str, url: str) -> str:
    """What it prints."""
    found = subprocess.run(
        [sys.executable, "-c", program, url],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=Path(__file__).parents[2],
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


def test_a_greenlet_that_is_killed_holds_nobody_up(server: RedisServer) -> None:
    assert in_gevent(KILLED, server.url) == "[b'1', b'2', b'3', b'4'] b'end'"


@contextlib.contextmanager
def answering(each_s: float, *, ends_after_s: float = 0) -> Iterator[str]:
    """The URL of a server that answers PONG to each command, one after the other, to PING *each_s* later.

    It ends a connection *ends_after_s* after SILENCE.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = listener.accept()[0]
                threads.append(threading.Thread(target=answer, args=(connection,)))
                threads[-1].start()

    def answer(connection: socket.socket) -> None:
        reader = hiredis.Reader()
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65_536):
                reader.feed(data)
                while (command := reader.gets()) is not False:
                    if command[0] == b"SILENCE":
                        time.sleep(ends_after_s)
                        return
                    if command[0] == b"PING":
                        time.sleep(each_s)
                    connection.sendall(b"+PONG\r\n")

    threads = [threading.Thread(target=serve)]
    threads[0].start()
    try:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0?protocol=2"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)
        listener.close()


@contextlib.contextmanager
def slow(each_s: float, *, timeout_s: float, **more: float) -> Iterator[SharedConnection]:
    """Connected to a server as above."""
    with answering(each_s, **more) as url:
        client = Client(url, command_timeout_s=timeout_s)
        client.shared.call("ECHO")
        yield client.shared
        client.close()


def times(shared: SharedConnection, count: int, *command: str | bytes) -> list[tuple[float, bool]]:
    """How long each of *count* calls at once takes, of PING if nothing else, and whether it had its answer."""

    def call(_: int) -> tuple[float, bool]:
        began = time.monotonic()
        try:
            shared.call(*command or ("PING",))
        except (redis.TimeoutError, redis.ConnectionError):
            return time.monotonic() - began, False
        return time.monotonic() - began, True

    return race(count, call)


def test_who_reads_for_others_does_not_take_longer_than_for_itself() -> None:
    with slow(0.1, timeout_s=0.5) as shared:
        found = sorted(times(shared, 30))

        for place, (took_s, _) in enumerate(found, 1):  # the server takes 3 s for all, and none may take 2.5
            assert took_s < min(place * 0.1 + 0.5, 2.5) + 0.8
        assert 5 <= sum(answered for _, answered in found) < 30
        assert times(shared, 1)[0][1]


def test_a_server_that_answers_others_is_waited_for() -> None:
    with slow(0.4, timeout_s=0.5) as shared:
        assert [answered for _, answered in times(shared, 4)] == [True] * 4


GIVEN_UP = """
from gevent import monkey; monkey.patch_all()
import sys, gevent
from eas_queue.store.client import Client
shared = Client(sys.argv[1], command_timeout_s=0.35).shared
shared.call("ECHO")
calls = [gevent.spawn(shared.call, "PING")]  # goes out alone, the others together
gevent.sleep(0.05)
calls += [gevent.spawn(shared.call, "PING") for _ in range(7)]
while len(shared._out) < 7:
    gevent.sleep(0.01)
gevent.killall(calls[2:7], block=False)
gevent.joinall(calls)
print([type(calls[n].exception or calls[n].value).__name__ for n in (0, 1, 7)])
"""


def test_who_reads_what_others_have_given_up_is_told_when_its_own_time_is_up() -> None:
    with answering(0.3) as url:
        assert in_gevent(GIVEN_UP, url) == "['bytes', 'bytes', 'TimeoutError']"


BUSY = """
from gevent import monkey; monkey.patch_all()
import sys, time, gevent
from eas_queue.store.client import Client
shared = Client(sys.argv[1], command_timeout_s=0.5).shared
shared.call("PING")

def work():
    for _ in range(10):
        until_s = time.monotonic() + 0.3
        while time.monotonic() < until_s:
            pass
        gevent.sleep(0.01)

busy = gevent.spawn(work)
calls = [gevent.spawn(shared.call, "ECHO", str(i)) for i in range(50)]
gevent.joinall(calls)
gevent.kill(busy)
print([int(call.value) for call in calls] == list(range(50)))
"""


def test_a_process_that_is_busy_does_not_take_itself_for_a_silent_server(server: RedisServer) -> None:
    assert in_gevent(BUSY, server.url) == "True"
