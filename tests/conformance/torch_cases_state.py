"""Horovod, API, horovod.torch: broadcast_parameters and broadcast_optimizer_state."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.conformance.case import Cases, close, numbers, ours, raises, same
from tests.conformance.torch_framework import TorchFramework
from tests.torch_device import normal

CASES = Cases()


def _model(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def _assert_equal(one: Any, other: Any) -> None:
    assert one.keys() == other.keys()
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=0, atol=0)


@CASES.add()
def broadcast_parameters_of_a_state_dict(f: TorchFramework) -> None:
    """API, broadcast_parameters: typical usage is to broadcast model.state_dict(), buffers and all."""
    for root in range(f.hvd.size()):
        model = _model(f.hvd.rank())
        model[1].num_batches_tracked.fill_(f.hvd.rank())
        f.hvd.broadcast_parameters(model.state_dict(), root_rank=root)
        expected = _model(root)
        expected[1].num_batches_tracked.fill_(root)
        _assert_equal(model.state_dict(), expected.state_dict())


@CASES.add()
def broadcast_parameters_of_named_parameters(f: TorchFramework) -> None:
    """API, broadcast_parameters: model.named_parameters() or model.parameters()."""
    for parameters in (lambda model: model.named_parameters(), lambda model: list(model.named_parameters())):
        model = _model(f.hvd.rank() + 1)
        f.hvd.broadcast_parameters(parameters(model), root_rank=0)
        _assert_equal(dict(model.named_parameters()), dict(_model(1).named_parameters()))


@CASES.add()
def broadcast_parameters_of_anything_else_is_refused(f: TorchFramework) -> None:
    """API, broadcast_parameters, params: a dict, or a list of (name, tensor)."""
    with raises(ValueError):
        f.hvd.broadcast_parameters(5, root_rank=0)
    same(f, f.hvd.broadcast(ours(f, 2), 0), numbers(0, 2))


def _trained(kind: Any, rank: int, steps: int = 2, **options: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Another state, learning rate and number of steps on every rank."""
    model = _model(rank)
    optimizer = kind(model.parameters(), lr=0.1 * (rank + 1), **options)
    for step in range(steps):
        optimizer.zero_grad()
        model(normal(5, 3, source=10 * rank + step)).pow(2).sum().backward()
        optimizer.step()
    return model, optimizer


@CASES.add()
def broadcast_optimizer_state_of_every_kind(f: TorchFramework) -> None:
    """API, broadcast_optimizer_state: broadcasts an optimizer state from root rank to all other processes."""
    kinds: list[tuple[Any, dict[str, Any]]] = [
        (torch.optim.SGD, {}),
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        (torch.optim.Adam, {"betas": (0.8, 0.9), "amsgrad": True}),
        (torch.optim.AdamW, {}),
        (torch.optim.Adagrad, {}),
        (torch.optim.RMSprop, {"centered": True}),
        (torch.optim.LBFGS, {}),
    ]
    root = f.hvd.size() - 1
    for kind, options in kinds:
        steps = 0 if kind is torch.optim.LBFGS else 2
        _, optimizer = _trained(kind, f.hvd.rank(), steps, **options)
        _, expected = _trained(kind, root, steps, **options)
        f.hvd.broadcast_optimizer_state(optimizer, root_rank=root)
        _assert_same_state(optimizer.state_dict(), expected.state_dict())


@CASES.add()
def broadcast_optimizer_state_restores_a_checkpoint_that_rank_0_read(f: TorchFramework) -> None:
    """API, broadcast_optimizer_state: training restored from a checkpoint, of which the others have no state yet."""
    steps = 2 if f.hvd.rank() == 0 else 0
    _, optimizer = _trained(torch.optim.Adam, f.hvd.rank(), steps)
    _, expected = _trained(torch.optim.Adam, 0)
    f.hvd.broadcast_optimizer_state(optimizer, root_rank=0)
    _assert_same_state(optimizer.state_dict(), expected.state_dict())


@CASES.add(averages=True)
def broadcast_optimizer_state_of_a_distributed_optimizer(f: TorchFramework) -> None:
    """Horovod with PyTorch, step 5: broadcast_optimizer_state(optimizer) after wrapping it; it goes on training."""
    model = _model(f.hvd.rank())
    plain = torch.optim.SGD(model.parameters(), lr=0.1 * (f.hvd.rank() + 1), momentum=0.5)
    optimizer = f.hvd.DistributedOptimizer(plain, named_parameters=model.named_parameters())
    f.hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    f.hvd.broadcast_optimizer_state(optimizer, root_rank=0)
    assert optimizer.param_groups[0]["lr"] == 0.1
    for step in range(2):
        optimizer.zero_grad()
        inputs = normal(5, 3, source=10 * f.hvd.rank() + step)
        model(inputs).pow(2).sum().backward()
        optimizer.step()
    mine = torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])
    close(f.numpy(mine), f.numpy(f.hvd.broadcast(mine, 0)))


def _assert_same_state(one: Any, other: Any) -> None:
    """State dictionaries: tensors alike, and everything else equal."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            _assert_same_state(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            _assert_same_state(mine, theirs)
    elif isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    else:
        assert one == other, f"{one} is not {other}"
