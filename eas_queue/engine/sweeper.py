"""The sweep of a process that executes nothing: the web takes its turn, because there may be no worker."""

from __future__ import annotations

import logging
import os
import threading
import time

from eas_queue.engine.engine import Engine
from eas_queue.engine.errors import EngineError
from eas_queue.engine.processes import about, process_name
from eas_queue.store import errors as store_errors

log = logging.getLogger("eas_queue.web")

MORE_S = 0.01  # between sweeps while more is due: others have their turn at Redis


class Sweeper:
    """Sweeps every *sweep_s* from the first ``ensure_started`` in a process on. Starting it twice does nothing."""

    def __init__(self, engine: Engine, sweep_s: float) -> None:
        self._engine, self._sweep_s = engine, sweep_s
        self._pid = 0
        self._lock = threading.Lock()

    def ensure_started(self) -> None:
        if self._pid != os.getpid():
            with self._lock:
                if self._pid != os.getpid():
                    self._pid = os.getpid()
                    threading.Thread(target=self._run, name="sweeper", daemon=True).start()

    def _run(self) -> None:
        away = False
        while True:
            try:
                self._engine.register_listed()
                swept = self._engine.store.sweep(
                    every_ms=round(self._sweep_s * 1000),
                    process=process_name(),
                    about=about("web", waiting=self._engine.waits.count(), watching=self._engine.watches.count()),
                )
                if away:
                    log.warning("redis_back")
                away = False
                if swept.more_is_due:
                    time.sleep(MORE_S)
                    continue
            except (store_errors.StoreError, EngineError) as exc:
                if not away:
                    log.warning("redis_away error=%s", exc.in_full)
                away = True
            except Exception:
                log.exception("sweep_failed")
            time.sleep(self._sweep_s)
