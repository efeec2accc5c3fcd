"""Puts items one after the other, and tells of each what the SDK answered."""

from __future__ import annotations

import time

from eas_prediction.exception import PredictException

from tests.clients.eas_common import client, parser, say

arguments = parser(__doc__)
arguments.add_argument("--count", type=int, required=True)
arguments.add_argument("--pause-s", type=float, default=0.0, help="after each")
arguments.add_argument("--again", action="store_true", help="after an error, put the next attempt of the same item")
options = arguments.parse_args()
queue = client(options)

for n in range(options.count):
    attempt = 0
    while True:
        # Of two attempts of one item that both arrived, one is no double: their data tell them apart.
        data = f"{n}.{attempt}"
        try:
            index, request_id = queue.put(data)
        except PredictException as exc:
            say(failed=data, code=exc.code, text=str(exc.message))
            if not options.again:
                raise
            attempt += 1
            time.sleep(0.05)
        else:
            say(put=data, index=int(index), request_id=request_id)
            break
    time.sleep(options.pause_s)
