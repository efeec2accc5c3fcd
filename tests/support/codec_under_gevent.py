"""Run by `python -m gevent.monkey --module`: prints how often another greenlet ran while 32 MB were encoded, read as
UTF-8, and put into a frame."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from gevent import monkey

from eas_queue.dialects.eas import codec
from eas_queue.engine.items import Item

SIZE = 32 * 1024 * 1024


class Ticks:
    count = 0

    def run(self) -> None:
        while True:
            time.sleep(0.001)
            self.count += 1


def main() -> None:
    assert monkey.is_module_patched("socket")
    ticks = Ticks()
    threading.Thread(target=ticks.run, daemon=True).start()
    text = "é".encode() * (SIZE // 2)
    item = Item(1, {"requestId": "r"}, text)

    def during(work: Callable[[], object]) -> int:
        time.sleep(0.01)
        before = ticks.count
        work()
        return ticks.count - before

    print(
        during(lambda: codec.encode_items([item], codec.Codec.JSON)),
        during(lambda: codec.sniff(text)),
        during(lambda: codec.encode_frame(item)),
    )


if __name__ == "__main__":
    main()
