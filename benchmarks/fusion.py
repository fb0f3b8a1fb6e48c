"""Many small tensors at once: ours, fused, beside as many of MPI's allreduces and gloo's."""

from __future__ import annotations

import sys

from matplotlib.figure import Figure

from benchmarks import plots
from benchmarks.benchmark import Benchmark
from benchmarks.collectives import show_bytes
from benchmarks.job import Job, run_ranks
from benchmarks.options import FusionOptions
from benchmarks.report import Cell, Report, Row, Target
from benchmarks.spread import Spread
from benchmarks.timing import spans

RANKS, TENSORS = "ranks", "tensors"
COLUMNS = {
    "ours": "one by one (ms)",
    "ours grouped": "grouped (ms)",
    "raw": "MPI, one by one (ms)",
    "raw fused": "MPI, fused by hand (ms)",
    "gloo": "gloo, one by one (ms)",
}
TARGETS_MS = {(4, 64): 1.5}
"""By (ranks, tensors)."""


def measure(options: FusionOptions) -> Report:
    """Times of a set of small allreduces by number of ranks and of tensors."""
    jobs = {ranks: run_ranks("fusion", ranks, options) for ranks in options.ranks}
    rows = [_row(ranks, count, options, job) for ranks, job in jobs.items() for count in options.tensors]
    return Report(
        name="fusion",
        title=f"Many tensors of {show_bytes(options.bytes)}: all submitted, then all waited for",
        columns=[RANKS, TENSORS, *COLUMNS.values()],
        rows=rows,
        notes=[
            "A repetition is timed from when the last rank begins to when the last one has all results; all ways take turns.",
            "one by one: hvd.allreduce_async_ of each tensor, then hvd.synchronize of each. grouped: hvd.grouped_allreduce_.",
            "MPI, one by one: an Allreduce of each. Fused by hand: the tensors are copied into one array, reduced by one "
            "Allreduce, and copied back. gloo, one by one: torch.distributed.all_reduce(async_op=True) of each, then wait().",
        ],
        commands=[job.command for job in jobs.values()],
    )


def _row(ranks: int, count: int, options: FusionOptions, job: Job) -> Row:
    times = {way: spans([rank[str(count)][way] for rank in job.results]) * 1e3 for way in COLUMNS}
    cells: dict[str, Cell] = {RANKS: str(ranks), TENSORS: f"{count} x {show_bytes(options.bytes)}"}
    cells |= {COLUMNS[way]: spread for way, spread in times.items()}
    limit = TARGETS_MS.get((ranks, count))
    judged = {} if limit is None else {COLUMNS[way]: Target(limit) for way in ("ours", "ours grouped")}
    return Row(cells, judged)


def draw(report: Report) -> Figure:
    """A group of bars a row."""
    figure, all_axes = plots.new_figure(len(report.rows), width=3.4 * len(report.rows))
    colours = [plots.BLUE, plots.SKY, plots.ORANGE, plots.GREY, plots.GREEN]
    names = ["ours", "ours,\ngrouped", "MPI", "MPI,\nfused", "gloo"]
    for axes, row in zip(all_axes, report.rows, strict=True):
        spreads = [cell for column in COLUMNS.values() if isinstance(cell := row.cells[column], Spread)]
        plots.draw_bars(axes, names, spreads, colours)
        axes.set_title(f"{row.cells[RANKS]} ranks, {row.cells[TENSORS]}")
        for target in row.targets.values():
            plots.draw_target(axes, target.limit, f"target\nfor ours:\n{target.limit:g} ms")
        axes.set_ylabel("time for all tensors (ms)")
    return figure


BENCHMARK = Benchmark("fusion", FusionOptions, measure, draw)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
