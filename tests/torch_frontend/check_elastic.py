"""Checks of elastic training with real ranks; run by test_elastic.py."""

from __future__ import annotations

import copy
import time
from typing import Any

import hvd_gossip.torch as hvd
import pytest
import torch
from hvd_gossip.torch.elastic.state import StateHandler, get_handler_registry, set_handler_registry
from torch import nn

from hvd_gossip import runtime
from hvd_gossip.elastic import HostUpdateResult, notification_manager
from hvd_gossip.errors import HostsUpdatedInterrupt
from tests.ranks import UNDER_TEST
from tests.torch_frontend.models import flat, loss_of, make_batch, make_model
from tests.torch_frontend.ranks import run_checks

TorchState = hvd.elastic.TorchState


def make(algorithm: str = "allreduce", **options: Any) -> tuple[nn.Module, Any]:
    """A model that differs between ranks, and its optimizer."""
    model = make_model(seed=hvd.rank())
    plain = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return model, hvd.DistributedOptimizer(plain, model.named_parameters(), algorithm=algorithm, **options)


def train_step(model: nn.Module, optimizer: Any, seed: int = 0) -> None:
    optimizer.zero_grad()
    loss_of(model, make_batch(seed=seed + hvd.rank())).backward()
    optimizer.step()


def alike(value: Any) -> bool:
    """Whether all ranks have the same."""
    others = hvd.allgather_object(value)
    return all(torch.equal(others[0], other) if torch.is_tensor(value) else others[0] == other for other in others)


# State


def check_a_state_restores_model_optimizer_and_objects_in_place() -> None:
    for algorithm in UNDER_TEST:
        model, optimizer = make(algorithm)
        state = TorchState(model, optimizer, epoch=0, history=[])
        train_step(model, optimizer)
        state.epoch = 1
        state.history.append("one")
        state.commit()
        optimizer.synchronize()
        saved, saved_state = (
            {k: v.clone() for k, v in model.state_dict().items()},
            copy.deepcopy(optimizer.state_dict()),
        )
        train_step(model, optimizer)
        state.history.append("two")
        state.restore()
        assert state.model is model
        assert state.optimizer is optimizer
        assert (state.epoch, state.history) == (1, ["one"])
        torch.testing.assert_close(model.state_dict(), saved, rtol=0, atol=0)
        torch.testing.assert_close(optimizer.state_dict(), saved_state, rtol=0, atol=0)


def check_a_step_does_not_change_what_is_saved() -> None:
    model, optimizer = make()
    state = TorchState(model, optimizer)
    train_step(model, optimizer)
    state.commit()
    before = flat(model).clone()
    momentum = copy.deepcopy(optimizer.state_dict()["state"])
    for _ in range(2):
        train_step(model, optimizer)
        state.restore()
        torch.testing.assert_close(flat(model), before, rtol=0, atol=0)
        torch.testing.assert_close(optimizer.state_dict()["state"], momentum, rtol=0, atol=0)


def check_sync_gives_everybody_rank_0_s_state() -> None:
    for algorithm in UNDER_TEST:
        model, optimizer = make(algorithm)
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1 + hvd.rank())
        state = TorchState(model, optimizer, epoch=10 + hvd.rank(), note=f"rank {hvd.rank()}")
        state.sync()
        assert (state.epoch, state.note) == (10, "rank 0")
        assert optimizer.param_groups[0]["lr"] == 0.1
        assert torch.equal(flat(model), flat(make_model(seed=0)))
        train_step(model, optimizer)
        state.restore()
        assert torch.equal(flat(model), flat(make_model(seed=0))), "sync() saves"


def check_several_models_and_replaced_objects() -> None:
    first, second = make_model(seed=hvd.rank()), make_model(seed=10 + hvd.rank())
    state = TorchState(model=first, other=second, best=None)
    state.sync()
    assert torch.equal(flat(first), flat(make_model(0)))
    assert torch.equal(flat(second), flat(make_model(10)))
    third = make_model(seed=20 + hvd.rank())
    state.other = third
    state.best = 0.5
    state.sync()
    assert state.other is third
    assert torch.equal(flat(third), flat(make_model(20)))
    assert torch.equal(flat(second), flat(make_model(10)))
    assert state.best == 0.5


def check_a_handler_of_one_s_own() -> None:
    class Counter:
        value = 3

    class CounterHandler(StateHandler):
        def save(self) -> None:
            self.saved = self.value.value

        def restore(self) -> None:
            self.value.value = self.saved

        def sync(self) -> None:
            self.value.value = hvd.broadcast_object(self.value.value, root_rank=0)
            self.save()

    registry = get_handler_registry()
    set_handler_registry([*registry, (Counter, CounterHandler)])
    try:
        counter = Counter()
        state = TorchState(counter=counter)
        counter.value = 4 + hvd.rank()
        state.sync()
        counter.value = 9
        state.restore()
        assert counter.value == 4
    finally:
        set_handler_registry(registry)


# The loop


def run_with_failure(algorithm: str, fail: Any, **options: Any) -> tuple[Any, list[str]]:
    """Trains three epochs of four steps; `fail(state, epoch, step)` may raise. Returns the state and what happened."""
    model, optimizer = make(algorithm, **options)
    state = TorchState(model, optimizer, epoch=0, calls=0)
    happened: list[str] = []
    state.register_reset_callbacks([lambda: happened.append(f"reset, epoch {state.epoch}")])

    @hvd.elastic.run
    def train(state: Any) -> str:
        happened.append(f"train from {state.epoch}")
        assert alike(state.epoch)
        assert alike(flat(state.model))
        for epoch in range(state.epoch, 3):
            for step in range(4):
                fail(state, epoch, step)
                train_step(state.model, state.optimizer, seed=step)
            state.epoch = epoch + 1
            state.commit()
        return "trained"

    assert train(state) == "trained"
    return state, happened


def once(rank: int | None, error: Exception, at: tuple[int, int] = (1, 2)) -> Any:
    """Fails once, on one rank or on all: at the same time, since who is late would hear of the others' failure first."""
    errors = [error]

    def fail(state: Any, epoch: int, step: int) -> None:
        if (epoch, step) == at and (rank is None or rank == hvd.rank()) and errors:
            if rank is None:
                hvd.barrier()
            raise errors.pop()

    return fail


def check_without_trouble_the_function_runs_once() -> None:
    for algorithm in UNDER_TEST:
        state, happened = run_with_failure(algorithm, lambda *_: None)
        assert happened == ["train from 0"]
        assert state.epoch == 3


def check_a_failure_on_all_ranks_goes_back_to_the_last_commit() -> None:
    for algorithm in UNDER_TEST:
        before = runtime.current()
        state, happened = run_with_failure(algorithm, once(None, hvd.HorovodInternalError("injected")))
        assert happened == ["train from 0", "reset, epoch 1", "train from 1"]
        assert state.epoch == 3
        assert runtime.current() is not before


def check_a_failure_on_one_rank_makes_all_begin_anew() -> None:
    """Under allreduce the next collective tells; under gossip, whose neighbours go on, the next commit, or the end.

    horovod#3264, #2484: after one worker's failure the others aborted, instead of beginning anew.
    """
    for algorithm in UNDER_TEST:
        for rank in (0, hvd.size() - 1):
            state, happened = run_with_failure(algorithm, once(rank, hvd.HorovodInternalError("injected")))
            assert state.epoch == 3
            assert happened[:2] == ["train from 0", f"reset, epoch {happened[1][-1]}"]
            assert alike(happened[-1])
            assert alike(len(happened))


def check_a_failure_after_the_last_commit_of_the_others() -> None:
    """Those whose function has returned already are called again."""
    for algorithm in UNDER_TEST:
        at = (2, 3)
        error = hvd.HorovodInternalError("injected")
        state, happened = run_with_failure(algorithm, once(hvd.size() - 1, error, at))
        assert state.epoch == 3
        assert alike(len(happened))
        assert len(happened) == 3


def check_a_collective_s_own_error_is_a_failure() -> None:
    if hvd.size() == 1:
        return
    mismatched = [True]

    def fail(state: Any, epoch: int, step: int) -> None:
        if (epoch, step) == (1, 1) and mismatched:
            mismatched.pop()
            hvd.allreduce(torch.ones(2 + hvd.rank()), name="mismatched")

    state, happened = run_with_failure("allreduce", fail)
    assert happened == ["train from 0", "reset, epoch 1", "train from 1"]
    assert state.epoch == 3


def check_a_failed_engine_is_a_failure_that_the_others_learn_of() -> None:
    """One rank's engine stops working: the next call says so there; what still works tells the others."""

    def fail(state: Any, epoch: int, step: int) -> None:
        if (epoch, step) == (1, 2) and hvd.rank() == hvd.size() - 1 and broken:
            engine = broken.pop().engine
            engine.post(lambda: [][0])
            while engine.failure is None:
                time.sleep(0.001)

    for algorithm in UNDER_TEST:
        broken = [runtime.current()]
        state, happened = run_with_failure(algorithm, fail)
        assert state.epoch == 3
        assert len(happened) == 3


def check_changed_hosts_reset_without_going_back() -> None:
    told = [True]

    def update(state: Any, epoch: int, step: int) -> None:
        if (epoch, step) == (1, 2) and told:
            told.pop()
            state.epoch = 2
            hvd.barrier()  # under gossip a rank may be steps ahead; whoever hears late that it has left goes back
            notification_manager.handle_hosts_updated(1.0, HostUpdateResult.added)
            state.check_host_updates()

    for algorithm in UNDER_TEST:
        told[:] = [True]
        _, happened = run_with_failure(algorithm, update)
        assert happened == ["train from 0", "reset, epoch 2", "train from 2"]


def check_horovod_3494_one_rank_keeps_its_state_and_the_others_go_back() -> None:
    """horovod#3494: ranks that had only seen others leave skipped the synchronization for which the rest waited."""
    told: list[bool] = []

    def update(state: Any, epoch: int, step: int) -> None:
        if (epoch, step) == (1, 2) and told:
            told.pop()
            if hvd.rank() == 0:
                notification_manager.handle_hosts_updated(1.0, HostUpdateResult.removed)
                state.check_host_updates()

    for algorithm in UNDER_TEST:
        told.append(True)
        state, happened = run_with_failure(algorithm, update)
        assert state.epoch == 3
        assert len(happened) == 3
        assert alike(happened[-1])


def check_an_interrupt_between_backward_and_step() -> None:
    """Gradients whose averaging the reset has cut off do not keep the new start from clearing them."""
    interrupts: list[HostsUpdatedInterrupt] = []

    @hvd.elastic.run
    def train(state: Any) -> str:
        for seed in range(3):
            state.optimizer.zero_grad()
            loss_of(state.model, make_batch(seed + hvd.rank())).backward()
            if interrupts and seed == 1:
                raise interrupts.pop()
            state.optimizer.step()
        return "trained"

    for algorithm in UNDER_TEST:
        interrupts.append(HostsUpdatedInterrupt())
        assert train(TorchState(*make(algorithm))) == "trained"
        assert not interrupts


def check_a_driver_s_message_to_rank_0_interrupts_all() -> None:
    told = [True]

    def update(state: Any, epoch: int, step: int) -> None:
        if (epoch, step) == (1, 2) and told:
            told.pop()
            if hvd.rank() == 0:
                notification_manager.handle_hosts_updated(1.0, HostUpdateResult.added)
            with pytest.raises(HostsUpdatedInterrupt) as caught:
                state.check_host_updates()
            raise caught.value

    notification_manager.driven = True
    try:
        _, happened = run_with_failure("allreduce", update)
    finally:
        notification_manager.driven = False
    assert happened == ["train from 0", "reset, epoch 1", "train from 1"]


def check_settings_and_process_sets_outlive_a_reset() -> None:
    """Horovod's #4021: process sets in elastic training."""
    config = runtime.current().config
    pair = hvd.add_process_set([0, hvd.size() - 1]) if hvd.size() > 2 else hvd.global_process_set

    def fail(state: Any, epoch: int, step: int) -> None:
        once_only(state, epoch, step)
        if pair.included():
            total = hvd.allreduce(torch.ones(1), op=hvd.Sum, process_set=pair)
            assert total.item() == pair.size()

    once_only = once(None, hvd.HorovodInternalError("injected"))
    _, happened = run_with_failure("allreduce", fail)
    assert len(happened) == 3
    assert runtime.current().config == config
    if pair is not hvd.global_process_set:
        hvd.remove_process_set(pair)


def check_the_reset_limit_is_a_setting() -> None:
    hvd.shutdown()
    hvd.init(reset_limit=1)
    errors = [hvd.HorovodInternalError(f"failure {number}") for number in range(3)]

    def fail(state: Any, epoch: int, step: int) -> None:
        raise errors.pop(0)

    with pytest.raises(RuntimeError, match="reset 1 times") as caught:
        run_with_failure("allreduce", fail)
    assert str(caught.value.__cause__) == "failure 1"
    hvd.shutdown()
    hvd.init()


def check_epochs_of_different_lengths_end_together() -> None:
    """A worker whose function has returned waits for the others, who go on without it."""
    for algorithm in ("dpsgd", "adpsgd", "sgp"):
        model, optimizer = make(algorithm)
        state = TorchState(model, optimizer, epoch=0)

        @hvd.elastic.run
        def train(state: Any) -> int:
            for _ in range(2 + 3 * hvd.rank()):
                train_step(state.model, state.optimizer)
            return hvd.rank()

        assert train(state) == hvd.rank()


if __name__ == "__main__":
    import os

    os.environ["HOROVOD_DYNAMIC_PROCESS_SETS"] = "1"
    run_checks(globals())
