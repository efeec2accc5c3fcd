"""The part of a keyspace that the rules speak of, rebuilt from commands: hashes and sorted sets under ``eas:``."""

from __future__ import annotations

from eas_queue.store import keys
from tests.chaos.aof import Command

_PREFIX = keys.PREFIX.encode()
# They change nothing that a rule looks at: texts, lists and times to live.
_PASSED_OVER = frozenset(
    b"SET PEXPIREAT EXPIRE PEXPIRE LPUSH RPUSH LPOP RPOP LTRIM LREM PUBLISH SCRIPT FUNCTION PERSIST".split()
)


class Unknown(Exception):
    """A command that this reader can't repeat: it would no longer know what the server holds."""


class Model:
    """Names and values are ``str``; bytes that are not UTF-8 (bodies, answers) are replaced."""

    def __init__(self) -> None:
        self.hashes: dict[str, dict[str, str]] = {}
        self.sets: dict[str, dict[str, float]] = {}

    def apply(self, command: Command) -> None:
        """Repeat *command*. Raises Unknown."""
        name = command[0].upper()
        if name in _PASSED_OVER:
            return
        if name in (b"FLUSHALL", b"FLUSHDB"):
            self.hashes.clear()
            self.sets.clear()
            return
        if name in (b"DEL", b"UNLINK"):
            for gone in text(command[1:]):
                self.hashes.pop(gone, None)
                self.sets.pop(gone, None)
            return
        if not command[1].startswith(_PREFIX):  # Celery's own bookkeeping
            return
        key, *rest = text(command[1:])
        act = getattr(self, "_" + name.decode().lower(), None)
        if act is None:
            raise Unknown(f"{name.decode()} {key}")
        act(key, rest)

    def hash(self, key: str) -> dict[str, str]:
        return self.hashes.get(key, {})

    def set(self, key: str) -> dict[str, float]:
        return self.sets.get(key, {})

    # ---------------------------------------------------------------------------------------------------- commands
    def _hset(self, key: str, rest: list[str]) -> None:
        self.hashes.setdefault(key, {}).update(pairs(rest))

    _hmset = _hset

    def _hsetnx(self, key: str, rest: list[str]) -> None:
        self.hashes.setdefault(key, {}).setdefault(rest[0], rest[1])

    def _hdel(self, key: str, rest: list[str]) -> None:
        found = self.hashes.get(key, {})
        for field in rest:
            found.pop(field, None)

    def _hincrby(self, key: str, rest: list[str]) -> None:
        found = self.hashes.setdefault(key, {})
        found[rest[0]] = str(int(found.get(rest[0], "0")) + int(rest[1]))

    def _zadd(self, key: str, rest: list[str]) -> None:
        found, flags = self.sets.setdefault(key, {}), set()
        while rest[0].upper() in ("NX", "XX", "LT", "GT", "CH"):
            flags.add(rest.pop(0).upper())
        for score_text, member in zip(rest[::2], rest[1::2], strict=True):
            score, before = float(score_text), found.get(member)
            if ("NX" in flags and before is not None) or ("XX" in flags and before is None):
                continue
            if before is not None and (("LT" in flags and score >= before) or ("GT" in flags and score <= before)):
                continue
            found[member] = score

    def _zrem(self, key: str, rest: list[str]) -> None:
        found = self.sets.get(key, {})
        for member in rest:
            found.pop(member, None)

    def _zpopmin(self, key: str, rest: list[str]) -> None:
        found = self.sets.get(key, {})
        for _ in range(int(rest[0]) if rest else 1):
            if found:
                del found[min(found, key=lambda member: (found[member], member))]

    def _zremrangebyscore(self, key: str, rest: list[str]) -> None:
        low, high = float(rest[0]), float(rest[1])
        found = self.sets.get(key, {})
        for member in [member for member, score in found.items() if low <= score <= high]:
            del found[member]

    def _zremrangebyrank(self, key: str, rest: list[str]) -> None:
        found = self.sets.get(key, {})
        ordered = sorted(found, key=lambda member: (found[member], member))
        first, last = int(rest[0]), int(rest[1])
        for member in ordered[first : last + 1 if last >= 0 else len(ordered) + last + 1]:
            del found[member]


def text(parts: tuple[bytes, ...]) -> list[str]:
    return [part.decode(errors="replace") for part in parts]


def pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
