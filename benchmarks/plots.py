"""The plots of docs/performance.md. Needs matplotlib (benchmarks/requirements.txt); nothing else here does."""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import Samples, values

COLORS = {"ours": "#2563a8", "plain": "#b0552f", "tuned": "#d09a3c", "other": "#7a7a7a"}
PIECES = {"web": "#2563a8", "worker": "#4f9d69", "server": "#b0552f", "target": "#c9c9c9"}


def draw(parts: Mapping[str, Samples], folder: Path) -> None:
    """One SVG for each part that has a plot and was measured, the same figures the same file."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    matplotlib.rcParams.update(
        {"svg.fonttype": "none", "svg.hashsalt": "eas-queue", "font.size": 9, "axes.spines.top": False}
        | {"axes.spines.right": False}
    )
    folder.mkdir(exist_ok=True)
    if "enqueue" in parts:
        rows = ["ours", "ours 4 web", "plain", "tuned"]
        panels = [("submits a second, 16 connections", "rate_c16"), ("submits a second, 64 connections", "rate_c64")]
        _figure(folder / "enqueue.svg", parts["enqueue"], rows, panels, ["web_us_c16", "server_us_c16"])
    if "drain" in parts:
        rows = ["ours 2 workers", "ours 1 worker", "plain", "tuned"]
        costs = ["worker_us", "server_us", "target_us"]
        _figure(folder / "drain.svg", parts["drain"], rows, [("requests drained a second", "rate")], costs)
    if "latency" in parts:
        rows = ["ours", "plain", "tuned"]
        panels = [(f"{p}, {rate} a second: ms", f"{p}_{rate}") for rate in (10, 100) for p in ("p50", "p99")]
        _figure(folder / "latency.svg", parts["latency"], rows, panels, [])


def _figure(
    path: Path, samples: Samples, rows: Sequence[str], panels: Sequence[tuple[str, str]], costs: Sequence[str]
) -> None:
    """Bars for each panel's figure, whiskers from the lowest to the highest round; then the CPU, stacked."""
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    rows = [row for row in rows if values(samples, row, panels[0][1])]
    count = len(panels) + bool(costs)
    figure, found = pyplot.subplots(1, count, figsize=(3.1 * count, 0.42 * len(rows) + 0.9), sharey=True, squeeze=False)
    axes: list[Any] = list(found[0])
    for axis, (title, key) in zip(axes, panels, strict=False):
        for row in rows:
            got = values(samples, row, key)
            middle = statistics.median(got)
            color = COLORS.get(row.split()[0], COLORS["other"])
            axis.barh(row, middle, color=color, xerr=[[middle - min(got)], [max(got) - middle]], ecolor="#333333")
        axis.set_title(title, fontsize=9, loc="left")
    if costs:
        _stack(axes[-1], samples, rows, costs)
    axes[0].invert_yaxis()  # shared: turns all of them
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _stack(axis: Any, samples: Samples, rows: Sequence[str], costs: Sequence[str]) -> None:
    left = [0.0] * len(rows)
    for key in costs:
        widths = [statistics.median(values(samples, row, key) or [0.0]) for row in rows]
        name = key.split("_")[0]
        axis.barh(rows, widths, left=left, color=PIECES[name], label=name)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axis.set_title("CPU us a request", fontsize=9, loc="left")
    axis.legend(fontsize=7, frameon=False)
