"""One WebSocket's server side, byte by byte, under the servers that the project runs on."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import ssl
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from eas_queue.dialects.eas import websocket
from tests.support.installation import ROOT, Process, await_condition
from tests.support.raw_websocket import ACCEPTED, BINARY, CLOSE, KEY, PING, PONG, TEXT, RawWebSocket, frame
from tests.support.server import free_port

MIB = 1024 * 1024
AT_ONCE_S = 0.5  # for what must not wait for a timeout; the shortest of those is 1 s
GUNICORN = "gunicorn -k gevent -w 1 --keep-alive 90 -b 127.0.0.1:{port} tests.support.websocket_app:app"
FLASK = "flask --app tests.support.websocket_app run --port {port}"


class Server:
    """The app of tests/support/websocket_app.py, and what it says about its connections."""

    def __init__(self, command: str, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        env = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        self._count = self._pid = 0
        self.process = Process("websocket", command.format(port=self.port).split(), env, folder, cwd=folder)

        def answers() -> bool:
            assert self.process.popen.poll() is None, self.process.log
            with contextlib.suppress(requests.ConnectionError):
                self._pid = self.process_state()["pid"]
            return self._pid > 0

        await_condition(answers, timeout_s=20, what="the server answers")

    def connect(self, name: str = "", **options: Any) -> tuple[RawWebSocket, str]:
        self._count += 1
        name = name or f"w{self._count}"
        return RawWebSocket(self.port, f"/watch/{name}", **options), name

    def post(self, path: str) -> str:
        answer = requests.post(self.url + path, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.text

    def state(self, name: str) -> Any:
        return requests.get(f"{self.url}/state/{name}", timeout=30).json()

    def process_state(self) -> dict[str, int]:
        found: dict[str, int] = requests.get(f"{self.url}/process", timeout=30).json()
        return found

    def sockets(self) -> int:
        """How many its process has open, without asking it: that would open another."""
        found = 0
        for each in Path(f"/proc/{self._pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found += each.readlink().name.startswith("socket:")
        return found

    def end_of(self, name: str, *, timeout_s: float = 5) -> str:
        """Why the connection is over, once it is; no second end may follow before the socket is closed too."""
        state = await_condition(
            lambda: found if (found := self.state(name))["ends"] else None, timeout_s=timeout_s, what="on_end is called"
        )
        [reason] = state["ends"]
        return str(reason)


@pytest.fixture(scope="module", params=[GUNICORN, FLASK], ids=["gunicorn", "flask run"])
def running(request: pytest.FixtureRequest) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="eas-queue-test-") as folder:
        server = Server(request.param, Path(folder))
        yield server
        server.process.kill()


def await_rest(server: Server) -> int:
    """The number of sockets once it has not changed for 100 ms: connections of earlier requests are closed."""
    seen: list[int] = []

    def rests() -> bool:
        seen.append(server.sockets())
        return len(seen) > 5 and len(set(seen[-5:])) == 1

    await_condition(rests, what="connections are closed")
    return seen[-1]


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    """Its log stays free of tracebacks, and in the end it has as many sockets as before."""
    before = await_rest(running)
    yield running
    await_condition(lambda: running.sockets() <= before, what="all sockets are closed")
    assert "Traceback" not in running.process.log
    assert "Exception" not in running.process.log
    assert "Error" not in running.process.log


@pytest.fixture
def open_one(server: Server) -> Iterator[tuple[RawWebSocket, str]]:
    """A connection that is open, and its name."""
    client, name = server.connect()
    with client:
        yield client, name


Open = tuple[RawWebSocket, str]


# ---------------------------------------------------------------------------------------------------------- handshake


def test_the_handshake_is_answered_with_these_headers_and_no_others(server: Server) -> None:
    client, _ = server.connect()
    with client:
        assert client.head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert sorted(client.headers) == [
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {ACCEPTED}",
            "Upgrade: websocket",
        ]


def test_nothing_that_a_client_offers_is_agreed_on(server: Server) -> None:
    offered = {
        "Connection": "keep-alive, upgrade",
        "Upgrade": "WebSocket",
        "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
        "Sec-WebSocket-Protocol": "chat, superchat",
        "Origin": "http://127.0.0.1",
    }
    client, _ = server.connect(headers=offered)
    with client:
        assert client.status == 101
        assert sorted(line.partition(":")[0] for line in client.headers) == [
            "Connection",
            "Sec-WebSocket-Accept",
            "Upgrade",
        ]
        assert "Connection: Upgrade" in client.headers


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Sec-WebSocket-Key": None}, 400),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25j"}, 400),
        ({"Sec-WebSocket-Key": f"{KEY}, {KEY}"}, 400),
        ({"Upgrade": None}, 400),
        ({"Upgrade": "h2c"}, 400),
        ({"Connection": "close"}, 400),
        ({"Content-Length": "5"}, 400),
        ({"Sec-WebSocket-Version": None}, 426),
        ({"Sec-WebSocket-Version": "8"}, 426),
    ],
)
def test_a_bad_handshake_gets_an_answer_in_words(server: Server, changes: dict[str, str | None], status: int) -> None:
    client, _ = server.connect(headers={"Connection": "Upgrade, close"} | changes)
    with client:
        assert client.status == status
        assert "Content-Type: text/plain; charset=utf-8" in client.headers
        assert ("Sec-WebSocket-Version: 13" in client.headers) is (status == 426)


def test_only_get_opens_one_and_only_where_the_server_shows_a_socket_without_tls() -> None:
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_UPGRADE": "websocket",
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_SEC_WEBSOCKET_KEY": KEY,
    }
    with pytest.raises(websocket.BadHandshake) as refused:
        websocket.accept(environ)
    assert (refused.value.code, refused.value.more) == (405, (("Allow", "GET"),))
    assert ("Allow", "GET") in refused.value.get_headers()

    environ["REQUEST_METHOD"] = "GET"
    for more in ({}, {"gunicorn.socket": ssl.SSLSocket.__new__(ssl.SSLSocket)}):
        with pytest.raises(websocket.BadHandshake) as refused:
            websocket.accept(environ | more)
        assert refused.value.code == 501


def test_http_1_0_has_no_websockets(server: Server) -> None:
    client, _ = server.connect(start="GET {} HTTP/1.0")
    with client:
        assert client.status == 400


# ----------------------------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize("size", [1, 125, 126, 65_535, 65_536, 65_537, 16 * MIB + 1])
def test_a_message_is_one_binary_frame_of_the_right_length(server: Server, open_one: Open, size: int) -> None:
    client, name = open_one

    server.post(f"/send/{name}?size={size}&count=2")

    for number in range(2):
        found = client.frame()
        assert (found.first, found.second & 0x80) == (0x82, 0), "FIN, binary, not masked"
        assert len(found.payload) == size
        assert found.payload == bytes([number]) * size


def test_an_empty_message_is_refused() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = websocket.Peer(ours)

        with pytest.raises(ValueError, match="index 0"):
            peer.send(b"")

        peer.send(b"x")
        assert theirs.recv(10) == b"\x82\x01x"


def test_messages_of_several_senders_and_pongs_do_not_mix(server: Server, open_one: Open) -> None:
    client, name = open_one
    size, count, senders = 300_000, 30, 3

    server.post(f"/send/{name}?size={size}&count={count}&senders={senders}")
    messages: list[int] = []
    pongs: list[int] = []
    pings = 0
    while len(messages) < count * senders or pings - 1 not in pongs:
        if pings < 40:
            client.send(PING, pings.to_bytes(4))
            pings += 1
        found = client.frame()
        if found.first == 0x80 | PONG:
            pongs.append(int.from_bytes(found.payload))
        else:
            assert found.first == 0x82
            assert found.payload == found.payload[:1] * size
            messages.append(found.payload[0])

    assert sorted(messages) == sorted(list(range(count)) * senders)
    assert pongs == sorted(set(pongs))


def test_a_client_that_does_not_read_holds_the_sender_and_costs_no_memory(server: Server) -> None:
    client, name = server.connect(receive_bytes=65_536)
    with client:
        server.post(f"/send/{name}?size={MIB}&count=100")
        # the system's buffers take some of it
        stuck = await_stuck(server, name)
        before = server.process_state()["rss_kb"]
        for number in range(50):  # none of them can be answered now, and none may be kept for long
            client.send(PING, bytes([number]) * 125)
        await_condition(lambda: server.state(name)["pending"], what="the pings have come")

        assert stuck <= server.state(name)["sent"] < 20
        assert server.state(name)["pending"] <= 4
        assert server.process_state()["rss_kb"] - before < 2_000

        seen = [client.frame() for _ in range(20)]
        while PONG | 0x80 not in [each.first for each in seen]:
            seen.append(client.frame())
        while [each.first for each in seen].count(0x82) < 100:
            seen.append(client.frame())

    messages = [each.payload for each in seen if each.first == 0x82]
    pongs = [each.payload for each in seen if each.first == 0x80 | PONG]
    assert messages == [bytes([number]) * MIB for number in range(100)]
    assert bytes([49]) * 125 in pongs, "the latest ping is answered"
    assert pongs == sorted(pongs)


def await_stuck(server: Server, name: str) -> int:
    """How many messages a sender got rid of before it came to stand still."""
    seen: list[tuple[float, int]] = []

    def stands_still() -> bool:
        now = time.monotonic()
        seen.append((now, server.state(name)["sent"]))
        begin = next(when for when, sent in seen if sent == seen[-1][1])
        return seen[-1][1] > 0 and now - begin > 0.4

    await_condition(stands_still, what="the sender is stuck")
    return seen[-1][1]


# -------------------------------------------------------------------------------------------------------------- pings


@pytest.mark.parametrize("payload", [b"", b"ping", bytes(range(125))])
def test_a_ping_is_answered_at_once_with_what_it_held(server: Server, open_one: Open, payload: bytes) -> None:
    client, name = open_one
    assert server.state(name)["has_pinged"] is False

    began = time.monotonic()
    client.send(PING, payload)

    assert client.frame() == (0x80 | PONG, len(payload), payload)
    assert time.monotonic() - began < AT_ONCE_S
    assert server.state(name)["has_pinged"] is True


def test_a_ping_in_pieces_and_two_in_one_are_understood(open_one: Open) -> None:
    client, _ = open_one
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    for byte in frame(PING, b"slow"):
        client.socket.sendall(bytes([byte]))
    assert client.frame().payload == b"slow"
    client.socket.sendall(frame(PING, b"one") + frame(PING, b"two"))
    assert [client.frame().payload, client.frame().payload] == [b"one", b"two"]


def test_a_ping_while_the_buffers_are_full_is_answered_once_the_client_reads(server: Server) -> None:
    client, name = server.connect(receive_bytes=65_536)
    with client:
        filled = int(server.post(f"/fill/{name}"))
        client.send(PING, b"first")
        await_condition(lambda: server.state(name)["pending"], what="there is no room for a pong")
        client.send(PING, b"second")
        await_condition(lambda: server.state(name)["pending"] == 2)

        client.receive(filled)

        # and no send has taken them along
        assert [client.frame().payload, client.frame().payload] == [b"first", b"second"]
        client.send(PING, b"third")
        assert client.frame().payload == b"third"


def test_any_frame_counts_as_heard_of(server: Server, open_one: Open) -> None:
    client, name = open_one
    await_condition(lambda: server.state(name)["heard_ago_s"] > 0.2)

    client.send(PONG, b"unasked")

    await_condition(lambda: server.state(name)["heard_ago_s"] < 0.15)
    assert server.state(name)["has_pinged"] is False


def test_the_server_can_ping(server: Server, open_one: Open) -> None:
    client, name = open_one

    server.post(f"/ping/{name}")

    assert client.frame() == (0x80 | PING, 0, b"")


# --------------------------------------------------------------------------------------------------------------- ends


def test_a_close_is_answered_with_its_code(server: Server, open_one: Open) -> None:
    client, name = open_one

    client.send(CLOSE, struct.pack(">H", 1000) + "schön".encode())

    assert client.frame() == (0x80 | CLOSE, 2, struct.pack(">H", 1000))
    assert client.ends()
    assert server.end_of(name) == "closed by the client: 1000 schön"


def test_a_close_without_a_code_is_answered_without_one(server: Server, open_one: Open) -> None:
    client, name = open_one

    client.send(CLOSE)

    assert client.frame() == (0x80 | CLOSE, 0, b"")
    assert server.end_of(name).startswith("closed by the client: 1005")


@pytest.mark.parametrize("how", ["FIN", "shutdown", "RST"])
def test_a_client_that_just_goes_is_noticed_at_once(server: Server, how: str) -> None:
    client, name = server.connect()
    with client:
        client.send(PING, b"x")
        client.frame()
        began = time.time()
        if how == "RST":
            client.reset()
        elif how == "shutdown":  # as Python's abort() does
            client.socket.shutdown(socket.SHUT_RDWR)
        else:
            client.socket.close()

        reason = server.end_of(name)

    assert reason.startswith("connection lost" if how == "RST" else "the client closed the connection")
    assert server.state(name)["ends_s"][0] - began < AT_ONCE_S


@pytest.mark.parametrize("how", ["FIN", "RST", "close"])
def test_a_sender_that_is_stuck_learns_that_the_client_has_gone(server: Server, how: str) -> None:
    client, name = server.connect(receive_bytes=65_536)
    with client:
        server.post(f"/send/{name}?size={MIB}&count=1000")
        await_stuck(server, name)
        if how == "RST":
            client.reset()
        elif how == "FIN":  # half of it: the server's data stay unread, and no reset tells of it
            client.socket.shutdown(socket.SHUT_WR)
        else:
            client.send(CLOSE, struct.pack(">H", 1000))

        server.end_of(name)
        state = await_condition(
            lambda: found if (found := server.state(name))["gone"] else None, what="send raises PeerGone"
        )
        assert state["sent"] < 1000


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(TEXT, b"hello"), 1008),
        (frame(BINARY, b"data"), 1008),
        (frame(BINARY, b""), 1008),
        (frame(BINARY, b"part", first=BINARY), 1008),
        (frame(0, b"continued"), 1002),
        (frame(PING, b"x", mask=False), 1002),
        (frame(PING, b"x", first=0xC0 | PING), 1002),
        (frame(PING, b"x", first=0xA0 | PING), 1002),
        (frame(PING, b"x", first=0x90 | PING), 1002),
        (frame(0x3, b"x"), 1002),
        (frame(0xB, b"x"), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(PING, b"x", first=PING), 1002),
        (frame(CLOSE, b"x"), 1002),
        (frame(CLOSE, struct.pack(">H", 999)), 1002),
        (frame(CLOSE, struct.pack(">H", 1005)), 1002),
    ],
    ids=lambda value: value[:2].hex() if isinstance(value, bytes) else None,  # then come masks, which are random
)
def test_frames_that_a_watch_does_not_take_end_it_with_a_code(
    server: Server, open_one: Open, sent: bytes, code: int
) -> None:
    client, name = open_one

    client.socket.sendall(sent)
    found = client.frame()

    assert found.code == code
    assert found.payload[2:], "it says why"
    assert client.ends()
    assert server.end_of(name)


def test_a_frame_of_2_to_the_62_bytes_is_never_collected(server: Server) -> None:
    before = server.process_state()["rss_kb"]
    client, name = server.connect()
    with client:
        client.socket.sendall(struct.pack(">BBQ", 0x82, 0xFF, 2**62) + b"mask")
        piece = b"\0" * MIB
        sent = 0
        with contextlib.suppress(ConnectionError):  # once the server has had enough of it
            began = time.monotonic()
            while time.monotonic() - began < 5:
                client.socket.sendall(piece)
                sent += len(piece)

        assert server.end_of(name).startswith("a watch takes no data")
        assert sent > 0
        assert time.monotonic() - began < 4, "the server resets it"
    assert server.process_state()["rss_kb"] - before < 4_000


def test_our_close_says_why_and_ends_when_the_client_answers(server: Server, open_one: Open) -> None:
    client, name = open_one

    took_s = float(server.post(f"/close/{name}?code=1001&reason=" + "ü" * 100))
    found = client.frame()
    client.send(PING, b"too late")  # on its way before the close came
    client.send(CLOSE, found.payload[:2])

    assert took_s < AT_ONCE_S
    assert found.code == 1001
    assert found.payload[2:].decode() == "ü" * 61, "a whole number of characters, 125 bytes with the code at most"
    assert client.ends()
    assert server.end_of(name).startswith("closed by the server: 1001 ü")
    server.post(f"/send/{name}?size=1")
    await_condition(lambda: server.state(name)["gone"].startswith("closed by the server"))
    server.post(f"/ping/{name}")
    server.post(f"/close/{name}")


@pytest.mark.parametrize("stuck", [False, True])
def test_our_close_ends_though_the_client_does_nothing(server: Server, stuck: bool) -> None:
    client, name = server.connect(receive_bytes=65_536)
    with client:
        if stuck:
            server.post(f"/send/{name}?size={MIB}&count=1000")
            await_stuck(server, name)

        took_s = float(server.post(f"/close/{name}"))

        assert took_s < AT_ONCE_S
        assert server.end_of(name, timeout_s=3) == "closed by the server: 1000"
        if stuck:
            await_condition(lambda: server.state(name)["gone"])
            with pytest.raises(ConnectionResetError):  # the system does not go on to send what was stuck
                client.receive(1000 * MIB)


def test_a_second_close_cuts_the_connection(server: Server) -> None:
    client, name = server.connect()
    with client:
        server.post(f"/close/{name}")
        server.post(f"/close/{name}")
        began = time.time()

        server.end_of(name)

        assert server.state(name)["ends_s"][0] - began < AT_ONCE_S


def test_a_close_may_come_while_the_peer_is_being_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reader exists then, and does not run yet."""
    ours, theirs = socket.socketpair()
    peer = websocket.Peer(ours)
    ends: list[str] = []
    failures: list[Any] = []
    started: list[threading.Thread] = []

    class Thread(threading.Thread):
        def start(self) -> None:
            started.append(self)
            if self.name == "websocket-reader":
                peer.close()
                started[-1].join(0.2)  # its end waits for the reader, or has failed by then
            super().start()

    monkeypatch.setattr(threading, "Thread", Thread)
    monkeypatch.setattr(threading, "excepthook", failures.append)
    with theirs:
        peer.start(ends.append)
        assert theirs.recv(100) == b"\x88\x02\x03\xe8"
    peer.wait()
    started[-1].join(5)

    assert [thread.name for thread in started] == ["websocket-reader", "websocket-end"]
    assert ends == ["closed by the server: 1000"]
    assert not failures


def test_ordinary_requests_go_on_beside_it_and_after_it(server: Server, open_one: Open) -> None:
    client, name = open_one
    with requests.Session() as session:
        for _ in range(3):
            assert session.get(f"{server.url}/state/{name}", timeout=5).status_code == 200
        client.send(CLOSE)
        server.end_of(name)
        assert session.get(f"{server.url}/state/{name}", timeout=5).json()["ends"]


# ---------------------------------------------------------------------------------------------------- under gunicorn


@pytest.fixture
def gunicorn(tmp_path: Path) -> Iterator[Server]:
    server = Server(GUNICORN, tmp_path)
    yield server
    server.process.kill()


def test_a_thousand_idle_connections_cost_little(gunicorn: Server) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2_500:
        pytest.skip("the system allows too few files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2_500), hard))
    count = 1000
    with contextlib.ExitStack() as stack:

        def opened() -> RawWebSocket:
            client = stack.enter_context(gunicorn.connect()[0])
            client.send(PING, b"x")
            assert client.frame().payload == b"x"
            return client

        for _ in range(50):  # what is loaded and allocated once
            opened()
        before_kb, before = gunicorn.process_state()["rss_kb"], await_rest(gunicorn)
        for _ in range(count):
            opened()
        each_kb = (gunicorn.process_state()["rss_kb"] - before_kb) / count
        sockets = await_rest(gunicorn) - before

    assert each_kb < 40, f"{each_kb} KB a connection"
    assert sockets == count, "gunicorn's own end is closed"
    await_condition(lambda: gunicorn.sockets() <= before - 50, what="all sockets are closed")
    print(f"{each_kb} KB a connection")


def test_a_stop_of_gunicorn_is_not_held_up_by_open_connections(gunicorn: Server) -> None:
    client, _ = gunicorn.connect()
    with client:
        began = time.monotonic()

        assert gunicorn.process.stop() == 0

        assert time.monotonic() - began < 10, "its graceful_timeout is 30 s"
        with contextlib.suppress(ConnectionError):
            assert client.ends()
