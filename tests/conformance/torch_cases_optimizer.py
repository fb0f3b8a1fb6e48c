"""Horovod, API, horovod.torch.DistributedOptimizer, and "Horovod with PyTorch": how a script trains."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import nn

from tests.conformance.case import Cases, close, raises
from tests.conformance.torch_framework import TorchFramework
from tests.conformance.torch_training import RATE, alone, assert_alike, batch, loss_of, make_model, wrap
from tests.torch_device import DEVICE

CASES = Cases()


@CASES.add(averages=True)
def training_equals_one_process_with_the_concatenated_batch(f: TorchFramework) -> None:
    """Horovod with PyTorch: averages gradients using allreduce, and then applies those averages."""
    model = make_model()
    optimizer = wrap(f, model)
    for step in range(3):
        optimizer.zero_grad()
        loss_of(model, batch(f.hvd.rank(), step)).backward()
        optimizer.step()
    assert_alike(model, alone(f, 3))


@CASES.add(averages=True)
def replicas_that_began_alike_stay_alike_to_the_last_bit(f: TorchFramework) -> None:
    """Horovod with PyTorch: all apply the same averages."""
    model = make_model()
    plain = torch.optim.Adam(model.parameters(), lr=RATE)
    optimizer = f.hvd.DistributedOptimizer(plain, named_parameters=model.named_parameters())
    for step in range(5):
        optimizer.zero_grad()
        loss_of(model, batch(f.hvd.rank(), step)).backward()
        optimizer.step()
    mine = b"".join(f.numpy(parameter).tobytes() for parameter in model.parameters())
    assert len(set(f.hvd.allgather_object(mine))) == 1


@CASES.add(averages=True)
def names_of_parameters_may_be_left_out(f: TorchFramework) -> None:
    """API, DistributedOptimizer, named_parameters: None by default."""
    model = make_model()
    optimizer = f.hvd.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=RATE))
    loss_of(model, batch(f.hvd.rank())).backward()
    optimizer.step()
    assert_alike(model, alone(f, 1))


@CASES.add(averages=True)
def synchronize_completes_gradients_before_step(f: TorchFramework) -> None:
    """API, synchronize, skip_synchronize: gradient clipping acts on the averages."""

    def clip(clipped: nn.Module) -> None:
        nn.utils.clip_grad_norm_(clipped.parameters(), 0.5)

    model = make_model()
    optimizer = wrap(f, model)
    for step in range(2):
        optimizer.zero_grad()
        loss_of(model, batch(f.hvd.rank(), step)).backward()
        optimizer.synchronize()
        clip(model)
        with optimizer.skip_synchronize():
            optimizer.step()
    assert_alike(model, alone(f, 2, change=clip))


@CASES.add(averages=True)
def synchronize_may_be_called_again(f: TorchFramework) -> None:
    """API, synchronize: forces allreduces to finish; what is finished is not averaged again."""
    model = make_model()
    optimizer = wrap(f, model)
    loss_of(model, batch(f.hvd.rank())).backward()
    optimizer.synchronize()
    optimizer.synchronize()
    with optimizer.skip_synchronize():
        optimizer.step()
    assert_alike(model, alone(f, 1))


@CASES.add(averages=True)
def step_without_a_backward_pass_changes_nothing(f: TorchFramework) -> None:
    """API, step: of parameters none of which has a gradient; and if some ranks have one, theirs is averaged with zeros."""
    model = make_model()
    optimizer = wrap(f, model)
    optimizer.step()
    assert_alike(model, make_model(), 0.0)
    if f.hvd.rank() == 0:
        loss_of(model, batch(0)).backward()
    optimizer.step()
    expected = make_model()
    loss_of(expected, batch(0)).backward()
    for parameter, wanted in zip(model.parameters(), expected.parameters(), strict=True):
        close(f.numpy(parameter), f.numpy(wanted - RATE / f.hvd.size() * wanted.grad))


@CASES.add(averages=True)
def step_after_synchronize_warns_without_skip_synchronize(f: TorchFramework) -> None:
    """API: make sure to use skip_synchronize() if you're calling synchronize()."""
    model = make_model()
    optimizer = wrap(f, model)
    loss_of(model, batch(f.hvd.rank())).backward()
    optimizer.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer.step()
    assert any("skip_synchronize" in str(warning.message) for warning in caught)
    assert_alike(model, alone(f, 1))


@CASES.add(ranks=2, averages=True)
def zero_grad_between_backward_and_step_is_refused(f: TorchFramework) -> None:
    """Horovod raises for optimizer.zero_grad() after loss.backward() but before step() or synchronize()."""
    model = make_model()
    optimizer = wrap(f, model)
    loss_of(model, batch(f.hvd.rank())).backward()
    with raises(AssertionError, about=["zero_grad"]):
        optimizer.zero_grad()
    optimizer.step()
    optimizer.zero_grad()
    assert_alike(model, alone(f, 1))


@CASES.add(ranks=2, averages=True)
def more_backward_passes_than_expected_are_refused(f: TorchFramework) -> None:
    """Horovod raises for gradients computed more than backward_passes_per_step times before step()."""
    model = make_model()
    optimizer = wrap(f, model)
    loss_of(model, batch(f.hvd.rank())).backward()
    with raises(AssertionError, about=["backward_passes_per_step"]):
        loss_of(model, batch(f.hvd.rank())).backward()
    with warnings.catch_warnings():  # the gradients are not what they were
        warnings.simplefilter("ignore")
        optimizer.synchronize()
    optimizer.zero_grad()


@CASES.add(averages=True)
def backward_passes_accumulate(f: TorchFramework) -> None:
    """API, backward_passes_per_step: accumulating gradients over multiple mini-batches before reducing and applying.

    horovod#543, #546: a large batch in several parts, one step for all, ended in an AssertionError.
    """
    model = make_model()
    optimizer = wrap(f, model, backward_passes_per_step=2)
    for step in range(2):
        optimizer.zero_grad()
        for i in range(2):
            loss_of(model, batch(f.hvd.rank(), 2 * step + i)).backward()
        optimizer.step()
    assert_alike(model, alone(f, 2, passes=2))


@CASES.add(averages=True)
def the_number_of_backward_passes_can_be_changed(f: TorchFramework) -> None:
    """Horovod's set_backward_passes_per_step: from the next step on."""
    model = make_model()
    optimizer = wrap(f, model)
    optimizer.set_backward_passes_per_step(3)
    optimizer.zero_grad()
    for i in range(3):
        loss_of(model, batch(f.hvd.rank(), i)).backward()
    optimizer.step()
    assert_alike(model, alone(f, 1, passes=3))


@CASES.add(averages=True)
def step_before_all_backward_passes_reduces_what_there_is(f: TorchFramework) -> None:
    """API, step: ensures that all allreduces are finished; an epoch's last step may have fewer passes."""
    model = make_model()
    optimizer = wrap(f, model, backward_passes_per_step=4)
    loss_of(model, batch(f.hvd.rank())).backward()
    optimizer.step()
    assert_alike(model, alone(f, 1))


class _Choice(nn.Module):
    """Two branches, of which a batch takes one or both."""

    def __init__(self) -> None:
        super().__init__()
        self.always, self.sometimes, self.never = (nn.Linear(2, 1, bias=False) for _ in range(3))
        for parameter in self.parameters():
            nn.init.ones_(parameter)

    def forward(self, x: torch.Tensor, both: bool) -> torch.Tensor:
        always: torch.Tensor = self.always(x)
        return always + self.sometimes(x) if both else always


@CASES.add(averages=True)
def parameters_that_some_ranks_did_not_use_count_as_zero(f: TorchFramework) -> None:
    """API, step, synchronize: of all gradients; ranks that did not compute one do not hold up the others."""
    model = _Choice()
    optimizer = wrap(f, model)
    model(torch.ones(1, 2), both=f.hvd.rank() == 0).sum().backward()
    optimizer.step()
    close(f.numpy(model.always.weight), [[1 - RATE] * 2])
    close(f.numpy(model.sometimes.weight), [[1 - RATE / f.hvd.size()] * 2])
    close(f.numpy(model.never.weight), [[1.0, 1.0]])


@CASES.add()
def parameters_that_require_no_gradient_stay(f: TorchFramework) -> None:
    """Fine-tuning: frozen parameters are not reduced, on any rank."""
    model = make_model()
    model[0].requires_grad_(False)
    before = copy.deepcopy(model[0])
    optimizer = wrap(f, model)
    loss_of(model, batch(f.hvd.rank())).backward()
    optimizer.step()
    assert_alike(model[0], before, 0.0)
    assert model[2].weight.grad is not None
    f.hvd.DistributedOptimizer(torch.optim.SGD(model[0].parameters(), lr=RATE)).step()
    assert_alike(model[0], before, 0.0)


@CASES.add(averages=True)
def groups_of_parameters_are_reduced_together(f: TorchFramework) -> None:
    """API, groups: lists of tensors; a parameter that is in none forms a group itself."""
    model = make_model()
    optimizer = wrap(f, model, groups=[[model[0].weight, model[2].bias], [model[0].bias]])
    for step in range(2):
        optimizer.zero_grad()
        loss_of(model, batch(f.hvd.rank(), step)).backward()
        optimizer.step()
    assert_alike(model, alone(f, 2))


@CASES.add(averages=True)
def gradients_are_scaled_as_grad_scaler_wants(f: TorchFramework) -> None:
    """Horovod's mixed precision example: backward of the scaled loss, synchronize, unscale, clip, skip_synchronize."""
    model = make_model()
    optimizer = wrap(f, model)
    scaler = torch.amp.GradScaler(DEVICE.type, init_scale=8.0)
    for step in range(2):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, batch(f.hvd.rank(), step))).backward()
        optimizer.synchronize()
        scaler.unscale_(optimizer)
        with optimizer.skip_synchronize():
            scaler.step(optimizer)
        scaler.update()
    assert_alike(model, alone(f, 2))


@CASES.add(averages=True)
def a_closure_is_evaluated_by_step(f: TorchFramework) -> None:
    """torch.optim.Optimizer.step(closure): reevaluates the model and returns the loss; of what is averaged, the average."""
    model = make_model()
    optimizer = wrap(f, model)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, batch(f.hvd.rank()))
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    everybodys = torch.cat([batch(rank) for rank in range(f.hvd.size())])
    torch.testing.assert_close(loss, loss_of(make_model(), everybodys), check_dtype=False)
    assert_alike(model, alone(f, 1))


@CASES.add()
def schedulers_and_checkpoints_take_it_for_the_optimizer_that_it_wraps(f: TorchFramework) -> None:
    """API: an optimizer that wraps another torch.optim.Optimizer: of its class, its groups and its state."""
    model = make_model()
    plain = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
    optimizer = f.hvd.DistributedOptimizer(plain, named_parameters=model.named_parameters())
    assert isinstance(optimizer, torch.optim.SGD)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    loss_of(model, batch(f.hvd.rank())).backward()
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == RATE / 2
    saved = copy.deepcopy(optimizer.state_dict())
    other = make_model()
    bare = torch.optim.SGD(other.parameters(), lr=1.0, momentum=0.9)
    bare.load_state_dict(saved)
    assert bare.param_groups[0]["lr"] == RATE / 2
    optimizer.load_state_dict(saved)
    assert optimizer.state_dict()["param_groups"][0]["lr"] == RATE / 2


@CASES.add(ranks=3, averages=True)
def ranks_outside_of_its_process_set_train_by_themselves(f: TorchFramework) -> None:
    """API, process_set: gradients will only be reduced over processes belonging to this process set."""
    members = [0, 1]
    some = f.hvd.add_process_set(members)
    if some.included():
        model = make_model()
        optimizer = wrap(f, model, process_set=some)
        loss_of(model, batch(f.hvd.rank())).backward()
        optimizer.step()
        assert_alike(model, alone(f, 1, members))
    assert f.hvd.remove_process_set(some) is True
