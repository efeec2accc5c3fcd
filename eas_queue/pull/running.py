"""The tasks that a worker has at the moment."""

from __future__ import annotations

import threading

from eas_queue.pull.task import Task


class Running:
    """The tasks that are being worked on; at most *slots*."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._tasks: dict[str, Task] = {}
        self._count = 0  # threads: an abandoned task's may go on beside that of its next delivery
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return self._count

    def free(self) -> int:
        return max(0, self._slots - self._count)

    def add(self, task: Task) -> bool:
        """False when it is running here already: its lease had lapsed, and the queue has given it to us again."""
        with self._changed:
            before = self._tasks.get(task.id)
            if before is not None and not before.abandoned.is_set():
                return False
            self._tasks[task.id] = task
            self._count += 1
            return True

    def remove(self, task: Task) -> None:
        with self._changed:
            if self._tasks.get(task.id) is task:
                del self._tasks[task.id]
            self._count -= 1
            self._changed.notify_all()

    def await_room(self, timeout_s: float) -> int:
        """How many more may run; 0 when that has been so for *timeout_s*."""
        with self._changed:
            self._changed.wait_for(self.free, timeout_s)
            return self.free()

    def await_end(self, timeout_s: float) -> None:
        """Returns when none is left, at the latest after *timeout_s*."""
        with self._changed:
            self._changed.wait_for(lambda: not self._count, timeout_s)

    def all(self) -> list[Task]:
        with self._changed:
            return list(self._tasks.values())
