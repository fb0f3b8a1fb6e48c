"""Blocks of steps with the plain optimizer and with each algorithm in turn, with no slow rank."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import hvd_gossip.torch as hvd
import torch
from torch.utils.data import DataLoader

from benchmarks.job import Meeting, serve
from benchmarks.options import OverheadOptions
from benchmarks.ranks.training import SleptCompute, make_data, make_model, make_optimizer, train
from hvd_gossip import runtime

Record = dict[str, Any]


def measure(options: OverheadOptions, meeting: Meeting) -> list[Record]:
    """What this rank saw: for every repetition and algorithm, a block with the plain optimizer and one with it."""
    hvd.init()
    try:
        return take_turns(
            options.algorithms, options.repetitions, lambda algorithm: measure_block(options, meeting, algorithm)
        )
    finally:
        hvd.shutdown()


def take_turns(
    algorithms: Sequence[str], repetitions: int, block: Callable[[str | None], Record], **also: object
) -> list[Record]:
    """For every repetition and algorithm, a block with the plain optimizer (None) and one with the algorithm.

    Args:
        also: what every record says besides.
    """
    records = []
    for repetition in range(repetitions):
        turn = repetition % len(algorithms)
        for algorithm in [*algorithms[turn:], *algorithms[:turn]]:
            what = {"repetition": repetition, "algorithm": algorithm} | also
            records.append({"kind": "plain"} | what | block(None))
            records.append({"kind": "distributed"} | what | block(algorithm))
    return records


def measure_block(options: OverheadOptions, meeting: Meeting, algorithm: str | None) -> Record:
    """Seconds a step, and of them those in which the training thread waited for communication."""
    model = make_model(options.megabytes)
    optimizer = make_optimizer(model)
    if algorithm is not None:
        hvd.broadcast_parameters(model.state_dict(), root_rank=0)
        named = model.named_parameters()
        optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=named, algorithm=algorithm)
    record = _timed(options, meeting, model, optimizer)
    del optimizer
    gc.collect()  # so that a distributed one departs now, and disturbs nobody later
    meeting.all_here("block is over", options.ranks)
    return record


def _timed(
    options: OverheadOptions, meeting: Meeting, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> Record:
    loader = DataLoader(make_data((options.warm_up + options.steps) * options.batch), options.batch)
    steps = train(model, optimizer, loader, SleptCompute(options.step_ms * 1e-3, options.batch))
    meeting.all_here("block", options.ranks)
    for _ in itertools.islice(steps, options.warm_up):
        pass
    engine = runtime.current().engine
    start, waited, cpu, own_cpu = time.monotonic(), engine.waited, time.process_time(), time.thread_time()
    *_, end = steps
    seconds = end - start
    return {
        "step_seconds": seconds / options.steps,
        "waited_share": (engine.waited - waited) / seconds,
        "cpu_share": (time.process_time() - cpu) / seconds,
        "training_cpu_share": (time.thread_time() - own_cpu) / seconds,
    }


if __name__ == "__main__":
    serve(OverheadOptions, measure)
