"""What a step costs beside its compute, with no slow rank."""

from __future__ import annotations

import sys
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from benchmarks import plots
from benchmarks.benchmark import Benchmark
from benchmarks.job import run_ranks
from benchmarks.options import OverheadOptions
from benchmarks.report import Cell, Report, Row, Target
from benchmarks.spread import Spread

ALGORITHM, STEP, COMPUTE, RATIO, WAITED, CPU = (
    "algorithm", "step (ms)", "compute (ms)", "step ÷ compute", "waited (%)", "CPU (% of a core)",
)  # fmt: skip
BASELINE = "allreduce"
LIMIT, WAITED_LIMIT = 1.04, 2.0
Record = dict[str, Any]


def measure(options: OverheadOptions) -> Report:
    """The step time of every algorithm over that of the plain optimizer in the same processes."""
    job = run_ranks("overhead", options.ranks, options)
    rows = [_row(algorithm, job.results) for algorithm in options.algorithms]
    return Report(
        name="overhead",
        title=f"Overhead: {options.ranks} ranks, {options.step_ms:g} ms of slept compute, {options.megabytes:g} MB of "
        "parameters",
        columns=[ALGORITHM, STEP, COMPUTE, RATIO, WAITED, CPU],
        rows=rows,
        notes=[
            "compute: the same step with the plain torch optimizer, by the same processes, all at once, right before.",
            "Each figure is the mean over ranks and steps of a block; medians and quartiles are over the blocks.",
            "waited: share of the time in which the training thread waited for communication. CPU time: of a whole process.",
        ],
        commands=[job.command],
    )


def _row(algorithm: str, ranks: list[list[Record]]) -> Row:
    cells = cells_of(algorithm, ranks) | {CPU: mean_blocks(ranks, algorithm, "distributed", "cpu_share") * 100}
    return Row(cells, {} if algorithm == BASELINE else {RATIO: Target(LIMIT), WAITED: Target(WAITED_LIMIT)})


def cells_of(algorithm: str, ranks: list[list[Record]]) -> dict[str, Cell]:
    """An algorithm's steps beside those of the plain optimizer."""
    step, compute = (mean_blocks(ranks, algorithm, kind, "step_seconds") for kind in ("distributed", "plain"))
    return {
        ALGORITHM: algorithm,
        STEP: step * 1e3,
        COMPUTE: compute * 1e3,
        RATIO: step / compute,
        WAITED: mean_blocks(ranks, algorithm, "distributed", "waited_share") * 100,
    }


def mean_blocks(ranks: list[list[Record]], algorithm: str, kind: str, what: str) -> Spread:
    """By repetition, the mean over ranks."""
    blocks = zip(*ranks, strict=True)
    chosen = (block for block in blocks if (block[0]["algorithm"], block[0]["kind"]) == (algorithm, kind))
    return Spread.of(fmean(record[what] for record in block) for block in chosen)


def draw(report: Report) -> Figure:
    """A bar an algorithm, for its step and for its wait."""
    figure, (left, right) = plots.new_figure(2, width=11)
    for axes, column, limit in ((left, RATIO, LIMIT), (right, WAITED, WAITED_LIMIT)):
        names = [str(row.cells[ALGORITHM]) for row in report.rows]
        spreads = [cell for row in report.rows if isinstance(cell := row.cells[column], Spread)]
        plots.draw_bars(axes, names, spreads, [plots.GREY if name == BASELINE else plots.BLUE for name in names])
        plots.draw_target(axes, limit, f"target\nfor gossip:\nat most {limit:g}")
    left.axhline(1.0, color=plots.GREY, linewidth=1)
    left.set_ylim(bottom=0.98)
    left.set_ylabel("time of a step ÷ time of its compute")
    left.set_title("A step")
    right.set_ylabel("training thread waiting for communication (% of the time)")
    right.set_title("Waiting")
    return figure


BENCHMARK = Benchmark("overhead", OverheadOptions, measure, draw)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
