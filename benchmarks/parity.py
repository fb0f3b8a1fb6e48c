"""PyTorch and Keras side by side: the same network, data and algorithms; what a step costs, and what is learned."""

from __future__ import annotations

import sys
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from benchmarks import plots
from benchmarks.benchmark import Benchmark
from benchmarks.job import run_ranks
from benchmarks.options import ParityOptions
from benchmarks.report import Cell, Report, Row, Target
from benchmarks.spread import Spread

FRAMEWORK, SIZE, ALGORITHM, STEP, PLAIN, RATIO, SAMPLES, WAITED, ACCURACY = (
    "framework", "parameters (MB)", "algorithm", "step (ms)", "plain step (ms)", "step ÷ plain", "samples/s", "waited (%)",
    "accuracy (%)",
)  # fmt: skip
BASELINE, LIMIT = "allreduce", 1.10
Record = dict[str, Any]


def measure(options: ParityOptions) -> Report:
    """Both frameworks under every algorithm."""
    jobs = {
        framework: run_ranks("parity", options.ranks, options, framework=framework) for framework in options.frameworks
    }
    rows = [
        _row(
            framework,
            megabytes,
            algorithm,
            [[one for one in rank if _is(one, megabytes, algorithm)] for rank in job.results],
        )
        for megabytes in options.megabytes
        for algorithm in options.algorithms
        for framework, job in jobs.items()
    ]
    return Report(
        name="parity",
        title=f"PyTorch and Keras: a perceptron on scikit-learn's digits, {options.ranks} ranks, {options.batch} images a step "
        "and rank",
        columns=[FRAMEWORK, SIZE, ALGORITHM, STEP, PLAIN, RATIO, SAMPLES, WAITED, ACCURACY],
        rows=rows,
        notes=[
            "plain step: the bare optimizer in the same processes, in blocks that alternate with the distributed one's. Steps "
            "compute for real: where ranks use all cores, communication takes time from computing.",
            "Each figure is the mean over the ranks of a block; medians and quartiles are over the blocks.",
            "accuracy: of the averaged model on 357 images, after all blocks.",
        ],
        commands=[job.command for job in jobs.values()],
    )


def _is(record: Record, megabytes: float, algorithm: str) -> bool:
    return (record["megabytes"], record["algorithm"]) == (megabytes, algorithm)


def _row(framework: str, megabytes: float, algorithm: str, ranks: list[list[Record]]) -> Row:
    (first, *_) = records = [own[0] for own in ranks]
    step, plain, waited = (_blocks(records, what) for what in ("step_seconds", "plain_seconds", "waited_share"))
    cells: dict[str, Cell] = {
        FRAMEWORK: framework,
        SIZE: f"{megabytes:g}",
        ALGORITHM: algorithm,
        STEP: step * 1e3,
        PLAIN: plain * 1e3,
        RATIO: step / plain,
        SAMPLES: Spread.of(first["batch"] * len(records) / seconds for seconds in step.values),
        WAITED: waited * 100,
        ACCURACY: 100 * float(first["accuracy"]),
    }
    return Row(cells, {} if algorithm == BASELINE else {RATIO: Target(LIMIT)})


def _blocks(records: list[Record], what: str) -> Spread:
    return Spread.of(fmean(values) for values in zip(*(record[what] for record in records), strict=True))


def draw(report: Report) -> Figure:
    """Bars of the ratio, a picture a size."""
    sizes = list(dict.fromkeys(str(row.cells[SIZE]) for row in report.rows))
    figure, all_axes = plots.new_figure(len(sizes), width=6.5 * len(sizes))
    for axes, size in zip(all_axes, sizes, strict=True):
        rows = [row for row in report.rows if row.cells[SIZE] == size]
        names = [f"{row.cells[FRAMEWORK]}\n{row.cells[ALGORITHM]}" for row in rows]
        spreads = [cell for row in rows if isinstance(cell := row.cells[RATIO], Spread)]
        colours = [plots.BLUE if row.cells[FRAMEWORK] == "torch" else plots.ORANGE for row in rows]
        plots.draw_bars(axes, names, spreads, colours)
        axes.tick_params(axis="x", labelsize=7)
        plots.draw_target(axes, LIMIT, f"target\nfor gossip:\n{LIMIT:g}")
        axes.set_title(f"{size} MB of parameters")
        axes.set_ylabel("time of a step ÷ time of the bare optimizer's step")
    return figure


BENCHMARK = Benchmark("parity", ParityOptions, measure, draw, "tensorflow")

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
