"""Checks of DistributedOptimizer with gossip algorithms; run by test_mixing.py."""

from __future__ import annotations

import io
from typing import Any

import hvd_gossip.torch as hvd
import numpy as np
import pytest
import torch
from hvd_gossip.torch.mixing import mixing_strategies
from torch import nn

from hvd_gossip.algorithms.registry import ALGORITHMS
from tests.limits import limit_weights, mean_moves
from tests.ranks import UNDER_TEST
from tests.torch_device import DEVICE
from tests.torch_frontend.models import flat, loss_of, make_batch, make_model
from tests.torch_frontend.ranks import run_checks

GOSSIP = [name for name, algorithm in UNDER_TEST.items() if algorithm.averages == "parameters"]
SYNCHRONOUS = [name for name in GOSSIP if ALGORITHMS[name].synchronous]


def gossip(model: nn.Module, algorithm: str = "dpsgd", lr: float = 0.1, **options: Any) -> Any:
    plain = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return hvd.DistributedOptimizer(plain, named_parameters=model.named_parameters(), algorithm=algorithm, **options)


def train(model: nn.Module, optimizer: Any, steps: int, seed: int = 0) -> None:
    dtype = next(model.parameters()).dtype
    for step in range(steps):
        optimizer.zero_grad()
        inputs, labels = make_batch(seed=seed + 100 * step + hvd.rank())
        loss_of(model, (inputs.to(dtype), labels)).backward()
        optimizer.step()


def train_until_close(model: nn.Module, optimizer: Any, limit: float, rounds: int = 200) -> None:
    """Trains until the workers agree: asynchronous workers may take many steps before the first exchange is through."""
    for _ in range(rounds):
        train(model, optimizer, 10)
        if hvd.consensus_distance(model) <= limit:
            return
    raise AssertionError(f"the workers are {hvd.consensus_distance(model)} apart after {rounds} rounds, not {limit}")


def everybodys(vector: torch.Tensor) -> torch.Tensor:
    """All ranks' vectors, stacked."""
    return hvd.allgather(vector.unsqueeze(0))


def distance_to_mean(vector: torch.Tensor) -> float:
    stacked = everybodys(vector)
    return float((stacked - stacked.mean(0)).square().sum(1).mean().sqrt())


def limit_of(algorithm: str, vector: torch.Tensor) -> torch.Tensor:
    """What all ranks' vectors come to without updates."""
    weights = torch.tensor(limit_weights(algorithm, hvd.size()), dtype=vector.dtype)
    limit: torch.Tensor = torch.tensordot(weights, everybodys(vector), 1)
    return limit


def close(one: torch.Tensor, other: torch.Tensor, tolerance: float = 1e-5, algorithm: str = "") -> None:
    torch.testing.assert_close(
        one, other, rtol=tolerance, atol=tolerance, msg=lambda text: f"{algorithm}: {text}" if algorithm else text
    )


def check_the_wrapper_trains_like_the_plain_optimizer_when_alone() -> None:
    if hvd.size() > 1:
        return
    for algorithm in (name for name, kind in UNDER_TEST.items() if kind.is_wrapped_alone):
        model, plain = make_model(), make_model()
        train(model, gossip(model, algorithm), 5)
        train(plain, torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9), 5)
        assert torch.equal(flat(model), flat(plain)), algorithm


def check_without_updates_the_mean_stays_and_workers_agree() -> None:
    for algorithm in GOSSIP:
        model = make_model(seed=hvd.rank())
        before = flat(model)
        limit, spread = limit_of(algorithm, before), distance_to_mean(before)
        optimizer = gossip(model, algorithm, lr=0.0)
        train(model, optimizer, 100 if mean_moves(algorithm, hvd.size()) else 0)
        train_until_close(model, optimizer, 0.2 * spread)
        with hvd.consensus(model):
            close(flat(model), limit, algorithm=algorithm)


def check_mixing_on_the_complete_graph_is_averaging() -> None:
    """D-PSGD in the papers' order, complete graph, uniform weights: allreduce's iterates (DESIGN's equivalence)."""
    model, plain = make_model(), make_model()
    mixed = hvd.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.1),
        algorithm="dpsgd", topology="complete", mixing_weights="uniform", mixing_order="sequential",
    )  # fmt: skip
    train(model, mixed, 5)
    train(plain, hvd.DistributedOptimizer(torch.optim.SGD(plain.parameters(), lr=0.1)), 5)
    close(flat(model), flat(plain))


def check_broadcast_overwrites_what_is_mixed() -> None:
    for algorithm in GOSSIP:
        model = make_model(seed=hvd.rank())
        optimizer = gossip(model, algorithm)
        for _ in range(2):
            hvd.broadcast_parameters(model.state_dict(), root_rank=0)
            stacked = everybodys(flat(model))
            assert all(torch.equal(stacked[0], other) for other in stacked), algorithm
            assert hvd.consensus_distance(model) < 1e-6
            train(model, optimizer, 3)
        optimizer.zero_grad()
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        hvd.broadcast_parameters(model.named_parameters(), root_rank=hvd.size() - 1)
        expected = flat(model)
        for p in model.parameters():
            optimizer.state[p].clear()
            p.grad = torch.zeros_like(p)
        for _ in range(4):  # nothing of before the broadcast comes back
            optimizer.step()
        close(flat(model), expected, tolerance=1e-6)


def check_strides_and_types_are_kept() -> None:
    for algorithm in GOSSIP:
        conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        model = nn.ModuleDict({"conv": conv, "low": nn.Linear(3, 2).to(torch.bfloat16), "tiny": nn.Linear(2, 1).half()})
        hvd.broadcast_parameters(model.state_dict(), root_rank=0)
        own = flat(model)
        optimizer = gossip(model, algorithm, lr=0.0)
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        for _ in range(4):
            optimizer.step()
        assert conv.weight.is_contiguous(memory_format=torch.channels_last)
        assert model["low"].weight.dtype == torch.bfloat16
        close(flat(model), own, tolerance=1e-2)
        with hvd.consensus(model):
            close(flat(model), own, tolerance=1e-2)


def check_half_precision_training() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        for algorithm in GOSSIP:
            model = make_model().to(dtype)
            optimizer = gossip(model, algorithm)
            first = float(loss_of(model, (make_batch(0)[0].to(dtype), make_batch(0)[1])).detach())
            for steps in range(
                200
            ):  # an asynchronous worker's neighbours may stand at the first model for some of them
                optimizer.zero_grad()
                loss = loss_of(model, (make_batch(0)[0].to(dtype), make_batch(0)[1]))
                loss.backward()
                optimizer.step()
                if steps >= 20 and float(loss.detach()) < 0.5 * first:
                    break
            assert float(loss.detach()) < 0.5 * first, (dtype, algorithm)
            assert steps == 20 or algorithm not in SYNCHRONOUS, (dtype, algorithm)


def check_parameters_pointed_elsewhere_are_mixed_again() -> None:
    for algorithm in SYNCHRONOUS:
        model = make_model(seed=hvd.rank())
        optimizer = gossip(model, algorithm, lr=0.0)
        train(model, optimizer, 2)
        model[0].weight.data = torch.full_like(model[0].weight, float(hvd.rank()))
        train_until_close(model, optimizer, 0.2)
        if ALGORITHMS[algorithm].overwritable and not mean_moves(algorithm, hvd.size()):
            with hvd.consensus(model):
                spread = (model[0].weight.detach() - (hvd.size() - 1) / 2).abs().max()
            assert float(spread) < 0.5, algorithm
        assert all(strategy.shares_memory(model[0].weight) for strategy in mixing_strategies()[-1:])


def check_another_type_lays_the_buffers_out_anew() -> None:
    for algorithm in GOSSIP:
        model = make_model(seed=hvd.rank())
        optimizer = gossip(model, algorithm, lr=0.0)
        train(model, optimizer, 3)
        model.double()
        for state in optimizer.state.values():
            state.clear()
        limit = limit_of(algorithm, flat(model))
        spread = distance_to_mean(flat(model))
        optimizer.zero_grad()
        train(model, optimizer, 100 if mean_moves(algorithm, hvd.size()) else 0)
        train_until_close(model, optimizer, max(0.2 * spread, 1e-12))
        assert model[0].weight.dtype == torch.float64
        with hvd.consensus(model):
            close(flat(model), limit, tolerance=1e-9, algorithm=algorithm)


def check_parameters_that_thaw_are_mixed_from_then_on() -> None:
    for algorithm in GOSSIP:
        model = make_model(seed=hvd.rank())
        model[0].requires_grad_(False)
        frozen = flat(model[0])
        optimizer = gossip(model, algorithm, lr=0.0)
        train(model, optimizer, 3)
        assert torch.equal(flat(model[0]), frozen)
        model[0].requires_grad_(True)
        train(model, optimizer, 100 if mean_moves(algorithm, hvd.size()) else 0)
        train_until_close(model, optimizer, max(0.2 * distance_to_mean(frozen), 1e-6))
        with hvd.consensus(model):
            close(flat(model[0]), limit_of(algorithm, frozen))


def check_groups_added_later_are_mixed() -> None:
    model = make_model(seed=hvd.rank())
    optimizer = gossip(model[0], "dpsgd", lr=0.0)
    train_first = nn.Sequential(model[0])
    for p in train_first.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    later = flat(model[2])
    optimizer.add_param_group({"params": model[2].parameters()})
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    for _ in range(30):
        optimizer.step()
    assert hvd.consensus_distance(model[2]) <= 0.2 * distance_to_mean(later)


def check_an_optimizer_that_replaces_another() -> None:
    for algorithm in GOSSIP:
        model = make_model(seed=hvd.rank())
        optimizer = gossip(model, algorithm, lr=0.0)
        train(model, optimizer, 2)
        mean = everybodys(flat(model)).mean(0)
        if not ALGORITHMS[algorithm].synchronous:
            with hvd.consensus(model):  # corrections that are not applied yet count
                mean = flat(model)
        optimizer = gossip(model, algorithm, lr=0.0)
        train(model, optimizer, 30)
        weights_begin_again = ALGORITHMS[algorithm].needs == "column-stochastic"
        with hvd.consensus(model):
            if not weights_begin_again and not mean_moves(algorithm, hvd.size()):
                close(flat(model), mean, algorithm=algorithm)


def check_an_optimizer_that_is_dropped_holds_nobody_up() -> None:
    for algorithm in GOSSIP:
        other = make_model(seed=3)
        dropped = gossip(other, algorithm)
        train(other, dropped, 2)
        del dropped
        model = make_model()
        train(model, gossip(model, algorithm), 3)


def check_gradients_are_local_and_nothing_waits_for_them() -> None:
    model = make_model()
    optimizer = gossip(model, "dpsgd", backward_passes_per_step=2)
    for _ in range(3):  # more passes than announced are as good as any
        loss_of(model, make_batch(hvd.rank())).backward()
    own = [p.grad.clone() for p in model.parameters()]  # type: ignore[union-attr]
    optimizer.synchronize()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), own, strict=True))  # type: ignore[arg-type]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    with optimizer.skip_synchronize():
        optimizer.step()
    optimizer.step()  # silent, too
    loss_of(model, make_batch(0)).backward()
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def check_closures_schedulers_and_scaler() -> None:
    model = make_model()
    optimizer = gossip(model, "dpsgd")
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, make_batch(hvd.rank()))
        loss.backward()
        return loss

    assert torch.equal(optimizer.step(closure), optimizer.step(closure)) is False
    scheduler.step()
    scaler = torch.amp.GradScaler(DEVICE.type, init_scale=4.0)
    optimizer.zero_grad()
    scaler.scale(loss_of(model, make_batch(0))).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    lbfgs = hvd.DistributedOptimizer(torch.optim.LBFGS(model.parameters(), max_iter=4), algorithm="dpsgd")
    before = float(loss_of(model, make_batch(hvd.rank())).detach())

    def evaluate() -> torch.Tensor:
        lbfgs.zero_grad()
        loss = loss_of(model, make_batch(hvd.rank()))
        loss.backward()
        return loss.detach()

    assert float(lbfgs.step(evaluate)) == pytest.approx(before, rel=0.5)


def check_options_without_meaning() -> None:
    model = make_model()
    with pytest.raises(ValueError, match="takes no op but Average"):
        gossip(model, op=hvd.Sum)
    with pytest.warns(UserWarning, match=r"compression, groups of DistributedOptimizer .*'dpsgd'.*wire_dtype"):
        gossip(model, compression=hvd.Compression.fp16, groups=2)
    gossip(model, compression=hvd.Compression.fp16)  # once is enough
    with pytest.raises(ValueError, match="topology"):
        gossip(model, topology="rign")
    with pytest.raises(ValueError, match="global_average_every=3 has no meaning"):
        gossip(model, "adpsgd", global_average_every=3)


def check_settings_of_one_optimizer() -> None:
    if hvd.size() == 1:
        return
    model = make_model(seed=hvd.rank())
    own = flat(model)
    optimizer = gossip(model, "dpsgd", lr=0.0, mixing_period=3, mixing_order="sequential", topology="ring")
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    optimizer.step()
    assert torch.equal(flat(model), own)
    optimizer.step()
    assert not torch.equal(flat(model), own)
    optimizer = gossip(model, "dpsgd", lr=0.0, global_average_every=2, mixing_order="sequential")
    optimizer.step()
    optimizer.step()
    assert hvd.consensus_distance(model) < 1e-6


def check_ranks_that_ask_for_different_things_all_get_an_error() -> None:
    if hvd.size() == 1:
        return
    model = make_model()
    algorithm = "dpsgd" if hvd.rank() == 0 else "sgp"
    with pytest.raises(ValueError, match=r"rank\(s\) .* something else"):
        gossip(model, algorithm)
    train(model, gossip(model), 2)


def check_gossip_state_makes_a_checkpoint_whole() -> None:
    model = make_model(seed=hvd.rank())
    optimizer = gossip(model, "sgp")
    train(model, optimizer, 3)
    state = optimizer.gossip_state_dict()
    stream = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "gossip": state}, stream)
    stream.seek(0)
    loaded = torch.load(stream, weights_only=False)
    other = make_model(seed=7)
    resumed = gossip(other, "sgp")
    other.load_state_dict(loaded["model"])
    resumed.load_state_dict(loaded["optimizer"])
    resumed.load_gossip_state_dict(loaded["gossip"])
    assert torch.equal(flat(model), flat(other))
    again = resumed.gossip_state_dict()
    assert again.keys() == state.keys()
    assert all(np.array_equal(again[key], state[key]) for key in state)
    train(other, resumed, 2)


if __name__ == "__main__":
    run_checks(globals())
