"""Queues in any order: puts, consumers that come, go and die, pulls sent twice, commits, refusals, removals, time.

Beside the invariants after every step: nobody is given what another consumer of its group holds, what a group has
committed does not come to it again, in a pull the order is that of priority and index, and in the end each item was
committed by every group that was waited for, removed, or lies in the rear.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from eas_queue.store import keys
from eas_queue.store.shapes import fresh_id
from tests.store.test_properties import EXAMPLES, SHRINK
from tests.support.desk import PROCESS_LEASE_MS, Desk
from tests.support.drive import SUCCEEDED, Driver
from tests.support.server import RedisServer

CONSUMERS = ("g/a", "g/b", "h/a", "s/a", "s/b")  # s: on the input, the lane
PROCESSES = ("p", "q")
MAX_ATTEMPTS = 3


class Histories(RuleBasedStateMachine):
    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.drive = Driver(self.url)
        self.drive.raw.flushall()
        self.drive.raw.script_flush()
        self.desk = Desk(self.drive)
        self.there: dict[str, str] = {}  # consumer -> process
        self.auto: set[str] = set()
        self.bound: set[str] = set()  # started further on
        self.held: dict[str, dict[int, str]] = defaultdict(dict)  # consumer -> index -> item, as it knows it
        self.committed: dict[str, set[int]] = defaultdict(set)  # group -> indexes
        self.calls: list[tuple[str, dict[str, Any], list[int]]] = []
        self.put_indexes: list[int] = []

    @initialize(queue=st.sampled_from(["sink", "input"]), pull=st.booleans())
    def queue(self, queue: str, pull: bool) -> None:
        self.drive.register(max_attempts=MAX_ATTEMPTS, pull=pull, max_concurrency=3)
        self.desk.queue = queue

    # --------------------------------------------------------------------------------------------------- clients
    @rule(priority_class=st.sampled_from([99, 100, 100, 100, 101, 103]), name=st.sampled_from(["", "", "n"]))
    def put(self, priority_class: int, name: str) -> None:
        if self.desk.queue == "sink":
            index = self.desk.put(priority_class=priority_class, name=name)
        else:
            _, reply = self.drive.submit_reply(priority_class=priority_class, name=name)
            index = int(reply[1])
        assert index > max(self.put_indexes, default=0)
        self.put_indexes.append(index)

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        indexes = data.draw(st.lists(st.sampled_from(self.put_indexes or [1]), max_size=2))
        self.desk.store.remove("s", self.desk.queue, indexes)

    @rule(below=st.integers(0, 5))
    def truncate(self, below: int) -> None:
        self.desk.store.truncate("s", self.desk.queue, below)

    @rule(start=st.integers(-1, 8), most=st.integers(1, 3), removes=st.booleans(), name=st.sampled_from(["", "n"]))
    def fetch(self, start: int, most: int, removes: bool, name: str) -> None:
        there = self.desk.there()
        _, _, rows = self.desk.store.fetch("s", self.desk.queue, start=start, most=most, name=name, removes=removes)
        found = [row.at for row in rows]
        if not name:
            expected = there[-1:] if start < 0 else [index for index in there if index >= start][:most]
            assert found == expected
        if removes:
            assert not set(found) & set(self.desk.there()) or self.desk.queue == "input"  # taps keep ended requests

    # ------------------------------------------------------------------------------------------------- consumers
    @rule(
        consumer=st.sampled_from(CONSUMERS),
        process=st.sampled_from(PROCESSES),
        window=st.integers(1, 3),
        is_auto=st.booleans(),
        start=st.sampled_from([0, 0, 0, -1, 3]),
    )
    def join(self, consumer: str, process: str, window: int, is_auto: bool, start: int) -> None:
        if self.desk.queue == "sink" and consumer.startswith("s/"):
            return
        token = fresh_id()
        code = self.desk.join(consumer, token=token, process=process, window=window, is_auto=is_auto, start=start)
        known = {name: left for name, left, *_ in self.desk.standing().consumers}
        assert code == (0 if self.desk.tokens.get(consumer) != token else 1)
        assert known[consumer] == 0
        if code == 1:
            self.there[consumer] = process
            self.held.pop(consumer, None)
            (self.auto.add if is_auto else self.auto.discard)(consumer)
            (self.bound.add if start else self.bound.discard)(consumer)

    @precondition(lambda self: self.there)
    @rule(data=st.data(), twice=st.booleans(), most=st.integers(1, 4))
    def pull(self, data: st.DataObject, twice: bool, most: int) -> None:
        consumer = data.draw(st.sampled_from(sorted(self.there)))
        done = tuple(self.held[consumer].values()) if consumer in self.auto else ()
        call: dict[str, Any] = {"caller": f"c{consumer}", "nonce": fresh_id(), "most": most, "done": done}
        before = {index for name in self.there if name != consumer for index in self._window(name)}
        if consumer in self.auto:
            self._note_committed(consumer, self.held[consumer])
        _, found, lost, _ = self.desk.pull_reply(consumer, **call)
        if lost:
            return
        if consumer in self.auto:
            self.held[consumer].clear()
        given = [(row.row.at, row.item) for row in found]
        group = consumer.partition("/")[0]
        for index, item in given:
            assert index not in self.committed[group], f"{group} has committed {index}, and is given it again"
            if consumer.startswith(group):
                same_group = {i for name in self.there if name.startswith(group) and name != consumer
                              for i in self._window(name)}  # fmt: skip
                assert index not in same_group, f"{index} is held by two of {group}"
            self.held[consumer][index] = item
        assert before is not None
        scores = [self._score(index) for index, _ in given]
        assert scores == sorted(scores), "priority first, then the index"
        if twice:
            again = self.desk.pull_reply(consumer, **(call | {"done": ()}))[1]
            assert [row.row.at for row in again] == [index for index, _ in given]

    def _score(self, index: int) -> float:
        items = {int(i): name for name, i in self.drive.members("s", self.desk.queue).items()}
        prio = self.drive.raw.zscore(self._key(keys.PRIO_SUFFIX), items[index])
        return float(155 * 2**44 + index if prio is None else prio)

    def _key(self, suffix: str) -> str:
        return f"{keys.PREFIX}{{s}}:{keys.QUEUE_SUFFIX}{self.desk.queue}:{suffix}"

    def _window(self, consumer: str) -> set[int]:
        items = self.drive.members("s", self.desk.queue)
        window = self.drive.raw.zrange(self._key(keys.WINDOW_SUFFIX + consumer), 0, -1)
        return {int(items[item.decode()]) for item in window}

    def _note_committed(self, consumer: str, indexes: Any) -> None:
        self.committed[consumer.partition("/")[0]] |= set(indexes) & self._window(consumer)

    @precondition(lambda self: self.put_indexes)
    @rule(data=st.data(), group=st.sampled_from(["g", "h", "s", "nobody"]), twice=st.booleans())
    def commit(self, data: st.DataObject, group: str, twice: bool) -> None:
        index = data.draw(st.sampled_from(self.put_indexes))
        settled = self.desk.commit(group, index)
        if settled:
            self.committed[group].add(index)
        if twice:
            assert self.desk.commit(group, index) == 0

    @precondition(lambda self: self.put_indexes)
    @rule(data=st.data(), group=st.sampled_from(["g", "h", "s"]), code=st.sampled_from(["", "Bad", "Shutdown"]))
    def refuse(self, data: st.DataObject, group: str, code: str) -> None:
        index = data.draw(st.sampled_from(self.put_indexes))
        self.desk.refuse(group, index, code=code)

    @precondition(lambda self: self.there)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        consumer = data.draw(st.sampled_from(sorted(self.there)))
        self.desk.leave(consumer)
        del self.there[consumer]
        self.held.pop(consumer, None)

    @rule(process=st.sampled_from(PROCESSES))
    def process_dies(self, process: str) -> None:
        for other in PROCESSES:
            self.desk.store.holds(other, PROCESS_LEASE_MS)
        self.drive.pass_time(PROCESS_LEASE_MS - 2_000)
        for other in PROCESSES:
            if other != process:
                self.desk.store.holds(other, PROCESS_LEASE_MS)
        self.drive.pass_time(2_001)
        self.drive.sweep()
        for consumer in [name for name, of in self.there.items() if of == process]:
            del self.there[consumer]
            self.desk.tokens.pop(consumer, None)
            self.held.pop(consumer, None)

    @rule(ms=st.sampled_from([1_000, 61_000]))
    def time_passes(self, ms: int) -> None:
        self.drive.pass_time(ms)
        for process in PROCESSES:
            self.desk.store.holds(process, PROCESS_LEASE_MS)
        self.drive.sweep()

    @rule()
    def forwarder_works(self) -> None:
        for work in self.drive.start(2):
            self.drive.finish(work, SUCCEEDED)

    # ------------------------------------------------------------------------------------------------ invariants
    @invariant()
    def invariants_hold(self) -> None:
        if self.drive.numbers:
            self.drive.check()

    def teardown(self) -> None:
        """One consumer a group reads all that is left; then nothing is."""
        if not self.drive.numbers:
            return
        for consumer in sorted(self.there):
            self.desk.leave(consumer)
        groups = ["g", "h", *(["s"] if self.desk.queue == "input" else [])]
        for group in groups:
            assert self.desk.join(f"{group}/z", window=5) == 1
        for _ in range(3 * len(self.put_indexes) + 10):
            given = 0
            for group in groups:
                for index in self.desk.indexes(f"{group}/z"):
                    assert index not in self.committed[group]
                    self.committed[group].add(index)
                    assert self.desk.commit(group, index) == 1
                    given += 1
            if not given:
                break
        if self.desk.queue == "input":
            self.forwarder_works()
        self.drive.check()
        assert self.desk.there() == [], "somebody waits for what nobody will ever be given"
        self.drive.check_keys()
        self.drive.store.client.close()


@pytest.mark.timeout(600)
def test_every_history_keeps_the_invariants_and_drains(server: RedisServer) -> None:
    Histories.url = server.url
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=50,
            deadline=None,
            phases=[Phase.reuse, Phase.generate] + [Phase.shrink] * SHRINK,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
