"""Run by `python -m gevent.monkey --module`: exchanges in a process with gevent's patches, as workers are."""

from __future__ import annotations

import socket
import tempfile
import threading
from pathlib import Path

from gevent import monkey

from eas_queue import exchange
from eas_queue.engine.retry import Answer
from eas_queue.worker.attempt import Closed
from tests.support import tls
from tests.support.raw_target import OK, RawTarget, Sending, answering, attempt_at, forwarder


def main() -> None:
    assert monkey.is_module_patched("socket")
    by = forwarder()
    with answering(OK) as target:
        for _ in range(3):
            assert isinstance(by.send(attempt_at(target.url)), Answer)
        assert target.connections == 1
        print("reused")
        by.close()

    reached, go_on = threading.Event(), threading.Event()

    def handle(connection: socket.socket) -> None:
        while True:
            target.read_request(connection)
            reached.set()
            go_on.wait(10)
            connection.sendall(OK)

    with RawTarget(handle) as target:
        attempt = attempt_at(target.url)
        sending = Sending(by, attempt)
        assert reached.wait(10)
        attempt.close(Closed.CANCELLED)
        assert sending.got() is Closed.CANCELLED
        print("cancelled")

        go_on.set()
        first = attempt_at(target.url)
        assert isinstance(by.send(first), Answer)
        reached.clear()
        go_on.clear()
        sending = Sending(by, attempt_at(target.url))
        assert reached.wait(10)
        first.close(Closed.LOST)
        go_on.set()
        assert isinstance(sending.got(), Answer)
        assert target.connections == 2
        print("late")
        by.close()

    with tempfile.TemporaryDirectory() as folder:
        bundle, context = tls.made(Path(folder))
        vars(exchange)["DEFAULT_CA_BUNDLE_PATH"] = str(bundle)
        reached.clear()
        with RawTarget(handle, tls=context) as target:
            go_on.set()
            for _ in range(2):
                assert isinstance(by.send(attempt_at(target.url)), Answer)
            assert target.connections == 1
            for body in (b"{}", b"x" * 8_000_000):
                reached.clear()
                go_on.clear()
                attempt = attempt_at(target.url, body=body)
                sending = Sending(by, attempt)
                assert reached.wait(10)
                attempt.close(Closed.CANCELLED)
                assert sending.got() is Closed.CANCELLED
                go_on.set()
            print("tls")
            by.close()


if __name__ == "__main__":
    main()
