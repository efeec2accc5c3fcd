"""The histories of takes can fail: for a rule that is broken in a script on purpose, they find one that shows it.

So many mutants are tried as PROPERTY_EXAMPLES allows; 1000 are more than there are.
"""

from __future__ import annotations

import pytest
import redis

from eas_queue.store import scripts
from tests.chaos.mutants import Mutant
from tests.store.test_properties import EXAMPLES
from tests.store.test_take_properties import run_histories
from tests.support.server import RedisServer

MUTANTS: list[tuple[str, Mutant]] = [
    # strategy of the histories, mutant; those that are always tried first
    (
        "sequential",
        Mutant(
            "sequential gives more than one",
            "take",
            "and not (out and redis.call('ZSCORE', lane.s.lease, out)) and",
            "and",
        ),
    ),
    (
        "sequential",
        Mutant("sequential never forgets", "take", "(out and redis.call('ZSCORE', lane.s.lease, out))", "out"),
    ),
    ("fifo", Mutant("what is taken waits on", "take", "  redis.call('ZREM', s.wait, id)\n", "")),
    ("round_robin", Mutant("every turn begins anew", "take", "if idle == 0 then take_by.next_at = at end", "")),
    (
        "fifo",
        Mutant(
            "an end is written twice", "complete", "if f[1] ~= 'queued' and f[1] ~= 'running' then", "if not f[1] then"
        ),
    ),
    # the rest
    (
        "fifo",
        Mutant(
            "the youngest first",
            "take",
            "lane.submitted_ms < best.submitted_ms",
            "lane.submitted_ms > best.submitted_ms",
        ),
    ),
    (
        "fifo",
        Mutant(
            "of equal ones the last",
            "take",
            "lane.submitted_ms < best.submitted_ms",
            "lane.submitted_ms <= best.submitted_ms",
        ),
    ),
    (
        "active_passive",
        Mutant(
            "one of each lane",
            "take",
            "while has_room() and head_of(lane) do lease(lane) end",
            "if has_room() and head_of(lane) then lease(lane) end",
        ),
    ),
    ("round_robin", Mutant("a miss ends the lap", "take", "and idle < #lanes do", "and idle < 1 do")),
    (
        "sequential",
        Mutant(
            "as many as there are",
            "take",
            "local function has_room() return #rows < most and",
            "local function has_room() return",
        ),
    ),
    (
        "sequential",
        Mutant(
            "both lanes of a service are one",
            "take",
            "'HSET', lane.s.cfg, 'sole' .. lane.flag",
            "'HSET', lane.s.cfg, 'sole1'",
        ),
    ),
    ("active_passive", Mutant("a lane's limit is ignored", "take", "lane.left <= 0 or ", "")),
    ("active_passive", Mutant("a paused service gives", "take", " or s.paused", "")),
    ("active_passive", Mutant("a full sink holds nothing", "take", " or is_held(s)", "")),
    ("fifo", Mutant("what is late is given", "take", "number(f[2]) <= now then", "number(f[2]) < 0 then")),
    ("fifo", Mutant("age is ignored", "take", "elseif min_age_ms > 0 and", "elseif min_age_ms < 0 and")),
    (
        "fifo",
        Mutant(
            "a young one hides the rest",
            "take",
            "lane.low = (math.floor(tonumber(head[2]) / LEVELS) + 1) * LEVELS",
            "break",
        ),
    ),
    ("fifo", Mutant("the deadline bounds no lease", "take", "if f[7] and deadline_ms > 0 then", "if false then")),
    ("fifo", Mutant("deliveries are not limited", "take", "lease_ms > 0 and deliveries_most or ''", "'-1'")),
    ("fifo", Mutant("a call sent twice takes twice", "take", "if kept then", "if false then")),
    (
        "fifo",
        Mutant(
            "a lane does not count", "take", "redis.call('HINCRBY', lane.s.cfg, 'taken' .. lane.flag, lane.taken)", ""
        ),
    ),
    ("fifo", Mutant("late answers count", "complete", "number(f[5]) > 0 and number(f[5]) <= now", "false")),
    ("fifo", Mutant("anybody extends", "extend", " or (ARGV[4] ~= '' and f[2] ~= ARGV[4])", "")),
    ("fifo", Mutant("what has lapsed is extended", "extend", "f[1] ~= 'running' or not f[2] or", "")),
    ("fifo", Mutant("one delivery too many", "sweep", "if attempt >= most then", "if attempt > most then")),
    ("fifo", Mutant("a late one goes back", "sweep", "if f[5] and number(f[6]) > 0 and", "if false and")),
    (
        "fifo",
        Mutant("the service's limit for all", "sweep", "if f[4] and f[4] ~= '' and most > 1 then", "if false then"),
    ),
    ("fifo", Mutant("a taker's limit before 'once'", "sweep", "f[4] ~= '' and most > 1 then", "f[4] ~= '' then")),
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("strategy", "mutant"), MUTANTS[: EXAMPLES // 5], ids=lambda of: getattr(of, "title", None))
def test_histories_show_that_a_rule_is_broken(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, strategy: str, mutant: Mutant
) -> None:
    sources = {name: scripts.source(name) for name in scripts.NAMES}
    sources[mutant.script] = mutant.mutated(sources[mutant.script])
    monkeypatch.setattr(scripts, "source", sources.__getitem__)

    with pytest.raises((AssertionError, redis.ResponseError)):
        run_histories(server.url, strategy, 200, always_same=True)
