"""The dialect of the original eas_queue: submit, sink, status, result, cancel. Wire: PROTOCOL.md."""

from eas_queue.dialects.native.dialect import dialect

__all__ = ["dialect"]
