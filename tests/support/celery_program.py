"""``python -m tests.support.celery_program -A ... worker ...``: the program ``celery``, sooner at work.

It imports all its commands before it runs one. Left out are Flower and the prompt of ``celery amqp``, a fifth of the
CPU time of a start, which no worker uses.
"""

from __future__ import annotations

import sys
from types import ModuleType

UNUSED = ModuleType("click_repl")
UNUSED.register_repl = lambda group: None  # type: ignore[attr-defined]

if __name__ == "__main__":
    sys.modules["click_repl"] = UNUSED
    sys.modules["flower.command"] = None  # type: ignore[assignment]  # not there, which Celery takes as it comes

    from celery.__main__ import main

    main()
