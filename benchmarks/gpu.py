"""What a step costs beside its compute when model and compute are on a GPU. Not among `make bench`'s: it needs one."""

from __future__ import annotations

import sys
from typing import Any

from matplotlib.figure import Figure

from benchmarks import plots
from benchmarks.benchmark import Benchmark
from benchmarks.job import run_ranks
from benchmarks.options import GpuOptions
from benchmarks.overhead import ALGORITHM, COMPUTE, RATIO, STEP, WAITED, cells_of, mean_blocks
from benchmarks.report import Report, Row
from benchmarks.spread import Spread

EXCHANGES = "exchanges a step"
Record = dict[str, Any]


def measure(options: GpuOptions) -> Report:
    """The step time of every algorithm over that of the plain optimizer in the same processes."""
    job = run_ranks("gpu", options.ranks, options)
    device = job.results[0][0]["device"]
    return Report(
        name="gpu",
        title=f"Steps on a GPU: {options.ranks} ranks on {device}, {options.megabytes:g} MB of parameters, batches of "
        f"{options.batch}",
        columns=[ALGORITHM, STEP, COMPUTE, RATIO, WAITED, EXCHANGES],
        rows=[_row(algorithm, job.results) for algorithm in options.algorithms],
        notes=[
            "compute: the same step with the plain torch optimizer, by the same processes, all at once, right before. "
            "Ranks that share a GPU slow each other's compute down.",
            "Each figure is the mean over ranks and steps of a block; medians and quartiles are over the blocks.",
            "waited: share of the time in which the training thread waited for communication.",
        ],
        commands=[job.command],
    )


def _row(algorithm: str, ranks: list[list[Record]]) -> Row:
    exchanges = mean_blocks(ranks, algorithm, "distributed", "exchanges")
    return Row(cells_of(algorithm, ranks) | {EXCHANGES: exchanges}, {})


def draw(report: Report) -> Figure:
    """A bar an algorithm."""
    figure, (axes,) = plots.new_figure()
    names = [str(row.cells[ALGORITHM]) for row in report.rows]
    spreads = [cell for row in report.rows if isinstance(cell := row.cells[RATIO], Spread)]
    plots.draw_bars(axes, names, spreads, [plots.BLUE for _ in names])
    axes.axhline(1.0, color=plots.GREY, linewidth=1)
    axes.set_ylabel("time of a step ÷ time of its compute")
    axes.set_title("A step on a GPU")
    return figure


BENCHMARK = Benchmark("gpu", GpuOptions, measure, draw)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
