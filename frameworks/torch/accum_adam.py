"""Accumulated Adam: moments of gradients that are averaged over several steps, while every step updates.

Wang, Zhang, Wu, Johansson: "From Promise to Practice: Realizing High-performance Decentralized Training", ICLR 2025 (arXiv
2410.11998); the equations are those of the optimizer that its authors publish with it. A decentralized worker's own batch is
small, and Adam's second moment, that of noisy gradients, is then mostly noise, too large by about the number of workers. So
the moments take up the mean of s = accum_iter gradients at a time. With t = 1, 2, ... the step, T = ceil(t / s) the number of
its period:

    a  <- a + g / s
    m~  = beta1 m + (1 - beta1) g
    v~  = beta2 v + (1 - beta2) g^2
    x  <- x - lr [ m~ / (1 - beta1^T) ] / [ sqrt(v~ / (1 - beta2^T)) + eps ]
    and where s divides t:     m <- beta1 m + (1 - beta1) a,     v <- beta2 v + (1 - beta2) a^2,     a <- 0.

m and v stand still within a period; each step adds its own gradient to them for itself only. s = 1 is Adam. The authors let s
grow with the number of workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer


class AccumAdam(Optimizer):
    """Adam (Kingma and Ba, ICLR 2015) whose moments are those of gradients averaged over `accum_iter` steps.

    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = AccumAdam(model.parameters(), lr=1e-3, accum_iter=4)

    Args:
        params: parameters, or groups of them.
        lr: learning rate.
        betas: beta1 and beta2, of the moments from one period to the next.
        eps: added to the denominator.
        weight_decay: times the parameter, added to its gradient (in `AccumAdamW`: lr times it shrinks the parameter).
        accum_iter: s, steps of a period.

    Raises:
        ValueError: a value has no meaning.
    """

    decoupled: ClassVar[bool] = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        accum_iter: int = 4,
    ) -> None:
        _check(lr=lr, eps=eps, weight_decay=weight_decay)
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"betas={betas}: expected 0 <= beta < 1, both")
        if accum_iter < 1 or accum_iter != int(accum_iter):
            raise ValueError(f"accum_iter={accum_iter}: expected a whole number of steps, at least 1")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "accum_iter": accum_iter}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step.

        Args:
            closure: computes the loss and its gradients again; its value is returned.

        Raises:
            RuntimeError: a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(group, parameter, parameter.grad)
        return loss

    def _update(self, group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> None:
        if gradient.is_sparse:
            raise RuntimeError(f"{type(self).__name__} takes no sparse gradients")
        state = self._state_of(parameter)
        state["step"] += 1
        if group["weight_decay"] and self.decoupled:
            parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
        elif group["weight_decay"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        self._descend(group, parameter, gradient, state)
        state["accum_grad"].add_(gradient, alpha=1.0 / group["accum_iter"])
        if int(state["step"]) % group["accum_iter"] == 0:
            self._take_up(group, state)

    def _state_of(self, parameter: Tensor) -> dict[str, Any]:
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            for name in ("exp_avg", "exp_avg_sq", "accum_grad"):
                state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state

    def _descend(self, group: dict[str, Any], parameter: Tensor, gradient: Tensor, state: dict[str, Any]) -> None:
        (beta1, beta2), period = group["betas"], math.ceil(int(state["step"]) / group["accum_iter"])
        first = (state["exp_avg"] * beta1).add_(gradient, alpha=1.0 - beta1)
        second = (state["exp_avg_sq"] * beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
        second.div_(1.0 - beta2**period).sqrt_().add_(group["eps"])
        parameter.addcdiv_(first, second, value=-group["lr"] / (1.0 - beta1**period))

    def _take_up(self, group: dict[str, Any], state: dict[str, Any]) -> None:
        (beta1, beta2), mean = group["betas"], state["accum_grad"]
        state["exp_avg"].mul_(beta1).add_(mean, alpha=1.0 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(mean, mean, value=1.0 - beta2)
        mean.zero_()


class AccumAdamW(AccumAdam):
    """`AccumAdam` with decoupled weight decay (Loshchilov and Hutter, ICLR 2019): x <- (1 - lr weight_decay) x first.

    Args: as `AccumAdam`; weight_decay is 0.01 by default.
    """

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        accum_iter: int = 4,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, accum_iter)


def _check(**values: float) -> None:
    for name, value in values.items():
        if not 0.0 <= value < math.inf:
            raise ValueError(f"{name}={value}: expected a number >= 0")
