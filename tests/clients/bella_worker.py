"""Works on queues as the workers of bella-queue's clients do: take, work, complete, again and again.

First the event bus is asked for, and nothing is taken before it is known. Then takes follow each other with a pause
after those that gave nothing; with --idle-s of several, each further one of a row takes the next pause. A task's work
is to say back what came, where its data has no *answer* with *status_code* and *body*.

With --looks N a task is completed at its Nth delivery and left alone before that: so a worker polls a job that runs
elsewhere, by the redelivery that it asks for. Ends when --count tasks are completed, or when standard input does.
"""

from __future__ import annotations

import argparse
import collections
import select
import sys
import time
from typing import Any

from tests.clients.bella_common import Server, say

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--queues", required=True, type=lambda text: text.split(","), help="name:level, by commas")
parser.add_argument("--size", type=int, default=1)
parser.add_argument("--strategy", default="fifo")
parser.add_argument("--idle-s", type=lambda text: [float(each) for each in text.split(",")], default=[0.1])
parser.add_argument("--busy-s", type=float, default=0.0, help="the pause after a take that gave something")
parser.add_argument("--process-timeout", type=int, default=0)
parser.add_argument("--process-max-retries", type=int, default=0)
parser.add_argument("--min-age-seconds", type=int, default=0)
parser.add_argument("--endpoint", default="/v1/chat/completions")
parser.add_argument("--looks", type=int, default=1)
parser.add_argument("--count", type=int, default=0, help="0: no end")
options = parser.parse_args()

server = Server()
looks: collections.Counter[str] = collections.Counter()
done = idle = 0


def is_over(pause_s: float) -> bool:
    """After the pause."""
    readable, _, _ = select.select([sys.stdin], [], [], pause_s)
    return bool(readable) or done == options.count > 0


def work(task: dict[str, Any]) -> bool:
    """Whether it was completed."""
    task_id = task["task_id"]
    looks[task_id] += 1
    say(task=task, look=looks[task_id], at_s=time.monotonic())
    if looks[task_id] < options.looks:
        return False
    answer = task["data"].get("answer", {"status_code": 200, "body": {"said": task["data"]}})
    say(completed=server.complete(task_id, **answer))
    return True


say(eventbus=server.eventbus().model_dump())
while not is_over(options.busy_s if not idle else options.idle_s[min(idle, len(options.idle_s)) - 1]):
    taken = server.take(
        queues=options.queues,
        size=options.size,
        strategy=options.strategy,
        endpoint=options.endpoint,
        process_timeout=options.process_timeout,
        process_max_retries=options.process_max_retries,
        min_age_seconds=options.min_age_seconds,
    )
    idle = 0 if taken else idle + 1
    for tasks in taken.values():
        done += sum(work(task) for task in tasks)
