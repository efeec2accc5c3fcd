"""When a request is expected to end. No estimate is better than an invented one.

It stands on the mean run time of the service's latest runs, and on the slots as they are taken now: with equal runs
they become free in the order in which they were taken, round and round, so the request at position p gets the slot of
run p modulo the number of runs, after p // runs more runs in it. The number of slots is the number of runs that are on:
when requests wait, workers would have started more if they could.
"""

from __future__ import annotations

from eas_queue.store.shapes import Place, Seen

RUNS_MIN = 5  # fewer runs tell nothing
OVERDUE = 2  # a run that lasts so many means tells nothing of when its slot becomes free


def eta_s(seen: Seen) -> float | None:
    """Seconds until this request ends, None where it can't be told.

    That is: fewer than RUNS_MIN runs are known; it waits and nothing runs, or nothing may start (a pause, a full sink
    that holds); it waits for a retry; it runs longer than runs do, or waits for a
    run of twice that; it has ended.
    """
    if seen.runs < RUNS_MIN:
        return None
    if seen.fields["state"] == "running":
        left_ms = seen.mean_run_ms - (seen.now_ms - int(seen.fields["started_ms"]))
        return left_ms / 1000 if left_ms > 0 else None
    return waiting_eta_s(seen.place)


def waiting_eta_s(place: Place) -> float | None:
    """The same of a request that does not run."""
    mean_ms = place.mean_run_ms
    if place.runs < RUNS_MIN or place.position < 0 or place.running == 0 or place.blocked:
        return None
    if place.now_ms - place.slot_started_ms > OVERDUE * mean_ms:
        return None
    until_free_ms = max(place.slot_started_ms + mean_ms - place.now_ms, 0)
    return float(until_free_ms + (place.position // place.running + 1) * mean_ms) / 1000
