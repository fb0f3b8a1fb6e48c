"""Parameters as views of flat buffers."""

from __future__ import annotations

import copy

import pytest
import torch
from hvd_gossip.torch.flat import ALIGNMENT, FlatParameters
from torch import nn


def mixed_model() -> nn.ModuleDict:
    """Parameters of three types and of several strides."""
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "conv": nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last),  # type: ignore[call-overload]
            "low": nn.Linear(3, 2).to(torch.bfloat16),
            "high": nn.Linear(2, 3).double(),
            "norm": nn.LayerNorm(7),
        }
    )


def flatten(model: nn.Module) -> FlatParameters:
    return FlatParameters(list(model.named_parameters()))


def test_values_strides_and_identity_stay() -> None:
    model = mixed_model()
    before = copy.deepcopy(model)
    parameters = list(model.parameters())
    flat = flatten(model)
    assert all(p is q for p, q in zip(parameters, model.parameters(), strict=True))
    for (name, p), q in zip(model.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(p, q), name
        assert p.stride() == q.stride()
        assert p.requires_grad
        assert flat.holds(p)
        assert not flat.holds(q)
    assert model["conv"].weight.is_contiguous(memory_format=torch.channels_last)


def test_one_aligned_buffer_for_each_type() -> None:
    model = mixed_model()
    flat = flatten(model)
    assert [buffer.dtype for buffer in flat.buffers] == [torch.float32, torch.bfloat16, torch.float64]
    for parameter in model.parameters():
        buffer = next(b for b in flat.buffers if b.dtype == parameter.dtype)
        assert (parameter.data_ptr() - buffer.data_ptr()) % ALIGNMENT == 0
    elements = sum(p.numel() for p in model.parameters() if p.dtype == torch.float32)
    assert 0 <= flat.buffers[0].numel() - elements < 4 * ALIGNMENT
    total = sum(p.detach().double().sum() for p in model.parameters() if p.dtype == torch.float32)
    torch.testing.assert_close(flat.buffers[0].double().sum(), total)  # what lies between parameters is zero


def test_arrays_write_through_to_the_parameters() -> None:
    model = mixed_model()
    for array in flatten(model).arrays():
        assert array.ndim == 1
        array[:] = 3
    assert all((p == 3).all() for p in model.parameters())


def test_optimizers_update_the_buffers() -> None:
    model = nn.Linear(2, 1)
    flat = flatten(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = flat.buffers[0].clone()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, flat.buffers[0])
    assert flat.shares_memory(model.weight)
    assert flat.shares_memory(model.state_dict()["bias"])


def test_repointed_parameters_are_taken_back_with_their_new_values() -> None:
    model = mixed_model()
    flat = flatten(model)
    assert flat.adopt()
    new = torch.full_like(model["norm"].weight, 9.0)
    model["norm"].weight.data = new
    assert not flat.shares_memory(model["norm"].weight)
    assert flat.adopt()
    assert flat.shares_memory(model["norm"].weight)
    assert (model["norm"].weight == 9.0).all()
    assert (flat.buffers[0] == 9.0).sum() == 7


def test_swapped_parameters_are_taken_back() -> None:
    """`load_state_dict(assign=True)` and `Module.to` swap tensors when torch is told to."""
    model = nn.Linear(2, 2)
    flat = flatten(model)
    previous = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model.load_state_dict({name: torch.ones_like(p) for name, p in model.state_dict().items()}, assign=True)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(previous)
    assert flat.adopt()
    assert flat.shares_memory(model.weight)
    assert (model.weight == 1).all()
    assert torch.equal(flat.buffers[0][flat.buffers[0] != 0], torch.ones(6))


def test_another_type_does_not_fit_any_more() -> None:
    model = nn.Linear(2, 2)
    flat = flatten(model)
    model.double()
    assert not flat.adopt()
    assert model.weight.dtype == torch.float64


def test_strides_that_leave_holes_become_contiguous() -> None:
    parameter = nn.Parameter(torch.arange(12.0).reshape(3, 4)[:, ::2])
    FlatParameters([("sliced", parameter)])
    assert parameter.is_contiguous()
    assert parameter.tolist() == [[0.0, 2.0], [4.0, 6.0], [8.0, 10.0]]


def test_empty_parameters_are_left_alone() -> None:
    empty, full = nn.Parameter(torch.zeros(0, 3)), nn.Parameter(torch.ones(2))
    flat = FlatParameters([("empty", empty), ("full", full)])
    assert flat.holds(empty)
    assert flat.adopt()
    assert empty.shape == (0, 3)
    assert FlatParameters([]).buffers == []


def test_parameters_on_the_same_memory_are_refused() -> None:
    base = torch.zeros(10)
    one, other = nn.Parameter(base[:6]), nn.Parameter(base[4:])
    with pytest.raises(ValueError, match="parameters one and other share memory"):
        FlatParameters([("one", one), ("other", other)])
    FlatParameters([("one", nn.Parameter(base[:5])), ("other", nn.Parameter(base[5:]))])


def test_parameters_that_cannot_be_averaged_are_refused() -> None:
    lazy = nn.LazyLinear(2)
    with pytest.raises(ValueError, match=r"weight of a lazy module"):
        flatten(lazy)
    with pytest.raises(ValueError, match=r"parameter phase: .*complex64"):
        FlatParameters([("phase", nn.Parameter(torch.zeros(2, dtype=torch.complex64)))])
    with pytest.raises(ValueError, match=r"parameter counts of type torch.int64 cannot be averaged"):
        FlatParameters([("counts", nn.Parameter(torch.zeros(2, dtype=torch.int64), requires_grad=False))])


def test_copies_of_a_flattened_model_stand_alone() -> None:
    model = mixed_model()
    flat = flatten(model)
    clone = copy.deepcopy(model)
    assert not any(flat.shares_memory(p) for p in clone.parameters())
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), clone.parameters(), strict=True))
