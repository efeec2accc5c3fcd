"""The invariants of queues, groups and consumers, on what the server holds now. Those of requests: drive.py."""

from __future__ import annotations

from typing import Any

from eas_queue.store import keys
from tests.support.held import Held

QUEUES = ("input", "sink", "rear", "sink_rear")
ALIVE = (b"queued", b"running")


def check_queues(held: Held, service: str, states: dict[str, list[Any]], lease: dict[str, float]) -> None:
    """*states*: state, .. by request id."""
    items = {queue: held.zset(keys.service_key(service, queue)) for queue in QUEUES}
    alive = {request_id for request_id, (state, *_) in states.items() if state in ALIVE}
    kept = held.zset(keys.service_key(service, "kept"))
    assert set(items["input"]) == alive | set(kept), "Q1: the input holds what waits, runs, or is kept for a tap"
    assert not alive & set(kept), "Q1: kept, but it has not ended"
    watching = {entry for key in held.names(keys.WATCHES_PREFIX) for entry in held.set(key)}
    for queue in QUEUES:
        consumers = held.zset(f"{keys.PREFIX}{{{service}}}:{keys.QUEUE_SUFFIX}{queue}:{keys.CONSUMERS_SUFFIX}")
        for name in (name for name, left in consumers.items() if left == float("inf")):
            assert f"{service} {queue} {name}" in watching, f"Q0: {name} would never be released"
        assert len(set(items[queue].values())) == len(items[queue]), f"Q2: an index of {queue} was given twice"
        _check_queue(held, service, queue, items[queue], lease)


def _check_queue(held: Held, service: str, queue: str, items: dict[str, float], lease: dict[str, float]) -> None:
    base = f"{keys.PREFIX}{{{service}}}:{keys.QUEUE_SUFFIX}{queue}:"

    def zset(suffix: str) -> dict[str, float]:
        return held.zset(base + suffix)

    def texts(key: str) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in held.hash(key).items()}

    prio = zset(keys.PRIO_SUFFIX)
    assert set(prio) <= set(items), f"Q3: {queue} has priorities of items that are gone"
    for item, score in prio.items():
        assert score % 2**44 == items[item], f"Q3: {item} has another index among the priorities"
    named = {}
    for entry in zset(keys.NAMED_SUFFIX):
        name, index, item = entry.split("\0")
        named[item] = name
        assert items.get(item) == int(index), f"Q4: {queue} names an item that is gone"
    assert named == texts(base + keys.NAMES_SUFFIX), f"Q4: the names of {queue} and what they name differ"
    for item in items:
        if item.startswith("i"):
            assert held.pttl_ms(f"{keys.PREFIX}{{{service}}}:{keys.OWN_SUFFIX}{item}") > 0, "Q5: it never dies"
    consumers, groups = zset(keys.CONSUMERS_SUFFIX), zset(keys.GROUPS_SUFFIX)
    windows = {name: zset(keys.WINDOW_SUFFIX + name) for name in consumers}
    for name, window in windows.items():
        assert consumers[name] == float("inf") or not window, f"Q6: {name} has gone and holds something"
        assert set(window) <= set(items), f"Q6: {name} holds what is gone"
    for group, since in groups.items():
        at = base + f"{keys.GROUP_SUFFIX}{group}:"
        holders = texts(at + keys.HELD_SUFFIX)
        back = set(held.zset(at + keys.BACK_SUFFIX))
        mine = [window for name, window in windows.items() if name.startswith(group + "/")]
        in_windows = [item for window in mine for item in window]
        assert len(in_windows) == len(set(in_windows)), f"Q7: two consumers of {group} hold the same item"
        assert set(in_windows) | back == set(holders), f"Q7: {group} holds what nobody holds, or the other way round"
        assert not set(in_windows) & back, f"Q7: {group} would push again what a consumer holds"
        assert set(holders) <= set(items), f"Q7: {group} holds what is gone"
        present = sum(left == float("inf") for name, left in consumers.items() if name.startswith(group + "/"))
        assert (since == float("inf")) == (present > 0), f"Q8: {group} has {present} consumers, and is {since}"
        if not present:
            for suffix in (keys.AT_SUFFIX, keys.HELD_SUFFIX, keys.BACK_SUFFIX, keys.AHEAD_SUFFIX):
                assert held.pttl_ms(at + suffix) != -1, f"Q9: {suffix} of {group} never dies"
    if queue == "input":
        for name, window in windows.items():
            if name.startswith(service + "/"):
                for item in window:
                    (holder,) = held.fields(keys.record_key(service, item), "holder")
                    assert item in lease and holder == name.encode(), f"Q10: {name} holds {item}, which {holder!r} has"
