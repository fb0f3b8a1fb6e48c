"""Workers whose data differ: which algorithms hold where D-PSGD falls, on the digits, in the simulator."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import product

import numpy as np
from matplotlib.figure import Figure

from benchmarks import plots
from benchmarks.benchmark import Benchmark
from benchmarks.convergence.contestants import COLOURS, MARKERS, SKEWED, Contestant, missing, registered
from benchmarks.convergence.digits import BY_LABEL, CLASSES, load, share
from benchmarks.options import SkewOptions
from benchmarks.report import Cell, Report, Row
from benchmarks.spread import Spread
from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.simulate import simulate
from hvd_gossip.simulate_classification import Labelled, SoftmaxRegression

MODEL, DATA, ALGORITHM, RATE, ACCURACY, OWN, PUBLISHED = (
    "model", "data", "algorithm (topology)", "learning rate", "accuracy of the average (%)", "of the workers' own (%)",
    "published (%)",
)  # fmt: skip
Curve = list[tuple[int, float]]


def measure(options: SkewOptions) -> Report:
    """A row a model, skew and algorithm, each at its best learning rate."""
    data = load()
    kinds = product(options.models, options.skews, registered(SKEWED))
    return Report(
        name="convergence.skew",
        title=f"Data that differ between {options.workers} simulated workers: scikit-learn's digits, {options.steps} steps, "
        f"{options.seeds} divisions of the data",
        columns=[MODEL, DATA, ALGORITHM, RATE, ACCURACY, OWN, PUBLISHED],
        rows=[_row(options, model, skew, contestant, data) for model, skew, contestant in kinds],
        notes=[
            f"Plain SGD, {options.batch} images a gradient, at that of the learning rates "
            f"{', '.join(f'{rate:g}' for rate in options.rates)} with the best median accuracy of the average of all workers' "
            "models. Medians and quartiles over the divisions.",
            "by label: images sorted by label, cut into equal runs. Numbers: each worker's classes in proportions drawn from "
            "Dirichlet(alpha).",
            "published: RelaySGD's table 2 (Vogels et al., NeurIPS 2021): VGG-11 on CIFAR-10, 16 workers, the same alpha, no "
            "momentum but in qg-dsgdm. Another data set and network: the order is to be compared, not the figures.",
            missing(SKEWED),
        ],
    )


def _row(options: SkewOptions, model: str, skew: str, contestant: Contestant, data: tuple[Labelled, Labelled]) -> Row:
    tried = {
        rate: [_train(options, model, skew, contestant, rate, seed, data) for seed in range(options.seeds)]
        for rate in options.rates
    }
    rate = max(tried, key=lambda one: _percent(curve[-1][1] for curve, _ in tried[one]).median)
    runs = tried[rate]
    cells: dict[str, Cell] = {
        MODEL: model,
        DATA: skew if skew == BY_LABEL else f"Dirichlet {skew}",
        ALGORITHM: contestant.label,
        RATE: rate,
        ACCURACY: _percent(curve[-1][1] for curve, _ in runs),
        OWN: _percent(own for _, own in runs),
        PUBLISHED: contestant.published.get(skew),
    }
    for place, (step, _) in enumerate(runs[0][0]):
        cells[f"after {step} steps"] = _percent(curve[place][1] for curve, _ in runs)
    return Row(cells)


def _train(
    options: SkewOptions, model: str, skew: str, contestant: Contestant, rate: float, seed: int,
    data: tuple[Labelled, Labelled],
) -> tuple[Curve, float]:  # fmt: skip
    """The accuracy of the average model by steps, and the mean of the workers' own accuracies at the end."""
    train, test = data
    problem = SoftmaxRegression(
        share(train, options.workers, skew, seed),
        classes=CLASSES,
        hidden=options.hidden if model == "network" else 0,
        batch=options.batch,
        seed=seed,
    )
    report = simulate(
        contestant.algorithm, problem, size=options.workers, steps=options.steps, topology=contestant.topology,
        settings=MixingSettings(seed=seed, **contestant.settings), learning_rate=rate, seed=seed,
        sample_every=max(1, options.steps // options.points),
    )  # fmt: skip
    every = max(1, options.steps // options.points)
    curve = [((place + 1) * every, problem.accuracy(mean, test)) for place, mean in enumerate(report.means)]
    curve.append((options.steps, problem.accuracy(report.mean, test)))
    return curve, float(np.mean([problem.accuracy(x, test) for x in report.parameters]))


def _percent(shares: Iterable[float]) -> Spread:
    return Spread.of(shares) * 100.0


def draw(report: Report) -> Figure:
    """Accuracy of the average against steps, for the models under each other and the skews beside each other."""
    groups = list(dict.fromkeys((str(row.cells[MODEL]), str(row.cells[DATA])) for row in report.rows))
    figure, all_axes = plots.new_figure(len(groups), width=3.6 * len(groups))
    for axes, group in zip(all_axes, groups, strict=True):
        rows = [row for row in report.rows if (row.cells[MODEL], row.cells[DATA]) == group]
        for row, colour, marker in zip(rows, COLOURS, MARKERS, strict=False):
            points = {int(key.split()[1]): cell for key, cell in row.cells.items() if key.startswith("after ")}
            spreads = [cell for cell in points.values() if isinstance(cell, Spread)]
            plots.draw_line(axes, list(points), spreads, str(row.cells[ALGORITHM]), colour, marker)
        axes.set_title("\n".join(group))
        axes.set_xlabel("steps")
        axes.set_ylabel("accuracy of the average (%)")
        axes.set_ylim(0, 100)
    all_axes[0].legend(fontsize=7, loc="lower right")
    return figure


BENCHMARK = Benchmark("convergence.skew", SkewOptions, measure, draw)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
