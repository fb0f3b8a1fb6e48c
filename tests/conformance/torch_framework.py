"""PyTorch, for the cases."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from tests import torch_device
from tests.conformance.case import FLOATS, INTEGERS
from tests.conformance.framework import Array, Normalized, Operation


def make(hvd: Any) -> TorchFramework:
    """For `rank_main`."""
    torch_device.use()
    return TorchFramework(hvd)


class TorchFramework:
    """`hvd_gossip.torch`, under this or another name. See `Framework`."""

    reduced = (*FLOATS, *INTEGERS)
    moved = (*FLOATS, *INTEGERS, "bool")

    def __init__(self, hvd: Any) -> None:
        self.hvd = hvd
        self.errors: tuple[type[BaseException], ...] = (hvd.HorovodInternalError,)

    def tensor(self, values: object, dtype: str = "float32") -> torch.Tensor:
        return torch.tensor(np.asarray(values)).to(getattr(torch, dtype))

    def strided(self, values: Array) -> torch.Tensor:
        tensor = self.tensor(np.ascontiguousarray(np.swapaxes(values, 0, 1))).transpose(0, 1)
        assert not tensor.is_contiguous()
        return tensor

    def numpy(self, tensor: torch.Tensor) -> Array:
        tensor = tensor.detach().cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()

    def dtype_of(self, tensor: torch.Tensor) -> str:
        return str(tensor.dtype).removeprefix("torch.")

    def together(self, operations: Sequence[Operation]) -> list[Any]:
        handles = [getattr(self.hvd, f"{kind}_async")(*args, **kwargs) for kind, args, kwargs in operations]
        return [self.hvd.synchronize(handle) for handle in handles]

    def gradients(
        self,
        function: Callable[[list[torch.Tensor]], list[torch.Tensor]],
        inputs: Sequence[Array],
        upstream: Sequence[Array],
    ) -> list[Array]:
        tensors = [self.tensor(array).requires_grad_() for array in inputs]
        outputs = function(tensors)
        loss = sum((output * self.tensor(factor)).sum() for output, factor in zip(outputs, upstream, strict=True))
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        return [self.numpy(tensor.grad) for tensor in tensors]

    def variables(self, arrays: Sequence[Array]) -> list[torch.nn.Parameter]:
        return [torch.nn.Parameter(self.tensor(array)) for array in arrays]

    def broadcast_variables(self, variables: Sequence[torch.nn.Parameter], root_rank: int) -> None:
        self.hvd.broadcast_parameters([(f"v{i}", variable) for i, variable in enumerate(variables)], root_rank)

    def optimizer(
        self, variables: Sequence[torch.nn.Parameter], rate: float, **options: Any
    ) -> Callable[[Sequence[Sequence[Array]]], None]:
        plain = torch.optim.SGD(list(variables), lr=rate)
        named = [(f"v{i}", variable) for i, variable in enumerate(variables)]
        optimizer = self.hvd.DistributedOptimizer(plain, named_parameters=named, **options)

        def step(passes: Sequence[Sequence[Array]]) -> None:
            optimizer.zero_grad()
            for gradients in passes:
                sum((v * self.tensor(g)).sum() for v, g in zip(variables, gradients, strict=True)).backward()
            optimizer.step()

        return step

    def normalize(self, batch: Array, upstream: Array, momentum: float, **options: Any) -> Normalized:
        layer = self.hvd.SyncBatchNorm(batch.shape[1], momentum=momentum, **options)
        tensor = self.tensor(batch).requires_grad_()
        output = layer(tensor)
        (output * self.tensor(upstream)).sum().backward()
        return Normalized(
            self.numpy(output), self.numpy(tensor.grad), self.numpy(layer.running_mean), self.numpy(layer.running_var)
        )

    @contextmanager
    def tolerate_deprecated(self) -> Iterator[None]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
