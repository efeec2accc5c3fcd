"""What a long queue costs the server, by the queue API: put, get by index, get by request id, attributes.

    python -m benchmarks.queue_depth [--quick] [--rows sink] [--rounds 1] [--keep]

A queue of 1,000 items and one of 200,000, of 1 KB each, stand on one server and are measured in turn, as sinks and as
inputs. All calls are HTTP calls; microseconds are the server's own, in scripts (`INFO commandstats`), and its CPU
(`INFO cpu`, with reading, writing and what else it did meanwhile). With --keep the figures stand in results.json and in
docs/performance.md.
"""

from __future__ import annotations

from benchmarks import alone
from benchmarks.parts.part import Sizes
from benchmarks.parts.queue_depth import PART

QUICK = Sizes(depths=(20, 60), depth_calls=10, depth_turns=2)

if __name__ == "__main__":
    alone.main(__doc__, PART, QUICK, rounds=1)
