"""Predicted throughput when workers are slow, leave or die, over that of the same workers in good health."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from matplotlib.figure import Figure

from benchmarks import plots
from benchmarks.benchmark import Benchmark
from benchmarks.options import FaultsOptions
from benchmarks.report import Cell, Report, Row
from benchmarks.scale.jitter import measured_jitter
from benchmarks.scale.prediction import CLOSED_FORM, Scenario, Standstill, algorithms, predict
from benchmarks.scale.workloads import RESNET50_P100
from benchmarks.spread import Spread
from hvd_gossip.errors import HvdGossipError
from hvd_gossip.simulate import ComputeModel
from hvd_gossip.transport.link_models import find_network

ALGORITHM, HEALTHY = "algorithm", "healthy (steps/s)"
ONE_SLOW, MANY_SLOW, LEAVE, DIE = (
    "one 10 x slower (%)", "a tenth 2 x slower (%)", "a tenth leaves (%)", "one dies (%)",
)  # fmt: skip
WORKLOAD = RESNET50_P100


def measure(options: FaultsOptions) -> Report:
    """One row an algorithm, one column a misfortune."""
    return Report(
        name="scale.faults",
        title=f"Predicted throughput with faults: {options.size} workers, {WORKLOAD.name}, {options.network}",
        columns=[ALGORITHM, HEALTHY, ONE_SLOW, MANY_SLOW, LEAVE, DIE],
        rows=[_row(algorithm, options) for algorithm in algorithms()],
        notes=[
            "Percent of the healthy steps a second, all workers together. Perfect would be "
            f"{_perfect(options.size)} (the workers' own speeds).",
            "Who leaves says so, before the measured part; who dies does not, and is found out a second later.",
            "A word instead of a figure: what ended the run. allreduce's closed form knows no deaths.",
        ],
    )


def _perfect(size: int) -> str:
    tenth = max(1, size // 10)
    shares = (1 - 0.9 / size, 1 - 0.5 * tenth / size, 1 - tenth / size, 1 - 1 / size)
    return ", ".join(f"{share * 100:.1f}" for share in shares)


def _row(algorithm: str, options: FaultsOptions) -> Row:
    compute = ComputeModel(WORKLOAD.seconds, measured_jitter())
    healthy = Scenario(options.size, WORKLOAD.nbytes, find_network(options.network).links(), compute)
    tenth = range(0, max(1, options.size // 10) * 10, 10)
    rate = predict(algorithm, healthy, options.steps).rate
    cells: dict[str, Cell] = {ALGORITHM: algorithm, HEALTHY: rate}
    cells[ONE_SLOW] = _share(algorithm, healthy, rate, options, compute=replace(compute, slow={5: 10.0}))
    cells[MANY_SLOW] = _share(
        algorithm, healthy, rate, options, compute=replace(compute, slow=dict.fromkeys(tenth, 2.0))
    )
    if algorithm == CLOSED_FORM:
        smaller = replace(healthy, size=options.size - len(tenth))
        cells[LEAVE] = predict(algorithm, smaller, options.steps).rate / rate * 100
        return Row(cells)
    cells[LEAVE] = _share(algorithm, healthy, rate, options, departures=_leaving(tenth))
    cells[DIE] = _share(algorithm, healthy, rate, options, deaths={5: 2.5 * WORKLOAD.seconds})
    return Row(cells)


def _leaving(ranks: range) -> Mapping[int, int]:
    return {rank: 1 + number % 3 for number, rank in enumerate(ranks)}


def _share(algorithm: str, healthy: Scenario, rate: float, options: FaultsOptions, **changes: Any) -> Cell:
    """Percent of the healthy rate, or what ended the run."""
    try:
        troubled = predict(algorithm, replace(healthy, **changes), options.steps, warm_up=6, detection_delay=1.0)
    except (HvdGossipError, Standstill) as error:
        return type(error).__name__
    except RuntimeError as error:
        if not isinstance(error.__cause__, HvdGossipError):
            raise
        return type(error.__cause__).__name__
    return troubled.rate / rate * 100


def draw(report: Report) -> Figure:
    """Bars: what is left with one slow worker."""
    figure, (axes,) = plots.new_figure(width=9)
    names = [str(row.cells[ALGORITHM]) for row in report.rows]
    spreads = [Spread.of([float(row.cells[ONE_SLOW])]) for row in report.rows]  # type: ignore[arg-type]
    plots.draw_bars(axes, names, spreads, [plots.GREY if name == CLOSED_FORM else plots.BLUE for name in names])
    axes.tick_params(axis="x", labelrotation=45)
    axes.set_ylabel("throughput, % of healthy")
    axes.set_title("One worker 10 x slower")
    return figure


BENCHMARK = Benchmark("scale.faults", FaultsOptions, measure, draw)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
