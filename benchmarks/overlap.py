"""Gradients averaged while the backward pass goes on: how much of the communication a training step does not see."""

from __future__ import annotations

import sys
from statistics import fmean

from matplotlib.figure import Figure

from benchmarks import plots
from benchmarks.benchmark import Benchmark
from benchmarks.job import Job, run_ranks
from benchmarks.options import OverlapOptions
from benchmarks.report import Cell, Report, Row
from benchmarks.spread import Spread

RANKS, COMPUTE, AFTERWARDS, STEP, HIDDEN, SPEEDUP = (
    "ranks", "compute (ms)", "allreduce afterwards (ms)", "DistributedOptimizer (ms)", "communication hidden (%)",
    "afterwards ÷ ours",
)  # fmt: skip


def measure(options: OverlapOptions) -> Report:
    """The step with hooks beside one that averages all gradients after the backward pass, and one that averages nothing."""
    jobs = {ranks: run_ranks("overlap", ranks, options) for ranks in options.ranks}
    return Report(
        name="overlap",
        title=f"Allreduce of {options.megabytes:g} MB of gradients in {options.layers} layers beside "
        f"{options.backward_ms:g} ms of slept backward pass",
        columns=[RANKS, COMPUTE, AFTERWARDS, STEP, HIDDEN, SPEEDUP],
        rows=[_row(ranks, job) for ranks, job in jobs.items()],
        notes=[
            "compute: the plain optimizer's step, no communication. allreduce afterwards: the same, with one "
            "hvd.grouped_allreduce_ of all gradients between backward() and step().",
            "hidden: 1 - (DistributedOptimizer - compute) ÷ (allreduce afterwards - compute).",
            "Each figure is the mean over the ranks of a block of steps; medians and quartiles are over the blocks, which take "
            "turns. The backward pass sleeps, as a GPU's would from the host's point of view: on CPUs that compute, "
            "communication competes for the same cores.",
        ],
        commands=[job.command for job in jobs.values()],
    )


def _row(ranks: int, job: Job) -> Row:
    compute, afterwards, step = (_blocks(job, way) for way in ("plain", "afterwards", "distributed"))
    cells: dict[str, Cell] = {
        RANKS: str(ranks),
        COMPUTE: compute * 1e3,
        AFTERWARDS: afterwards * 1e3,
        STEP: step * 1e3,
        HIDDEN: ((step - compute) / (afterwards - compute) - 1.0) * -100.0,
        SPEEDUP: afterwards / step,
    }
    return Row(cells)


def _blocks(job: Job, way: str) -> Spread:
    """By repetition, the mean over the ranks of the seconds of a step."""
    return Spread.of(fmean(values) for values in zip(*(rank[way] for rank in job.results), strict=True))


def draw(report: Report) -> Figure:
    """Three bars a number of ranks."""
    figure, all_axes = plots.new_figure(len(report.rows), width=4.5 * len(report.rows))
    for axes, row in zip(all_axes, report.rows, strict=True):
        spreads = [cell for column in (COMPUTE, AFTERWARDS, STEP) if isinstance(cell := row.cells[column], Spread)]
        names = ["compute\nalone", "allreduce\nafterwards", "Distributed-\nOptimizer"]
        plots.draw_bars(axes, names, spreads, [plots.GREY, plots.ORANGE, plots.BLUE])
        axes.set_title(f"{row.cells[RANKS]} ranks")
        axes.set_ylabel("time of a step (ms)")
    return figure


BENCHMARK = Benchmark("overlap", OverlapOptions, measure, draw)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
