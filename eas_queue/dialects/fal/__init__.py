"""fal's queue API: submit, status and its stream, result, cancel, and the synchronous host. See PROTOCOL.md."""

from eas_queue.dialects.fal.dialect import dialect as dialect
