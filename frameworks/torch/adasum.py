"""The optimizer for op=Adasum: what is combined is not gradients but what the local steps changed (Horovod's
docs/adasum_user_guide.rst; Maleki et al., "Scaling distributed training with adaptive summation", 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch

from hvd_gossip.basics import operation_name
from hvd_gossip.collectives import Adasum
from hvd_gossip.collectives.objections import POWER_OF_TWO, is_power_of_two
from hvd_gossip.handles import wait_for_all
from hvd_gossip.runtime import Runtime

from .arrays import memory_of
from .gradients import laid_out_like
from .handles import Handle
from .options import Options, ParamGroups
from .passes import CountingPasses
from .strategy import Closure, Update
from .submit import reduce_into

R = TypeVar("R")


class AdasumOfDeltas(CountingPasses):
    """Every step is x <- x + Adasum_j(what the wrapped optimizer's step on rank j would add to x).

    Raises:
        NotImplementedError: the number of ranks is not a power of two (Horovod's rule).
    """

    def __init__(self, runtime: Runtime, options: Options, groups: ParamGroups) -> None:
        if not is_power_of_two(runtime.world.size):
            raise NotImplementedError(f"{POWER_OF_TWO}: there are {runtime.world.size}")
        super().__init__(runtime, options, groups)
        self._stepper = runtime.stepper()

    def synchronize(self, groups: ParamGroups) -> None:
        """Nothing to wait for: gradients stay local, and the deltas are combined inside `step()`."""

    def check_skip_synchronize(self) -> None:
        raise AssertionError("Skipping synchronization is not supported when using Adasum optimizer.")

    def step(self, groups: ParamGroups, update: Update[R], closure: Closure | None, synchronize: bool) -> R:
        def evaluate() -> Any:
            loss = closure() if closure is not None else None
            self.reset()
            return loss

        def run() -> R:
            self.watch(groups)
            before = [parameter.detach().clone() for parameter in self.trainable]
            result = update(None if closure is None else evaluate)
            self.reset()
            self._combine(before)
            return result

        return self._stepper.step(run)

    def on_all_passes(self, parameter: torch.Tensor) -> None:
        """Nothing yet: the whole step is made at once."""

    def _combine(self, before: Sequence[torch.Tensor]) -> None:
        """Goes on from `before` by the combined deltas."""
        wait_for_all([self._start(*pair) for pair in zip(self.trainable, before, strict=True)])

    def _start(self, parameter: torch.Tensor, before: torch.Tensor) -> Handle[None]:
        compressed, ctx = self.options.compression.compress(parameter.detach() - before)
        work = laid_out_like(parameter, compressed)
        memory = memory_of(work)
        name = operation_name("allreduce", self._names[parameter])
        handle = reduce_into(memory, memory, name, Adasum, **self.process_set)

        def finish(_: object) -> None:
            delta = self.options.compression.decompress(work, ctx)
            parameter.detach().copy_(before.add_(delta))

        return Handle(handle, finish)
