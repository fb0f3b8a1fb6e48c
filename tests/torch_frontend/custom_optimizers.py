"""Optimizer classes of a user's own, importable, so that they can be pickled."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from hvd_gossip.torch.optimizer import DistributedOptimizerMixin


class SignDescent(torch.optim.Optimizer):
    """Needs an argument that Optimizer does not know, keeps an attribute, and takes no closure."""

    def __init__(self, params: Iterable[torch.Tensor], rate: float, note: str) -> None:
        super().__init__(params, {"rate": rate})
        self.note = note

    @torch.no_grad()
    def step(self) -> str:  # type: ignore[override]
        """Returns the note."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter -= group["rate"] * parameter.grad.sign()
                    self.state[parameter]["steps"] = self.state[parameter].get("steps", 0) + 1
        return self.note


class CountingSGD(DistributedOptimizerMixin, torch.optim.SGD):
    """A distributed class that a user derives further."""

    steps = 0

    def step(self, closure: Callable[[], Any] | None = None, **kwargs: Any) -> Any:
        """Counts the steps."""
        self.steps += 1
        return super().step(closure, **kwargs)
