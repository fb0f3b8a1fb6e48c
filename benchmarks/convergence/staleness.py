"""One worker that is up to 10,000 x slower: what its old gradients do to the loss of those who do not wait; simulated."""

from __future__ import annotations

import sys
from itertools import product

import numpy as np
from matplotlib.figure import Figure

from benchmarks import plots
from benchmarks.benchmark import Benchmark
from benchmarks.convergence.contestants import COLOURS, MARKERS, Contestant, missing, registered
from benchmarks.convergence.digits import CLASSES, load, share
from benchmarks.options import StalenessOptions
from benchmarks.report import Cell, Report, Row
from benchmarks.spread import Spread
from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.simulate import ComputeModel, simulate
from hvd_gossip.simulate_classification import SoftmaxRegression
from hvd_gossip.transport.simulated_links import uniform

ALGORITHM, SLOWDOWN, RATE, LOSS, STEPS = (
    "algorithm",
    "slowdown",
    "learning rate",
    "training loss",
    "steps of all workers",
)
CONTESTANTS = (
    Contestant("adpsgd"),
    Contestant("asgd"),
    Contestant("asgd", settings={"staleness_aware": True}),
    Contestant("agp"),
    Contestant("dpsgd", "ring"),
    Contestant("allreduce"),
)
STEP, SLOW_RANK, PATIENCE = 0.05, 1, 1e7
"""Seconds of a step; who is slow; seconds after which a wait is an error: none is, here."""


def measure(options: StalenessOptions) -> Report:
    """A row an algorithm and slowdown, at the same virtual time."""
    return Report(
        name="convergence.staleness",
        title=f"One of {options.workers} workers slow: logistic regression on the digits after {options.seconds:g} virtual "
        f"seconds of {STEP * 1e3:g} ms a step, {options.seeds} seeds",
        columns=[ALGORITHM, SLOWDOWN, RATE, LOSS, STEPS],
        rows=[_row(options, *kind) for kind in product(registered(CONTESTANTS), options.slowdowns)],
        notes=[
            f"Links take no time; compute varies by a tenth; {options.batch} images a gradient; images in equal random shares; "
            f"the best of the learning rates {', '.join(f'{rate:g}' for rate in options.rates)}. Loss of the average of all "
            "workers' models, over all training images.",
            "asgd applies every gradient as a whole update of the one model, the others average the workers': its rate is so "
            "many times theirs as there are workers. staleness_aware divides an update by its age, which is about that number.",
            "Algorithms that wait for each other take few steps in that time; that, and not old gradients, is their loss.",
            missing(CONTESTANTS),
        ],
    )


def _row(options: StalenessOptions, contestant: Contestant, slowdown: float) -> Row:
    tried = {
        rate: [_train(options, contestant, slowdown, rate, seed) for seed in range(options.seeds)]
        for rate in options.rates
    }
    rate = min(tried, key=lambda one: Spread.of(loss for loss, _ in tried[one]).median)
    cells: dict[str, Cell] = {
        ALGORITHM: contestant.label,
        SLOWDOWN: slowdown,
        RATE: rate,
        LOSS: Spread.of(loss for loss, _ in tried[rate]),
        STEPS: Spread.of(steps for _, steps in tried[rate]),
    }
    return Row(cells)


def _train(
    options: StalenessOptions, contestant: Contestant, slowdown: float, rate: float, seed: int
) -> tuple[float, float]:
    """The loss at the last moment before the time is over, and the steps that all workers began before it."""
    train, _ = load()
    problem = SoftmaxRegression(
        share(train, options.workers, "1e6", seed), classes=CLASSES, batch=options.batch, seed=seed
    )
    compute = ComputeModel(STEP, jitter=uniform(0.9, 1.1), slow={SLOW_RANK: slowdown}, seed=seed)
    report = simulate(
        contestant.algorithm, problem, size=options.workers, time=options.seconds, topology=contestant.topology,
        settings=MixingSettings(seed=seed, wait_timeout=PATIENCE, **contestant.settings), compute=compute,
        learning_rate=rate, seed=seed,
    )  # fmt: skip
    before = np.flatnonzero(report.times <= options.seconds)
    x = report.means[before[-1]] if len(before) else problem.initial(0)
    return problem.loss(x), float(report.steps.sum())


def draw(report: Report) -> Figure:
    """Loss against slowdown."""
    figure, (axes,) = plots.new_figure()
    labels = list(dict.fromkeys(str(row.cells[ALGORITHM]) for row in report.rows))
    for label, colour, marker in zip(labels, COLOURS, MARKERS, strict=False):
        rows = [row for row in report.rows if row.cells[ALGORITHM] == label]
        spreads = [cell for row in rows if isinstance(cell := row.cells[LOSS], Spread)]
        plots.draw_line(axes, [float(str(row.cells[SLOWDOWN])) for row in rows], spreads, label, colour, marker)
    axes.set(
        xscale="log", xlabel="slowdown of one worker", ylabel="training loss", title="Loss at the same virtual time"
    )
    axes.legend(fontsize=8)
    return figure


BENCHMARK = Benchmark("convergence.staleness", StalenessOptions, measure, draw)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
