"""1,000 clients that watch queues on one web process: memory, idle CPU, and how late an item is.

    python -m benchmarks.watchers [--quick] [--rows "one group"] [--rounds 1] [--keep]

In one group on one sink, spread over 50 services, one on each of 1,000 services; every sample is a fresh installation.
CPU is that of 20 s without and of 20 s with pings; then 200 items are put one after the other, 20 a second. With --keep
the figures stand in results.json and in docs/performance.md. Some 4 minutes.
"""

from __future__ import annotations

from benchmarks import alone
from benchmarks.parts.part import Sizes
from benchmarks.parts.watchers import PART

QUICK = Sizes(watchers=12, watched_services=3, watched_s=0.5, watched_puts=5)

if __name__ == "__main__":
    alone.main(__doc__, PART, QUICK, rounds=1)
