"""The futures of Tinker and MinT: sampling, and polls that tell how the queue stands. See PROTOCOL.md."""

from eas_queue.dialects.tinker.dialect import dialect as dialect
