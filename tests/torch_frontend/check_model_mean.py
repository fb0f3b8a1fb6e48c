"""Checks of consensus and consensus_distance; run by test_model_mean.py."""

from __future__ import annotations

import contextlib
import copy

import hvd_gossip.torch as hvd
import pytest
import torch
from torch import nn

from hvd_gossip.algorithms.registry import ALGORITHMS
from tests.ranks import UNDER_TEST
from tests.torch_frontend.check_mixing import close, distance_to_mean, everybodys, gossip
from tests.torch_frontend.models import flat, loss_of, make_batch, make_model
from tests.torch_frontend.ranks import run_checks


def check_consensus_restores_exactly() -> None:
    for algorithm in UNDER_TEST:
        model = nn.Sequential(make_model(), nn.BatchNorm1d(3))
        options = {"mixing_period": 2} if algorithm == "local" else {}  # the third step leaves the workers apart
        optimizer = gossip(model, algorithm, **options)
        for step in range(3):
            optimizer.zero_grad()
            loss_of(model, make_batch(seed=10 * step + hvd.rank())).backward()
            optimizer.step()
        own = copy.deepcopy(model.state_dict())
        expected = everybodys(model[1].running_mean.double()).mean(0)
        for error in (None, ZeroDivisionError):
            with pytest.raises(error) if error else contextlib.nullcontext(), hvd.consensus(model):
                close(model[1].running_mean.double(), expected)
                assert model[1].num_batches_tracked == 3
                averaged = everybodys(flat(model))
                assert all(torch.equal(averaged[0], other) for other in averaged)
                if algorithm == "allreduce":
                    assert all(torch.equal(p, own[name]) for name, p in model.named_parameters())
                elif hvd.size() > 1 and not ALGORITHMS[algorithm].central:  # the last to read that model has it already
                    assert not torch.equal(model[0][0].weight, own["0.0.weight"]), algorithm
                if error:
                    raise error
            assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items()), algorithm


def check_consensus_of_a_model_in_several_optimizers_or_none() -> None:
    model = nn.ModuleList(
        [make_model(seed=hvd.rank()), make_model(seed=10 + hvd.rank()), make_model(seed=20 + hvd.rank())]
    )
    first, second = gossip(model[0], "dpsgd"), gossip(model[1], "adpsgd")
    expected, distance = everybodys(flat(model)).mean(0), distance_to_mean(flat(model))
    own = flat(model)
    assert hvd.consensus_distance(model) == pytest.approx(distance, rel=1e-5, abs=1e-9)
    with hvd.consensus(model):
        close(flat(model), expected)
    assert torch.equal(flat(model), own)
    del first, second


def check_consensus_distance() -> None:
    for algorithm in UNDER_TEST:
        model = make_model(seed=hvd.rank() if algorithm != "allreduce" else 0)
        optimizer = gossip(model, algorithm)
        measured = hvd.consensus_distance(model)
        own = flat(model)
        stacked = everybodys(own)
        consensus = stacked[0] if ALGORITHMS[algorithm].central else stacked.mean(0)
        squared = (own - consensus).square().sum()
        expected = float(everybodys(squared.unsqueeze(0)).mean().sqrt())
        assert measured == pytest.approx(expected, rel=1e-5, abs=1e-9), algorithm
        del optimizer


def check_no_step_and_no_nesting_inside_consensus() -> None:
    model = make_model()
    optimizer = gossip(model)
    with hvd.consensus(model):
        with pytest.raises(RuntimeError, match=r"step\(\) inside consensus\(\)"):
            optimizer.step()
        with pytest.raises(RuntimeError, match=r"consensus_distance\(\) inside consensus\(\)"):
            hvd.consensus_distance(model)
        with pytest.raises(RuntimeError, match=r"consensus\(\) inside consensus\(\)"), hvd.consensus(model):
            pass
    optimizer.step()


if __name__ == "__main__":
    run_checks(globals())
