"""1,000 open status streams on one web process: memory, CPU, and how late their readers are told.

    python -m benchmarks.streams [--quick] [--rows "10 a second"] [--rounds 1] [--keep]

Streams of fal's protocol, of requests that wait for one slot; every sample is a fresh installation with a real worker.
CPU is that of 20 s in which nothing moves, and of 20 s in which 2, 10 or 20 requests a second end and all others move
up. With --keep the figures stand in results.json and in docs/performance.md. Some 4 minutes.
"""

from __future__ import annotations

from benchmarks import alone
from benchmarks.parts.part import Sizes
from benchmarks.parts.streams import PART

QUICK = Sizes(streams=12, streamed_s=0.5)

if __name__ == "__main__":
    alone.main(__doc__, PART, QUICK, rounds=1)
