"""What the simulator is told (allreduces, steps of the plain optimizer), and what it is judged by (distributed steps)."""

from __future__ import annotations

import time
from statistics import fmean
from typing import Any

import hvd_gossip.torch as hvd
import torch
from torch.utils.data import DataLoader

from benchmarks.job import Meeting, serve
from benchmarks.options import CalibrationOptions, OverheadOptions
from benchmarks.ranks.overhead import measure_block
from benchmarks.ranks.training import SleptCompute, make_data, make_model, make_optimizer, parameter_bytes, train

WARM_UP = 3


def measure(options: CalibrationOptions, meeting: Meeting, size: int) -> dict[str, Any]:
    """Seconds of allreduces by size, of single plain steps begun freely and together, and records as `overhead`'s."""
    hvd.init()
    overhead = OverheadOptions(
        ranks=size, step_ms=options.step_ms, megabytes=options.megabytes, batch=options.batch,
        algorithms=options.algorithms, steps=options.steps, warm_up=options.warm_up, repetitions=options.repetitions,
    )  # fmt: skip
    try:
        result: dict[str, Any] = {"nbytes": parameter_bytes(make_model(options.megabytes)), "records": []}
        for name, nbytes in (("small", options.small_bytes), ("large", options.large_bytes)):
            result[name] = _allreduces(nbytes, options.allreduces, meeting, size)
        for together in (False, True):
            result["together" if together else "freely"] = _plain_steps(options, meeting, size, together)
        for repetition in range(options.repetitions):
            for algorithm in options.algorithms:
                what = {"repetition": repetition, "algorithm": algorithm}
                plain = {"step_seconds": fmean(_plain_steps(options, meeting, size, algorithm in options.together))}
                result["records"].append({"kind": "plain"} | what | plain)
                result["records"].append({"kind": "distributed"} | what | measure_block(overhead, meeting, algorithm))
    finally:
        hvd.shutdown()
    return result


def _allreduces(nbytes: int, count: int, meeting: Meeting, ranks: int) -> list[float]:
    """Seconds of each, back to back: nobody begins before all have ended the one before."""
    tensor, seconds = torch.ones(nbytes // 4), []
    meeting.all_here(f"allreduce {nbytes}", ranks)
    for _ in range(WARM_UP + count):
        start = time.monotonic()
        hvd.allreduce_(tensor, name=f"calibration {nbytes}")
        seconds.append(time.monotonic() - start)
    return seconds[WARM_UP:]


def _plain_steps(options: CalibrationOptions, meeting: Meeting, ranks: int, together: bool) -> list[float]:
    """Seconds of single steps of the plain optimizer, all ranks at once.

    Args:
        together: all begin each step at the same time, as they do under an algorithm for which all wait, so that they ask for
            the machine's cores at the same time. The wait for that does not count.
    """
    model = make_model(options.megabytes)
    loader = DataLoader(make_data((options.warm_up + options.steps) * options.batch), options.batch)
    compute = SleptCompute(options.step_ms * 1e-3, options.batch)
    meeting.all_here("plain steps", ranks)
    steps, seconds = train(model, make_optimizer(model), loader, compute), []
    for _ in range(options.warm_up + options.steps):
        if together:
            hvd.barrier()
        start = time.monotonic()
        seconds.append(next(steps) - start)
    return seconds[options.warm_up :]


if __name__ == "__main__":
    serve(CalibrationOptions, measure)
