"""Linear speed-up, and how long a graph's transient lasts before D-PSGD is as good as AllReduce; in the simulator."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure

from benchmarks import plots
from benchmarks.benchmark import Benchmark
from benchmarks.convergence.contestants import COLOURS, MARKERS, Contestant, missing, registered
from benchmarks.options import SpeedupOptions
from benchmarks.report import Cell, Report, Row
from benchmarks.spread import Spread
from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.simulate import LeastSquares, simulate
from hvd_gossip.simulate import Report as Simulated
from hvd_gossip.topology import make_topology

WHAT, WORKERS, ALGORITHM, RATE, GAP, STEPS, SPEEDUP, REACHED = (
    "what", "workers", "algorithm (topology)", "learning rate", "spectral gap", "steps", "speed-up", "reached",
)  # fmt: skip
TIME_CONSTANTS = 8.0
"""After so many 1/rate steps a run that has not come to the target will not."""
TO_TARGET, TRANSIENT = "steps to the target", "transient"
CONTESTANTS = (
    Contestant("allreduce"),
    Contestant("dpsgd", "exponential"),
    Contestant("dpsgd", "ring"),
    Contestant("sgp", "one-peer-exponential"),
    Contestant("adpsgd"),
)
GRAPHS = ("ring", "torus", "exponential")
DIMENSION, ROWS, SKEWED_ROWS, SKEW = 4, 256, 8, 3.0


def measure(options: SpeedupOptions) -> Report:
    """Rows of steps to a target by number of workers, then of transients by graph."""
    return Report(
        name="convergence.speedup",
        title=f"Linear speed-up and transients: least squares of {DIMENSION} dimensions, simulated, {options.seeds} seeds",
        columns=[WHAT, WORKERS, ALGORITHM, RATE, GAP, STEPS, SPEEDUP, REACHED],
        rows=[*_speedup_rows(options), *_transient_rows(options)],
        notes=[
            f"Steps to the target: steps of a worker until the loss of the average is within {options.target:g} of the "
            "minimum, gradients of one sample each, all workers' data alike; the fastest of the learning rates, which grow with "
            "the workers up to a highest one. Speed-up: over the same "
            "algorithm with one worker. A run that does not come there counts with the most steps, and is not 'reached'.",
            f"Transient: {options.transient_workers} workers whose data differ, learning rate falling as 1/(k + 50): the step "
            f"from which the excess loss, averaged over the seeds and windows of steps, stays below {options.tolerance:g} x "
            "allreduce's. Theory: in proportion to 1/gap^2 or less.",
            missing(CONTESTANTS),
        ],
    )


def _speedup_rows(options: SpeedupOptions) -> list[Row]:
    rows = []
    for contestant in registered(CONTESTANTS):
        alone: Spread | None = None
        for workers in options.workers:
            rate, steps = _fastest(options, contestant, workers)
            alone = alone or steps
            cells: dict[str, Cell] = {
                WHAT: TO_TARGET,
                WORKERS: float(workers),
                ALGORITHM: contestant.label,
                RATE: rate,
                STEPS: steps,
                SPEEDUP: alone.median / steps.median,
                REACHED: f"{sum(value < options.most for value in steps.values)} of {len(steps.values)}",
            }
            rows.append(Row(cells))
    return rows


def _fastest(options: SpeedupOptions, contestant: Contestant, workers: int) -> tuple[float, Spread]:
    """The learning rate with the fewest median steps, and the steps of all seeds."""
    tried = {
        rate: Spread.of(_steps_to_target(options, contestant, workers, rate, seed) for seed in range(options.seeds))
        for rate in sorted({min(rate * workers, options.highest_rate) for rate in options.rates})
    }
    rate = min(tried, key=lambda one: tried[one].median)
    return rate, tried[rate]


def _steps_to_target(options: SpeedupOptions, contestant: Contestant, workers: int, rate: float, seed: int) -> float:
    problem = LeastSquares(workers, dimension=DIMENSION, rows=ROWS, noise=options.noise, batch=1, seed=seed)
    steps = min(options.most, math.ceil(TIME_CONSTANTS / rate))
    report = simulate(
        contestant.algorithm, problem, size=workers, steps=steps, topology=contestant.topology,
        settings=MixingSettings(seed=seed, **contestant.settings), learning_rate=rate, seed=seed,
    )  # fmt: skip
    there = np.flatnonzero(excess(problem, report) <= options.target)
    return float(there[0] + 1) if len(there) else float(options.most)


def excess(problem: LeastSquares, report: Simulated) -> np.ndarray:
    """Loss of the average above the minimum, by sample of the trajectory; not finite where it diverged."""
    lowest = problem.loss(problem.optimum)
    return np.array([problem.loss(mean) - lowest for mean in report.means])


def _transient_rows(options: SpeedupOptions) -> list[Row]:
    base = _mean_errors(options, "allreduce", "auto")
    rows = []
    for graph in GRAPHS:
        errors = _mean_errors(options, "dpsgd", graph)
        length = transient(errors, base, options.tolerance)
        cells: dict[str, Cell] = {
            WHAT: TRANSIENT,
            WORKERS: float(options.transient_workers),
            ALGORITHM: f"dpsgd ({graph})",
            GAP: float(make_topology(graph, options.transient_workers).spectral_gap()),
            STEPS: length if length is not None else f"over {options.transient_steps:,}",
        }
        rows.append(Row(cells))
    return rows


def _mean_errors(options: SpeedupOptions, algorithm: str, topology: str) -> np.ndarray:
    """Excess loss by step, averaged over the seeds."""
    errors = []
    for seed in range(options.seeds):
        problem = LeastSquares(
            options.transient_workers, dimension=DIMENSION, rows=SKEWED_ROWS, skew=SKEW, noise=options.noise, batch=1,
            seed=seed,
        )  # fmt: skip
        report = simulate(
            algorithm, problem, size=options.transient_workers, steps=options.transient_steps, topology=topology,
            settings=MixingSettings(seed=seed), learning_rate=lambda step: 2.0 / (step + 50), seed=seed,
        )  # fmt: skip
        errors.append(excess(problem, report))
    mean: np.ndarray = np.mean(errors, axis=0)
    return mean


def transient(
    errors: Sequence[float] | np.ndarray, base: Sequence[float] | np.ndarray, tolerance: float
) -> float | None:
    """The step from which the smoothed errors stay below `tolerance` times the base's; None: they do not yet at the end.

    Smoothed over windows that grow by a tenth of the step: noise must not decide, nor hide where it ends.
    """
    edges = np.unique(np.round(1.1 ** np.arange(1, math.log(len(errors)) / math.log(1.1) + 1)).astype(int))
    over = [
        stop for start, stop in pairwise(edges) if np.mean(errors[start:stop]) > tolerance * np.mean(base[start:stop])
    ]
    last = float(max(over, default=0))
    return None if last >= edges[-1] else last


def draw(report: Report) -> Figure:
    """Speed-up against workers, with the ideal; transients against the spectral gap."""
    figure, (left, right) = plots.new_figure(2, width=11.0)
    rows = [row for row in report.rows if row.cells[WHAT] == TO_TARGET]
    labels = list(dict.fromkeys(str(row.cells[ALGORITHM]) for row in rows))
    for label, colour, marker in zip(labels, COLOURS, MARKERS, strict=False):
        mine = [row for row in rows if row.cells[ALGORITHM] == label]
        points = [(_figure(row, WORKERS), _figure(row, SPEEDUP)) for row in mine]
        left.plot(*zip(*points, strict=True), label=label, color=colour, marker=marker)
    across = sorted({_figure(row, WORKERS) for row in rows})
    left.plot(across, across, color=plots.INK, linestyle="--", label="linear")
    left.set(xscale="log", yscale="log", xlabel="workers", ylabel="speed-up in steps", title="Steps to the target")
    left.legend(fontsize=8)
    for row in (row for row in report.rows if row.cells[WHAT] == TRANSIENT):
        gap, steps = _figure(row, GAP), row.cells[STEPS]
        is_over = isinstance(steps, float)
        height = max(_figure(row, STEPS), 1.0) if is_over else float(report.settings["transient_steps"])
        right.plot([gap], [height], "o" if is_over else "^", color=plots.BLUE)
        text = f"{row.cells[ALGORITHM]}" if is_over else f"{row.cells[ALGORITHM]}: {steps}"
        right.annotate(text, (gap, height), xytext=(5, 5), textcoords="offset points")
    right.set(
        xscale="log",
        yscale="log",
        xlabel="spectral gap",
        ylabel="transient (steps)",
        title="Until as good as allreduce",
    )
    return figure


def _figure(row: Row, column: str) -> float:
    cell = row.cells[column]
    assert isinstance(cell, float)
    return cell


BENCHMARK = Benchmark("convergence.speedup", SpeedupOptions, measure, draw)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
