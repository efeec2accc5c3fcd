"""Durations as Go writes and reads them: `1m0s`, `401.892141ms`. The queue and eascmd are Go programs."""

from __future__ import annotations

import re

_NANOS = {"ns": 1, "us": 1_000, "µs": 1_000, "μs": 1_000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PART = r"(\d{1,12}(?:\.\d{1,12})?|\.\d{1,12})(ns|us|µs|μs|ms|s|m|h)"


def parse(text: str) -> int:
    """Nanoseconds; a number without a unit means seconds. Raises ValueError."""
    if re.fullmatch(r"\d{1,12}(\.\d{1,9})?", text, re.ASCII):
        text += "s"
    if not re.fullmatch(f"({_PART})+", text, re.ASCII):
        raise ValueError(f"{text!r} is not a duration such as 3s, 500ms or 1m30s")
    return sum(round(float(number) * _NANOS[unit]) for number, unit in re.findall(_PART, text, re.ASCII))


def to_text(nanos: int) -> str:
    """As Go's Duration.String: the largest unit that is not zero leads, below a second without the smaller ones."""
    if nanos == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 10**6)):
        if nanos < size * 1000:
            return _decimal(nanos, size) + unit
    minutes, rest = divmod(nanos, 60 * 10**9)
    seconds = _decimal(rest, 10**9) + "s"
    if minutes < 60:
        return f"{minutes}m{seconds}" if minutes else seconds
    return f"{minutes // 60}h{minutes % 60}m{seconds}"


def _decimal(nanos: int, size: int) -> str:
    whole, rest = divmod(nanos, size)
    digits = len(str(size)) - 1
    return f"{whole}.{rest:0{digits}d}".rstrip("0") if rest else str(whole)
