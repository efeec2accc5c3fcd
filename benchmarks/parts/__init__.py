"""The parts of `python -m benchmarks.against`: each has rows, what is compared, and makes samples of them."""

from benchmarks.parts import drain, enqueue, floors, latency, slow

PARTS = {part.name: part for part in (enqueue.PART, drain.PART, latency.PART, slow.PART, floors.PART)}
