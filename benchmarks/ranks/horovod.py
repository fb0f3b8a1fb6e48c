"""A real Horovod's allreduce in place, one size after the other. Nothing of ours communicates in these processes."""

from __future__ import annotations

import functools
import sys

import torch

from benchmarks.job import Meeting, serve
from benchmarks.options import CollectivesOptions
from benchmarks.ranks.turns import Times, measure_turns
from hvd_gossip.compat import SHADOW


def measure(options: CollectivesOptions, meeting: Meeting) -> dict[str, Times]:
    """As `benchmarks.ranks.collectives.measure`, of the way "horovod" alone."""
    sys.path[:] = [folder for folder in sys.path if folder != SHADOW]  # under our launcher the name would be ours
    import horovod.torch as hvd

    hvd.init()
    results = {}
    for size in options.bytes:
        tensor = torch.zeros(size // 4)
        operation = functools.partial(hvd.allreduce_, tensor, name=f"in place {size}")
        results[str(size)] = measure_turns({"horovod": operation}, options.seconds, options.most)
    hvd.shutdown()
    return results


if __name__ == "__main__":
    serve(CollectivesOptions, measure)
