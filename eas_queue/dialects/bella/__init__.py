"""The take API of bella-queue: put, take, complete, and what belongs to them. Wire: PROTOCOL.md."""

from eas_queue.dialects.bella.dialect import dialect as dialect
