"""Full Normalization beside BatchNorm, SyncBatchNorm and GroupNorm, where batches say little about the data set."""

from __future__ import annotations

import sys
from typing import Any

from matplotlib.figure import Figure

from benchmarks import plots
from benchmarks.benchmark import Benchmark
from benchmarks.job import run_ranks
from benchmarks.options import NormalizationOptions
from benchmarks.report import Cell, Report, Row
from benchmarks.spread import Spread

CASE, LAYER, RATE, ACCURACY, WORST = "batches", "normalization", "learning rate", "test accuracy (%)", "worst seed (%)"
CASES = {"tiny": "2 images", "one-class": "of one class, another each step", "skewed": "of the rank's own classes only"}
NAMES = {
    "batch": "BatchNorm",
    "sync": "SyncBatchNorm",
    "group": "GroupNorm",
    "full": "FullNorm",
    "full-untracked": "FullNorm, track_gradients=False",
    "full-over-workers": "FullNorm, process_set of all",
}
COLOURS = dict(zip(NAMES, (plots.GREY, plots.SKY, plots.PURPLE, plots.ORANGE, plots.GREEN, plots.BLUE), strict=True))
Record = dict[str, Any]


def measure(options: NormalizationOptions) -> Report:
    """A row a kind of batch and layer, at the better of the learning rates."""
    jobs = {case: run_ranks("normalization", options.ranks, options, case=case) for case in options.cases}
    return Report(
        name="convergence.normalization",
        title=f"Normalization layers: a perceptron on scikit-learn's digits, {options.ranks} ranks under {options.algorithm}, "
        f"{options.steps} steps, {options.seeds} seeds",
        columns=[CASE, LAYER, RATE, ACCURACY, WORST],
        rows=[_row(case, layer, options, job.results[0]) for case, job in jobs.items() for layer in options.layers],
        notes=[
            f"All kinds of batches but the first hold {options.batch} images. Each layer at that of the learning rates "
            f"{', '.join(f'{rate:g}' for rate in options.rates)} with the higher median; median and quartiles over the seeds.",
            "accuracy: of the averaged model (hvd.consensus, which averages the layers' statistics too) on 357 images.",
            "SyncBatchNorm and FullNorm with a process_set communicate twice a layer and step; the others do not.",
            "track_gradients=False takes the outer gradient from the batch alone.",
        ],
        commands=[job.command for job in jobs.values()],
    )


def _row(case: str, layer: str, options: NormalizationOptions, records: list[Record]) -> Row:
    by_rate = {
        rate: [one["curve"] for one in records if (one["layer"], one["rate"]) == (layer, rate)]
        for rate in options.rates
    }
    rate = max(by_rate, key=lambda one: _spread([curve[-1][1] for curve in by_rate[one]]).median)
    curves = by_rate[rate]
    final = _spread([curve[-1][1] for curve in curves])
    cells: dict[str, Cell] = {
        CASE: CASES[case],
        LAYER: NAMES[layer],
        RATE: rate,
        ACCURACY: final,
        WORST: min(final.values),
    }
    for place, (step, _) in enumerate(curves[0]):
        cells[f"after {step} steps"] = _spread([curve[place][1] for curve in curves])
    return Row(cells)


def _spread(shares: list[float]) -> Spread:
    return Spread.of(shares) * 100.0


def draw(report: Report) -> Figure:
    """Accuracy against steps, an axes a kind of batch."""
    cases = list(dict.fromkeys(str(row.cells[CASE]) for row in report.rows))
    figure, all_axes = plots.new_figure(len(cases), width=5.0 * len(cases))
    for axes, case in zip(all_axes, cases, strict=True):
        for row in (row for row in report.rows if row.cells[CASE] == case):
            points = {int(key.split()[1]): cell for key, cell in row.cells.items() if key.startswith("after ")}
            spreads = [cell for cell in points.values() if isinstance(cell, Spread)]
            layer = next(key for key, name in NAMES.items() if name == row.cells[LAYER])
            plots.draw_line(axes, list(points), spreads, NAMES[layer], COLOURS[layer])
        axes.set_title(f"batches {case}")
        axes.set_xlabel("steps")
        axes.set_ylabel("test accuracy (%)")
        axes.set_ylim(0, 100)
    all_axes[0].legend(fontsize=8, loc="lower right")
    return figure


BENCHMARK = Benchmark("convergence.normalization", NormalizationOptions, measure, draw)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
