"""Workers that pull: 20,000 tasks taken and completed over HTTP, against no-op messages of one Celery worker.

    python -m benchmarks.takers [--quick] [--rows "drain,celery solo"] [--rounds 3] [--keep]

Every sample is a fresh installation, or a fresh Celery worker with the same server. 16 takers share one process and
take 10 tasks at a time; afterwards each task was given out once and has the result of whom it was given to, else the
sample is void. An empty take is measured too: how long it takes, and that it is one round trip to the server. With
--keep the figures stand in results.json and in docs/performance.md. Some 6 minutes.
"""

from __future__ import annotations

from benchmarks import alone
from benchmarks.parts.part import Sizes
from benchmarks.parts.takers import PART

QUICK = Sizes(taken=200, takers=4, empty_s=0.3)

if __name__ == "__main__":
    alone.main(__doc__, PART, QUICK, rounds=3)
