"""What gossip costs in a step of Keras's `fit` when there is compute to hide communication behind."""

from __future__ import annotations

import sys
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from benchmarks import plots
from benchmarks.benchmark import Benchmark
from benchmarks.job import run_ranks
from benchmarks.options import KerasFitOptions
from benchmarks.report import Cell, Report, Row, Target
from benchmarks.spread import Spread

SIZE, COMPUTE, ALGORITHM, STEP, BARE, RATIO, MORE, WAITED = (
    "parameters (MB)", "slept compute (ms)", "algorithm", "step (ms)", "bare step (ms)", "step ÷ bare", "more (ms)",
    "waited (%)",
)  # fmt: skip
BASELINE, LIMIT = "allreduce", 1.10
Record = dict[str, Any]


def measure(options: KerasFitOptions) -> Report:
    """The step of every algorithm over that of the bare optimizer in the same processes, for each size."""
    job = run_ranks("keras_fit", options.ranks, options)
    records = zip(*job.results, strict=True)
    computes = dict(zip(options.megabytes, options.step_ms, strict=True))
    return Report(
        name="keras_fit",
        title=f"Keras's fit: {options.ranks} ranks, {options.batch} samples a step and rank, compute slept in the step",
        columns=[SIZE, COMPUTE, ALGORITHM, STEP, BARE, RATIO, MORE, WAITED],
        rows=[_row(ranks, computes[ranks[0]["megabytes"]]) for ranks in records],
        notes=[
            "bare step: the same `fit` with the optimizer that the distributed one wraps, in the same processes, in blocks that "
            "alternate.",
            "slept compute: what forward and backward of a large batch would take; the small batch's come on top, in both.",
            "more: what crossing the graph's boundary, mixing and waiting add, however long a step computes.",
            "Each figure is the mean over the ranks of a block; medians and quartiles are over the blocks.",
        ],
        commands=[job.command],
    )


def _row(ranks: tuple[Record, ...], compute: float) -> Row:
    step, bare, waited = (_blocks(ranks, what) for what in ("step_seconds", "bare_seconds", "waited_share"))
    algorithm = ranks[0]["algorithm"]
    cells: dict[str, Cell] = {
        SIZE: f"{ranks[0]['megabytes']:g}",
        COMPUTE: f"{compute:g}",
        ALGORITHM: algorithm,
        STEP: step * 1e3,
        BARE: bare * 1e3,
        RATIO: step / bare,
        MORE: (step - bare) * 1e3,
        WAITED: waited * 100,
    }
    return Row(cells, {} if algorithm == BASELINE else {RATIO: Target(LIMIT)})


def _blocks(ranks: tuple[Record, ...], what: str) -> Spread:
    """By repetition, the mean over the ranks."""
    return Spread.of(fmean(values) for values in zip(*(record[what] for record in ranks), strict=True))


def draw(report: Report) -> Figure:
    """A bar an algorithm, a picture a size."""
    sizes = list(dict.fromkeys(str(row.cells[SIZE]) for row in report.rows))
    figure, all_axes = plots.new_figure(len(sizes), width=6.0 * len(sizes))
    for axes, size in zip(all_axes, sizes, strict=True):
        rows = [row for row in report.rows if row.cells[SIZE] == size]
        names = [str(row.cells[ALGORITHM]) for row in rows]
        spreads = [cell for row in rows if isinstance(cell := row.cells[RATIO], Spread)]
        plots.draw_bars(axes, names, spreads, [plots.GREY if name == BASELINE else plots.BLUE for name in names])
        plots.draw_target(axes, LIMIT, f"target\nfor gossip:\n{LIMIT:g}")
        axes.set_ylim(bottom=0.9)
        axes.set_title(f"{size} MB, {rows[0].cells[COMPUTE]} ms of compute")
        axes.set_ylabel("time of a step ÷ time of the bare optimizer's step")
    return figure


BENCHMARK = Benchmark("keras_fit", KerasFitOptions, measure, draw, "tensorflow")

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
