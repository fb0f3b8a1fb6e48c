"""How the benchmarks' pictures look: one palette, units on every axis, targets and baselines drawn and named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.spread import Spread

# Okabe and Ito's palette: told apart with every kind of colour vision; markers and hatches tell them apart in print.
BLUE, ORANGE, GREEN, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"
GREY, INK = "#888888", "#444444"

_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def new_figure(columns: int = 1, width: float = 8.0) -> tuple[Figure, list[Axes]]:
    """A figure with axes beside each other."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, 4.8), dpi=140)
        axes = figure.subplots(1, columns, squeeze=False)
    return figure, list(axes[0])


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG."""
    with mpl.rc_context(_STYLE):
        figure.savefig(path)


def draw_line(
    axes: Axes, across: Sequence[float], spreads: Sequence[Spread], label: str, colour: str, marker: str = "o"
) -> None:
    """Medians joined by a line, quartiles as bars."""
    axes.errorbar(
        across, [spread.median for spread in spreads], yerr=_whiskers(spreads), label=label, color=colour,
        marker=marker, markersize=6, linewidth=1.6, capsize=3,
    )  # fmt: skip


def draw_bars(axes: Axes, names: Sequence[str], spreads: Sequence[Spread], colours: Sequence[str]) -> None:
    """A bar a name, with quartiles, and the median written on it."""
    bars = axes.bar(
        names, [spread.median for spread in spreads], yerr=_whiskers(spreads), color=colours, width=0.6, capsize=4,
        ecolor=INK,
    )  # fmt: skip
    axes.bar_label(bars, [f"{spread.median:.3g}" for spread in spreads], padding=3, color=INK)
    axes.grid(visible=False, axis="x")


def draw_target(axes: Axes, value: float, text: str) -> None:
    """A dashed line across, with its name beside its right end."""
    axes.axhline(value, color=INK, linestyle="--", linewidth=1.2)
    axes.annotate(
        text, (1, value), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points", ha="left",
        va="center", color=INK, fontsize=9,
    )  # fmt: skip


def _whiskers(spreads: Sequence[Spread]) -> list[list[float]]:
    return [[spread.median - spread.low for spread in spreads], [spread.high - spread.median for spread in spreads]]
