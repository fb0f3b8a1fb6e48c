"""What a `DistributedOptimizer` delegates to: a way of keeping replicas together."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch

from hvd_gossip.algorithms.registry import find_algorithm
from hvd_gossip.config import mixing_settings
from hvd_gossip.runtime import Runtime

from .options import Options, ParamGroups, default_name

R = TypeVar("R")
Closure = Callable[[], Any]
Update = Callable[[Closure | None], R]


class Strategy(ABC):
    """Keeps the replicas of one optimizer's parameters together.

    Args:
        runtime: the initialized runtime.
        options: what was asked of the optimizer.
        groups: the optimizer's parameter groups. Every method gets them anew, since groups may be added.

    Raises:
        ConfigError: the options' settings are unknown or have no meaning under the algorithm.

    Attributes:
        algorithm: its name.
    """

    def __init__(self, runtime: Runtime, options: Options, groups: ParamGroups) -> None:
        config = runtime.config.override({"algorithm": options.algorithm, **options.settings})
        find_algorithm(config.algorithm).validate(mixing_settings(config))
        self.runtime = runtime
        self.options = options
        self.algorithm = config.algorithm
        self._names = dict(zip(parameters_of(groups), options.names, strict=False))

    def named(self, groups: ParamGroups) -> list[tuple[str, torch.Tensor]]:
        """All parameters with their names; those of groups added later are named by their place."""
        return [
            (self._names.get(p) or default_name(i, j), p)
            for i, group in enumerate(groups)
            for j, p in enumerate(group["params"])
        ]

    @abstractmethod
    def synchronize(self, groups: ParamGroups) -> None:
        """Returns when the gradients may be read and changed."""

    @abstractmethod
    def step(self, groups: ParamGroups, update: Update[R], closure: Closure | None, synchronize: bool) -> R:
        """Communicates as the algorithm wants and calls `update` once.

        Args:
            update: the wrapped optimizer's step; takes the closure.
            closure: evaluates the model anew, or None.
            synchronize: False inside `skip_synchronize()`.
        """

    def check_skip_synchronize(self) -> None:
        """Called when `skip_synchronize()` is entered; raises AssertionError if that is not supported."""

    def before_zero_grad(self) -> None:
        """Called before gradients are cleared; raises AssertionError if they must not be now."""

    def reset(self) -> None:
        """Forgets backward passes that no step followed."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint of this rank needs beside the model's and the optimizer's state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict()`'s value.

        Raises:
            ValueError: it is another algorithm's.
        """
        if state:
            raise ValueError(f"algorithm {self.algorithm!r} has no state to restore, but was given {sorted(state)}")


def parameters_of(groups: ParamGroups) -> Iterator[torch.Tensor]:
    """The parameters of all groups, in order."""
    return itertools.chain.from_iterable(group["params"] for group in groups)
