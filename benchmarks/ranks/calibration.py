"""What the simulator is told (allreduces, CPU time of steps), and what it is judged by (steps of real ranks)."""

from __future__ import annotations

import time
from typing import Any

import hvd_gossip.torch as hvd
import torch

from benchmarks.job import Meeting, serve
from benchmarks.options import CalibrationOptions, OverheadOptions
from benchmarks.ranks.overhead import measure_block, take_turns
from benchmarks.ranks.training import make_model, parameter_bytes

WARM_UP = 3


def measure(options: CalibrationOptions, meeting: Meeting, size: int) -> dict[str, Any]:
    """Of allreduces by size, seconds of each and CPU seconds of one on average; and records as `overhead`'s."""
    hvd.init()
    overhead = OverheadOptions(
        ranks=size, step_ms=options.step_ms, megabytes=options.megabytes, batch=options.batch,
        algorithms=options.algorithms, steps=options.steps, warm_up=options.warm_up, repetitions=options.repetitions,
    )  # fmt: skip
    try:
        result: dict[str, Any] = {"nbytes": parameter_bytes(make_model(options.megabytes))}
        for name, nbytes in (("small", options.small_bytes), ("large", options.large_bytes)):
            result[name], result[f"{name}_cpu"] = _allreduces(nbytes, options.allreduces, meeting, size)
        result["records"] = take_turns(
            options.algorithms, options.repetitions, lambda algorithm: measure_block(overhead, meeting, algorithm)
        )
    finally:
        hvd.shutdown()
    return result


def _allreduces(nbytes: int, count: int, meeting: Meeting, ranks: int) -> tuple[list[float], float]:
    """Seconds of each, back to back: nobody begins before all have ended the one before; CPU seconds of one on average."""
    tensor, seconds, cpu = torch.ones(nbytes // 4), [], 0.0
    meeting.all_here(f"allreduce {nbytes}", ranks)
    for index in range(WARM_UP + count):
        if index == WARM_UP:
            cpu = time.process_time()
        start = time.monotonic()
        hvd.allreduce_(tensor, name=f"calibration {nbytes}")
        seconds.append(time.monotonic() - start)
    return seconds[WARM_UP:], (time.process_time() - cpu) / count


if __name__ == "__main__":
    serve(CalibrationOptions, measure)
