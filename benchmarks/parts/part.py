"""What the parts share: how large a run is, and how a part looks to the program that runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Sample = dict[str, float]


@dataclass(frozen=True)
class Sizes:
    """How much one sample does. The defaults are those of the figures in docs/performance.md."""

    enqueue_s: int = 4
    connections: tuple[int, ...] = (16, 64)
    drain: int = 5000
    latency: tuple[tuple[float, float], ...] = ((10, 15), (100, 6))  # (a second, for how many seconds)
    slow: int = 2000
    slow_tuned: int = 2000
    slow_plain: int = 20  # two at once: ten seconds
    floor: int = 3000
    watchers: int = 1000
    watched_services: int = 50
    watched_s: float = 20
    watched_puts: int = 200
    watched_rate: float = 20  # a second
    streams: int = 1000
    streamed_s: float = 20
    depths: tuple[int, int] = (1_000, 200_000)
    depth_calls: int = 300  # in a turn
    depth_turns: int = 5
    taken: int = 20_000  # tasks, and messages
    takers: int = 16
    empty_s: float = 4
    polls: int = 1000
    poll_hold_s: float = 30  # the longest for which the web holds one by default
    poll_still_s: float = 15  # in which none is renewed
    poll_ends: int = 500
    poll_end_rate: float = 20  # a second
    polled: int = 10  # samples that scripts ask for
    polled_s: float = 5
    results: int = 2000


@dataclass(frozen=True)
class Row:
    """One thing that is measured: *name*, and the processes that do it, for people."""

    name: str
    processes: str


@dataclass(frozen=True)
class Column:
    """One figure of a sample: its key, its heading and how it is written."""

    key: str
    heading: str
    form: str = "{:,.0f}"


@dataclass(frozen=True)
class Table:
    """Figures that are shown side by side, a line for each row. *title* '' where a part has one table only."""

    title: str
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Goal:
    """The median of *key* in row *ours* over that in *other*, or the other way round where *less* is better.

    *wanted* is printed next to it, None where nothing was promised. *other* '': the value itself is meant.
    """

    text: str
    key: str
    ours: str
    other: str
    wanted: float | None
    less: bool = False


@dataclass(frozen=True)
class Part:
    """*measure* takes a row's name and makes one sample; it raises benchmarks.sides.Void."""

    name: str
    title: str
    rows: tuple[Row, ...]
    tables: tuple[Table, ...]
    measure: Callable[[str, Sizes], Mapping[str, float]]
    goals: tuple[Goal, ...] = field(default=())
