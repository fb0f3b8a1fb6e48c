"""Horovod, API, horovod.torch.DistributedOptimizer: arguments that are refused, and Adasum's optimizer."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from tests.conformance.case import Cases, close, raises
from tests.conformance.cases_adasum import adasum
from tests.conformance.torch_framework import TorchFramework
from tests.conformance.torch_training import RATE, alone, assert_alike, batch, loss_of, make_model, wrap

CASES = Cases()


def _distributed(f: TorchFramework, named: Any) -> Any:
    return f.hvd.DistributedOptimizer(torch.optim.SGD(make_model().parameters(), lr=RATE), named_parameters=named)


@CASES.add()
def names_must_be_pairs(f: TorchFramework) -> None:
    """API, named_parameters: a mapping between parameter names and values: a sequence of tuples."""
    with raises(ValueError, about=["named_parameters"]):
        _distributed(f, make_model().parameters())


@CASES.add()
def names_must_differ(f: TorchFramework) -> None:
    """API, named_parameters: used for naming of allreduce operations, so each may be there once."""
    model = make_model()
    plain = torch.optim.SGD(model.parameters(), lr=RATE)
    with raises(ValueError, about=["same"]):
        f.hvd.DistributedOptimizer(plain, named_parameters=[("same", p) for p in model.parameters()])


@CASES.add()
def all_parameters_must_be_named(f: TorchFramework) -> None:
    """API, named_parameters: typically model.named_parameters(); of the whole model."""
    model = make_model()
    plain = torch.optim.SGD(model.parameters(), lr=RATE)
    with raises(ValueError, about=["named_parameters"]):
        f.hvd.DistributedOptimizer(plain, named_parameters=list(model.named_parameters())[1:])


@CASES.add()
def names_of_other_parameters_do_no_harm(f: TorchFramework) -> None:
    """API, named_parameters: typically model.named_parameters(), also where the optimizer has some of them only."""
    model = make_model()
    plain = torch.optim.SGD(model[2].parameters(), lr=RATE)
    optimizer = f.hvd.DistributedOptimizer(plain, named_parameters=model.named_parameters())
    loss_of(model, batch(f.hvd.rank())).backward()
    optimizer.step()
    assert_alike(model[0], make_model()[0], 0.0)
    assert not torch.equal(model[2].weight, make_model()[2].weight)


@CASES.add(averages=True)
def predividing_is_for_averages_only(f: TorchFramework) -> None:
    """API, gradient_predivide_factor: if op == Average."""
    with raises(ValueError, about=["gradient_predivide_factor"]):
        wrap(f, make_model(), op=f.hvd.Sum, gradient_predivide_factor=2.0)


@CASES.add()
def backward_passes_must_be_positive(f: TorchFramework) -> None:
    """API, backward_passes_per_step: number of expected backward passes."""
    for passes in (0, -1):
        with raises(ValueError, about=["backward_passes_per_step"]):
            wrap(f, make_model(), backward_passes_per_step=passes)


@CASES.add()
def groups_must_be_a_number_or_lists_of_parameters(f: TorchFramework) -> None:
    """API, groups: a non-negative integer or a list of list of torch.Tensor."""
    for groups in (-1, "two", [torch.ones(1)], [["weight"]]):
        with raises(ValueError, about=["groups"]):
            wrap(f, make_model(), groups=groups)


@CASES.add(averages=True)
def num_groups_is_deprecated(f: TorchFramework) -> None:
    """API, num_groups: number of groups; replaced by groups, and warns."""
    model = make_model()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer = wrap(f, model, num_groups=2)
    assert any("groups" in str(warning.message) for warning in caught)
    loss_of(model, batch(f.hvd.rank())).backward()
    optimizer.step()
    assert_alike(model, alone(f, 1))


def _deltas(f: TorchFramework, rank: int, passes: int = 1) -> list[np.ndarray[Any, Any]]:
    """What a rank's own step would add to each parameter."""
    model = make_model()
    for i in range(passes):
        loss_of(model, batch(rank, i)).backward()
    return [f.numpy((-RATE * parameter.grad).double()) for parameter in model.parameters()]


@CASES.add(powers_of_two=True, averages=True)
def adasum_reduces_what_each_ranks_own_step_would_change(f: TorchFramework) -> None:
    """AdaSum, the distributed optimizer: the difference in the weights before and after the update is reduced."""
    for passes in (1, 2):
        model = make_model()
        optimizer = wrap(f, model, op=f.hvd.Adasum, backward_passes_per_step=passes)
        for i in range(passes):
            loss_of(model, batch(f.hvd.rank(), i)).backward()
        optimizer.step()
        everybody = [_deltas(f, rank, passes) for rank in range(f.hvd.size())]
        for i, (parameter, before) in enumerate(zip(model.parameters(), make_model().parameters(), strict=True)):
            total = adasum([mine[i] for mine in everybody])
            close(f.numpy(parameter), f.numpy(before.double()) + total, 1e-4)


@CASES.add(ranks=2, powers_of_two=True, averages=True)
def adasum_cannot_skip_synchronization(f: TorchFramework) -> None:
    """Horovod: skipping synchronization is not supported when using the Adasum optimizer."""
    optimizer = wrap(f, make_model(), op=f.hvd.Adasum)
    with raises(AssertionError), optimizer.skip_synchronize():
        pass


@CASES.add(powers_of_two=False, averages=True)
def adasums_optimizer_needs_a_power_of_two(f: TorchFramework) -> None:
    """AdaSum: needs the number of nodes to be a power of 2."""
    model = make_model()
    with raises(NotImplementedError):
        optimizer = wrap(f, model, op=f.hvd.Adasum)
        loss_of(model, batch(f.hvd.rank())).backward()
        optimizer.step()
