"""The ledger as text: a line while it runs, and docs/reliability.md."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.fleet import GRACE_S, LEASE_S, POOLS
from tests.chaos.ledger import TOUCH_S, UNDONE_S, Row
from tests.chaos.mutants import MUTANTS
from tests.chaos.taking import AT_ONCE, MAX_ATTEMPTS, PROCESS_TIMEOUT_S, Account
from tests.chaos.trials import TRIAL_LEASE_S, TRIALS

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
TAKERS_BEGIN, TAKERS_END = "<!-- takers -->", "<!-- /takers -->"


@dataclass(frozen=True)
class Machine:
    """Where the ledger was drawn up."""

    cores: int
    python: str
    server: str


def line(row: Row) -> str:
    counts = f"sent {row.submitted} acked {row.acknowledged} ended {row.terminal} lost {row.lost} undone {row.undone}"
    calls = f"extra {row.extra}{_cuts(row)} unexplained {row.unexplained} overlaps {row.overlaps}"
    rules = f"twice {row.twice} unfenced {row.unfenced} illegal {row.illegal} wrong {row.wrong_end}"
    verdict = f"RED: {', '.join(sorted(row.red))}" if row.red else "green"
    return f"{row.name:24} {counts} | {calls} | {rules} | again {row.refused} | {_recovery(row)} | {verdict}"


def write(rows: list[Row], trials: dict[str, Row], machine: Machine) -> None:
    """Write the page anew. *trials*: by mutant."""
    PAGE.write_text(page(rows, trials, machine))


def write_takers(account: Account) -> None:
    """Write that part of the page anew. Raises ValueError where the page has no place for it."""
    before, found, rest = PAGE.read_text().partition(TAKERS_BEGIN)
    _, also_found, after = rest.partition(TAKERS_END)
    if not found or not also_found:
        raise ValueError(f"{PAGE} has no {TAKERS_BEGIN} and {TAKERS_END}")
    PAGE.write_text(f"{before}{TAKERS_BEGIN}\n{_takers(account)}\n{TAKERS_END}{after}")


def page(rows: list[Row], trials: dict[str, Row], machine: Machine) -> str:
    requests, calls = sum(row.submitted for row in rows), sum(row.extra for row in rows)
    lost, undone, unexplained = (sum(getattr(row, name) for row in rows) for name in ("lost", "undone", "unexplained"))
    pools = ", ".join(f"{pool} 2 x {most}" for pool, most in POOLS.items())
    return f"""# Reliability

What [the README promises](../README.md#what-is-promised), while everything around the queue breaks. This page
is written by

```
make chaos
```

A short version, and the mutants below, are part of `make test`.

## What is done

Two web replicas, two workers of each pool (requests at once: {pools}),
one server, a target that logs every call, and a TCP proxy on each of the three links between them: all real
processes on one machine ({machine.cores} cores, Python {machine.python}, {machine.server}). Whatever dies is
started again at once, as a supervisor does. Clients submit to both replicas by the clock, each request with an
`Idempotency-Key` of its own; a submit that is refused or breaks off is sent again under its key. The target
takes up to 0.3 s a call. Leases last {LEASE_S} s, a worker that stops has {GRACE_S} s. Under this load one
fault after another is injected; then every acknowledged request is looked up over the API until it has ended.

The judge is the server's own append-only file. It holds every effect of every script, in order and whole, and
what a crash took away is not in it. It is replayed, and after each step the engine's rules are checked: which
state may follow which, ends and results written once and only by the holder of the live lease, each request in
one place, the cap at each claim, no ready work without a message. Calls at the target are matched with leases
by the progress token that came with them.

## The ledger

{requests:,} requests: {lost or "none"} lost, {undone or "none"} undone by a crash of the server; {calls:,}
calls more than requests, {unexplained or "none"} of them unexplained.

{_table(rows)}

- **sent**: different requests, at least 2,000 a fault. **again**: submits that were refused or broke off, and
  were repeated.
- **acked**: answered with 2xx. **ended**: of these, found in an end. **lost**: neither ended nor undone. Must
  be 0.
- **undone**: acknowledged, and gone with a server that was killed within {UNDONE_S:g} s, where `appendfsync
  everysec` allows that.
- **extra**: calls at the target beyond one a request, by why the attempt before was cut off: `WorkerLost` (its
  lease lapsed), `HandedBack` (its worker was stopped), `TargetTimeout`, `TargetUnreachable`, `TargetBroken`,
  `TargetFailed` (the call was made and its answer did not come, or asked for a repetition). **unexplained**:
  those without a lease of their own, or cut off for a reason that this fault does not have. Must be 0: a fault
  that cuts nothing off sends nothing twice.
- **twice**: ends or results that were written over an end, or by somebody without the live lease. Must be 0.
- **illegal**: steps and states that the rules forbid, requests that ended otherwise than they had to, and two
  attempts of a request at the target at the same time (by more than {TOUCH_S:g} s; where a worker is frozen beyond
  its lease, or the network delivers late what was given up, that can't be had: it is counted under extra). Must be 0.
- **recovery**: seconds until all went on, and the limit. From the restart of the server, the lift of a network
  fault or the fault itself: until a request that came later has ended, and every worker has taken a message or
  got work again. From the kill of a worker: also until all that it held has ended.

## Does the ledger see anything?

Each of these defects is put into the engine, in test processes only; the ledger has to turn red, and without a
defect to stay green under the same faults (leases of {TRIAL_LEASE_S} s, one web, two workers).

{_mutants(trials)}

## Takers that are killed

Workers that pull are processes of their own, which know nothing but the API. Here they take {AT_ONCE} tasks at a
time with `process_timeout` {PROCESS_TIMEOUT_S} and `process_max_retries` -1, work some milliseconds on each,
complete it, and are killed (SIGKILL) at random all the while; the next one takes their place. Some tasks kill
whoever works on them, and are delivered more often than the service's `max_attempts`, which is {MAX_ATTEMPTS}.
Takers note what they were given and what they completed. `python -m tests.chaos takers` does only this.

{TAKERS_BEGIN}
{TAKERS_END}

- **tasks**: put, one of five with high priority. **completed**: each once, as the queue's counts, the tasks'
  statuses and the append-only file say, with a result that one of its takers gave.
- **deliveries**: the sum of the tasks' attempts; the queue's count of tasks that were given out and the leases
  in the append-only file are the same. Each but the last of a task ended because its time was over, none before.
- **noted**: of these, by the taker that got it. The others were in an answer that a killed taker had not read.
- **late**: completes besides the one that ended the task: by takers that were too slow, or repeated with another
  body, as one in ten is; they change nothing.
"""


def _table(rows: Iterable[Row]) -> str:
    lines = [
        "| fault | sent | again | acked | ended | lost | undone "
        "| extra | unexplained | twice | illegal | recovery, s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        twice, illegal = row.twice + row.unfenced, row.illegal + row.overlaps + row.wrong_end
        verdict = f" **red: {', '.join(sorted(row.red))}**" if row.red else ""
        seen = (row.submitted, row.refused, row.acknowledged, row.terminal, row.lost, row.undone)
        counts = " | ".join(str(count) for count in seen)
        calls = f"{row.extra}{_cuts(row)} | {row.unexplained}"
        lines.append(f"| {row.title}{verdict} | {counts} | {calls} | {twice} | {illegal} | {_recovery(row)} |")
    return "\n".join(lines)


def _mutants(trials: dict[str, Row]) -> str:
    lines = ["| defect | fault | columns that turned red |", "|---|---|---|"]
    for trial in TRIALS:
        row = trials[trial.mutant]
        red = (
            ", ".join(f"{column} ({getattr(row, column, row.recovery_s)})" for column in sorted(row.red)) or "**none**"
        )
        lines.append(f"| {MUTANTS[trial.mutant].title} | {trial.fault.title} | {red} |")
    return "\n".join(lines)


def _takers(account: Account) -> str:
    counts = [account.takers, account.kills, account.tasks, account.completed, account.deliveries]
    counts += [account.deliveries - account.unread, account.most, account.late]
    cells = " | ".join(f"{count:,}" for count in counts)
    lines = [
        "| takers | kills | tasks | completed | deliveries | noted | most of one task | late | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
        f"| {cells} | {account.seconds:g} |",
    ]
    return "\n".join([*lines, *(f"\n**{problem}**" for problem in account.problems)])


def _cuts(row: Row) -> str:
    why = [f"{count} {cut}" for cut, count in sorted(row.cuts.items())]
    if row.at_once:
        why.append(f"{row.at_once} while the one before was still on")
    return f" ({', '.join(why)})" if why else ""


def _recovery(row: Row) -> str:
    return f"{row.recovery_s:.1f} of {row.recovery_limit_s:g}"
