"""Gradient averaging, as Horovod does it: allreduces start while `backward()` still computes, `step()` waits for them."""

from __future__ import annotations

import functools
import itertools
import warnings
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from hvd_gossip.basics import operation_name
from hvd_gossip.collectives import Average
from hvd_gossip.runtime import Runtime, current, is_initialized

from .gradients import start_reduction
from .handles import Handle
from .options import Options, ParamGroups
from .strategy import Closure, Strategy, Update, parameters_of
from .submit import reduce_into

R = TypeVar("R")


@dataclass
class _Started:
    """An allreduce under way, the gradient that it works on, and the gradient's version when it began."""

    handle: Handle[None]
    gradient: torch.Tensor
    version: int


class GradientAveraging(Strategy):
    """The strategy of algorithm `allreduce`. With one worker it leaves the wrapped optimizer alone, as Horovod does."""

    def __init__(self, runtime: Runtime, options: Options, groups: ParamGroups) -> None:
        super().__init__(runtime, options, groups)
        self._alone = runtime.world.size == 1
        self._stepper = runtime.stepper()
        self._passes: dict[torch.Tensor, int] = {}
        self._started: dict[torch.Tensor, _Started] = {}
        self._trainable: list[torch.Tensor] = []
        self._partners: dict[torch.Tensor, Sequence[torch.Tensor]] = {}
        self._hooked: dict[torch.Tensor, Any] = {}
        self._synchronized = False
        weakref.finalize(self, _unhook, self._hooked)
        self._watch(groups)

    def synchronize(self, groups: ParamGroups) -> None:
        if not self._alone:
            self._watch(groups)
            for parameter in self._trainable:
                if parameter not in self._started:
                    self._start(self._partners.get(parameter, [parameter]))
            self._finish()
        self._synchronized = True

    def step(self, groups: ParamGroups, update: Update[R], closure: Closure | None, synchronize: bool) -> R:
        def run() -> R:
            if synchronize and (closure is None or self._started):
                self.synchronize(groups)
            self._synchronized = False
            averaged = closure
            if synchronize and closure is not None and not self._alone:
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
        if self._started or self._passes:
            raise AssertionError(
                "optimizer.zero_grad() was called after loss.backward() but before optimizer.step() or "
                "optimizer.synchronize(). This is prohibited as it can cause a race condition."
            )
        self._synchronized = False

    def reset(self) -> None:
        self._passes.clear()
        self._started.clear()
        self._synchronized = False

    def _watch(self, groups: ParamGroups) -> None:
        """Hooks parameters that have become trainable. (Until then `synchronize` takes care of them.)"""
        trainable = [parameter for parameter in parameters_of(groups) if parameter.requires_grad]
        if self._alone or list(map(id, trainable)) == list(map(id, self._trainable)):
            return
        named = self.named(groups)
        self._trainable = trainable
        self._names = {parameter: name for name, parameter in named}
        self._partners = _partners(self.options.groups, named)
        for parameter in trainable:
            if parameter not in self._hooked:
                hook = functools.partial(_on_gradient, weakref.ref(self))
                self._hooked[parameter] = parameter.register_post_accumulate_grad_hook(hook)

    def _accumulated(self, parameter: torch.Tensor) -> None:
        """A backward pass has added to the parameter's gradient."""
        passes = self._passes.get(parameter, 0) + 1
        if passes > self.options.backward_passes_per_step:
            raise AssertionError(
                f"Gradients were computed more than backward_passes_per_step times before call to step() (parameter "
                f"{self._names[parameter]}). Increase backward_passes_per_step to accumulate gradients locally."
            )
        self._passes[parameter] = passes
        partners = [p for p in self._partners.get(parameter, [parameter]) if p.requires_grad]
        if all(self._passes.get(p, 0) == self.options.backward_passes_per_step for p in partners):
            self._start(partners)

    def _start(self, partners: Sequence[torch.Tensor]) -> None:
        """Starts the allreduces of parameters whose gradients travel together."""
        members = [p for p in partners if p.requires_grad and p not in self._started]
        group = {"group": self._names[members[0]], "group_size": len(members)} if len(members) > 1 else {}
        for parameter in members:
            handle = start_reduction(self._names[parameter], parameter, self.options, **group)
            gradient = parameter.grad
            assert gradient is not None  # start_reduction made one if there was none
            self._started[parameter] = _Started(handle, gradient, gradient._version)

    def _finish(self) -> None:
        started = dict(self._started)
        self.reset()
        replaced = [self._names[p] for p, own in started.items() if p.grad is not own.gradient]
        changed = [self._names[p] for p, own in started.items() if own.gradient._version != own.version]
        for own in started.values():
            own.handle.wait()
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
        return reduce_into(loss, loss, name, Average).wait()


def _on_gradient(strategy: weakref.ref[GradientAveraging], parameter: torch.Tensor) -> None:
    living = strategy()
    # After shutdown() step() says what is wrong; after another init() it takes care of all gradients itself.
    if living is not None and is_initialized() and current() is living.runtime:
        living._accumulated(parameter)


def _unhook(hooked: dict[torch.Tensor, Any]) -> None:
    for hook in hooked.values():
        hook.remove()


def _partners(
    groups: int | tuple[tuple[str, ...], ...] | None, named: Sequence[tuple[str, torch.Tensor]]
) -> dict[torch.Tensor, Sequence[torch.Tensor]]:
    """The parameters whose gradients travel together, for each of them."""
    parameters = dict(named)
    if groups is None:
        return {}
    if isinstance(groups, int):
        together = _split(list(parameters.values()), groups)
    else:
        together = [[parameters[name] for name in group if name in parameters] for group in groups]
    return {parameter: members for members in together for parameter in members}


def _split(items: list[torch.Tensor], count: int) -> list[list[torch.Tensor]]:
    """`count` runs of items whose lengths differ by at most one."""
    size, longer = divmod(len(items), count)
    ends = [i * size + min(i, longer) for i in range(count + 1)]
    return [items[start:end] for start, end in itertools.pairwise(ends)]


def _warn_changed(names: Sequence[str]) -> None:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    warnings.warn(
        f"gradients were changed while they were being averaged: {', '.join(names[:3])}{more}. Some ranks may have sent the "
        "changed values. Call optimizer.synchronize() before changing gradients (clipping, GradScaler.unscale_), then step "
        "inside optimizer.skip_synchronize().",
        RuntimeWarning,
        stacklevel=2,
    )
