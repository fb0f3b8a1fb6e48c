"""What the runs of the demo came to: numbers, a table, and a paragraph that says what one sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from _demo_run import TRAINING_IMAGES, Plan, WorkerLog
from rich.table import Table

from hvd_gossip.observe.metrics import read_metrics

TITLES = {"allreduce": "allreduce", "adpsgd": "AD-PSGD"}


@dataclass(frozen=True)
class Result:
    """One run's outcome.

    Attributes:
        plan: what was run.
        seconds: from the first worker's start of training to the last one's end; process start-up is not in it.
        images: how many each worker trained on, in the order of workers.
        waited: share of each worker's training time in which it waited for communication, in the order of workers.
        accuracy: share of the test images that the averaged model gets right.
        consensus_distance: the workers' distance from their mean just before they were averaged.
        times, epochs, losses: the loss curve: seconds since the start, passes over the training images by all workers
            together, mean training loss around there; three arrays of one length.
    """

    plan: Plan
    seconds: float
    images: list[int]
    waited: list[float]
    accuracy: float
    consensus_distance: float
    times: np.ndarray
    epochs: np.ndarray
    losses: np.ndarray

    @property
    def title(self) -> str:
        return TITLES.get(self.plan.algorithm, self.plan.algorithm)

    @property
    def images_per_second(self) -> float:
        return sum(self.images) / self.seconds

    @property
    def fast_waited(self) -> float:
        """The mean of `waited` over the workers that are not slowed."""
        fast = [share for worker, share in enumerate(self.waited) if worker != self.plan.slow_worker]
        return sum(fast) / len(fast)


def summarize(plan: Plan, logs: list[WorkerLog]) -> Result:
    """The result of a finished run, from its workers' logs and metrics."""
    start = min(log.events["start"]["time"] for log in logs)
    end = max(log.events["end"]["time"] for log in logs)
    metrics = read_metrics(plan.metrics_folder)
    summaries = [metrics[worker].summary or {} for worker in range(plan.workers)]
    outcome = logs[0].events["result"]
    return Result(
        plan, end - start, [log.images for log in logs], [float(summary["wait_share"]) for summary in summaries],
        outcome["accuracy"], outcome["consensus_distance"], *loss_curve(logs, start),
    )  # fmt: skip


def loss_curve(logs: list[WorkerLog], start: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean seconds, epochs and loss of every epoch's worth of images, whoever trained on them."""
    steps = sorted((step for log in logs for step in log.steps), key=lambda step: float(step["time"]))
    times, images, losses = (np.array([step[name] for step in steps]) for name in ("time", "samples", "loss"))
    epochs = np.cumsum(images) / TRAINING_IMAGES
    whole = np.ceil(epochs).astype(int) - 1
    counts = np.bincount(whole, images)
    filled = counts > 0

    def mean(values: np.ndarray) -> np.ndarray:
        sums: np.ndarray = np.bincount(whole, values * images)
        return sums[filled] / counts[filled]

    return mean(times - start), mean(epochs), mean(losses)


def table(first: Result, second: Result) -> Table:
    """Two runs side by side, and what the second is of the first."""
    grid = Table(title=heading(first.plan), title_justify="left", title_style="bold", caption_justify="left")
    grid.add_column("")
    for column in (first.title, second.title, "ratio"):
        grid.add_column(column, justify="right")
    speed = second.images_per_second / first.images_per_second
    for row in (
        ("training time", f"{first.seconds:.1f} s", f"{second.seconds:.1f} s", f"{second.seconds / first.seconds:.2f}"),
        ("images/s", f"{first.images_per_second:,.0f}", f"{second.images_per_second:,.0f}", f"{speed:.2f}"),
        ("fast workers waited", f"{first.fast_waited:.1%}", f"{second.fast_waited:.1%}", ""),
        ("slow worker's share of the images", _slow_share(first), _slow_share(second), ""),
        ("test accuracy of the averaged model", f"{first.accuracy:.1%}", f"{second.accuracy:.1%}", ""),
        ("consensus distance", f"{first.consensus_distance:.2g}", f"{second.consensus_distance:.2g}", ""),
    ):
        grid.add_row(*row)
    return grid


def heading(plan: Plan) -> str:
    return f"{plan.epochs} epochs of the digits, {plan.workers} workers, one of them {plan.slowdown:g}x slower"


def explanation(first: Result, second: Result) -> str:
    """One paragraph, every number of it measured."""
    plan = first.plan
    return (
        f"What one sees: a step of worker {plan.slow_worker} takes {plan.slowdown:g} times as long as the others'. "
        f"Under {first.title} every worker has the same number of steps and each step ends when the last gradient has "
        f"come, so the fast workers spent {first.fast_waited:.0%} of their time waiting for the slow one. Under "
        f"{second.title} a worker averages its parameters with one neighbour at a time while it computes, and the images "
        f"of an epoch go to whoever is ready for more: the fast workers waited {second.fast_waited:.1%} of the time and "
        f"the slow one took {_slow_share(second)} of the images instead of {_slow_share(first)}. The same "
        f"{plan.epochs} epochs took {second.seconds:.1f} s instead of {first.seconds:.1f} s: "
        f"{comparison(first, second)}. The averaged model gets {second.accuracy:.1%} of the test images right; "
        f"{first.title}'s, {first.accuracy:.1%}."
    )


def comparison(first: Result, second: Result) -> str:
    """How the second's training time compares with the first's, in words."""
    ratio = first.seconds / second.seconds
    return f"{ratio:.1f} times as fast" if ratio >= 1 else f"{1 / ratio:.1f} times as slow"


def as_json(result: Result) -> dict[str, Any]:
    """The numbers of a result for results.json."""
    return {
        "algorithm": result.plan.algorithm,
        "workers": result.plan.workers,
        "slow_worker": result.plan.slow_worker,
        "slowdown": result.plan.slowdown,
        "epochs": result.plan.epochs,
        "seconds": result.seconds,
        "images_per_second": result.images_per_second,
        "images_by_worker": result.images,
        "waited_by_worker": result.waited,
        "test_accuracy": result.accuracy,
        "consensus_distance": result.consensus_distance,
        "curve": {
            "seconds": result.times.tolist(),
            "epochs": result.epochs.tolist(),
            "loss": result.losses.tolist(),
        },
    }


def _slow_share(result: Result) -> str:
    return f"{result.images[result.plan.slow_worker] / sum(result.images):.1%}"
