"""Loads the Lua scripts and calls them: by hash, once, with the only retry that is safe.

Each file in ``lua/`` is one transition. Its full text is: its own first line if that names flags, the key names of
:mod:`keys`, the kick of :mod:`kick`, ``prelude.lua``, the parts that it asks for, itself. Every script is safe to send
twice (by request id, token or nonce), so one call is repeated once on a fresh connection when the first
broke; a time-out is not repeated, because callers promise an answer within about a second.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import redis

from eas_queue.store import client, errors, keys, kick

FOLDER = Path(__file__).parent / "lua"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.lua") if path.stem != "prelude"))
PARTS = ("items", "groups", "hooks", "ends", "claims", "outcomes", "consumers")  # each may use those before it
SHARED_BYTES_MOST = 262_144  # a larger body has a connection to itself: others must not wait for it on a slow network
INDEX_JUMP = 1_000_000  # more than a server can hand out in the second that `appendfsync everysec` may lose

_AWAY = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.exceptions.BusyLoadingError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.MasterDownError,
)
# Answers by which a server says that it takes no writes at present.
_REFUSED = ("NOREPLICAS", "LOADING", "READONLY", "MASTERDOWN", "BUSY ", "TRYAGAIN")


def source(name: str) -> str:
    """The full text of script *name* as the server gets it."""
    own = (FOLDER / f"{name}.lua").read_text()
    flags, body = own.split("\n", 1) if own.startswith("#!") else ("", own)
    parts = [
        keys.lua_names(),
        f"local KICK_NORMAL = {kick.lua_pieces(keys.QUEUE_NORMAL)}",
        f"local KICK_HIGH = {kick.lua_pieces(keys.QUEUE_HIGH)}",
        (FOLDER / "prelude.lua").read_text(),
    ]
    if body.startswith("-- with "):
        wanted = body.split("\n", 1)[0].removeprefix("-- with ").split(", ")
        if "hooks" in wanted:
            pieces = kick.lua_pieces(keys.QUEUE_HOOKS, kick.DELIVER)
            parts.append(f"local function hook_message(id) return table.concat({pieces}, id) end")
        parts += [(FOLDER / "parts" / f"{part}.lua").read_text() for part in PARTS if part in wanted]
    parts.append(body)
    text = "\n".join(parts)
    return f"{flags}\n{text}" if flags else text


class Scripts:
    """The scripts on one server."""

    def __init__(self, connection: client.Client) -> None:
        self._client = connection
        self._sources = {name: source(name) for name in NAMES}
        self._hashes = {
            name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in self._sources.items()
        }

    def call(self, name: str, *args: Any, again: tuple[Any, ...] | None = None) -> Any:
        """Run script *name*; returns its raw reply. *again*: what is sent the second time, where that differs.

        Raises StoreUnavailable, StoreFull, LayoutMismatch.
        """
        try:
            return self._evalsha(name, args)
        except redis.TimeoutError as exc:
            raise errors.StoreUnavailable(f"Redis did not answer {name} in time", exc) from exc
        except redis.ConnectionError:
            try:
                return self._evalsha(name, again or args)
            except _AWAY as exc:
                raise errors.StoreUnavailable(f"Redis can't be reached for {name}", exc) from exc
        except _AWAY as exc:
            raise errors.StoreUnavailable(f"Redis can't do {name} now", exc) from exc

    def _evalsha(self, name: str, args: tuple[Any, ...]) -> Any:
        try:
            try:
                return self._send(name, args)
            except redis.exceptions.NoScriptError:
                self._load()
                return self._send(name, args)
        except redis.exceptions.OutOfMemoryError as exc:
            raise errors.StoreFull(f"Redis is out of memory and refused {name}") from exc
        except redis.ResponseError as exc:
            text = str(exc)
            if text.startswith("MISCONF"):  # its disk is full or broken, and it refuses writes
                raise errors.StoreFull(f"Redis can't write to its disk and refused {name}") from exc
            if text.startswith(_REFUSED) or "-NOREPLICAS" in text or "-MISCONF" in text:
                raise errors.StoreUnavailable(f"Redis refuses {name} now", text[:200]) from exc
            raise

    def _send(self, name: str, args: tuple[Any, ...]) -> Any:
        if any(isinstance(arg, (bytes, str)) and len(arg) > SHARED_BYTES_MOST for arg in args):
            return self._client.redis.evalsha(self._hashes[name], 0, *args)
        return self._client.shared.call("EVALSHA", self._hashes[name], 0, *args)

    def _load(self) -> None:
        """An empty script cache means a server that has just started: see to its epoch before anything else runs."""
        connection = self._client.redis
        run_id = connection.info("server")["run_id"]
        if connection.eval(self._sources["epoch"], 0, run_id, keys.LAYOUT, INDEX_JUMP) == -1:
            raise errors.LayoutMismatch(
                f"the data on this Redis has another key layout than {keys.LAYOUT}, which this version writes: "
                "use the version that wrote it, or an empty database"
            )
        for text in self._sources.values():
            connection.script_load(text)


def guard(call: Any, *args: Any, **options: Any) -> Any:
    """Run one plain Redis command with the same translation of errors, and once more where the first connection was one
    to a server that has gone; it must be a read."""
    try:
        try:
            return call(*args, **options)
        except redis.ConnectionError:
            return call(*args, **options)
    except _AWAY as exc:
        raise errors.StoreUnavailable("Redis can't be reached", exc) from exc
