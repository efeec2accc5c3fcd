"""Why a connection failed, in the system's words: libraries wrap them in three layers of their own."""

from __future__ import annotations

import http.client
import socket
import ssl

from eas_queue.stream import rendering

ABSENT = "check host and port of the URL, and that the service runs"
UNKNOWN = "it is not known whether this was done: look, then try again"


def of(exc: BaseException) -> str:
    """One line; never a URL with its query, never a header."""
    deepest = _deepest(exc)
    if isinstance(deepest, ssl.SSLCertVerificationError):
        return rendering.plain(f"its certificate is not trusted ({deepest.verify_message})")
    if isinstance(deepest, socket.gaierror):
        return "the name of the host is not known"
    if isinstance(deepest, OSError) and deepest.strerror:
        return rendering.plain(deepest.strerror)
    return rendering.plain(f"the connection broke ({str(deepest)[:100] or type(deepest).__name__})")


def advice(exc: BaseException) -> str:
    """A connection that breaks after the request was sent leaves open what has become of it."""
    deepest = _deepest(exc)
    if isinstance(deepest, ssl.SSLCertVerificationError):
        return "if the certificate is right, name the file of those to trust in REQUESTS_CA_BUNDLE"
    broke = isinstance(deepest, http.client.HTTPException | ConnectionResetError | BrokenPipeError)
    return UNKNOWN if broke else ABSENT


def _deepest(exc: BaseException) -> BaseException:
    while (inner := exc.__cause__ or exc.__context__) is not None:
        exc = inner
    return exc
