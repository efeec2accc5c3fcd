"""The dialect of Alibaba Cloud's PAI-EAS queue service: put, get, watch, commit. Wire: PROTOCOL.md."""

from eas_queue.dialects.eas.dialect import dialect as dialect
