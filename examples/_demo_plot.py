"""The demo's picture: the same losses against time and against epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from _demo_results import Result, comparison
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart with every kind of colour vision; the line styles tell them apart in print.
STYLES = {"allreduce": ("#D55E00", "--"), "adpsgd": ("#0072B2", "-")}
GREY = "#555555"

_STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "axes.axisbelow": True,
}


def draw(first: Result, second: Result, path: Path) -> None:
    """Writes the picture of two runs as a PNG of 1,760 x 960 pixels."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11, 6), dpi=160)
        left, right = figure.subplots(1, 2, sharey=True)
        lowest = float(min(first.losses.min(), second.losses.min()))
        for result in (first, second):
            _curve(left, result, result.times)
            _curve(right, result, result.epochs)
        _mark_end(left, first, height=0.5 * lowest)
        _mark_end(left, second, height=0.7 * lowest)  # two heights: the ends may lie close together
        _label(left, "training time (seconds)", "Loss against time")
        _label(right, "epochs (passes over the training images)", "Loss against epochs")
        left.set_yscale("log")
        left.set_ylim(bottom=0.38 * lowest)  # room for the ends' labels
        left.yaxis.set_major_formatter("{x:g}")
        left.set_ylabel("training loss (cross entropy, mean of an epoch)")
        right.legend(frameon=False, loc="upper right")
        _write_titles(figure, first, second)
        figure.savefig(path)


def _curve(axes: Axes, result: Result, across: np.ndarray) -> None:
    colour, style = STYLES[result.plan.algorithm]
    axes.plot(across, result.losses, style, color=colour, linewidth=2, label=result.title)


def _mark_end(axes: Axes, result: Result, height: float) -> None:
    """Where the run ends, written at a height below the curves, on the side where there is room."""
    colour, _ = STYLES[result.plan.algorithm]
    end, side = result.times[-1], "left" if result.seconds < axes.get_xlim()[1] / 3 else "right"
    axes.plot([end, end], [height, result.losses[-1]], ":", color=colour, linewidth=1)
    axes.plot(end, result.losses[-1], "o", color=colour, markersize=7)
    text = f" {result.title}: {result.seconds:.1f} s "
    axes.text(end, height, text, color=colour, ha=side, va="center", fontweight="bold")


def _label(axes: Axes, across: str, title: str) -> None:
    axes.set_xlabel(across)
    axes.set_xlim(left=0)
    axes.set_title(title, loc="left", fontsize=12, color=GREY)


def _write_titles(figure: Figure, first: Result, second: Result) -> None:
    plan = first.plan
    left = 0.075
    figure.text(
        left, 0.935,
        f"With one of {plan.workers} workers {plan.slowdown:g}x slower, {second.title} trains "
        f"{comparison(first, second)} as {first.title}", fontsize=15, fontweight="bold",
    )  # fmt: skip
    figure.text(
        left, 0.885,
        f"A small convolutional network on scikit-learn's digits, {plan.epochs} epochs. Test accuracy "
        f"{second.accuracy:.1%} ({second.title}) and {first.accuracy:.1%} ({first.title}).", color=GREY,
    )  # fmt: skip
    figure.subplots_adjust(left=left, right=0.98, bottom=0.1, top=0.8, wspace=0.07)
