"""What clients see when the web or Redis dies under them, and what slow readers cost."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dialects.eas.conftest import Lone
from tests.support.eas_client import Queue, Watch
from tests.support.installation import await_condition


@pytest.fixture
def sink(lone: Lone) -> Iterator[Queue]:
    yield lone.queue().sink
    lone.installation.await_web()


def memory_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")))


def watching_again(queue: Queue, timeout_s: float) -> Watch:
    """As the official clients do: again and again."""

    def joined() -> Watch | None:
        with contextlib.suppress(OSError, EOFError):
            found = queue.watch(window_=5)
            return found if found.status == 101 else None
        return None

    found: Watch = await_condition(joined, timeout_s=timeout_s)
    return found


def test_a_reader_that_stops_costs_the_web_a_few_megabytes_only(lone: Lone, sink: Queue) -> None:
    for i in range(100):
        sink.put(b"%03d" % i + b"x" * 2_000_000)
    with sink.as_("quick", "quick").watching(window_=1) as quick:
        quick.next()
        before_kb = memory_kb(lone.process)
        slow = Watch(sink, {"_window_": 1000}, receive_bytes=4096)
        with contextlib.closing(slow):
            await_condition(lambda: int(sink.consumer("eas.alice")["Pending"]))

            for index in range(1, 21):  # 40 MB to somebody else meanwhile
                sink.as_("quick", "quick").commit(index)
                assert quick.next().index == index + 1

            assert memory_kb(lone.process) - before_kb < 24_000
            assert 1 <= int(sink.consumer("eas.alice")["Pending"]) < 5
    sink.truncate(200)


def test_a_reader_that_stops_is_found_dead_and_its_items_go_to_another(sink: Queue) -> None:
    for _ in range(4):
        sink.put(b"x" * 2_000_000)
    with contextlib.closing(Watch(sink, {}, receive_bytes=4096)) as slow:
        slow.send(9, b"")  # it has pinged, and then never again
        await_condition(lambda: sink.consumer("eas.alice")["Pending"] != "0")

        with sink.as_("bob").watching() as other:
            assert sorted(other.indexes(4)) == [1, 2, 3, 4]


def test_watchers_go_on_over_a_restart_of_redis(lone: Lone, sink: Queue) -> None:
    sink.puts(2)
    with sink.watching(window_=1) as watch:
        assert watch.next().index == 1
        lone.server.await_on_disk()
        lone.server.kill()
        assert watch.ping() == b"ping"
        away = sink.call("POST", "", b"x")
        assert (away.status, away.body.count(b"\n")) == (503, 1)
        assert "Retry-After" not in away.headers

        lone.server.start()
        await_condition(lambda: sink.call("PUT", "_indexes_=1").status == 200)

        assert watch.next().index == 2
        sink.commit(2)
        last = sink.put()
        assert last > 2
        assert watch.next().index == last


def test_a_get_goes_on_waiting_over_a_restart_of_redis(lone: Lone, sink: Queue) -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.extend(item.index for item in sink.get(timeout_="10s")))
    thread.start()
    await_condition(lambda: sink.length == 0)
    lone.server.kill()
    lone.server.start()

    index = await_condition(lambda: _put(sink))

    thread.join(10)
    assert found == [index]


def _put(queue: Queue) -> int:
    answer = queue.call("POST", "", b"x")
    return int(answer.body) if answer.status == 200 else 0


def test_a_web_process_that_is_killed_loses_nothing_that_its_watchers_had_not_committed(
    lone: Lone, sink: Queue
) -> None:
    sink.puts(4)
    watch = sink.watch(window_=3)
    assert watch.indexes(3) == [1, 2, 3]
    sink.commit(2)
    process = lone.process
    since_s = time.monotonic()

    os.kill(process, signal.SIGKILL)

    assert watch.is_closed()
    watch.close()
    with contextlib.closing(watching_again(sink, 15)) as again:
        assert again.indexes(3) == [1, 3, 4]
        assert time.monotonic() - since_s < 12
        assert lone.process != process


def test_at_a_stop_watchers_are_told_and_what_they_held_is_there_at_once(lone: Lone, sink: Queue) -> None:
    sink.puts(2)
    with sink.watching() as watch:
        watch.take(2)
        stopping = lone.process
        os.kill(stopping, signal.SIGTERM)

        assert watch.close_code() == 1001
    await_condition(lambda: lone.processes and stopping not in lone.processes, timeout_s=15)

    with contextlib.closing(watching_again(sink, 15)) as again:
        assert again.indexes(2) == [1, 2]
