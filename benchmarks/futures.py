"""What polls for samples cost one web process: 1,000 that it holds, those that it answers at once, and results.

    python -m benchmarks.futures [--quick] [--rows "held"] [--rounds 1] [--keep]

Of Tinker's protocol; every sample is a fresh installation. CPU with held polls is that of some seconds in which none is
renewed, of 30 s in which each is at least once, and of 25 s in which 20 samples a second end. With --keep the figures
stand in results.json and in docs/performance.md. Some 4 minutes.
"""

from __future__ import annotations

from benchmarks import alone
from benchmarks.parts.futures import PART
from benchmarks.parts.part import Sizes

QUICK = Sizes(
    polls=12,
    poll_hold_s=1,
    poll_still_s=0.2,
    poll_ends=5,
    polled=2,
    polled_s=0.3,
    results=20,
)

if __name__ == "__main__":
    alone.main(__doc__, PART, QUICK, rounds=1)
