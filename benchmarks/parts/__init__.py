"""What is measured, by name: each part has rows, what is compared, and makes samples of them.

PARTS are those of `python -m benchmarks.against`; the others compare nobody and have programs of their own.
"""

from benchmarks.parts import drain, enqueue, floors, futures, latency, queue_depth, slow, streams, takers, watchers

PARTS = {part.name: part for part in (enqueue.PART, drain.PART, latency.PART, slow.PART, floors.PART)}
ALONE = {part.name: part for part in (watchers.PART, streams.PART, takers.PART, futures.PART, queue_depth.PART)}
