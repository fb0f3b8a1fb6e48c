"""One slow rank: epochs of `adpsgd`, whose work is shared, beside `allreduce`, which waits in every step."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from benchmarks import plots
from benchmarks.benchmark import Benchmark
from benchmarks.job import JobFailed, run_ranks
from benchmarks.options import StragglerOptions
from benchmarks.report import Cell, Report, Row, Target
from benchmarks.spread import Spread

SLOWDOWN, GOSSIP, IDEAL, STRICT, ALLREDUCE, BLOCKED, HOW, PAPER_GOSSIP, PAPER_ALLREDUCE = (
    "one rank slower by", "adpsgd (s/epoch)", "adpsgd ÷ ideal", "adpsgd ÷ slept ideal", "allreduce (s/epoch)",
    "allreduce ÷ ideal", "allreduce's figure", "paper: AD-PSGD ÷ ideal", "paper: AllReduce ÷ ideal",
)  # fmt: skip
LIMIT = 1.03
PAPER_ALONE, PAPER_WORKERS = 18.04, 16
PAPER = {
    1: (1.22, 1.47),
    2: (1.28, 2.6),
    10: (1.33, 11.51),
    100: (1.33, 100.4),
    1000: (1.33, None),
    10000: (1.33, None),
}
"""Seconds an epoch of ResNet-20 on CIFAR-10 with AD-PSGD and AllReduce, by the slowdown of one learner of 16 (Zhang, Lian,
Zhang, Liu, "Decentralized Distributed Deep Learning"); for the last two the paper says > 1,000 and > 10,000."""
Record = dict[str, Any]


def speed(ranks: int, slowdown: float) -> float:
    """How many workers of full speed the workers are worth."""
    return ranks - 1 + 1 / slowdown


def measure(options: StragglerOptions) -> Report:
    """Seconds an epoch by slowdown, over the ideal: the time of one worker alone / (n - 1 + 1 / slowdown)."""
    job = run_ranks("straggler", options.ranks, options)
    epochs = Epochs(options, job.results)
    rows = [_row(epochs, slowdown) for slowdown in options.slowdowns]
    alone = epochs.alone_step * 1e3
    return Report(
        name="straggler",
        title=f"Straggler: {options.ranks} ranks, one of them slow, {options.step_ms:g} ms of slept compute a batch, "
        f"{options.megabytes:g} MB of parameters",
        columns=[SLOWDOWN, GOSSIP, IDEAL, STRICT, ALLREDUCE, BLOCKED, HOW, PAPER_GOSSIP, PAPER_ALLREDUCE],
        rows=rows,
        notes=[
            f"An epoch: {options.ranks * options.steps:,} batches of {options.batch} samples. adpsgd: hvd.WorkSharingSampler "
            f"hands them out as workers ask, by whole batches (block={options.batch}); timed from a moment agreed on, at which "
            "all begin, until the last worker is done. A straggler's batch that is under way when all others are done counts "
            "as its own, and is not waited for.",
            f"ideal: all batches by one worker alone with the plain optimizer, {alone.median:.2f} ms each in this run, / "
            f"({options.ranks - 1} + 1/slowdown). slept ideal: the same with {options.step_ms:g} ms each.",
            "allreduce: equal shares; its epoch is its time a step x the steps of a share.",
            "paper: 16 learners with a GPU and a node each (ResNet-20, CIFAR-10), over its own one learner / "
            "(15 + 1/slowdown).",
        ],
        commands=[job.command],
    )


class Epochs:
    """What the ranks recorded, as seconds an epoch.

    Args:
        options: the knobs.
        results: each rank's records, in the same order.

    Raises:
        JobFailed: an epoch's samples were not handed out exactly once.
    """

    def __init__(self, options: StragglerOptions, results: Sequence[Sequence[Record]]) -> None:
        self.options = options
        self._moments = list(zip(*results, strict=True))
        starts = (moment[0] for moment in self._moments if moment[0]["kind"] == "alone")
        self.alone_step = Spread.of((first["ends"][-1] - first["start"]) / len(first["ends"]) for first in starts)

    def ideal(self, slowdown: float) -> Spread:
        """The time of one worker alone, divided by what the workers are worth."""
        return self.alone_step * (self._batches / speed(self.options.ranks, slowdown))

    def slept_ideal(self, slowdown: float) -> float:
        """The same if a batch cost its slept time and nothing else."""
        return self.options.step_ms * 1e-3 * self._batches / speed(self.options.ranks, slowdown)

    def gossip(self, slowdown: float) -> Spread:
        """Measured epochs of adpsgd."""
        return Spread.of(self._epoch_seconds(moment) for moment in self._of("adpsgd", slowdown))

    def allreduce(self, slowdown: float) -> tuple[Spread, str]:
        """Epochs of allreduce, and how they were found."""
        moments = self._of("allreduce", slowdown)
        if moments:
            steps = moments[0][0]["steps"]
            return self._share(Spread.of(map(_step_seconds, moments))), f"from {steps} step{'s' * (steps > 1)}"
        nearest = max(factor for factor in self.options.slowdowns if self._of("allreduce", factor))
        beside = Spread.of(_step_seconds(moment) - self._slept(nearest) for moment in self._of("allreduce", nearest))
        step = Spread(tuple(self._slept(slowdown) + seconds for seconds in beside.values))
        return self._share(step), f"extrapolated from {nearest:g} x"

    @property
    def _batches(self) -> int:
        return self.options.ranks * self.options.steps

    def _of(self, kind: str, slowdown: float) -> list[tuple[Record, ...]]:
        return [moment for moment in self._moments if _is(moment[0], kind, slowdown)]

    def _epoch_seconds(self, moment: Sequence[Record]) -> float:
        samples = sum(record["samples"] for record in moment)
        if samples != self._batches * self.options.batch:
            raise JobFailed(f"an epoch of {self._batches * self.options.batch} samples had {samples} handed out")
        ends = [record["end"] for record in moment if not record["interrupted"]]
        return float(max(ends) - min(record["start"] for record in moment))

    def _share(self, step: Spread) -> Spread:
        return step * self.options.steps

    def _slept(self, slowdown: float) -> float:
        return slowdown * self.options.step_ms * 1e-3


def _is(record: Record, kind: str, slowdown: float) -> bool:
    return bool(record["kind"] == kind and record["slowdown"] == slowdown)


def _step_seconds(moment: Sequence[Record]) -> float:
    """Mean time of a step, over the steps of one block."""
    seconds = max(record["end"] for record in moment) - min(record["start"] for record in moment)
    return float(seconds / moment[0]["steps"])


def _row(epochs: Epochs, slowdown: float) -> Row:
    gossip, ideal = epochs.gossip(slowdown), epochs.ideal(slowdown)
    allreduce, how = epochs.allreduce(slowdown)
    paper = paper_ratios(slowdown)
    cells: dict[str, Cell] = {
        SLOWDOWN: f"{slowdown:,g} x",
        GOSSIP: gossip,
        IDEAL: gossip / ideal,
        STRICT: gossip / epochs.slept_ideal(slowdown),
        ALLREDUCE: allreduce,
        BLOCKED: allreduce / ideal,
        HOW: how,
        PAPER_GOSSIP: paper[0],
        PAPER_ALLREDUCE: paper[1],
    }
    return Row(cells, {IDEAL: Target(LIMIT)})


def paper_ratios(slowdown: float) -> tuple[float | None, float | None]:
    """The papers' AD-PSGD and AllReduce over their ideal; None where they give no number."""
    ideal = PAPER_ALONE / speed(PAPER_WORKERS, slowdown)
    gossip, allreduce = PAPER.get(int(slowdown), (None, None)) if slowdown == int(slowdown) else (None, None)
    return gossip and gossip / ideal, allreduce and allreduce / ideal


def draw(report: Report) -> Figure:
    """Time an epoch over the ideal, against the slowdown: everything, and adpsgd's part of it enlarged."""
    figure, (left, right) = plots.new_figure(2, width=12)
    across = [float(str(row.cells[SLOWDOWN]).split()[0].replace(",", "")) for row in report.rows]
    gossip, allreduce = (
        [cell for row in report.rows if isinstance(cell := row.cells[column], Spread)] for column in (IDEAL, BLOCKED)
    )
    plots.draw_line(left, across, allreduce, "allreduce", plots.ORANGE, "s")
    for axes in (left, right):
        plots.draw_line(axes, across, gossip, "adpsgd", plots.BLUE)
        axes.axhline(1.0, color=plots.GREY, linewidth=1)
        axes.set_xscale("log")
        axes.set_xticks(across, ["none" if factor == 1 else f"{factor:,g} x" for factor in across])
        axes.minorticks_off()
        axes.set_xlabel("slowdown of one rank")
        axes.set_ylabel("time of an epoch ÷ ideal")
    _draw_paper(right, across)
    left.set_yscale("log")
    left.yaxis.set_major_formatter("{x:g}")
    left.legend(loc="upper left")
    right.legend(loc="best")
    plots.draw_target(right, LIMIT, f"target:\nat most\n{LIMIT:g}")
    left.set_title(f"{report.settings['ranks']} ranks, one of them slow")
    right.set_title("The same, adpsgd enlarged")
    return figure


def _draw_paper(axes: Any, across: list[float]) -> None:
    known = [(factor, ratio) for factor in across if (ratio := paper_ratios(factor)[0]) is not None]
    if known:
        axes.plot(*zip(*known, strict=True), "D:", color=plots.GREY, label="AD-PSGD in its paper (GPUs)")


BENCHMARK = Benchmark("straggler", StragglerOptions, measure, draw)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
