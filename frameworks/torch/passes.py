"""What strategies share that do something with gradients: they count backward passes, by hooks on the parameters."""

from __future__ import annotations

import functools
import weakref
from abc import abstractmethod
from typing import Any

import torch

from hvd_gossip.basics import process_set_id
from hvd_gossip.runtime import Runtime, current, is_initialized

from .options import Options, ParamGroups
from .strategy import Strategy, parameters_of


class CountingPasses(Strategy):
    """Counts the backward passes since the last step.

    Attributes:
        alone: no other rank takes part: one worker, or this rank is not in the process set. The wrapped optimizer is left
            alone then, as Horovod does.
        process_set: fields of requests that name the process set.
        trainable: the parameters that require a gradient, in the order of the groups.
    """

    def __init__(self, runtime: Runtime, options: Options, groups: ParamGroups) -> None:
        super().__init__(runtime, options, groups)
        self.alone = not options.process_set.included() or options.process_set.size() == 1
        self.process_set = {} if self.alone else {"process_set": process_set_id(options.process_set)}
        self.trainable: list[torch.Tensor] = []
        self._passes: dict[torch.Tensor, int] = {}
        self._hooked: dict[torch.Tensor, Any] = {}
        weakref.finalize(self, _unhook, self._hooked)
        self.watch(groups)

    def before_zero_grad(self) -> None:
        if self._passes:
            raise AssertionError(
                "optimizer.zero_grad() was called after loss.backward() but before optimizer.step() or "
                "optimizer.synchronize(). This is prohibited as it can cause a race condition."
            )

    def reset(self) -> None:
        self._passes.clear()

    def watch(self, groups: ParamGroups) -> bool:
        """Hooks parameters that have become trainable.

        Returns:
            Whether the trainable parameters are others than they were.
        """
        trainable = [parameter for parameter in parameters_of(groups) if parameter.requires_grad]
        if self.alone or list(map(id, trainable)) == list(map(id, self.trainable)):
            return False
        self.trainable = trainable
        self._names = {parameter: name for name, parameter in self.named(groups)}
        for parameter in trainable:
            if parameter not in self._hooked:
                hook = functools.partial(_on_gradient, weakref.ref(self))
                self._hooked[parameter] = parameter.register_post_accumulate_grad_hook(hook)
        return True

    def has_all_passes(self, parameter: torch.Tensor) -> bool:
        """Whether `backward_passes_per_step` passes have reached the parameter."""
        return self._passes.get(parameter, 0) == self.options.backward_passes_per_step

    @abstractmethod
    def on_all_passes(self, parameter: torch.Tensor) -> None:
        """The last backward pass before a step has added to the parameter's gradient."""

    def _accumulated(self, parameter: torch.Tensor) -> None:
        """A backward pass has added to the parameter's gradient."""
        wanted = self.options.backward_passes_per_step
        passes = self._passes.get(parameter, 0) + 1
        if passes > wanted:
            raise AssertionError(
                f"Gradients were computed more than backward_passes_per_step times before call to step() (parameter "
                f"{self._names[parameter]}). Increase backward_passes_per_step to accumulate gradients locally."
            )
        self._passes[parameter] = passes
        if passes == wanted:
            self.on_all_passes(parameter)


def _on_gradient(strategy: weakref.ref[CountingPasses], parameter: torch.Tensor) -> None:
    living = strategy()
    # After shutdown() step() says what is wrong; after another init() it takes care of all gradients itself.
    if living is not None and is_initialized() and current() is living.runtime:
        living._accumulated(parameter)


def _unhook(hooked: dict[torch.Tensor, Any]) -> None:
    for hook in hooked.values():
        hook.remove()
