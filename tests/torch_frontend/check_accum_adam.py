"""Checks of AccumAdam inside DistributedOptimizer, under gossip and with outer steps; run by test_accum_adam.py."""

from __future__ import annotations

from typing import Any

import hvd_gossip.torch as hvd
import torch

from tests.torch_frontend.check_mixing import everybodys, train
from tests.torch_frontend.models import flat, loss_of, make_batch, make_model
from tests.torch_frontend.ranks import run_checks

DILOCO = {"algorithm": "local", "outer": "nesterov", "outer_every": 5, "outer_lr": 0.7, "outer_momentum": 0.9}


def check_alone_it_is_the_same_inside() -> None:
    if hvd.size() > 1:
        return
    for algorithm in ("allreduce", "dpsgd"):
        model, plain = make_model(), make_model()
        inner = hvd.AccumAdamW(model.parameters(), lr=0.01)
        train(model, hvd.DistributedOptimizer(inner, model.named_parameters(), algorithm=algorithm), 9)
        train(plain, hvd.AccumAdamW(plain.parameters(), lr=0.01), 9)
        assert torch.equal(flat(model), flat(plain)), algorithm


def check_it_learns_under_gossip_and_with_outer_steps() -> None:
    settings: list[dict[str, Any]] = [{"algorithm": "dpsgd"}, {"algorithm": "gradient-tracking"}, DILOCO]
    for options in settings:
        model = make_model()
        inner = hvd.AccumAdam(model.parameters(), lr=0.01, accum_iter=2)
        optimizer = hvd.DistributedOptimizer(inner, model.named_parameters(), **options)
        first = float(loss_of(model, make_batch(0)).detach())
        for _ in range(60):
            optimizer.zero_grad()
            loss = loss_of(model, make_batch(0))
            loss.backward()
            optimizer.step()
        assert float(loss.detach()) < 0.7 * first, options
        state = optimizer.state_dict()["state"][0]
        assert state["accum_grad"].shape == state["exp_avg"].shape


def check_outer_steps_bring_all_to_one_point() -> None:
    """Data differ, and after every fifth step everybody is at the same place, and not where plain averages would be."""
    for algorithm in ("local", "dpsgd", "adpsgd", "sgp"):
        model = make_model()
        inner = torch.optim.AdamW(model.parameters(), lr=0.01)
        options = {**DILOCO, "algorithm": algorithm}
        optimizer = hvd.DistributedOptimizer(inner, model.named_parameters(), **options)
        hvd.broadcast_parameters(model.state_dict(), root_rank=0)
        for period in range(3):
            train(model, optimizer, 5, seed=1000 * period)
            stacked = everybodys(flat(model))
            assert all(torch.equal(stacked[0], other) for other in stacked), (algorithm, period)
        state = optimizer.gossip_state_dict()
        assert max(abs(velocity).max() for velocity in state["velocity"]) > 0


def check_a_broadcast_restarts_the_outer_step() -> None:
    model = make_model(seed=hvd.rank())
    inner = torch.optim.SGD(model.parameters(), lr=0.0)
    optimizer = hvd.DistributedOptimizer(inner, model.named_parameters(), **DILOCO)
    train(model, optimizer, 7)
    hvd.broadcast_parameters(model.state_dict(), root_rank=hvd.size() - 1)
    expected = flat(model)
    train(model, optimizer, 12)
    torch.testing.assert_close(flat(model), expected, rtol=1e-5, atol=1e-6)


if __name__ == "__main__":
    run_checks(globals())
