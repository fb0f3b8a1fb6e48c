"""Predicted epochs of ResNet-50 on ImageNet: every registered algorithm, on every named network, 16 to 4,096 workers."""

from __future__ import annotations

import sys

from matplotlib.figure import Figure

from benchmarks import plots
from benchmarks.benchmark import Benchmark
from benchmarks.options import EpochsOptions
from benchmarks.report import Cell, Report, Row
from benchmarks.scale.jitter import measured_jitter
from benchmarks.scale.prediction import CLOSED_FORM, Prediction, Scenario, algorithms, predict
from benchmarks.scale.workloads import RESNET50_P100
from hvd_gossip.errors import HvdGossipError
from hvd_gossip.simulate import ComputeModel
from hvd_gossip.transport.link_models import find_network

NETWORK, ALGORITHM, MEGABYTES, WAITED, GAIN = (
    "network", "algorithm", "MB a step and worker", "waited (%)", "x allreduce",
)  # fmt: skip
WORKLOAD = RESNET50_P100
COLOURS = (plots.GREY, plots.BLUE, plots.ORANGE, plots.GREEN, plots.PURPLE, plots.SKY)
MARKERS = "osv^D<>Pp*hX"


def measure(options: EpochsOptions) -> Report:
    """One row a network and algorithm, one column a number of workers."""
    rows = []
    for number, network in enumerate(options.networks):
        sizes = options.sizes + ((options.largest,) if options.largest and number == 0 else ())
        baseline: dict[int, float] = {}
        for algorithm in algorithms():
            rows.append(_row(network, algorithm, sizes, options, baseline))
    every = sorted({*options.sizes, *((options.largest,) if options.largest else ())})
    return Report(
        name="scale.epochs",
        title=f"Predicted epoch of ImageNet: {WORKLOAD.name}, {WORKLOAD.nbytes / 1e6:g} MB",
        columns=[NETWORK, ALGORITHM, *map(_column, every), GAIN, MEGABYTES, WAITED],
        rows=rows,
        notes=[
            f"Compute of a step: {WORKLOAD.seconds * 1e3:.0f} ms ({WORKLOAD.source}), times the jitter of scale/jitter.json.",
            "Default topology and settings of each algorithm. x allreduce, MB and waits: at the most workers of the row.",
            "An epoch is all samples once, by whoever takes them. allreduce: closed form, nothing hidden behind backward.",
            "What an algorithm's accuracy needs more or fewer epochs for is not in these figures: fewer MB mean staler models.",
            "asysg-incon runs on one host only and sends nothing: its rows are what a host of so many workers would do.",
        ],
    )


def _column(size: int) -> str:
    return f"{size:,} workers (s)"


def _row(
    network: str, algorithm: str, sizes: tuple[int, ...], options: EpochsOptions, baseline: dict[int, float]
) -> Row:
    cells: dict[str, Cell] = {NETWORK: network, ALGORITHM: algorithm}
    for size in sizes:
        try:
            prediction = _predict(network, algorithm, size, options.steps)
        except HvdGossipError as error:
            cells[_column(size)] = type(error).__name__
            continue
        seconds = WORKLOAD.samples / WORKLOAD.batch / prediction.rate
        if algorithm == CLOSED_FORM:
            baseline[size] = seconds
        cells |= {
            _column(size): seconds, GAIN: baseline[size] / seconds, MEGABYTES: prediction.bytes_a_step / 1e6,
            WAITED: prediction.waited * 100,
        }  # fmt: skip
    return Row(cells)


def _predict(network: str, algorithm: str, size: int, steps: int) -> Prediction:
    compute = ComputeModel(WORKLOAD.seconds, measured_jitter())
    scenario = Scenario(size, WORKLOAD.nbytes, find_network(network).links(), compute)
    return predict(algorithm, scenario, steps if size <= 1024 else max(2, steps // 2))


def draw(report: Report) -> Figure:
    """Epoch against workers, a panel a network."""
    networks = list(dict.fromkeys(str(row.cells[NETWORK]) for row in report.rows))
    figure, panels = plots.new_figure(len(networks), width=4.2 * len(networks))
    columns = [column for column in report.columns if column.endswith("workers (s)")]
    for axes, network in zip(panels, networks, strict=True):
        rows = [row for row in report.rows if row.cells[NETWORK] == network]
        for number, row in enumerate(rows):
            points = [(column, cell) for column in columns if isinstance(cell := row.cells.get(column), float)]
            across = [int(column.split()[0].replace(",", "")) for column, _ in points]
            axes.plot(
                across, [cell for _, cell in points], label=str(row.cells[ALGORITHM]), marker=MARKERS[number % 12],
                color=COLOURS[number % len(COLOURS)], linestyle="-" if number < len(COLOURS) else "--",
            )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("workers")
        axes.set_title(network)
    panels[0].set_ylabel("predicted seconds of an epoch")
    panels[0].legend(fontsize=7)
    return figure


BENCHMARK = Benchmark("scale.epochs", EpochsOptions, measure, draw)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
