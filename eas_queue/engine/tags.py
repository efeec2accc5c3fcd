"""Tags of items: text by text. In Redis they stand packed, ``&key=value&key=value&`` with both parts percent-encoded,
so that scripts find a tag by finding its text."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, unquote


def quoted(value: str) -> str:
    """Without any character that separates: blank, slash, colon, ampersand, equals sign."""
    return quote(value, safe="", errors="surrogateescape")


def packed(tags: Mapping[str, str]) -> str:
    """As items carry them."""
    return "&" + "".join(f"{quoted(key)}={quoted(value)}&" for key, value in tags.items())


def as_filter(tags: Mapping[str, str]) -> str:
    """As those who look for tags hand them in; '' for none."""
    return "&".join(f"{quoted(key)}={quoted(value)}" for key, value in tags.items())


def unpacked(text: str) -> dict[str, str]:
    """Where a tag stands twice, the last one holds."""
    pairs = (pair.partition("=") for pair in text.split("&") if pair)
    return {unquote(key, errors="replace"): unquote(value, errors="replace") for key, _, value in pairs}
