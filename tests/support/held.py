"""All that a server holds, read in one script: hundreds of looks at it cost no round trip, and all see the same."""

from __future__ import annotations

from typing import Any

READ_ALL = """
local read = {
    hash = function(key) return redis.call('HGETALL', key) end,
    zset = function(key) return redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end,
    set = function(key) return redis.call('SMEMBERS', key) end,
    string = function(key) return redis.call('GET', key) end,
}
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
    local kind = redis.call('TYPE', key).ok
    found[#found + 1] = {key, redis.call('PTTL', key), read[kind] and read[kind](key) or false}
end
return {redis.call('TIME'), found}
"""


class Held:
    """What *raw* holds now. Lists and streams: only that they are there."""

    def __init__(self, raw: Any) -> None:
        (seconds, micros), found = raw.eval(READ_ALL, 0)
        self.time_ms = int(seconds) * 1000 + int(micros) / 1000
        self._content: dict[str, Any] = {key.decode(): content for key, _, content in found}
        self._pttl_ms: dict[str, int] = {key.decode(): ttl_ms for key, ttl_ms, _ in found}
        self._zsets: dict[str, dict[str, float]] = {}
        self._hashes: dict[str, dict[bytes, bytes]] = {}

    def names(self, prefix: str = "") -> list[str]:
        """Of all keys that begin so."""
        return [name for name in self._content if name.startswith(prefix)]

    def has(self, key: str) -> bool:
        return key in self._content

    def pttl_ms(self, key: str) -> int:
        """-1: it never dies; -2: it is not there."""
        return self._pttl_ms.get(key, -2)

    def zset(self, key: str) -> dict[str, float]:
        if key not in self._zsets:
            flat = self._content.get(key, [])
            self._zsets[key] = {name.decode(): float(score) for name, score in zip(flat[::2], flat[1::2], strict=True)}
        return self._zsets[key]

    def hash(self, key: str) -> dict[bytes, bytes]:
        if key not in self._hashes:
            flat = self._content.get(key, [])
            self._hashes[key] = dict(zip(flat[::2], flat[1::2], strict=True))
        return self._hashes[key]

    def fields(self, key: str, *names: str) -> list[bytes | None]:
        """None: the hash has no such field."""
        found = self.hash(key)
        return [found.get(name.encode()) for name in names]

    def set(self, key: str) -> set[str]:
        return {name.decode() for name in self._content.get(key, [])}

    def string(self, key: str) -> str:
        text: str = self._content[key].decode()
        return text
