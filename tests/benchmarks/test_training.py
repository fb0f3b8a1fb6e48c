"""The emulated training: a real model and optimizer, compute that is slept and can be cut short."""

from __future__ import annotations

import itertools
import time

import pytest
import torch
from torch.utils.data import DataLoader

from benchmarks.ranks.training import (
    EpochOver,
    SleptCompute,
    make_data,
    make_model,
    make_optimizer,
    parameter_bytes,
    train,
)


@pytest.mark.parametrize("megabytes", [0.1, 1.08, 8.0, 64.0])
def test_models_have_the_size_that_was_asked_for(megabytes: float) -> None:
    model = make_model(megabytes)
    assert parameter_bytes(model) == pytest.approx(megabytes * 1e6, rel=0.01)
    assert model(torch.zeros(3, 64)).shape == (3, 10)


def test_every_step_changes_every_parameter() -> None:
    model = make_model(0.1)
    before = [parameter.clone() for parameter in model.parameters()]
    compute = SleptCompute(1e-4, batch=4)
    ends = list(train(model, make_optimizer(model), DataLoader(make_data(10), 4), compute))
    assert len(ends) == 3
    assert ends == sorted(ends)
    assert compute.samples == 10
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_data_are_the_same_everywhere() -> None:
    assert all(torch.equal(one, two) for one, two in zip(make_data(5).tensors, make_data(5).tensors, strict=True))
    assert make_data(5).tensors[0].unique(dim=0).shape == (5, 64)


def test_compute_is_slept_in_proportion_to_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    compute = SleptCompute(0.05, batch=8, slowdown=2.0)
    compute(8)
    compute(2)
    assert slept == pytest.approx([0.1, 0.025])


def test_a_straggler_sleeps_in_slices_and_stops_when_the_epoch_is_over() -> None:
    looks = itertools.count(1)
    compute = SleptCompute(3600.0, batch=1, slowdown=10_000.0, is_over=lambda: next(looks) == 3)
    with pytest.raises(EpochOver):
        compute(1)
    assert next(looks) == 4
    assert compute.samples == 1, "the batch that was given up counts as its own"


def test_a_straggler_that_is_not_interrupted_computes_to_the_end() -> None:
    looks = itertools.count()
    compute = SleptCompute(1e-3, batch=1, slowdown=400.0, is_over=lambda: next(looks) < 0)
    start = time.perf_counter()
    compute(1)
    assert time.perf_counter() - start >= 0.4
    assert next(looks) >= 2
