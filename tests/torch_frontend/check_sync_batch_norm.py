"""Checks of SyncBatchNorm against torch's BatchNorm over the concatenated batch; run by test_sync_batch_norm.py."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import hvd_gossip.torch as hvd
import pytest
import torch
from torch import nn

from hvd_gossip import runtime
from tests.torch_device import normal
from tests.torch_frontend.ranks import run_checks

Tensor = torch.Tensor
PLAIN: dict[int, type[nn.Module]] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
FEATURES = 3
SHAPES: list[tuple[int, ...]] = [(), (5,), (2, 3), (2, 1, 2)]
"""What follows (N, C)."""


def rows_of(rank: int) -> int:
    """Uneven batches."""
    return 2 + 3 * rank


def batch(rank: int, shape: Sequence[int], seed: int = 0, offset: float = 0.0, rows: int | None = None) -> Tensor:
    """A rank's batch, which every rank can make; float64."""
    generator = torch.Generator().manual_seed(1000 * seed + rank)
    size = (rows_of(rank) if rows is None else rows, FEATURES, *shape)
    return normal(*size, source=generator, dtype=torch.float64) * (1 + rank) + rank + offset


def parameters(norm: nn.Module, seed: int = 0) -> nn.Module:
    """Gives weight and bias other values than 1 and 0."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in norm.parameters():
        parameter.data.copy_(normal(*parameter.shape, source=generator, dtype=torch.float64))
    return norm


class Reference:
    """BatchNorm in float64 over all ranks' batches; the loss is the sum of outputs times random factors."""

    def __init__(self, norm: nn.Module, batches: list[Tensor]) -> None:
        self.norm = norm
        whole = torch.cat(batches).detach().requires_grad_()
        self.output = norm(whole)
        (self.output * factors(self.output)).sum().backward()
        lengths = [len(one) for one in batches]
        self.outputs = self.output.detach().split(lengths)
        self.gradients = whole.grad.split(lengths)
        self.factors = factors(self.output).split(lengths)


def factors(output: Tensor) -> Tensor:
    return normal(*output.shape, source=7, dtype=torch.float64)


def compare(shape: Sequence[int], dtype: torch.dtype, tolerance: float, offset: float = 0.0, **options: Any) -> None:
    """Three steps of SyncBatchNorm on this rank's batches, each compared with the reference."""
    ours = parameters(hvd.SyncBatchNorm(FEATURES, dtype=dtype, **options))
    plain = parameters(PLAIN[2 + len(shape)](FEATURES, dtype=torch.float64, **options))
    plain.load_state_dict(ours.state_dict())
    rank = hvd.rank()
    for step in range(3):
        batches = [batch(r, shape, step, offset).to(dtype) for r in range(hvd.size())]
        ours.zero_grad()
        plain.zero_grad()
        reference = Reference(plain, [one.to(torch.float64) for one in batches])
        x = batches[rank].requires_grad_()
        y = ours(x)
        (y * reference.factors[rank].to(dtype)).sum().backward()
        assert y.dtype == x.grad.dtype == dtype
        close(y, reference.outputs[rank], tolerance)
        close(x.grad, reference.gradients[rank], tolerance)
        for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
            total = hvd.allreduce(mine.grad.to(torch.float64), op=hvd.Sum)
            close(total, theirs.grad, 10 * tolerance)
        for ours_kept, theirs_kept in zip(ours.buffers(), plain.buffers(), strict=True):
            close(ours_kept, theirs_kept, tolerance)


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual.to(torch.float64), expected.to(torch.float64), rtol=tolerance, atol=tolerance)


@contextmanager
def counted_requests() -> Iterator[list[str]]:
    """The kinds of the requests that this rank submits inside."""
    now, kinds = runtime.current(), []
    submit = now.submit

    def count(request: Any) -> Any:
        kinds.append(request.kind)
        return submit(request)

    now.submit = count  # type: ignore[method-assign]
    try:
        yield kinds
    finally:
        del now.submit  # type: ignore[method-assign]


def check_horovod_1384_equal_to_batch_norm_over_the_concatenated_batch() -> None:
    """horovod#1384, #1077: PyTorch's own SyncBatchNorm works under DistributedDataParallel only."""
    for shape in SHAPES:
        compare(shape, torch.float64, 1e-11)
        compare(shape, torch.float32, 2e-5)


def check_horovod_1923_every_option_of_batch_norm() -> None:
    for options in (
        {"affine": False},
        {"momentum": None},
        {"momentum": 0.5, "eps": 0.1},
        {"track_running_stats": False},
        {"affine": False, "track_running_stats": False, "momentum": None},
    ):
        compare((4,), torch.float64, 1e-11, **options)


def check_half_types() -> None:
    compare((3, 3), torch.float16, 5e-2)
    compare((3, 3), torch.bfloat16, 3e-1)


def check_float32_parameters_for_half_inputs() -> None:
    """Mixed precision, as BatchNorm allows it."""
    for half in (torch.float16, torch.bfloat16):
        norm = hvd.SyncBatchNorm(FEATURES)
        x = batch(hvd.rank(), (4,)).to(half).requires_grad_()
        y = norm(x)
        y.sum().backward()
        assert y.dtype == x.grad.dtype == half
        assert norm.weight.grad.dtype == norm.running_mean.dtype == torch.float32
        assert norm.eval()(x).dtype == half


def check_the_variance_is_stable_far_from_zero() -> None:
    """E[x^2] - E[x]^2 would have lost all digits of it in float32."""
    for shape, dims in (((), 0), ((8,), (0, 2)), ((3, 3), (0, 2, 3))):
        batches = [batch(rank, shape, offset=3e4).to(torch.float32) for rank in range(hvd.size())]
        norm = hvd.SyncBatchNorm(FEATURES, momentum=1.0)
        norm(batches[hvd.rank()])
        expected = torch.cat(batches).to(torch.float64).var(dims, correction=1)
        torch.testing.assert_close(norm.running_var.to(torch.float64), expected, rtol=1e-3, atol=0)


def check_a_rank_without_rows() -> None:
    """The last rank has no data; the others' results are as if it were not there."""
    last = hvd.size() - 1
    if last == 0:
        return
    batches = [batch(r, (2,), rows=0 if r == last else 3) for r in range(hvd.size())]
    reference = Reference(nn.BatchNorm1d(FEATURES, dtype=torch.float64), batches)
    norm = hvd.SyncBatchNorm(FEATURES, dtype=torch.float64)
    x = batches[hvd.rank()].requires_grad_()
    y = norm(x)
    (y * reference.factors[hvd.rank()]).sum().backward()
    close(y, reference.outputs[hvd.rank()], 1e-11)
    close(x.grad, reference.gradients[hvd.rank()], 1e-11)
    close(norm.running_var, reference.norm.running_var, 1e-11)


def check_one_value_per_channel_raises_everywhere_and_the_next_batch_works() -> None:
    norm = hvd.SyncBatchNorm(FEATURES)
    rows = 1 if hvd.rank() == 0 else 0
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        norm(torch.ones(rows, FEATURES))
    if hvd.size() > 1:
        y = norm(torch.full((1, FEATURES), float(hvd.rank())))
        assert torch.isfinite(y).all()
        assert norm.num_batches_tracked == 1


def check_input_that_is_none() -> None:
    norm = hvd.SyncBatchNorm(FEATURES)
    with pytest.raises(ValueError, match=r"expected at least 2D input \(got 1D input\)"):
        norm(torch.ones(FEATURES))
    with pytest.raises(ValueError, match="expected floating input"):
        norm(torch.ones(4, FEATURES, dtype=torch.int64))
    with pytest.raises(ValueError, match="3 channels"):
        norm(torch.ones(4, 2))


def check_horovod_2241_evaluation_on_some_ranks_stalls_nobody() -> None:
    for options in ({}, {"track_running_stats": False}):
        norm = hvd.SyncBatchNorm(FEATURES, dtype=torch.float64, **options)
        norm(batch(hvd.rank(), (2,)))
        if hvd.rank() == 0:
            norm.eval()
            plain = copy.deepcopy(norm)
            x = batch(9, (2,))
            with counted_requests() as kinds:
                y = norm(x)
            assert not kinds
            expected = nn.functional.batch_norm(
                x,
                plain.running_mean,
                plain.running_var,
                plain.weight,
                plain.bias,
                training=not norm.track_running_stats,
            )
            torch.testing.assert_close(y, expected)
            norm.train()
        hvd.barrier()
        norm(batch(hvd.rank(), (2,), seed=1))


def check_horovod_2241_uneven_numbers_of_evaluations_keep_ranks_in_step() -> None:
    """Names do not count calls: a rank that has evaluated more often than the others still meets them."""
    norm = hvd.SyncBatchNorm(FEATURES)
    for step in range(3):
        norm.eval()
        for _ in range(hvd.rank()):
            norm(torch.ones(2, FEATURES))
        norm.train()
        norm(batch(hvd.rank(), (), step).to(torch.float32)).sum().backward()


def check_horovod_2241_ranks_that_have_joined_are_an_error_and_no_stall() -> None:
    if hvd.size() == 1:
        return
    norm = hvd.SyncBatchNorm(FEATURES)
    if hvd.rank() > 0:
        with pytest.raises(hvd.HorovodInternalError, match="not supported with Join"):
            norm(torch.randn(4, FEATURES))
    hvd.join()
    assert torch.isfinite(norm(torch.randn(4, FEATURES))).all()


def check_horovod_2450_one_small_message_each_way() -> None:
    norm = hvd.SyncBatchNorm(FEATURES)
    x = batch(hvd.rank(), (7, 7)).to(torch.float32).requires_grad_()
    with counted_requests() as kinds:
        y = norm(x)
        assert kinds == (["allgather"] if hvd.size() > 1 else [])
        y.sum().backward()
    assert kinds == (["allgather", "allreduce"] if hvd.size() > 1 else [])


def check_nothing_is_sent_back_for_an_input_without_gradient() -> None:
    norm = hvd.SyncBatchNorm(FEATURES)
    y = norm(batch(hvd.rank(), ()).to(torch.float32))
    with counted_requests() as kinds:
        y.sum().backward()
    assert not kinds
    assert norm.weight.grad is not None


def make_net(norm: type[nn.Module]) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(2, FEATURES, 3), norm(FEATURES), nn.ReLU(), nn.Conv2d(FEATURES, FEATURES, 1), norm(FEATURES),
        nn.Flatten(), nn.Linear(FEATURES * 4, 1),
    ).to(torch.float64)  # fmt: skip


def check_training_is_that_of_one_worker_with_the_whole_batch() -> None:
    """Weights, biases and running statistics after three steps of DistributedOptimizer, batches of equal size."""
    ours, whole = make_net(hvd.SyncBatchNorm), make_net(nn.BatchNorm2d)
    plain = torch.optim.SGD(ours.parameters(), lr=0.1, momentum=0.9)
    optimizer = hvd.DistributedOptimizer(plain, ours.named_parameters(), algorithm="allreduce")
    single = torch.optim.SGD(whole.parameters(), lr=0.1, momentum=0.9)
    for step in range(3):
        data = normal(4 * hvd.size(), 2, 4, 4, source=step).to(torch.float64)
        for net, method, x in ((whole, single, data), (ours, optimizer, data.split(4)[hvd.rank()])):
            method.zero_grad()
            net(x).square().mean().backward()
            method.step()
    for (name, mine), theirs in zip(ours.state_dict().items(), whole.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9, msg=name)


def check_one_layer_used_twice_and_checkpointed() -> None:
    from torch.utils.checkpoint import checkpoint

    results = []
    for checkpointed in (False, True):
        norm = hvd.SyncBatchNorm(FEATURES, track_running_stats=False, dtype=torch.float64)
        x = batch(hvd.rank(), ()).requires_grad_()
        y = checkpoint(norm, x, use_reentrant=False) if checkpointed else norm(x)
        norm(y * y).square().sum().backward()
        results.append(x.grad)
    torch.testing.assert_close(*results)


def check_channels_last_and_strided_inputs() -> None:
    norm = hvd.SyncBatchNorm(FEATURES, track_running_stats=False, dtype=torch.float64)
    x = batch(hvd.rank(), (4, 6))
    expected = norm(x)
    torch.testing.assert_close(norm(x.to(memory_format=torch.channels_last)), expected)
    wide = torch.stack([x, x], dim=-1)
    torch.testing.assert_close(norm(wide[..., 0]), expected)


def check_state_is_exchanged_with_batch_norm_and_copied() -> None:
    norm = parameters(hvd.SyncBatchNorm(FEATURES))
    norm(batch(hvd.rank(), (2, 2)).to(torch.float32))
    plain = nn.BatchNorm2d(FEATURES)
    plain.load_state_dict(norm.state_dict())
    x = torch.randn(2, FEATURES, 2, 2)
    for copied in (copy.deepcopy(norm), pickle.loads(pickle.dumps(norm))):
        torch.testing.assert_close(copied.eval()(x), plain.eval()(x))
        copied.train()(x)


def check_a_process_set_normalizes_its_own_batches() -> None:
    if hvd.size() < 3:
        return
    first = hvd.add_process_set([0, 2])
    if first.included():
        members = [0, 2]
        reference = Reference(nn.BatchNorm1d(FEATURES, dtype=torch.float64), [batch(r, (2,)) for r in members])
        norm = hvd.SyncBatchNorm(FEATURES, dtype=torch.float64, process_set=first)
        place = members.index(hvd.rank())
        x = batch(hvd.rank(), (2,)).requires_grad_()
        y = norm(x)
        (y * reference.factors[place]).sum().backward()
        close(y, reference.outputs[place], 1e-11)
        close(x.grad, reference.gradients[place], 1e-11)
    hvd.remove_process_set(first)


if __name__ == "__main__":
    os.environ["HOROVOD_DYNAMIC_PROCESS_SETS"] = "1"
    run_checks(globals())
