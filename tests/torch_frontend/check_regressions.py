"""What users of Horovod's PyTorch side reported, one check an issue (or one a group of them); run by test_regressions.py."""

from __future__ import annotations

import io
import pickle
import time
import warnings
from typing import Any

import hvd_gossip.torch as hvd
import pytest
import torch
from torch import nn

from hvd_gossip import runtime
from tests.torch_device import DEVICE
from tests.torch_frontend.models import CLASSES, FEATURES, flat, loss_of, make_batch, make_model
from tests.torch_frontend.ranks import run_checks


def wrap(model: nn.Module, **options: Any) -> Any:
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    return hvd.DistributedOptimizer(plain, named_parameters=model.named_parameters(), **options)


def batch(step: int, rank: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    return make_batch(100 * step + (hvd.rank() if rank is None else rank))


def on_joint_batches(steps: list[list[int]], max_norm: float | None = None) -> torch.Tensor:
    """The parameters after one process's training; each step on the batches of some ranks, divided by all ranks."""
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step, ranks in enumerate(steps):
        optimizer.zero_grad()
        for rank in ranks:
            (loss_of(model, batch(step, rank)) / hvd.size()).backward()
        if max_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
    return flat(model)


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def everybody_has(model: nn.Module) -> None:
    everybody = hvd.allgather(flat(model).unsqueeze(0))
    assert all(torch.equal(everybody[0], other) for other in everybody)


def check_832_unequal_numbers_of_steps() -> None:
    """horovod#832, #2083, #708, #1540, #118, #3888: a rank with fewer batches made the others wait for ever.

    And its second half: `join` tells which rank has the last parameters, from which the others get them.
    """
    model = make_model()
    optimizer = wrap(model)
    for step in range(2 + hvd.rank()):
        optimizer.zero_grad()
        loss_of(model, batch(step)).backward()
        optimizer.step()
    last = hvd.join()
    hvd.broadcast_parameters(model.state_dict(), root_rank=last)
    steps = [[rank for rank in range(hvd.size()) if step < 2 + rank] for step in range(1 + hvd.size())]
    close(flat(model), on_joint_batches(steps))
    everybody_has(model)


def check_1132_clipping_between_synchronize_and_step() -> None:
    """horovod#1132, #1099, #1104: clipping needs the averages, and step() must not average the clipped gradients again."""
    model = make_model()
    optimizer = wrap(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(3):
            optimizer.zero_grad()
            loss_of(model, batch(step)).backward()
            optimizer.synchronize()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            with optimizer.skip_synchronize():
                optimizer.step()
    close(flat(model), on_joint_batches([list(range(hvd.size()))] * 3, max_norm=0.1))


def check_2497_the_remainder_of_an_epoch() -> None:
    """horovod#2497: five batches, a step every two: the fifth one's backward pass made the next epoch's count wrong."""
    model, plain = make_model(), make_model()
    optimizer = wrap(model, backward_passes_per_step=2)
    other = torch.optim.SGD(plain.parameters(), lr=0.1)
    for _ in range(2):
        for number in range(5):
            loss_of(model, batch(number)).backward()
            for rank in range(hvd.size()):
                (loss_of(plain, batch(number, rank)) / hvd.size()).backward()
            if number % 2 or number == 4:  # the last one alone
                for each in (optimizer, other):
                    each.step()
                    each.zero_grad()
    close(flat(model), flat(plain))


def check_2466_passes_that_no_step_follows() -> None:
    """horovod#2466: a step every three batches, and one or two left at the end of an epoch, which the next one's count missed.

    What is left, of another length on every rank, is dropped by synchronize() and zero_grad(), on all ranks alike.
    """
    model = make_model()
    optimizer = wrap(model, backward_passes_per_step=3)
    plain = torch.optim.SGD((other := make_model()).parameters(), lr=0.1)
    for epoch in range(2):
        for number in range(6 + 1 + hvd.rank() % 2):
            loss_of(model, batch(10 * epoch + number)).backward()
            if number % 3 == 2:
                optimizer.step()
                optimizer.zero_grad()
        optimizer.synchronize()
        optimizer.zero_grad()
        for number in range(6):
            for rank in range(hvd.size()):
                (loss_of(other, batch(10 * epoch + number, rank)) / hvd.size()).backward()
            if number % 3 == 2:
                plain.step()
                plain.zero_grad()
    close(flat(model), flat(other))
    everybody_has(model)


def check_2497_one_pass_too_many_says_what_to_do() -> None:
    """horovod#2497, #1535: the message names the option that tells how many passes there are."""
    model = make_model()
    optimizer = wrap(model, backward_passes_per_step=2)
    for number in range(2):
        loss_of(model, batch(number)).backward()
    if hvd.size() == 1:
        return
    with pytest.raises(AssertionError, match=r"Increase backward_passes_per_step to accumulate gradients locally"):
        loss_of(model, batch(2)).backward()
    with pytest.warns(RuntimeWarning, match="changed while"):
        optimizer.synchronize()


def check_3160_mixed_precision_with_an_overflow_on_one_rank() -> None:
    """horovod#3160, #1089, #2282: GradScaler left out a step, and the next zero_grad() raised; or ranks came apart.

    And determined-ai/determined#699: gradients must have been averaged before they are unscaled.
    """
    model = make_model()
    optimizer = wrap(model)
    scaler = torch.amp.GradScaler(DEVICE.type, init_scale=8.0)
    for step in range(4):
        optimizer.zero_grad()
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
            loss = loss_of(model, batch(step))
        overflow = step == 1 and hvd.rank() == hvd.size() - 1
        scaler.scale(loss * (float("inf") if overflow else 1.0)).backward()
        optimizer.synchronize()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        with optimizer.skip_synchronize():
            scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() == 4.0
    assert flat(model).isfinite().all()
    everybody_has(model)


def check_2420_gradients_without_a_step() -> None:
    """horovod#2420, #3160: gradients are only looked at; synchronize() makes it possible to discard them."""
    model = make_model()
    before = flat(model)
    optimizer = wrap(model)
    loss_of(model, batch(0)).backward()
    if hvd.size() > 1:
        with pytest.raises(AssertionError, match=r"zero_grad\(\) was called after loss.backward\(\) but before"):
            optimizer.zero_grad()
    optimizer.synchronize()
    optimizer.zero_grad()
    loss_of(model, batch(1)).backward()
    optimizer.step()
    assert not torch.equal(flat(model), before)


def check_1417_two_optimizers_of_one_model() -> None:
    """horovod#1417, #2556, #1549: one loss gives gradients to the parameters of both optimizers; only one of them steps."""
    generator, critic = make_model(1), nn.Sequential(nn.Linear(CLASSES, 1))
    hvd.broadcast_parameters(critic.state_dict(), root_rank=0)
    models = nn.ModuleDict({"generator": generator, "critic": critic})
    names = list(models.named_parameters())  # unique over both, as Horovod's documentation wants them
    optimizers = {
        name: hvd.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), named_parameters=names)
        for name, model in models.items()
    }
    for step in range(4):
        turn = "generator" if step % 2 else "critic"
        inputs, _ = batch(step)
        (critic(generator(inputs)).mean() * (1 if step % 2 else -1)).backward()
        for name, optimizer in optimizers.items():
            if name == turn:
                optimizer.step()
            else:
                optimizer.synchronize()
            optimizer.zero_grad()
    everybody_has(generator)
    everybody_has(critic)


def check_597_parameters_that_only_some_ranks_use() -> None:
    """horovod#597, #2107: a layer that takes no part in one rank's loss left the other ranks waiting."""
    layers = nn.ModuleList(make_model(seed) for seed in range(hvd.size() + 1))
    optimizer = wrap(layers)
    for step in range(2):
        optimizer.zero_grad()
        loss_of(layers[(hvd.rank() + step) % hvd.size()], batch(step)).backward()  # type: ignore[arg-type]
        optimizer.step()
    everybody_has(layers)
    if hvd.size() > 1:
        assert all((p.grad == 0).all() for p in layers[hvd.size()].parameters())


def check_554_sparse_gradients_of_a_large_table() -> None:
    """horovod#554, #433, #2580: a table of which a batch uses few rows; nothing of its whole size is sent."""
    rows = 20_000
    for as_dense in (False, True):
        table = nn.Embedding(rows, 8, sparse=True)
        nn.init.ones_(table.weight)
        optimizer = wrap(table, sparse_as_dense=as_dense)
        table(torch.tensor([hvd.rank(), hvd.rank(), 7])).sum().backward()
        optimizer.step()
        gradient = table.weight.grad.coalesce()
        assert gradient.indices().flatten().tolist() == sorted({7, *range(hvd.size())})
        expected = torch.ones(rows, 8)
        for rank in range(hvd.size()):
            expected[rank] -= 0.2 / hvd.size()
            expected[7] -= 0.1 / hvd.size()
        torch.testing.assert_close(table.weight.detach(), expected)


def check_3529_optimizers_for_sparse_gradients() -> None:
    """horovod#3529, #1292: SparseAdam was handed dense gradients; also on a rank whose batch does not use the table."""
    for as_dense in (False, True):
        table = nn.Embedding(9, 2, sparse=True)
        nn.init.ones_(table.weight)
        plain = torch.optim.SparseAdam(table.parameters(), lr=0.1)
        optimizer = hvd.DistributedOptimizer(plain, [("table", table.weight)], sparse_as_dense=as_dense)
        for step in range(3):
            optimizer.zero_grad()
            if step == 0 or hvd.rank() % 2 == 0:
                table(torch.tensor([step, hvd.rank()])).sum().backward()
            optimizer.step()
            assert table.weight.grad.is_sparse
        everybody_has(table)


def check_sparse_gradients_in_groups() -> None:
    """horovod#2580, #679: sparse and dense gradients in one group; only the dense ones can travel together."""
    model = nn.ModuleDict({"table": nn.Embedding(9, FEATURES, sparse=True), "head": nn.Linear(FEATURES, 2)})
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    for groups in (1, [list(model.parameters())]):
        optimizer = wrap(model, groups=groups)
        for step in range(2):
            optimizer.zero_grad()
            model["head"](model["table"](torch.tensor([hvd.rank(), step]))).square().sum().backward()
            optimizer.step()
        everybody_has(model)


def check_1920_a_loaded_optimizer_is_still_distributed() -> None:
    """horovod#1920: what was loaded was the plain optimizer, silently, and the workers drifted apart."""
    model = make_model()
    optimizer = wrap(model)
    loss_of(model, batch(0)).backward()
    optimizer.step()
    stream = io.BytesIO()
    torch.save({"model": model, "optimizer": optimizer}, stream)
    stream.seek(0)
    loaded = torch.load(stream, weights_only=False)
    copies = [(loaded["model"], loaded["optimizer"]), pickle.loads(pickle.dumps((model, optimizer)))]
    for copied, its_optimizer in copies:
        its_optimizer.zero_grad()
        loss_of(copied, batch(1)).backward()
        its_optimizer.step()
        everybody_has(copied)
        close(flat(copied), on_joint_batches([list(range(hvd.size()))] * 2))


def check_359_resuming_where_only_the_root_has_the_checkpoint() -> None:
    """horovod#359, #120, #2486: parameters, momentum and learning rate come from the root after a restart."""
    model = make_model(seed=hvd.rank())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1 * (1 + hvd.rank()), momentum=0.9)
    if hvd.rank() == 0:
        loss_of(model, batch(0)).backward()
        optimizer.step()
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)
    wrapped = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
    for step in range(1, 3):
        wrapped.zero_grad()
        loss_of(model, batch(step)).backward()
        wrapped.step()
    assert wrapped.param_groups[0]["lr"] == 0.1
    everybody_has(model)


def check_336_batches_of_different_shapes() -> None:
    """horovod#336: ranks and steps see batches, and so activations, of different shapes; gradients have the same."""
    model = make_model()
    optimizer = wrap(model)
    for step in range(3):
        optimizer.zero_grad()
        loss_of(model, make_batch(step, size=1 + (hvd.rank() + step) % 3)).backward()
        optimizer.step()
    everybody_has(model)


def check_403_gradients_that_become_ready_in_different_orders() -> None:
    """horovod#403, #1442: ranks whose layers finish in different orders, and at different times, still agree on all."""
    layers = nn.ModuleList(make_model(seed) for seed in range(3))
    optimizer = wrap(layers)
    order = [(hvd.rank() + i) % 3 for i in range(3)]
    for step in range(2):
        optimizer.zero_grad()
        for index in order:
            loss_of(layers[index], batch(step)).backward()  # type: ignore[arg-type]
            time.sleep(0.002 * hvd.rank())
        optimizer.step()
    everybody_has(layers)


def check_3181_batch_norm_of_all_workers_under_autocast() -> None:
    """horovod#3181: with SyncBatchNorm, autocast and GradScaler ranks stalled; one of them overflows and leaves a step out."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(FEATURES, 8), hvd.SyncBatchNorm(8), nn.ReLU(), nn.Linear(8, CLASSES))
    optimizer = wrap(model)
    scaler = torch.amp.GradScaler(DEVICE.type, init_scale=8.0)
    for step in range(3):
        optimizer.zero_grad()
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
            loss = loss_of(model, batch(step))
        overflow = step == 1 and hvd.rank() == 0
        scaler.scale(loss * (float("inf") if overflow else 1.0)).backward()
        optimizer.synchronize()
        with optimizer.skip_synchronize():
            scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() == 4.0
    assert flat(model).isfinite().all()
    everybody_has(model)


def check_2108_half_precision_gradients_without_a_gpu() -> None:
    """horovod#2108, #2192: averages of float16 ended the process on CPUs, which could not divide them.

    Asked for in #278, and for CPUs in #563.
    """
    ours = torch.full((3,), 2.0 * hvd.rank(), dtype=torch.float16)
    assert hvd.allreduce(ours, name="half").tolist() == [hvd.size() - 1.0] * 3
    model = make_model()
    optimizer = wrap(model, compression=hvd.Compression.fp16)
    before = flat(model)
    loss_of(model, batch(0)).backward()
    optimizer.step()
    assert not torch.equal(flat(model), before)
    everybody_has(model)


def check_3328_rows_used_twice_travel_once() -> None:
    """horovod#3328, #459: a row that a batch uses a thousand times was sent a thousand times."""
    table = nn.Embedding(4, 2, sparse=True)
    nn.init.ones_(table.weight)
    table(torch.full((1000,), hvd.rank() % 4)).sum().backward()
    gradient = table.weight.grad
    assert gradient._nnz() == 1000
    sent: list[int] = []
    submit = (now := runtime.current()).submit

    def watch(request: Any) -> Any:
        sent.append(request.array.nbytes)
        return submit(request)

    now.submit = watch  # type: ignore[method-assign]
    try:
        total = hvd.sparse_allreduce_async(gradient, name="table", op=hvd.Sum)()
    finally:
        del now.submit  # type: ignore[method-assign]
    assert total.coalesce().values().sum() == 2000 * hvd.size()
    assert sent == [8 + 2 * 4]  # an index and a row


if __name__ == "__main__":
    run_checks(globals())
