"""A watch: the connection on which the queue pushes items, made anew as the SDKs do when it breaks."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import quote

import requests
import websocket
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from eas_queue.stream import errors, items, reasons
from eas_queue.stream.client import CONNECT_S
from eas_queue.stream.items import Item
from eas_queue.stream.target import Target

PING_S = 2.0  # as the Python and Java SDKs; the queue takes 10 s without any sign for the end
SILENCE_S = 10.0  # the answers to our pings come every 2 s
RECONNECT_S = 1.0  # as Go's and Python's SDKs
_BUFFERED_MAX = 64  # items that nobody has looked at; more stay with the queue
# Refusals that pass: 409 while the queue still counts the broken connection as connected, 429, and what proxies say of
# a service that restarts.
_PASSING = (409, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Connected:
    """The queue pushes (again)."""


@dataclass(frozen=True)
class Lost:
    """The connection broke. What was pushed on it and is not committed goes back to the queue, and comes again."""

    reason: str


@dataclass(frozen=True)
class Arrived:
    """*connection*: the number of the one that brought it."""

    item: Item
    connection: int


@dataclass(frozen=True)
class Ended:
    """It can't be connected again."""

    failure: errors.Failed


Event = Connected | Lost | Arrived | Ended


class Watch:
    """For a `with` block, which connects (raising one of `errors`) and at its end says goodbye.

    A thread receives and another one pings, so that the connection lives while a person thinks about an item.
    """

    def __init__(
        self,
        target: Target,
        *,
        index: int,
        window: int,
        index_only: bool,
        auto_commit: bool,
        tags: Mapping[str, str],
    ) -> None:
        self._target = target
        query = dict(tags) | {
            "_watch_": "true",
            "_index_": str(index),
            "_window_": str(window),
            "_index_only_": "true" if index_only else "false",
            "_auto_commit_": "true" if auto_commit else "false",
        }
        address = target.url.replace("http", "ws", 1)
        self._url = address + "?" + "&".join(f"{quote(key, '')}={quote(query[key], '')}" for key in query)
        self._events: queue.Queue[Event] = queue.Queue(_BUFFERED_MAX)
        self._closing = threading.Event()
        self._socket: websocket.WebSocket | None = None
        self._threads: list[threading.Thread] = []
        self._number = 0

    def __enter__(self) -> Watch:
        self._socket = self._connect()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._receive, self._ping)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.set()
        connection = self._socket
        if connection is not None:
            try:
                connection.settimeout(1)
                connection.send_close()
                if connection.sock is not None:
                    connection.sock.shutdown(socket.SHUT_RDWR)  # wakes the receiver
            except (OSError, websocket.WebSocketException):
                pass  # gone already
        for thread in self._threads:
            thread.join(1)

    @property
    def connection(self) -> int:
        """The number of the newest one, from 1."""
        return self._number

    def events(self) -> Iterator[Event]:
        """All that happens, without end but for Ended. The last item of a broken connection comes before its Lost."""
        while True:
            try:
                event = self._events.get(
                    timeout=0.5
                )  # in turns: a Ctrl-C just before it waits would be noticed after it
            except queue.Empty:
                continue
            yield event
            if isinstance(event, Ended):
                return

    # ----------------------------------------------------------------------------------------------------- threads
    def _receive(self) -> None:
        connection = self._socket
        while connection is not None:
            self._tell(Lost(self._receive_from(connection)))
            connection = self._socket = self._connected_again()
            if connection is not None:
                self._tell(Connected())

    def _receive_from(self, connection: websocket.WebSocket) -> str:
        """Until it breaks, or is closed by us; says why."""
        try:
            while not self._closing.is_set():
                opcode, data = connection.recv_data()
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    return "the queue closed the connection"
                if opcode == websocket.ABNF.OPCODE_BINARY:
                    self._tell(Arrived(items.from_frame(data), self._number))
        except websocket.WebSocketTimeoutException:
            return f"the queue was silent for {SILENCE_S:g} s"
        except ValueError as exc:
            return f"a frame is not an item: {exc}"
        except (OSError, websocket.WebSocketException) as exc:
            return reasons.of(exc)
        finally:
            connection.shutdown()  # type: ignore[no-untyped-call]
        return "closed"

    def _connected_again(self) -> websocket.WebSocket | None:
        """Tries for ever, since whoever watches wants to miss nothing; None when closing or refused for good."""
        while not self._closing.wait(RECONNECT_S):
            try:
                return self._connect()
            except errors.Unreachable:
                continue
            except errors.Failed as exc:
                if isinstance(exc, errors.Refused) and exc.status in _PASSING:
                    continue
                self._tell(Ended(exc))
                return None
        return None

    def _ping(self) -> None:
        while not self._closing.wait(PING_S):
            connection = self._socket
            try:
                if connection is not None and connection.connected:
                    connection.ping()
            except (OSError, websocket.WebSocketException):
                pass  # the receiver notices as well

    def _tell(self, event: Event) -> None:
        while not self._closing.is_set():
            try:
                self._events.put(event, timeout=0.5)
                return
            except queue.Full:
                pass

    # -------------------------------------------------------------------------------------------------- connecting
    def _connect(self) -> websocket.WebSocket:
        tried = f"watch {self._target.url}"
        headers = self._target.headers | {"Accept": "application/vnd.google.protobuf"}
        try:
            connection = websocket.create_connection(
                self._url,
                timeout=CONNECT_S,
                header=[f"{name}: {value}" for name, value in headers.items()],
                redirect_limit=0,  # the token is for this URL
                sslopt=self._trust(),
            )
        except websocket.WebSocketBadStatusException as exc:
            raise errors.from_status(tried, exc.status_code, exc.resp_body or b"", self._target) from exc
        except websocket.WebSocketTimeoutException as exc:
            raise errors.Unreachable(f"{tried}: no answer within {CONNECT_S:g} s", reasons.ABSENT) from exc
        except OSError as exc:
            raise errors.Unreachable(f"{tried}: {reasons.of(exc)}", reasons.advice(exc)) from exc
        except (websocket.WebSocketException, ValueError) as exc:
            if isinstance(exc.__cause__ or exc.__context__, OSError) or isinstance(
                exc, websocket.WebSocketConnectionClosedException | websocket.WebSocketAddressException
            ):
                raise errors.Unreachable(f"{tried}: {reasons.of(exc)}", reasons.advice(exc)) from exc
            raise errors.Refused(
                f"{tried}: the answer opens no WebSocket", "check the URL, and that what stands in front lets them pass"
            ) from exc
        connection.settimeout(SILENCE_S)
        self._number += 1
        return connection

    def _trust(self) -> dict[str, Any]:
        """The certificates that the HTTP calls trust: REQUESTS_CA_BUNDLE, else requests' own."""
        with requests.Session() as session:
            settings = session.merge_environment_settings(self._target.url, {}, None, None, None)
        bundle = settings["verify"] if isinstance(settings["verify"], str) else DEFAULT_CA_BUNDLE_PATH
        return {"ca_certs": bundle}
