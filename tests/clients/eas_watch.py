"""Watches a queue and tells of each frame; closes the watcher after so many different items."""

from __future__ import annotations

import json
import time
from typing import Any

from eas_prediction.exception import PredictException

from tests.clients.eas_common import client, frame, parser, say

arguments = parser(__doc__)
arguments.add_argument("--index", type=int, default=0)
arguments.add_argument("--window", type=int, default=5)
arguments.add_argument("--auto", action="store_true", help="the server commits")
arguments.add_argument("--commit", action="store_true", help="commit each item, again until that is answered")
arguments.add_argument("--index-only", action="store_true")
arguments.add_argument("--tags", type=json.loads, default={})
arguments.add_argument("--count", type=int, default=0, help="0: watch on and on")
options = arguments.parse_args()
queue = client(options)


def commit(index: int) -> None:
    while True:
        try:
            answer: Any = queue.commit(index)
        except PredictException as exc:
            say(not_committed=index, code=exc.code)
            time.sleep(0.1)
        else:
            say(committed=index, answer=answer.decode())
            return


watcher = queue.watch(
    options.index, options.window, index_only=options.index_only, auto_commit=options.auto, tags=options.tags
)
seen = set()
for found in watcher.run():
    say(frame=frame(found))
    if options.commit:
        commit(found.index)
    seen.add(found.index)
    if len(seen) == options.count:
        break

watcher.close()
say(closed=True)
