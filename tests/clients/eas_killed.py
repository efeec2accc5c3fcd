"""Watches with manual commit in processes that are killed at random moments, and in a last one that is not.

Says of each item when it was received, when its commit is about to be sent, and when that was answered. The moments
follow from the seed, as far as the machine lets them.
"""

from __future__ import annotations

import os
import random
import signal
import time
import uuid

from tests.clients.eas_common import client, parser, say

arguments = parser(__doc__)
arguments.add_argument("--kills", type=int, required=True)
arguments.add_argument("--seed", type=int, required=True)
arguments.add_argument("--longest-s", type=float, default=0.5, help="that one process lives")
options = arguments.parse_args()
rng = random.Random(options.seed)


def consume(life: int) -> None:
    queue = client(options)
    for found in queue.watch(0, 5, auto_commit=False).run():
        say(life=life, got=found.index)
        say(life=life, commits=found.index)
        queue.commit(found.index)
        say(life=life, committed=found.index)


# Forked before any client exists: its threads would not survive a fork, and importing it takes as long as a life.
for life in range(options.kills + 1):
    # Half of the time the one that was killed comes back, else a stranger takes over.
    if options.uid is None or rng.random() < 0.5:
        options.uid = str(uuid.UUID(int=rng.getrandbits(128), version=4))
    pid = os.fork()
    if pid == 0:
        try:
            consume(life)
        except BaseException as exc:
            say(life=life, error=repr(exc))
        os._exit(1)
    if life < options.kills:
        time.sleep(rng.uniform(0.02, options.longest_s))
        os.kill(pid, signal.SIGKILL)
    else:
        say(last=True)
    os.waitpid(pid, 0)
