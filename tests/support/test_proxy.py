"""The proxy itself, in front of an echo server."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.installation import await_condition
from tests.support.proxy import Proxy


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := self.request.recv(65_536):
                self.request.sendall(piece)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Server(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with Proxy("127.0.0.1", server.server_address[1]) as made:
            yield made
        server.shutdown()


@contextlib.contextmanager
def connect(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=0.3) as sock:
        yield sock


def echoed(sock: socket.socket, data: bytes) -> bytes:
    sock.sendall(data)
    return received(sock, len(data))


def received(sock: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size and (piece := sock.recv(65_536)):
        found += piece
    return found


def test_bytes_and_ends_go_through(proxy: Proxy) -> None:
    with connect(proxy) as sock:
        data = bytes(range(256)) * 400
        assert echoed(sock, data) == data
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    await_condition(lambda: proxy.open == 0)


def test_a_blackhole_holds_old_and_new_connections_and_gives_back_what_it_held(proxy: Proxy) -> None:
    with connect(proxy) as old:
        assert echoed(old, b"a") == b"a"
        proxy.blackhole()
        with connect(proxy) as new:
            for sock in (old, new):
                sock.sendall(b"b")
                with pytest.raises(TimeoutError):
                    sock.recv(1)
            proxy.pass_on()
            assert (old.recv(1), new.recv(1)) == (b"b", b"b")


def test_a_reset_ends_old_and_new_connections(proxy: Proxy) -> None:
    with connect(proxy) as old:
        assert echoed(old, b"a") == b"a"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            old.recv(1)
        with pytest.raises(ConnectionResetError), connect(proxy) as new:
            new.recv(1)
        proxy.pass_on()
        with connect(proxy) as again:
            assert echoed(again, b"c") == b"c"


def test_latency_delays_each_piece_and_limits_nothing_else(proxy: Proxy) -> None:
    proxy.latency(0.1)
    with connect(proxy) as sock:
        began = time.monotonic()
        assert echoed(sock, b"a") == b"a"
        assert 0.2 <= time.monotonic() - began < 0.3
        began = time.monotonic()
        data = b"x" * 2_000_000
        sender = threading.Thread(target=sock.sendall, args=(data,))
        sender.start()
        assert received(sock, len(data)) == data
        sender.join()
        assert time.monotonic() - began < 2, "pieces are on their way together"


def test_a_stranded_connection_stays_so_while_new_ones_work(proxy: Proxy) -> None:
    with connect(proxy) as old:
        assert echoed(old, b"a") == b"a"
        proxy.strand()
        proxy.pass_on()
        with connect(proxy) as new:
            assert echoed(new, b"b") == b"b"
        old.sendall(b"c")
        with pytest.raises(TimeoutError):
            old.recv(1)


def test_a_server_that_is_not_there_is_a_reset() -> None:
    with Proxy("127.0.0.1", 9) as proxy, pytest.raises(ConnectionResetError), connect(proxy) as sock:
        sock.recv(1)
