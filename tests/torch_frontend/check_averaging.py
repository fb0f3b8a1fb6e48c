"""Checks of DistributedOptimizer with algorithm allreduce; run by test_averaging.py.

The oracle: one process that sees all ranks' batches at once, with the plain optimizer.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import hvd_gossip.torch as hvd
import pytest
import torch
from torch import nn

from tests.torch_device import normal
from tests.torch_frontend.models import FEATURES, flat, loss_of, make_batch, make_model
from tests.torch_frontend.ranks import run_checks

Make = Callable[[Iterable[torch.Tensor]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05),
    "adamw foreach": lambda p: torch.optim.AdamW(p, lr=0.05, foreach=True),
    "adamw fused": lambda p: torch.optim.AdamW(p, lr=0.05, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
}
STEPS = 4


def batch_of(rank: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    return make_batch(seed=100 * step + rank)


def reference(make: Make, op: int = hvd.Average, steps: int = STEPS, passes: int = 1) -> torch.Tensor:
    """The parameters after training on everybody's batches: the mean (or sum) of all ranks' losses."""
    model = make_model()
    optimizer = make(model.parameters())
    for step in range(steps):
        optimizer.zero_grad()
        for rank in range(hvd.size()):
            for part in range(passes):
                loss = loss_of(model, batch_of(rank, step * passes + part))
                (loss / hvd.size() if op == hvd.Average else loss).backward()
        optimizer.step()
    return flat(model)


def train(model: nn.Module, optimizer: Any, steps: int = STEPS, passes: int = 1) -> torch.Tensor:
    """The parameters after training on this rank's batches only."""
    for step in range(steps):
        optimizer.zero_grad()
        for part in range(passes):
            loss_of(model, batch_of(hvd.rank(), step * passes + part)).backward()
        optimizer.step()
    return flat(model)


def distributed(model: nn.Module, make: Make = OPTIMIZERS["sgd"], **options: Any) -> Any:
    return hvd.DistributedOptimizer(make(model.parameters()), named_parameters=model.named_parameters(), **options)


def close(one: torch.Tensor, other: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def check_every_optimizer_trains_as_on_the_joint_batch() -> None:
    for name, make in OPTIMIZERS.items():
        model = make_model()
        result = train(model, distributed(model, make))
        close(result, reference(make))
        everybody = hvd.allgather(result.unsqueeze(0))
        assert all(torch.equal(everybody[0], other) for other in everybody), name


def check_other_reductions() -> None:
    model = make_model()
    close(train(model, distributed(model, op=hvd.Sum)), reference(OPTIMIZERS["sgd"], op=hvd.Sum))
    model = make_model()
    close(train(model, distributed(model, gradient_predivide_factor=3.0)), reference(OPTIMIZERS["sgd"]))


def check_names_are_optional() -> None:
    model = make_model()
    result = train(model, hvd.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1)))
    close(result, reference(OPTIMIZERS["sgd"]))


def check_compressed_gradients() -> None:
    for compression in (hvd.Compression.fp16, hvd.Compression.bf16):
        model = make_model()
        close(train(model, distributed(model, compression=compression)), reference(OPTIMIZERS["sgd"]), tolerance=5e-3)
        assert all(p.grad.dtype == torch.float32 for p in model.parameters())  # type: ignore[union-attr]


def check_groups_of_gradients() -> None:
    for groups in (1, 2, 3, 9):
        model = make_model()
        close(train(model, distributed(model, groups=groups)), reference(OPTIMIZERS["sgd"]))
    model = make_model()
    parameters = list(model.parameters())
    close(train(model, distributed(model, groups=[parameters[2:], parameters[:1]])), reference(OPTIMIZERS["sgd"]))


def check_backward_passes_add_up() -> None:
    model = make_model()
    optimizer = distributed(model, backward_passes_per_step=2)
    assert optimizer.backward_passes_per_step == 2
    close(train(model, optimizer, passes=2), reference(OPTIMIZERS["sgd"], passes=2))
    optimizer.set_backward_passes_per_step(3)
    optimizer.zero_grad()
    for part in range(3):
        loss_of(model, batch_of(hvd.rank(), part)).backward()
    optimizer.step()
    optimizer.zero_grad()
    loss_of(model, batch_of(hvd.rank(), 0)).backward()  # the remainder of an epoch
    optimizer.step()


def check_one_backward_pass_too_many() -> None:
    model = make_model()
    optimizer = distributed(model)
    loss_of(model, batch_of(0, 0)).backward()
    if hvd.size() == 1:
        return
    with pytest.raises(AssertionError, match=r"more than backward_passes_per_step times .*parameter \d\.(weight|bias)"):
        loss_of(model, batch_of(0, 0)).backward()
    with pytest.warns(RuntimeWarning, match="changed while"):  # the second pass has begun to add its gradients
        optimizer.step()


def check_zero_grad_between_backward_and_step() -> None:
    model = make_model()
    optimizer = distributed(model)
    loss_of(model, batch_of(0, 0)).backward()
    if hvd.size() > 1:
        with pytest.raises(AssertionError, match="race condition"):
            optimizer.zero_grad()
    optimizer.synchronize()
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    loss_of(model, batch_of(0, 0)).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    assert all((p.grad == 0).all() for p in model.parameters())


def check_gradients_cleared_behind_the_optimizers_back() -> None:
    model = make_model()
    optimizer = distributed(model)
    loss_of(model, batch_of(0, 0)).backward()
    model.zero_grad()
    if hvd.size() == 1:
        return
    with pytest.raises(AssertionError, match="cleared or replaced"):
        optimizer.step()
    loss_of(model, batch_of(0, 0)).backward()
    optimizer.step()


def check_gradients_changed_too_early_are_warned_of() -> None:
    model = make_model()
    optimizer = distributed(model)
    loss_of(model, batch_of(0, 0)).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    if hvd.size() == 1:
        return
    with pytest.warns(RuntimeWarning, match=r"changed while they were being averaged: 0\.weight.*synchronize\(\)"):
        optimizer.step()


def check_step_after_synchronize_without_skip_warns() -> None:
    model = make_model()
    optimizer = distributed(model)
    loss_of(model, batch_of(0, 0)).backward()
    optimizer.synchronize()
    with pytest.warns(UserWarning, match="without optimizer.skip_synchronize"):
        optimizer.step()
    optimizer.zero_grad()
    loss_of(model, batch_of(0, 0)).backward()
    optimizer.step()  # and once only


class Branches(nn.Module):
    """A layer for each rank, a frozen one, and one that nobody uses."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(make_model(seed)[0] for seed in range(hvd.size()))
        self.frozen = make_model(50)[0].requires_grad_(False)
        self.unused = make_model(60)[0]

    def forward(self, inputs: torch.Tensor, rank: int) -> torch.Tensor:
        return self.layers[rank](inputs) + self.frozen(inputs)  # type: ignore[no-any-return]


def check_unused_and_frozen_parameters() -> None:
    model, plain = Branches(), Branches()
    frozen, unused = flat(model.frozen), flat(model.unused)
    optimizer = distributed(model)
    other = torch.optim.SGD(plain.parameters(), lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        model(batch_of(0, step)[0], hvd.rank()).square().mean().backward()
        optimizer.step()
        other.zero_grad()
        for rank in range(hvd.size()):
            (plain(batch_of(0, step)[0], rank).square().mean() / hvd.size()).backward()
        other.step()
    close(flat(model), flat(plain))
    assert torch.equal(flat(model.frozen), frozen)
    assert torch.equal(flat(model.unused), unused)
    assert model.frozen.weight.grad is None


def check_parameters_that_thaw_and_groups_added_later() -> None:
    def run(model: nn.Sequential, optimizer: Any, ranks: Iterable[int]) -> torch.Tensor:
        for step in range(6):
            if step == 2:
                model[0].weight.requires_grad_(True)
            if step == 4:
                optimizer.add_param_group({"params": model[2].parameters(), "lr": 0.05})
            optimizer.zero_grad()
            model.zero_grad()  # of those that are in no group yet
            for rank in ranks:
                (loss_of(model, batch_of(rank, step)) / len(list(ranks))).backward()
            optimizer.step()
        return flat(model)

    model, plain = make_model(), make_model()
    for each in (model, plain):
        each[0].weight.requires_grad_(False)
    optimizer = hvd.DistributedOptimizer(torch.optim.SGD(model[0].parameters(), lr=0.1))
    result = run(model, optimizer, [hvd.rank()])
    close(result, run(plain, torch.optim.SGD(plain[0].parameters(), lr=0.1), range(hvd.size())))


def check_sparse_gradients() -> None:
    def run(as_dense: bool, sparse: bool = True) -> torch.Tensor:
        model = nn.Embedding(7, 3, sparse=sparse)
        with torch.no_grad():
            model.weight.copy_(torch.arange(21.0).reshape(7, 3))
        optimizer = distributed(model, sparse_as_dense=as_dense)
        for step in range(2):
            optimizer.zero_grad()
            rows = torch.tensor([hvd.rank(), hvd.rank(), (hvd.rank() + step) % 7])
            model(rows).square().mean().backward()
            optimizer.step()
            assert model.weight.grad is not None
            assert model.weight.grad.is_sparse is sparse
        return flat(model)

    expected = run(as_dense=False, sparse=False)
    close(run(as_dense=False), expected)
    close(run(as_dense=True), expected)


def check_channels_last_gradients() -> None:
    def make() -> nn.Conv2d:
        torch.manual_seed(3)
        return nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def images(rank: int) -> torch.Tensor:
        return normal(2, 3, 5, 5, source=rank)

    model, plain = make(), make()
    optimizer = distributed(model)
    model(images(hvd.rank())).square().mean().backward()
    optimizer.step()
    other = torch.optim.SGD(plain.parameters(), lr=0.1)
    for rank in range(hvd.size()):
        (plain(images(rank)).square().mean() / hvd.size()).backward()
    other.step()
    close(flat(model), flat(plain))
    model.weight.grad = model.weight.grad.contiguous()  # type: ignore[union-attr]  # another layout than the others'
    optimizer.zero_grad()
    model(images(hvd.rank())).square().mean().backward()
    optimizer.step()


def check_half_precision_models() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        model = make_model().to(dtype)
        optimizer = distributed(model)
        inputs, labels = batch_of(hvd.rank(), 0)
        nn.functional.cross_entropy(model(inputs.to(dtype)), labels).backward()
        optimizer.step()
        everybody = hvd.allgather(flat(model).unsqueeze(0))
        assert all(torch.equal(everybody[0], other) for other in everybody)
        close(flat(model), reference(OPTIMIZERS["sgd"], steps=1), tolerance=2e-2)


def check_hooks_go_with_the_optimizer() -> None:
    model = make_model()
    optimizer = distributed(model)
    del optimizer
    with warnings.catch_warnings():
        loss_of(model, batch_of(0, 0)).backward()
        loss_of(model, batch_of(0, 0)).backward()
    close(train(model := make_model(), distributed(model)), reference(OPTIMIZERS["sgd"]))


def check_settings_of_gossip_are_refused() -> None:
    model = make_model()
    with pytest.raises(ValueError, match="mixing_period=2 has no meaning with algorithm 'allreduce'"):
        distributed(model, mixing_period=2)
    with pytest.raises(ValueError, match="unknown setting 'mixing_priod'"):
        distributed(model, mixing_priod=2)
    with pytest.raises(ValueError, match=r"adpsgd, .*allreduce"):
        distributed(model, algorithm="gossip")
    optimizer = distributed(model)
    with pytest.raises(ValueError, match="distributed already"):
        hvd.DistributedOptimizer(optimizer)
    assert model[0].in_features == FEATURES


if __name__ == "__main__":
    run_checks(globals())
