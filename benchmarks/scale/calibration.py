"""Predicted steps beside measured ones on real ranks of this machine, under the launcher, through PyTorch's public API.

The simulator is told what a step demands, not how long it takes. Latency and bandwidth are what makes its allreduces of two sizes
as long as measured ones (all ranks at once on this machine's cores: they are what the ranks get, not what the memory could do). A
step is the slept compute and then the training thread's CPU time on one of the machine's cores, for which all ranks queue, the
progress threads with their CPU time too; less, for allreduce, that of the transfers of its gradients, which are in the link.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from statistics import fmean, median
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks import plots
from benchmarks.benchmark import Benchmark
from benchmarks.job import run_ranks
from benchmarks.machine import cores
from benchmarks.options import CalibrationOptions
from benchmarks.report import Report, Row, Target
from benchmarks.scale.prediction import CLOSED_FORM, PATIENCE, Run, Scenario
from benchmarks.spread import Spread
from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.collectives import Collectives
from hvd_gossip.simulate import ComputeModel
from hvd_gossip.transport.simulated import SimulatedWorld
from hvd_gossip.transport.simulated_links import Links

RANKS, ALGORITHM, LINK, CPU, PLAIN, MEASURED, PREDICTED, RATIO, ERROR = (
    "ranks", "algorithm", "link (us, MB/s)", "CPU time (ms)", "plain step (ms)", "measured step (ms)",
    "predicted step (ms)", "predicted ÷ measured", "error (%)",
)  # fmt: skip
LIMIT = 10.0
FASTEST = 1e12
"""Bytes per second of a link whose bytes were measured to cost nothing."""
SIMULATED_STEPS = 40


def measure(options: CalibrationOptions) -> Report:
    """One row a number of ranks and algorithm."""
    rows, commands = [], []
    for ranks in options.ranks:
        job = run_ranks("calibration", ranks, options, size=ranks)
        commands.append(job.command)
        rows += _rows(ranks, options, job.results)
    return Report(
        name="scale.calibration",
        title=f"Calibration: {options.step_ms:g} ms of slept compute, {options.megabytes:g} MB, real ranks of this machine",
        columns=[RANKS, ALGORITHM, LINK, CPU, PLAIN, MEASURED, PREDICTED, RATIO, ERROR],
        rows=rows,
        notes=[
            "link: latency and bandwidth with which the simulator's allreduces of "
            f"{options.small_bytes:,} and {options.large_bytes:,} bytes take what they took on these ranks.",
            f"CPU time: of a rank's training and progress thread in a step; simulated ranks queue for {cores()} cores with it.",
            "plain step: of the wrapped optimizer alone, by the same processes, right before; measured: medians over blocks.",
            "predicted: the plain step of the same block times the simulated step over the simulated plain step.",
        ],
        commands=commands,
    )


def _rows(ranks: int, options: CalibrationOptions, results: list[dict[str, Any]]) -> list[Row]:
    small, large = (
        median(max(times) for times in zip(*(one[size] for one in results), strict=True)) for size in ("small", "large")
    )
    links = fit_links(ranks, (options.small_bytes, small), (options.large_bytes, large))
    scenario = Scenario(ranks, results[0]["nbytes"], links, ComputeModel())
    alone = _simulated_step("local", _with_compute(scenario, options, _cpu(options, results, "")))
    return [
        _row(name, _with_compute(scenario, options, _cpu(options, results, name)), alone, results)
        for name in options.algorithms
    ]


def _cpu(options: CalibrationOptions, results: list[dict[str, Any]], algorithm: str) -> tuple[float, float]:
    """CPU seconds a step of the training thread and of the progress thread; "" is the plain optimizer."""
    kind = "distributed" if algorithm else "plain"
    records = [
        (record["step_seconds"], record["training_cpu_share"], record["cpu_share"])
        for one in results
        for record in one["records"]
        if record["kind"] == kind and algorithm in ("", record["algorithm"])
    ]
    training = fmean(seconds * share for seconds, share, _ in records)
    progress = fmean(seconds * share for seconds, _, share in records) - training
    if algorithm == CLOSED_FORM:
        costs = [fmean(one[f"{name}_cpu"] for one in results) for name in ("small", "large")]
        progress -= float(np.interp(results[0]["nbytes"], (options.small_bytes, options.large_bytes), costs))
    return training, max(0.0, progress)


def _with_compute(scenario: Scenario, options: CalibrationOptions, cpu: tuple[float, float]) -> Scenario:
    compute = ComputeModel(options.step_ms * 1e-3, cpu=cpu[0], background=cpu[1], cores=cores())
    return replace(scenario, compute=compute)


def _row(algorithm: str, scenario: Scenario, alone: float, results: list[dict[str, Any]]) -> Row:
    records = [one["records"] for one in results]
    plain, measured = (_blocks(records, algorithm, kind) for kind in ("plain", "distributed"))
    predicted = plain * (_simulated_step(algorithm, scenario) / alone)
    ratio = predicted / measured
    latency, per_byte = scenario.links.route(0, 1)
    compute = scenario.compute
    return Row(
        {
            RANKS: str(scenario.size), ALGORITHM: algorithm, LINK: f"{latency * 1e6:.0f}, {1e-6 / per_byte:.0f}",
            CPU: f"{compute.cpu * 1e3:.1f} + {compute.background * 1e3:.1f}", PLAIN: plain * 1e3,
            MEASURED: measured * 1e3, PREDICTED: predicted * 1e3, RATIO: ratio, ERROR: abs(ratio.median - 1.0) * 100,
        },
        {ERROR: Target(LIMIT)},
    )  # fmt: skip


def _blocks(records: list[list[dict[str, Any]]], algorithm: str, kind: str) -> Spread:
    """By repetition, the mean over ranks."""
    chosen = (
        block for block in zip(*records, strict=True) if (block[0]["algorithm"], block[0]["kind"]) == (algorithm, kind)
    )
    return Spread.of(fmean(record["step_seconds"] for record in block) for block in chosen)


def _simulated_step(algorithm: str, scenario: Scenario) -> float:
    """Seconds; allreduce too by its own object, its gradients as long as the real ones. "local" never averages here."""
    options: dict[str, Any] = {"elements": int(scenario.nbytes // 4)} if algorithm == CLOSED_FORM else {}
    if algorithm == "local":
        options["settings"] = MixingSettings(wait_timeout=PATIENCE, mixing_period=10 * SIMULATED_STEPS)
    run = Run(algorithm, scenario, **options)
    run.until(5)
    before = run.mark()
    run.until(5 + SIMULATED_STEPS)
    return run.between(before, run.mark()).step_seconds


def fit_links(size: int, *measured: tuple[int, float]) -> Links:
    """The links under which simulated allreduces of two lengths take measured times.

    Args:
        measured: two pairs of (bytes, seconds).
    """
    rows = [
        (
            allreduce_seconds(size, nbytes, Links(1e-4, FASTEST)) / 1e-4,
            allreduce_seconds(size, nbytes, Links(0.0, 1e9)) * 1e9,
        )
        for nbytes, _ in measured
    ]
    latency, per_byte = np.linalg.solve(np.array(rows), [seconds for _, seconds in measured])
    return Links(max(float(latency), 0.0), 1.0 / max(float(per_byte), 1.0 / FASTEST))


def allreduce_seconds(size: int, nbytes: int, links: Links) -> float:
    """Simulated seconds of the second of two allreduces by the collectives, negotiation included."""
    world = SimulatedWorld(size, links=links)
    collectives = [Collectives(endpoint, stall_check_disable=True) for endpoint in world.endpoints]
    arrays = [np.ones(nbytes // 4, np.float32) for _ in collectives]
    for one in collectives:
        one.start()
    began = 0.0
    for name in ("first", "second"):
        began = world.now
        world.run(
            [
                endpoint.spawn(one.exact_average(name, [array]), name)
                for endpoint, one, array in zip(world.endpoints, collectives, arrays, strict=True)
            ]
        )
    return world.now - began


def draw(report: Report) -> Figure:
    """Predicted over measured."""
    figure, (axes,) = plots.new_figure(width=11)
    names = [f"{row.cells[ALGORITHM]}\n{row.cells[RANKS]}" for row in report.rows]
    plots.draw_bars(
        axes,
        names,
        [cell for row in report.rows if isinstance(cell := row.cells[RATIO], Spread)],
        [plots.BLUE] * len(names),
    )
    for limit in (0.9, 1.1):
        plots.draw_target(axes, limit, f"{limit:g}")
    axes.set_ylim(bottom=0.5)
    axes.set_ylabel("predicted ÷ measured step")
    axes.set_title("Simulator against real ranks")
    return figure


BENCHMARK = Benchmark("scale.calibration", CalibrationOptions, measure, draw)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
