"""Pair exchange in chunked lanes beside one raw Sendrecv."""

from __future__ import annotations

import sys

from matplotlib.figure import Figure

from benchmarks import plots
from benchmarks.benchmark import Benchmark
from benchmarks.job import run_ranks
from benchmarks.options import ExchangeOptions
from benchmarks.report import Cell, Report, Row, Target
from benchmarks.spread import Spread, inverse
from benchmarks.timing import spans

WAY, TIME, BANDWIDTH, RATIO = "way", "time (ms)", "bandwidth (GB/s)", "÷ raw bandwidth"
RAW = "raw Sendrecv"
LIMIT = 0.8


def measure(options: ExchangeOptions) -> Report:
    """Time and bandwidth, in each direction, of an exchange between two ranks."""
    job = run_ranks("exchange", 2, options)
    seconds = {way: spans([rank[way] for rank in job.results]) for way in job.results[0]}
    return Report(
        name="exchange",
        title=f"Exchange: {options.bytes / 1e6:g} MB of float32 each way between 2 ranks",
        columns=[WAY, TIME, BANDWIDTH, RATIO],
        rows=[_row(way, spread, seconds[RAW], options.bytes) for way, spread in seconds.items()],
        notes=[
            f"{RAW}: mpi4py's, one message each way, from and to memory that is there already.",
            f"lanes: what the engine does with the parameters, in chunks of {options.chunk_bytes >> 10} KiB, two under way.",
            "lanes with averaging: the same and all of AD-PSGD's arithmetic: snapshot, check for finite values, "
            "correction.",
        ],
        commands=[job.command],
    )


def _row(way: str, seconds: Spread, raw: Spread, nbytes: int) -> Row:
    cells: dict[str, Cell] = {
        WAY: way,
        TIME: seconds * 1e3,
        BANDWIDTH: inverse(seconds) * (nbytes / 1e9),
        RATIO: None if way == RAW else raw / seconds,
    }
    return Row(cells, {} if way == RAW else {RATIO: Target(LIMIT, "at least")})


def draw(report: Report) -> Figure:
    """A bar a way."""
    figure, (axes,) = plots.new_figure()
    rates = {str(row.cells[WAY]): row.cells[BANDWIDTH] for row in report.rows}
    spreads = {way: rate for way, rate in rates.items() if isinstance(rate, Spread)}
    colours = [plots.GREY if way == RAW else plots.BLUE for way in spreads]
    plots.draw_bars(axes, list(spreads), list(spreads.values()), colours)
    plots.draw_target(axes, LIMIT * spreads[RAW].median, f"target:\nat least\n{LIMIT:g} x raw")
    axes.set_ylabel("bandwidth in each direction (GB/s)")
    axes.set_title(report.title)
    return figure


BENCHMARK = Benchmark("exchange", ExchangeOptions, measure, draw)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
