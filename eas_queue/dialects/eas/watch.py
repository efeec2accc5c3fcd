"""Watching a queue over a WebSocket, or, without an Upgrade, as an endless chunked answer. See PROTOCOL.md, "Watch"."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from flask import Request, Response

from eas_queue.dialects import inbound
from eas_queue.dialects.eas import codec, parameters, websocket
from eas_queue.engine.engine import Engine
from eas_queue.engine.items import Queue
from eas_queue.engine.waiting import Turn
from eas_queue.engine.watching import Watcher

# The official clients ping every one or two seconds; one that never has is asked now and then.
SILENT_S = 10.0
NEVER_PINGED_S = 60.0
PING_EVERY_S = 20.0
CHALLENGED_S = 3.0  # of silence, when somebody else would take this consumer's place
GOING_AWAY, NORMAL = 1001, 1000


def response(engine: Engine, service: str, queue: Queue, request: Request) -> Response:
    """Joins the consumer first, so that what is wrong is an HTTP answer; then takes the connection over."""
    if "websocket" in request.headers.get("Upgrade", "").lower():
        return _by_websocket(engine, service, queue, request)
    return _by_chunks(engine, service, queue, request)


def _join(engine: Engine, service: str, queue: Queue, request: Request, is_dead: Callable[[bool], bool]) -> Watcher:
    return engine.watches.join(
        service,
        queue,
        parameters.consumer(request),
        parameters.watch_options(request),
        is_dead=is_dead,
        is_gone=inbound.gone_check(request),
    )


def _by_websocket(engine: Engine, service: str, queue: Queue, request: Request) -> Response:
    websocket.checked_key(request.environ)
    peer: websocket.Peer | None = None
    asked_s = time.monotonic()

    def is_dead(is_asked_for: bool) -> bool:
        nonlocal asked_s
        if peer is None:
            return False
        now_s = time.monotonic()
        silent_s = now_s - peer.last_heard_s
        patience_s = (CHALLENGED_S if is_asked_for else SILENT_S) if peer.has_pinged else NEVER_PINGED_S
        if silent_s > patience_s:
            return True
        if not peer.has_pinged and silent_s > PING_EVERY_S and now_s - asked_s > PING_EVERY_S:
            asked_s = now_s
            peer.ping()
        return False

    watcher = _join(engine, service, queue, request, is_dead)
    try:
        peer = websocket.accept(request.environ)
    except BaseException:
        watcher.leave()
        raise

    def say_goodbye(turn: Turn) -> None:
        assert peer is not None
        peer.close(GOING_AWAY if turn is Turn.STOPPING else NORMAL)

    peer.start(lambda reason: watcher.end())
    watcher.on_over = say_goodbye
    try:
        if watcher.over is not None:  # before it could say so
            say_goodbye(watcher.over)
        for item in watcher.items():
            if item is not None:
                peer.send(codec.encode_frame(item))
    except websocket.PeerGone:
        pass
    finally:
        watcher.leave()
    return websocket.Hijacked(peer)


def _by_chunks(engine: Engine, service: str, queue: Queue, request: Request) -> Response:
    is_gone, cut = inbound.gone_check(request), inbound.hang_up(request)

    def is_dead(is_asked_for: bool) -> bool:
        return is_gone()

    def cut_off(turn: Turn) -> None:
        if turn is not Turn.STOPPING or watcher.is_sending:  # else the answer ends as it should
            cut()

    inbound.keep_alive(request)  # there are no pings: the system's own probes find out that nobody is there any more
    watcher = _join(engine, service, queue, request, is_dead)
    watcher.on_over = cut_off

    def frames() -> Iterator[bytes]:
        yield b""  # the head goes out now: clients wait for it, and the first item may be hours away
        for item in watcher.items():
            if item is not None:
                yield codec.http_watch_chunk(item)

    answer = Response(frames(), content_type="application/octet-stream")
    answer.call_on_close(watcher.leave)
    return answer
