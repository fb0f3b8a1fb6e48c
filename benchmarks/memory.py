"""Memory of gossip algorithms over that of a plain process with the same model."""

from __future__ import annotations

import itertools
import sys
from typing import Any

from matplotlib.figure import Figure

from benchmarks import plots
from benchmarks.benchmark import Benchmark
from benchmarks.job import Job, run_ranks
from benchmarks.options import MemoryOptions
from benchmarks.report import Cell, Report, Row, Target
from benchmarks.spread import Spread

RANKS, VARIANT, OWN, EXTRA, BEYOND, RSS, EXTRA_RSS = (
    "ranks", "process", "own memory (MB)", "more than plain (MB)", "more than initialized (MB)", "RSS (MB)",
    "RSS more than plain (MB)",
)  # fmt: skip
PLAIN, INITIALIZED = "plain", "initialized"
ALLOWANCE_MB = 32.0


def measure(options: MemoryOptions) -> Report:
    """Memory of every variant, after some steps, with all ranks alive."""
    variants = (PLAIN, INITIALIZED, *options.algorithms)
    jobs = {
        (ranks, variant): run_ranks("memory", ranks, options, variant=variant, processes=ranks)
        for ranks, variant in itertools.product(options.ranks, variants)
    }
    parameters = jobs[options.ranks[0], PLAIN].results[0]["parameters"] / 1e6
    rows = []
    for ranks in options.ranks:
        plain, initialized = (jobs[ranks, variant].results for variant in (PLAIN, INITIALIZED))
        for variant in variants:
            rows.append(_row(ranks, variant, jobs[ranks, variant], plain, initialized, parameters))
    return Report(
        name="memory",
        title=f"Memory of one process that trains a model of {parameters:.1f} MB with SGD",
        columns=[RANKS, VARIANT, OWN, EXTRA, BEYOND, RSS, EXTRA_RSS],
        rows=rows,
        notes=[
            f"MB are 10^6 bytes. Target: {parameters:.1f} MB of parameters once, and {ALLOWANCE_MB:g} MB.",
            "plain: torch alone, this package not imported. initialized: hvd.init(), MPI's own memory included, and a plain "
            "optimizer.",
            "own memory: all but pages of files; memory that processes share, as MPI does, counts in equal parts. RSS: with the "
            "pages of libraries, which all processes of a machine share.",
        ],
        commands=[job.command for job in jobs.values()],
    )


def _row(
    ranks: int,
    variant: str,
    job: Job,
    plain: list[dict[str, Any]],
    initialized: list[dict[str, Any]],
    parameters: float,
) -> Row:
    own, rss = _megabytes(job.results, "own"), _megabytes(job.results, "rss")
    cells: dict[str, Cell] = {RANKS: str(ranks), VARIANT: variant, OWN: own, RSS: rss}
    if variant != PLAIN:
        cells[EXTRA] = own - _megabytes(plain, "own").median
        cells[EXTRA_RSS] = rss - _megabytes(plain, "rss").median
    if variant in (PLAIN, INITIALIZED):
        return Row(cells)
    cells[BEYOND] = own - _megabytes(initialized, "own").median
    return Row(cells, {EXTRA: Target(round(parameters + ALLOWANCE_MB, 1))})


def _megabytes(results: list[dict[str, Any]], what: str) -> Spread:
    return Spread.of(result[what] / 1e6 for result in results)


def draw(report: Report) -> Figure:
    """What each variant has beyond a plain process, one pair of axes a number of ranks."""
    counts = list(dict.fromkeys(str(row.cells[RANKS]) for row in report.rows))
    figure, all_axes = plots.new_figure(len(counts), width=5.0 * len(counts))
    for axes, count in zip(all_axes, counts, strict=True):
        rows = [row for row in report.rows if row.cells[RANKS] == count and EXTRA in row.cells]
        spreads = [cell for row in rows if isinstance(cell := row.cells[EXTRA], Spread)]
        names = [str(row.cells[VARIANT]) for row in rows]
        plots.draw_bars(axes, names, spreads, [plots.GREY if name == INITIALIZED else plots.BLUE for name in names])
        (limit,) = {row.targets[EXTRA].limit for row in rows if row.targets}
        plots.draw_target(axes, limit, f"target:\nparameters\n+ {ALLOWANCE_MB:g} MB")
        axes.set_ylabel("own memory beyond that of a plain process (MB)")
        axes.set_title(f"{count} ranks")
    return figure


BENCHMARK = Benchmark("memory", MemoryOptions, measure, draw)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
