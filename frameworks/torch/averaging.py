"""Gradient averaging, as Horovod does it: allreduces start while `backward()` still computes, `step()` waits for them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from hvd_gossip.basics import operation_name
from hvd_gossip.collectives import Average
from hvd_gossip.collectives.packing import PACK_BYTES
from hvd_gossip.gradient_options import split_evenly
from hvd_gossip.handles import wait_for_all
from hvd_gossip.runtime import Runtime

from .gradients import is_dense_on_its_way, no_gradient, start_reduction, start_together
from .handles import Handle
from .options import Options, ParamGroups
from .passes import CountingPasses
from .strategy import Closure, Update
from .submit import reduce_into

R = TypeVar("R")
LONGEST_RUN = 64
"""So many small gradients travel as one. Longer runs would keep the first of them waiting for the last."""


@dataclass
class _Started:
    """An allreduce under way, the gradient that it works on, and the gradient's version when it began."""

    handle: Handle[None]
    gradient: torch.Tensor
    version: int


class GradientAveraging(CountingPasses):
    """The strategy of algorithm `allreduce`."""

    def __init__(self, runtime: Runtime, options: Options, groups: ParamGroups) -> None:
        self._started: dict[torch.Tensor, _Started] = {}
        self._partners: dict[torch.Tensor, Sequence[torch.Tensor]] = {}
        self._sparse_dims: dict[torch.Tensor, int] = {}
        self._synchronized = False
        self._stepper = runtime.stepper()
        super().__init__(runtime, options, groups)

    def synchronize(self, groups: ParamGroups) -> None:
        if not self.alone:
            self.watch(groups)
            for parameter in self.trainable:
                if parameter not in self._started:
                    self._start(parameter)
            self._finish()
        self._synchronized = True

    def step(self, groups: ParamGroups, update: Update[R], closure: Closure | None, synchronize: bool) -> R:
        def run() -> R:
            if synchronize and (closure is None or self._started):
                self.synchronize(groups)
            self._synchronized = False
            averaged = closure
            if synchronize and closure is not None and not self.alone:
                averaged = functools.partial(self._evaluate, groups, closure)
            return update(averaged)

        if synchronize and self._synchronized:
            warnings.warn(
                "optimizer.step() called without optimizer.skip_synchronize() context after optimizer.synchronize(). This "
                "can cause training slowdown. You may want to consider using optimizer.skip_synchronize() context if you "
                "use optimizer.synchronize() in your code.",
                stacklevel=3,
            )
        return self._stepper.step(run)

    def before_zero_grad(self) -> None:
        super().before_zero_grad()
        self._synchronized = False

    def reset(self) -> None:
        super().reset()
        self._started.clear()
        self._synchronized = False

    def watch(self, groups: ParamGroups) -> bool:
        changed = super().watch(groups)
        if changed:
            self._partners = _partners(self.options.groups, self.named(groups))
        return changed

    def on_all_passes(self, parameter: torch.Tensor) -> None:
        partners = self._partners.get(parameter)
        if partners is None:
            self._start_one(parameter)
        elif all(self.has_all_passes(p) for p in partners if p.requires_grad):
            self._start_together(partners)

    def _start(self, parameter: torch.Tensor) -> None:
        """Starts the allreduce of a gradient, and of those that travel with it, or of zeros if there is none."""
        partners = self._partners.get(parameter, [parameter])
        for each in partners:
            if each.requires_grad and each.grad is None:
                each.grad = no_gradient(each, self._sparse_dims.get(each, 0))
        self._start_together(partners)

    def _start_together(self, partners: Sequence[torch.Tensor]) -> None:
        """Starts the allreduces of gradients that travel together; sparse ones travel by themselves."""
        members = [p for p in partners if p.requires_grad and p not in self._started]
        dense = [p for p in members if is_dense_on_its_way(p, self.options)]
        if dense and len(members) > 1:
            # Named after all members, so that a rank on which others of them are sparse is told.
            name = f"{self._names[members[0]]} and {len(members) - 1} more"
            handles = start_together(name, [(self._names[p], p) for p in dense], self.options, self.process_set)
            for parameter, handle in zip(dense, handles, strict=True):
                self._note(parameter, handle)
        for parameter in members:
            if parameter not in self._started:
                self._start_one(parameter)

    def _start_one(self, parameter: torch.Tensor) -> None:
        name = self._names[parameter]
        self._note(parameter, start_reduction(name, parameter, self.options, self.process_set))

    def _note(self, parameter: torch.Tensor, handle: Handle[None]) -> None:
        gradient = parameter.grad
        assert gradient is not None
        if gradient.is_sparse:
            self._sparse_dims[parameter] = gradient.sparse_dim()
        self._started[parameter] = _Started(handle, gradient, gradient._version)

    def _finish(self) -> None:
        started = dict(self._started)
        self.reset()
        replaced = [self._names[p] for p, own in started.items() if p.grad is not own.gradient]
        changed = [self._names[p] for p, own in started.items() if own.gradient._version != own.version]
        wait_for_all(own.handle for own in started.values())
        if replaced:
            raise AssertionError(
                f"gradients were cleared or replaced while they were being averaged: {', '.join(replaced)}. Call "
                "zero_grad() after optimizer.step(), or before loss.backward()."
            )
        if changed:
            _warn_changed(changed)

    def _evaluate(self, groups: ParamGroups, closure: Closure) -> Any:
        """The closure, after which gradients and loss are averages."""
        loss = closure()
        self.synchronize(groups)
        self._synchronized = False
        if isinstance(loss, torch.Tensor):
            return self._average(loss.detach().clone(memory_format=torch.contiguous_format))
        return loss if loss is None else self._average(torch.tensor(loss, dtype=torch.float64)).item()

    def _average(self, loss: torch.Tensor) -> torch.Tensor:
        name = operation_name("allreduce", f"{next(iter(self._names.values()))}.closure")
        return reduce_into(loss, loss, name, Average, **self.process_set).wait()


def _partners(
    groups: int | tuple[tuple[str, ...], ...] | None, named: Sequence[tuple[str, torch.Tensor]]
) -> dict[torch.Tensor, Sequence[torch.Tensor]]:
    """The parameters whose gradients travel together, for each of them."""
    parameters = dict(named)
    if groups is None:
        together = _small_ones(parameters.values())
    elif isinstance(groups, int):
        together = split_evenly(list(parameters.values()), groups)
    else:
        together = [[parameters[name] for name in group if name in parameters] for group in groups]
    return {parameter: members for members in together for parameter in members}


def _small_ones(parameters: Iterable[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Small parameters in runs: negotiating each by itself would take longer than sending it."""
    runs: dict[object, list[list[torch.Tensor]]] = {}
    for parameter in parameters:
        if parameter.requires_grad and parameter.nbytes <= PACK_BYTES:
            own = runs.setdefault((parameter.dtype, parameter.device), [[]])
            if len(own[-1]) == LONGEST_RUN:
                own.append([])
            own[-1].append(parameter)
    return [run for own in runs.values() for run in own]


def _warn_changed(names: Sequence[str]) -> None:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    warnings.warn(
        f"gradients were changed while they were being averaged: {', '.join(names[:3])}{more}. Some ranks may have sent the "
        "changed values. Call optimizer.synchronize() before changing gradients (clipping, GradScaler.unscale_), then step "
        "inside optimizer.skip_synchronize().",
        RuntimeWarning,
        stacklevel=2,
    )
