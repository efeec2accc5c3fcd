"""Defects put into the engine on purpose, to prove that the ledger sees them. They exist in test processes only:
``tests.chaos.mutant_app`` applies one, and nothing of the product knows of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from eas_queue.store import keys, kick, scripts
from eas_queue.store.store import Store

FENCE = "if f[1] == 'running' and f[2] == token then"
RESULT = "redis.call('HSET', r, 'status_code', ARGV[9], 'headers', ARGV[10], 'result', ARGV[11])"


class Stale(Exception):
    """The text that a mutant replaces is not there exactly once any more: the mutant has to follow the script."""


@dataclass(frozen=True)
class Mutant:
    """In *script*, *old* becomes *new*. *more*: what else is wrong."""

    title: str
    script: str = ""
    old: str = ""
    new: str = ""
    more: Callable[[], None] = lambda: None

    def mutated(self, source: str) -> str:
        """The full text *source* of the script, changed in the script's own part. Raises Stale."""
        own = (scripts.FOLDER / f"{self.script}.lua").read_text().split("\n", 1)[1]
        if own.count(self.old) != 1 or not source.endswith(own):
            raise Stale(f"{self.script}.lua has {self.old!r} {own.count(self.old)} times")
        return source.removesuffix(own) + own.replace(self.old, self.new)

    def apply(self) -> None:
        """To this process, before it loads its scripts. Raises Stale."""
        if self.script:
            original = scripts.source
            self.mutated(original(self.script))
            scripts.source = lambda name: self.mutated(original(name)) if name == self.script else original(name)
        self.more()


def kick_after_submit() -> None:
    """The web announces what it stored with a call of its own."""
    original = Store.submit

    def submit(self: Store, service: str, request_id: str, **options: object) -> object:
        reply = original(self, service, request_id, **options)  # type: ignore[arg-type]
        client = self.client.redis
        if client.zadd(keys.KICKS, {request_id: time.time_ns() // 1_000_000}, nx=True):
            client.lpush(keys.QUEUE_NORMAL, json.dumps(kick.message(request_id, keys.QUEUE_NORMAL)))
        return reply

    Store.submit = submit  # type: ignore[method-assign, assignment]


MUTANTS = {
    "none": Mutant("nothing is changed"),
    "fencing-off": Mutant(
        "an end is taken from whoever sends it, whatever the lease",
        "finish",
        FENCE,
        "if f[1] then",
    ),
    "result-before-check": Mutant(
        "the result is written before the lease is looked at",
        "finish",
        FENCE,
        f"if outcome == 'succeeded' or outcome == 'failed' then {RESULT} end\n" + FENCE,
    ),
    "kick-outside-submit": Mutant(
        "the message is pushed after the submit, by a call of its own",
        "submit",
        "\nkick(id)\n",
        "\n",
        kick_after_submit,
    ),
    "no-sweep": Mutant(
        "the sweep does nothing",
        "sweep",
        "\nredis.call('HSET', ALIVE",
        "\ndo return { {} } end\nredis.call('HSET', ALIVE",
    ),
    "renewal-off": Mutant(
        "a renewal says that all is well and extends nothing",
        "renew",
        "redis.call('ZADD', s.lease, now + lease_ms, id)",
        "",
    ),
}
