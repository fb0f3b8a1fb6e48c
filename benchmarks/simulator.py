"""What a step of a simulated worker costs, and where the time goes."""

from __future__ import annotations

import cProfile
import pstats
import sys
import time
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from benchmarks import plots
from benchmarks.benchmark import Benchmark
from benchmarks.options import SimulatorOptions
from benchmarks.report import Cell, Report, Row, Target
from benchmarks.spread import Spread
from hvd_gossip.algorithms.registry import ALGORITHMS
from hvd_gossip.simulate import ComputeModel, LeastSquares, simulate
from hvd_gossip.simulate import Report as Outcome
from hvd_gossip.transport.simulated_links import uniform

ALGORITHM, WORKERS, COST, EVENTS, WHOLE = (
    "algorithm", "workers", "a worker's step (us of CPU)", "events a step", "whole run (s of CPU)",
)  # fmt: skip
ROOMS = {
    "clock": ("transport/simulated.py", "heapq"),
    "scheduler": ("hvd_gossip/tasks.py",),
    "messages": ("transport/",),
    "arithmetic": ("buffers/", "simulate_problems.py", "numpy", "random.py", "transport/simulated_links.py"),
    "algorithm": ("algorithms/", "hvd_gossip/simulate.py", "topology/", "collectives/", "compressors/"),
}
OTHER = "other"
LIMIT = 120.0
DIMENSION = 8
GOSSIP = sorted(name for name, kind in ALGORITHMS.items() if kind.averages == "parameters")


def measure(options: SimulatorOptions) -> Report:
    """Every gossip algorithm at every size; the profile at the largest; the long run."""
    shares = [f"{room} (%)" for room in (*ROOMS, OTHER)]
    # The long run comes first, in memory that nothing has scattered yet, as it would in a process of its own.
    long_rows = [_long_row(name, options) for name in options.long_algorithms] if options.long_steps else []
    rows = [_row(name, size, options) for name in GOSSIP for size in options.sizes] + long_rows
    return Report(
        name="simulator",
        title="The simulator: cost of a worker's step",
        columns=[ALGORITHM, WORKERS, COST, EVENTS, *shares, WHOLE],
        rows=rows,
        notes=[
            "A step: compute with jitter, the gradient of a least-squares problem of 8 unknowns, the exchange with its tokens.",
            f"Cost: a run of {options.steps} steps less one of {options.steps // 2}: neither beginnings nor departures count.",
            "Shares: of cProfile's time, built-in functions counted for who calls them, at the largest size only.",
            f"Whole run: {options.long_size:,} workers and {options.long_steps:,} steps, departures included, on one core.",
        ],
    )


def run_once(algorithm: str, size: int, steps: int) -> tuple[float, Outcome]:
    """CPU seconds of this thread, and what happened. Threads of the linear algebra that set the problem up spin for a while."""
    problem = LeastSquares(size, dimension=DIMENSION)
    began = time.thread_time()
    outcome = simulate(
        algorithm, problem, size=size, steps=steps, compute=ComputeModel(0.05, uniform(0.9, 1.1)), sample_every=0
    )
    return time.thread_time() - began, outcome


def _row(algorithm: str, size: int, options: SimulatorOptions) -> Row:
    costs, steps, half = [], options.steps, options.steps // 2
    for _ in range(options.repetitions):
        (short, fewer), (long, more) = run_once(algorithm, size, half), run_once(algorithm, size, steps)
        costs.append((long - short) / (steps - half) / size * 1e6)
    events = (more.events - fewer.events) / (steps - half) / size
    cells: dict[str, Cell] = {ALGORITHM: algorithm, WORKERS: f"{size:,}", COST: Spread.of(costs), EVENTS: events}
    if size == max(options.sizes):
        cells |= {f"{room} (%)": share * 100 for room, share in profile_rooms(algorithm, size, half).items()}
    return Row(cells)


def _long_row(algorithm: str, options: SimulatorOptions) -> Row:
    seconds, outcome = run_once(algorithm, options.long_size, options.long_steps)
    steps = options.long_size * options.long_steps
    cells: dict[str, Cell] = {
        ALGORITHM: algorithm, WORKERS: f"{options.long_size:,} x {options.long_steps:,}", COST: seconds / steps * 1e6,
        EVENTS: outcome.events / steps, WHOLE: seconds,
    }  # fmt: skip
    return Row(cells, {WHOLE: Target(LIMIT)})


def profile_rooms(algorithm: str, size: int, steps: int) -> dict[str, float]:
    """Share of a run's time that each room takes, departures included."""
    profiler = cProfile.Profile()
    profiler.enable()
    run_once(algorithm, size, steps)
    profiler.disable()
    return rooms_of(pstats.Stats(profiler).stats)  # type: ignore[attr-defined]


def rooms_of(stats: Mapping[Any, Any]) -> dict[str, float]:
    """Share of each room in the own time of pstats' entries: {function: (calls, calls, own, total, {caller: the same})}."""
    seconds = dict.fromkeys((*ROOMS, OTHER), 0.0)
    for function, (_, _, own, _, callers) in stats.items():
        if function[0] != "~" or not callers:
            seconds[_room(function)] += own
            continue
        for caller, figures in callers.items():
            seconds[_room(function) if _room(function) != OTHER else _room(caller)] += figures[2]
    whole = sum(seconds.values())
    return {room: spent / whole for room, spent in seconds.items()}


def _room(function: tuple[str, int, str]) -> str:
    """Of a function (file, line, name); the first room that names a part of it."""
    path, _, name = function
    where = path.replace("\\", "/") if path != "~" else name
    return next((room for room, parts in ROOMS.items() if any(part in where for part in parts)), OTHER)


def draw(report: Report) -> Figure:
    """Cost by algorithm and size; the profile beside it."""
    figure, (left, right) = plots.new_figure(2, width=12)
    rows = [row for row in report.rows if isinstance(row.cells[COST], Spread)]
    names = [f"{row.cells[ALGORITHM]}\n{row.cells[WORKERS]}" for row in rows]
    plots.draw_bars(
        left, names, [cell for row in rows if isinstance(cell := row.cells[COST], Spread)], [plots.BLUE] * len(rows)
    )
    left.tick_params(axis="x", labelrotation=45, labelsize=7)
    left.set_ylabel("CPU microseconds of a worker's step")
    profiled = [row for row in rows if f"{OTHER} (%)" in row.cells]
    bottom = [0.0] * len(profiled)
    colours = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PURPLE, plots.SKY, plots.GREY)
    for room, colour in zip((*ROOMS, OTHER), colours, strict=True):
        heights = [float(row.cells[f"{room} (%)"]) for row in profiled]  # type: ignore[arg-type]
        right.bar([str(row.cells[ALGORITHM]) for row in profiled], heights, bottom=bottom, label=room, color=colour)
        bottom = [below + height for below, height in zip(bottom, heights, strict=True)]
    right.tick_params(axis="x", labelrotation=45, labelsize=7)
    right.set_ylabel("share of the profile (%)")
    right.legend(fontsize=8)
    return figure


BENCHMARK = Benchmark("simulator", SimulatorOptions, measure, draw)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
