"""Request ids: UUIDs of version 8 that carry the number of their service, so that an id alone finds its record.

Layout: 16 bits service number, then 106 random bits around the version and variant fields of RFC 9562, section 5.8.
"""

from __future__ import annotations

import re
import secrets

_SHAPE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def new_id(service_number: int) -> str:
    """A fresh id for a request of service *service_number* (1..65535)."""
    bits = service_number << 112 | secrets.randbits(112)
    bits = bits & ~(0xF << 76) | 0x8 << 76
    bits = bits & ~(0x3 << 62) | 0x2 << 62
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_id(text: str) -> bool:
    """Whether *text* has the shape of an id of ours; says nothing about existence."""
    return _SHAPE.fullmatch(text) is not None


def service_number(request_id: str) -> int:
    """The service number in *request_id*, which must be one of ours."""
    return int(request_id[:4], 16)
