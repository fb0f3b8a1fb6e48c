"""Checks of op=Adasum, for tensors and in DistributedOptimizer; run by test_adasum.py.

The oracle: Maleki et al., "Scaling distributed training with adaptive summation", 2020, equation 3, pair by pair.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hvd_gossip.torch as hvd
import pytest
import torch

from tests.torch_device import normal
from tests.torch_frontend.models import flat, loss_of, make_batch, make_model
from tests.torch_frontend.ranks import run_checks

Combine = Callable[[list[torch.Tensor]], torch.Tensor]


def pair(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    dot, own, their = (one * other).sum(), one.square().sum(), other.square().sum()
    return one * (1 - dot / (2 * own) if own else 1) + other * (1 - dot / (2 * their) if their else 1)


def adasum(vectors: list[torch.Tensor]) -> torch.Tensor:
    """Neighbours first, then pairs of pairs; in float64."""
    vectors = [vector.double() for vector in vectors]
    while len(vectors) > 1:
        vectors = [pair(vectors[i], vectors[i + 1]) for i in range(0, len(vectors), 2)]
    return vectors[0]


def random(rank: int, *shape: int) -> torch.Tensor:
    return normal(*shape, source=rank)


def is_power_of_two() -> bool:
    return hvd.size() & (hvd.size() - 1) == 0


def check_combination_of_tensors() -> None:
    if not is_power_of_two():
        return
    for shape in ((5,), (3, 4), (70_001,), ()):
        expected = adasum([random(rank, *shape) for rank in range(hvd.size())])
        torch.testing.assert_close(hvd.allreduce(random(hvd.rank(), *shape), op=hvd.Adasum), expected.float())
    tensor = random(hvd.rank(), 6)
    assert hvd.allreduce_(tensor, op=hvd.Adasum) is tensor
    torch.testing.assert_close(tensor, adasum([random(rank, 6) for rank in range(hvd.size())]).float())


def check_tensors_are_combined_each_by_itself() -> None:
    if not is_power_of_two():
        return
    results = hvd.grouped_allreduce([random(hvd.rank(), 5), 100 * random(hvd.rank() + 50, 3)], op=hvd.Adasum)
    torch.testing.assert_close(results[0], adasum([random(rank, 5) for rank in range(hvd.size())]).float())
    torch.testing.assert_close(results[1], adasum([100 * random(r + 50, 3) for r in range(hvd.size())]).float())


def check_equal_tensors_are_averaged_and_orthogonal_ones_added() -> None:
    if not is_power_of_two():
        return
    torch.testing.assert_close(hvd.allreduce(random(0, 4), op=hvd.Adasum), random(0, 4))
    unit = torch.nn.functional.one_hot(torch.tensor(hvd.rank()), hvd.size()).float()
    torch.testing.assert_close(hvd.allreduce(unit, op=hvd.Adasum), torch.ones(hvd.size()))


def check_no_gradient() -> None:
    if not is_power_of_two():
        return
    with pytest.raises(NotImplementedError, match="only op=Average and op=Sum"):
        hvd.allreduce(random(hvd.rank(), 4).requires_grad_(), op=hvd.Adasum).sum().backward()


def make(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def distributed(model: torch.nn.Module, **options: Any) -> Any:
    return hvd.DistributedOptimizer(make(model), model.named_parameters(), op=hvd.Adasum, **options)


def backward(model: torch.nn.Module, step: int, rank: int, passes: int = 1) -> None:
    for part in range(passes):
        loss_of(model, make_batch(100 * step + 10 * part + rank)).backward()


def reference(steps: int, passes: int = 1) -> torch.Tensor:
    """Every rank's own optimizer steps from the common parameters; what they add is combined, parameter by parameter."""
    models = [make_model() for _ in range(hvd.size())]
    optimizers = [make(model) for model in models]
    for step in range(steps):
        before = [p.detach().clone() for p in models[0].parameters()]
        for rank, (model, optimizer) in enumerate(zip(models, optimizers, strict=True)):
            optimizer.zero_grad()
            backward(model, step, rank, passes)
            optimizer.step()
        for old, *parameters in zip(before, *(model.parameters() for model in models), strict=True):
            new = old + adasum([p.detach() - old for p in parameters]).float()
            for parameter in parameters:
                parameter.detach().copy_(new)
    return flat(models[0])


def check_optimizer_combines_what_local_steps_add() -> None:
    if not is_power_of_two():
        return
    for passes in (1, 2):
        model = make_model()
        optimizer = distributed(model, backward_passes_per_step=passes)
        for step in range(4):
            optimizer.zero_grad()
            backward(model, step, hvd.rank(), passes)
            optimizer.step()
        torch.testing.assert_close(flat(model), reference(4, passes), rtol=1e-4, atol=1e-5)
        everybody = hvd.allgather(flat(model).unsqueeze(0))
        assert all(torch.equal(everybody[0], other) for other in everybody)


def check_optimizer_with_compression() -> None:
    if not is_power_of_two():
        return
    model = make_model()
    optimizer = distributed(model, compression=hvd.Compression.fp16)
    backward(model, 0, hvd.rank())
    optimizer.step()
    torch.testing.assert_close(flat(model), reference(1), rtol=1e-2, atol=1e-3)


def check_parameters_that_a_rank_does_not_use() -> None:
    if not is_power_of_two():
        return
    layers = torch.nn.ModuleList(make_model(seed)[0] for seed in range(hvd.size()))
    before = flat(layers)
    optimizer = hvd.DistributedOptimizer(torch.optim.SGD(layers.parameters(), lr=0.1), op=hvd.Adasum)
    layers[hvd.rank()](make_batch(0)[0]).sum().backward()
    optimizer.step()
    after = hvd.allgather(flat(layers).unsqueeze(0))
    assert all(torch.equal(after[0], other) for other in after)
    assert (flat(layers) != before).any()


def check_synchronize_and_what_is_refused() -> None:
    if not is_power_of_two() or hvd.size() == 1:
        return
    model = make_model()
    optimizer = distributed(model)
    backward(model, 0, hvd.rank())
    gradient = model[0].weight.grad.clone()
    optimizer.synchronize()
    assert torch.equal(model[0].weight.grad, gradient)  # gradients stay local
    with pytest.raises(AssertionError, match="Skipping synchronization is not supported when using Adasum"):
        optimizer.skip_synchronize().__enter__()
    with pytest.raises(AssertionError, match="race condition"):
        optimizer.zero_grad()
    with pytest.raises(AssertionError, match="more than backward_passes_per_step times"):
        backward(model, 1, hvd.rank())
    optimizer.step()
    optimizer.zero_grad()
    with pytest.raises(ValueError, match="gradient_predivide_factor not supported with op != Average"):
        distributed(model, gradient_predivide_factor=2.0)


def check_closures() -> None:
    if not is_power_of_two():
        return
    model = make_model()
    optimizer = distributed(model)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        backward(model, 0, hvd.rank())
        return torch.tensor(float(hvd.rank()))

    assert optimizer.step(closure) == hvd.rank()
    torch.testing.assert_close(flat(model), reference(1), rtol=1e-4, atol=1e-5)


def check_other_numbers_of_ranks() -> None:
    if not is_power_of_two():
        with pytest.raises(NotImplementedError, match="power of 2"):
            hvd.allreduce(random(hvd.rank(), 4), op=hvd.Adasum)
        with pytest.raises(NotImplementedError, match="power of 2"):
            distributed(make_model())


if __name__ == "__main__":
    run_checks(globals())
