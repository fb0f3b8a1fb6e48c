"""Trains a few steps, with or without an algorithm, and reads what memory the process has then."""

from __future__ import annotations

import gc
import resource
from pathlib import Path
from typing import Any

import psutil
from torch.utils.data import DataLoader

from benchmarks.job import Meeting, serve
from benchmarks.options import MemoryOptions
from benchmarks.ranks.training import SleptCompute, make_data, make_model, make_optimizer, parameter_bytes, train

BATCH = 2
STEP_SECONDS = 0.05
"""Slept by each step, in which exchanges go on."""

ROLLUP = Path("/proc/self/smaps_rollup")


def measure(options: MemoryOptions, meeting: Meeting, variant: str, processes: int) -> dict[str, Any]:
    """Memory of this rank, bytes.

    Args:
        variant: "plain" (this package is not imported), "initialized" (it is, and the optimizer is plain), or an algorithm.
        processes: how many ranks there are.
    """
    model = make_model(options.megabytes)
    optimizer = make_optimizer(model)
    if variant != "plain":
        import hvd_gossip.torch as hvd

        hvd.init(report=False)
        if variant != "initialized":
            named = model.named_parameters()
            optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=named, algorithm=variant)
    loader = DataLoader(make_data(options.steps * BATCH), BATCH)
    for _ in train(model, optimizer, loader, SleptCompute(STEP_SECONDS, BATCH)):
        pass
    memory = _read_memory(meeting, processes)
    if variant != "plain":
        hvd.shutdown()
    return {"parameters": parameter_bytes(model)} | memory


def _read_memory(meeting: Meeting, processes: int) -> dict[str, int]:
    """Bytes, while all ranks are there: what they share is counted in equal parts."""
    gc.collect()
    meeting.all_here("steps are done", processes)
    now = {"own": own_memory(), "rss": psutil.Process().memory_info().rss}
    meeting.all_here("memory is read", processes)
    return now | {"peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def own_memory() -> int:
    """Bytes of this process that are not pages of files: its anonymous memory and its part of shared memory.

    Pages of libraries belong to every process that uses them: their share of this one changes as others come and go.
    """
    if not ROLLUP.exists():
        return int(psutil.Process().memory_full_info().uss)
    lines = (line.split() for line in ROLLUP.read_text().splitlines())
    return sum(int(words[1]) * 1024 for words in lines if words[0] in ("Pss_Anon:", "Pss_Shmem:"))


if __name__ == "__main__":
    serve(MemoryOptions, measure)
