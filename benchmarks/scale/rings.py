"""The closed form of a ring allreduce, which stands for the baseline at scale, beside the package's own ring event by event."""

from __future__ import annotations

import sys

from matplotlib.figure import Figure

from benchmarks import plots
from benchmarks.benchmark import Benchmark
from benchmarks.options import RingsOptions
from benchmarks.report import Report, Row, Target
from benchmarks.scale.ring import ASKING, ring_seconds, simulate_ring
from benchmarks.spread import Spread
from hvd_gossip.transport.link_models import NETWORKS, Network

NETWORK, RANKS, EVENTS, CLOSED, RATIO, ASKED = (
    "network", "ranks", "events (ms)", "closed form (ms)", "closed ÷ events", "events, messages that ask first (ms)",
)  # fmt: skip
AT_LEAST = 0.99


def measure(options: RingsOptions) -> Report:
    """Both, on every named network."""
    rows = [_row(network, size, options.megabytes * 1e6) for network in NETWORKS.values() for size in options.sizes]
    return Report(
        name="scale.rings",
        title=f"Ring allreduce of {options.megabytes:g} MB: closed form beside events",
        columns=[NETWORK, RANKS, EVENTS, CLOSED, RATIO, ASKED],
        rows=rows,
        notes=[
            "closed form: 2 (n - 1) steps, each of the slowest link's latency and of bytes / n at its bandwidth.",
            "Where ranks share hosts the closed form is an upper bound: it takes every hop for one between hosts.",
            f"Messages that ask first cost {ASKING} latencies instead of 1, as our ring's long ones do over MPI.",
        ],
    )


def _row(network: Network, size: int, nbytes: float) -> Row:
    links = network.links()
    events, _ = simulate_ring(size, nbytes, links)
    asking, _ = simulate_ring(size, nbytes, links, eager_limit=4096)
    closed = ring_seconds(size, nbytes, links)
    return Row(
        {
            NETWORK: network.name, RANKS: str(size), EVENTS: events * 1e3, CLOSED: closed * 1e3, RATIO: closed / events,
            ASKED: asking * 1e3,
        },
        {RATIO: Target(AT_LEAST, "at least")},
    )  # fmt: skip


def draw(report: Report) -> Figure:
    """Closed form over events."""
    figure, (axes,) = plots.new_figure(width=11)
    names = [f"{row.cells[NETWORK]}\n{row.cells[RANKS]}" for row in report.rows]
    ratios = [Spread.of([float(row.cells[RATIO])]) for row in report.rows]  # type: ignore[arg-type]
    plots.draw_bars(axes, names, ratios, [plots.BLUE] * len(names))
    axes.tick_params(axis="x", labelrotation=90, labelsize=7)
    axes.set_ylabel("closed form ÷ events")
    axes.set_title("Time of a ring allreduce")
    return figure


BENCHMARK = Benchmark("scale.rings", RingsOptions, measure, draw)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
