"""CPU time of a process whose training thread sleeps."""

from __future__ import annotations

import itertools
import time

import hvd_gossip.torch as hvd
from torch.utils.data import DataLoader

from benchmarks.job import Meeting, serve
from benchmarks.options import IdleOptions
from benchmarks.ranks.training import SleptCompute, make_data, make_model, make_optimizer, train

STEPS = 10
ORDER = ("initialized", "adpsgd, before its first step", "adpsgd, training paused")


def measure(options: IdleOptions, meeting: Meeting) -> dict[str, list[float]]:
    """By state: CPU seconds, of all threads, a second."""
    hvd.init(report=False)
    results = {}
    try:
        results[ORDER[0]] = _observe(options, meeting)
        model = make_model(options.megabytes)
        optimizer = hvd.DistributedOptimizer(
            make_optimizer(model), named_parameters=model.named_parameters(), algorithm="adpsgd"
        )
        results[ORDER[1]] = _observe(options, meeting)
        for _ in itertools.islice(
            train(model, optimizer, DataLoader(make_data(STEPS)), SleptCompute(options.step_ms * 1e-3, 1)), STEPS
        ):
            pass
        results[ORDER[2]] = _observe(options, meeting)
    finally:
        hvd.shutdown()
    return results


def _observe(options: IdleOptions, meeting: Meeting) -> list[float]:
    meeting.all_here("observation", options.ranks)
    return [_cpu_share(options.seconds) for _ in range(options.repetitions)]


def _cpu_share(seconds: float) -> float:
    start, cpu = time.monotonic(), time.process_time()
    time.sleep(seconds)
    return (time.process_time() - cpu) / (time.monotonic() - start)


if __name__ == "__main__":
    serve(IdleOptions, measure)
