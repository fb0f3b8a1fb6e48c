"""Progress of a run: live bars on a terminal, a line at every tenth on anything else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from _demo_run import TRAINING_IMAGES, Plan, Watcher, WorkerLog
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

LOSS_STEPS = 60
"""The loss shown is the mean over so many of the last steps, whichever workers took them."""


@contextmanager
def shown_progress(console: Console, plan: Plan) -> Iterator[Watcher]:
    """Gives the function that shows what the workers' logs say."""
    if console.is_terminal and not console.is_dumb_terminal:
        bars = _Bars(console, plan)
        with bars.progress:
            yield bars.show
    else:
        yield _Lines(console, plan).show


class _Bars:
    """One bar for the run, one a worker; a worker's bar is full when it took a fast worker's fair share."""

    def __init__(self, console: Console, plan: Plan) -> None:
        self._plan = plan
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:>6,.0f} images", justify="right"),
            TextColumn("{task.fields[note]}"),
            console=console,
            refresh_per_second=4,  # drawing takes time from the workers
        )
        self._all = self._add(f"[bold]{plan.algorithm}", plan.epochs * TRAINING_IMAGES)
        self._workers = [self._add(_worker_name(plan, worker), fair_share(plan)) for worker in range(plan.workers)]

    def show(self, logs: list[WorkerLog]) -> None:
        for task, log in zip(self._workers, logs, strict=True):
            self.progress.update(task, completed=log.images, note=f"{len(log.steps)} steps")
        self.progress.update(self._all, completed=_images(logs), note=_note(self._plan, logs))

    def _add(self, description: str, total: float) -> TaskID:
        return self.progress.add_task(description, total=total, note="starting")


class _Lines:
    """For a log file or a dumb terminal: a line at the start, at every tenth and at the end."""

    def __init__(self, console: Console, plan: Plan) -> None:
        self._console = console
        self._plan = plan
        self._next = 1
        console.print(f"{plan.algorithm}: starting {plan.workers} workers")

    def show(self, logs: list[WorkerLog]) -> None:
        tenths = int(10 * _images(logs) / (self._plan.epochs * TRAINING_IMAGES))
        if tenths >= self._next:
            self._next = tenths + 1
            shares = ", ".join(f"{log.images:,}" for log in logs)
            note = _note(self._plan, logs)
            line = f"{self._plan.algorithm}: {10 * tenths:3d} %  {note}, images by worker: {shares}"
            self._console.print(line, soft_wrap=True)


def fair_share(plan: Plan) -> float:
    """Images that a worker of full speed takes in the whole run."""
    images = plan.epochs * TRAINING_IMAGES
    return images / (plan.workers - 1 + 1 / plan.slowdown) if plan.shares_work else images / plan.workers


def recent_loss(logs: list[WorkerLog]) -> float | None:
    """Mean training loss of the last steps; None before the first."""
    steps = sorted((step for log in logs for step in log.steps[-LOSS_STEPS:]), key=lambda step: float(step["time"]))
    losses = [step["loss"] for step in steps[-LOSS_STEPS:]]
    return sum(losses) / len(losses) if losses else None


def _images(logs: list[WorkerLog]) -> int:
    return sum(log.images for log in logs)


def _note(plan: Plan, logs: list[WorkerLog]) -> str:
    loss = recent_loss(logs)
    if loss is None:
        return "starting"
    epochs = _images(logs) / TRAINING_IMAGES
    return f"epoch {epochs:4.1f} of {plan.epochs}, loss {loss:.3f}, {seconds_trained(logs):.0f} s"


def seconds_trained(logs: list[WorkerLog]) -> float:
    """From the first worker's first step to the last step so far."""
    times = [float(log.steps[index]["time"]) for log in logs if log.steps for index in (0, -1)]
    return max(times) - min(times) if times else 0.0


def _worker_name(plan: Plan, worker: int) -> str:
    slow = f" ({plan.slowdown:g}x slower)" if worker == plan.slow_worker else ""
    return f"  worker {worker}{slow}"
