"""CPU time of an initialized process that does nothing."""

from __future__ import annotations

import sys

from matplotlib.figure import Figure

from benchmarks import plots
from benchmarks.benchmark import Benchmark
from benchmarks.job import run_ranks
from benchmarks.options import IdleOptions
from benchmarks.report import Report, Row, Target
from benchmarks.spread import Spread

STATE, SHARE = "state", "CPU time (% of a core)"
LIMIT = 2.0
EXCHANGING = "adpsgd, training paused"
"""The one state in which there is work: those who took steps go on exchanging at the pace that they last had."""


def measure(options: IdleOptions) -> Report:
    """The share of a core that each rank's process takes."""
    job = run_ranks("idle", options.ranks, options)
    states = {
        state: Spread.of(100 * share for rank in job.results for share in rank[state]) for state in job.results[0]
    }
    rows = [
        Row({STATE: state, SHARE: spread}, {} if state == EXCHANGING else {SHARE: Target(LIMIT)})
        for state, spread in states.items()
    ]
    return Report(
        name="idle",
        title=f"Idle: CPU time of a process that waits, {options.ranks} ranks",
        columns=[STATE, SHARE],
        rows=rows,
        notes=[
            "All threads of one process, its training thread asleep; figures over ranks and observations.",
            f"{EXCHANGING}: exchanges of {options.megabytes:g} MB go on at the pace of the steps before "
            f"({options.step_ms:g} ms), so this is not idle and has no target.",
        ],
        commands=[job.command],
    )


def draw(report: Report) -> Figure:
    """A bar a state."""
    figure, (axes,) = plots.new_figure()
    spreads = [row.cells[SHARE] for row in report.rows]
    names = [str(row.cells[STATE]).replace(", ", ",\n") for row in report.rows]
    plots.draw_bars(axes, names, [spread for spread in spreads if isinstance(spread, Spread)], [plots.BLUE])
    plots.draw_target(axes, LIMIT, f"target\nwhen idle:\nat most {LIMIT:g} %")
    axes.set_ylabel("CPU time (% of a core)")
    axes.set_title(report.title)
    return figure


BENCHMARK = Benchmark("idle", IdleOptions, measure, draw)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
