"""Epochs of `adpsgd` with shared work and steps of `allreduce`, with one rank slow; and one worker alone."""

from __future__ import annotations

import gc
import itertools
import time
from contextlib import suppress
from typing import Any

import hvd_gossip.torch as hvd
import torch
from torch.utils.data import DataLoader, DistributedSampler

from benchmarks.job import Meeting, serve
from benchmarks.options import StragglerOptions
from benchmarks.ranks.training import EpochOver, SleptCompute, make_data, make_model, make_optimizer, train

NOTICE = 0.3
"""Seconds from when rank 0 names a moment until then: all ranks should know it by then."""
WARM_UP = 4
"""Unslowed steps of every new optimizer before anything is measured."""
Record = dict[str, Any]


class Measurements:
    """One rank's part of the whole benchmark.

    Args:
        options: the knobs.
        meeting: of the ranks.
    """

    def __init__(self, options: StragglerOptions, meeting: Meeting) -> None:
        self._options = options
        self._meeting = meeting
        self._data = make_data(options.ranks * options.steps * options.batch)
        self._seconds = options.step_ms * 1e-3
        self._epochs = 0

    def run(self) -> list[Record]:
        """Everything, in the order in which it is interleaved."""
        records = []
        for repetition in range(self._options.repetitions):
            slow = (self._options.ranks - 1 + repetition) % self._options.ranks
            records.append(self._alone(repetition))
            for slowdown in self._options.slowdowns:
                mine = slowdown if hvd.rank() == slow else 1.0
                what = {"repetition": repetition, "slowdown": slowdown, "slow": slow}
                records.append(what | self._shared_epoch(mine, slow))
                if slowdown * self._seconds <= self._options.longest_step:
                    records.append(what | self._allreduce_steps(mine, slowdown))
        return records

    def _alone(self, repetition: int) -> Record:
        """One worker with the plain optimizer, while the others sleep."""
        record: Record = {"kind": "alone", "repetition": repetition}
        if hvd.rank() == 0:
            model = make_model(self._options.megabytes)
            loader = DataLoader(self._data, self._options.batch)
            steps = train(model, make_optimizer(model), loader, self._compute())
            record |= {"start": next(steps), "ends": list(itertools.islice(steps, self._options.alone_steps))}
        self._meeting.all_here("alone", self._options.ranks)
        return record

    def _shared_epoch(self, slowdown: float, slow: int) -> Record:
        """One epoch of adpsgd whose samples go to whoever asks for them."""
        model, optimizer = self._prepared("adpsgd")
        sampler = hvd.WorkSharingSampler(self._data, block=self._options.batch)
        sampler.set_epoch(self._epochs)
        self._epochs += 1
        loader = DataLoader(self._data, self._options.batch, sampler=sampler)
        compute = self._compute(slowdown, slow)
        record: Record = {"kind": "adpsgd", "interrupted": False, "start": start_together()}
        try:
            record["steps"] = sum(1 for _ in train(model, optimizer, loader, compute))
        except EpochOver:
            record["interrupted"] = True
        record |= {"end": time.monotonic(), "samples": compute.samples}
        self._meeting.arrive("epoch")
        self._meeting.all_here("epoch is over", self._options.ranks)
        return record

    def _allreduce_steps(self, mine: float, slowdown: float) -> Record:
        """Steps of allreduce, whose equal shares are fixed beforehand: every step is alike."""
        model, optimizer = self._prepared("allreduce")
        sampler: DistributedSampler[Any] = DistributedSampler(self._data, hvd.size(), hvd.rank())
        loader = DataLoader(self._data, self._options.batch, sampler=sampler)
        count = round(self._options.allreduce_seconds / (slowdown * self._seconds))
        count = min(self._options.steps, max(1, count))
        start = start_together()
        ends = list(itertools.islice(train(model, optimizer, loader, self._compute(mine)), count))
        return {"kind": "allreduce", "start": start, "end": ends[-1], "steps": count}

    def _prepared(self, algorithm: str) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        """A new model and optimizer, warmed up."""
        gc.collect()  # the optimizer before departs when it is collected
        model = make_model(self._options.megabytes)
        hvd.broadcast_parameters(model.state_dict(), root_rank=0)
        optimizer = hvd.DistributedOptimizer(
            make_optimizer(model), named_parameters=model.named_parameters(), algorithm=algorithm
        )
        loader = DataLoader(self._data, self._options.batch)
        for _ in train(model, optimizer, itertools.islice(loader, WARM_UP), self._compute()):
            pass
        return model, optimizer

    def _compute(self, slowdown: float = 1.0, slow: int | None = None) -> SleptCompute:
        """Of this rank; a straggler that shares its work may be interrupted when all others are done."""
        is_over = None
        if slowdown > 1.0 and slow is not None:
            others = [rank for rank in range(self._options.ranks) if rank != slow]
            number = self._epochs

            def is_over() -> bool:
                with suppress(IndexError):
                    while self._meeting.here("epoch", others[-1], number):
                        others.pop()
                return not others

        return SleptCompute(self._seconds, self._options.batch, slowdown, is_over)


def start_together() -> float:
    """Returns at a moment that rank 0 names, the same on all ranks of this host, and gives it (of `time.monotonic`).

    A barrier's ranks leave it up to 15 ms one after the other where 16 share two cores. A rank that hears of it too late
    begins at once: what it lost counts.
    """
    start: float = hvd.broadcast_object(time.monotonic() + NOTICE, root_rank=0, name="start")
    time.sleep(max(0.0, start - time.monotonic()))
    return start


def measure(options: StragglerOptions, meeting: Meeting) -> list[Record]:
    """What this rank saw."""
    hvd.init()
    try:
        return Measurements(options, meeting).run()
    finally:
        hvd.shutdown()


if __name__ == "__main__":
    serve(StragglerOptions, measure)
