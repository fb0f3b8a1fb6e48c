"""Checks of what DistributedOptimizer returns as an object: class, sharing, copies, pickles, checkpoints."""

from __future__ import annotations

import copy
import gc
import inspect
import io
import pickle
import weakref
from typing import Any

import hvd_gossip.torch as hvd
import pytest
import torch
from hvd_gossip.torch.optimizer import DistributedOptimizerMixin, distributed_class

from hvd_gossip.algorithms.registry import ALGORITHMS
from tests.ranks import UNDER_TEST
from tests.torch_frontend.custom_optimizers import CountingSGD, SignDescent
from tests.torch_frontend.models import flat, loss_of, make_batch, make_model
from tests.torch_frontend.ranks import run_checks


def train(model: torch.nn.Module, optimizer: Any, steps: int = 3, first: int = 0) -> None:
    for step in range(first, first + steps):
        optimizer.zero_grad()
        loss_of(model, make_batch(seed=10 * step + hvd.rank())).backward()
        optimizer.step()


def wrap(model: torch.nn.Module, algorithm: str, make: Any = torch.optim.Adam, **options: Any) -> Any:
    plain = make(model.parameters(), lr=0.05)
    return hvd.DistributedOptimizer(plain, model.named_parameters(), algorithm=algorithm, **options)


def check_signature_is_horovods() -> None:
    parameters = inspect.signature(hvd.DistributedOptimizer).parameters
    assert list(parameters)[:10] == [
        "optimizer", "named_parameters", "compression", "backward_passes_per_step", "op", "gradient_predivide_factor",
        "num_groups", "groups", "sparse_as_dense", "process_set",
    ]  # fmt: skip
    assert parameters["backward_passes_per_step"].default == 1
    assert parameters["compression"].default is hvd.Compression.none
    assert parameters["op"].default == hvd.Average
    assert parameters["process_set"].default is hvd.global_process_set


def check_the_wrapper_is_an_instance_of_the_users_class() -> None:
    for make in (torch.optim.SGD, torch.optim.Adam, torch.optim.LBFGS, torch.optim.Adagrad, torch.optim.RAdam):
        for algorithm in UNDER_TEST:
            model = make_model()
            plain = make(model.parameters(), lr=0.1)
            wrapped = hvd.DistributedOptimizer(plain, algorithm=algorithm)
            assert isinstance(wrapped, make)
            assert isinstance(wrapped, DistributedOptimizerMixin)
            assert type(wrapped) is distributed_class(make)
            assert type(wrapped).__name__ == make.__name__
            assert type(plain) is make
            assert repr(wrapped) == repr(plain)


def check_groups_and_state_are_shared() -> None:
    model = make_model()
    plain = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    wrapped = hvd.DistributedOptimizer(plain)
    assert wrapped.param_groups is plain.param_groups
    assert wrapped.state is plain.state
    train(model, wrapped)
    assert len(plain.state) == 4
    loaded = copy.deepcopy(wrapped.state_dict())
    loaded["param_groups"][0]["lr"] = 0.7
    wrapped.load_state_dict(loaded)
    assert plain.param_groups is wrapped.param_groups
    assert plain.param_groups[0]["lr"] == 0.7
    assert plain.state is wrapped.state
    train(model, wrapped)


def check_checkpoints_are_exchangeable_with_the_plain_optimizers() -> None:
    for algorithm in UNDER_TEST:
        model, plain_model = make_model(), make_model()
        wrapped, plain = wrap(model, algorithm), torch.optim.Adam(plain_model.parameters(), lr=0.05)
        train(model, wrapped)
        stream = io.BytesIO()
        torch.save(wrapped.state_dict(), stream)
        stream.seek(0)
        saved = torch.load(stream)
        train(plain_model, plain)
        assert saved.keys() == plain.state_dict().keys()
        assert saved["param_groups"] == plain.state_dict()["param_groups"]
        assert saved["state"].keys() == plain.state_dict()["state"].keys()
        plain.load_state_dict(saved)
        wrapped.load_state_dict(plain.state_dict())
        for own, other in zip(wrapped.state.values(), plain.state.values(), strict=True):
            assert all(torch.equal(own[key], other[key]) for key in other)
        train(model, wrapped, first=3)


def check_pickles_train_on() -> None:
    for algorithm in UNDER_TEST:
        model = make_model()
        wrapped = wrap(model, algorithm)
        train(model, wrapped)
        copied_model, copied = pickle.loads(pickle.dumps((model, wrapped)))
        assert type(copied) is type(wrapped)
        assert copied.param_groups[0]["params"][0] is next(copied_model.parameters())
        assert torch.equal(flat(copied_model), flat(model))
        train(copied_model, copied, first=3)
        train(model, wrapped, first=3)
        if algorithm == "allreduce" or hvd.size() == 1:  # otherwise exchanges under way stay with the original
            assert torch.equal(flat(copied_model), flat(model))


def check_deep_copies_train_on_and_stand_alone() -> None:
    for algorithm in UNDER_TEST:
        model = make_model()
        wrapped = wrap(model, algorithm)
        train(model, wrapped)
        copied_model, copied = copy.deepcopy((model, wrapped))
        before = flat(model)
        train(copied_model, copied, first=3)
        assert type(copied) is type(wrapped)
        assert not torch.equal(flat(copied_model), before)
        if ALGORITHMS[algorithm].synchronous:
            assert torch.equal(flat(model), before)
        assert copied.state is not wrapped.state
        lonely = copy.deepcopy(wrapped)
        assert lonely.param_groups[0]["params"][0] is not model[0].weight


def check_other_peoples_optimizers() -> None:
    for algorithm in UNDER_TEST:
        model = make_model()
        wrapped = hvd.DistributedOptimizer(SignDescent(model.parameters(), 0.01, "done"), algorithm=algorithm)
        assert isinstance(wrapped, SignDescent)
        assert wrapped.note == "done"
        loss_of(model, make_batch(0)).backward()
        assert wrapped.step() == "done"
        assert wrapped.state[model[0].weight]["steps"] == 1
        assert type(pickle.loads(pickle.dumps(wrapped))) is type(wrapped)


def check_the_class_can_be_derived_from() -> None:
    class Louder(distributed_class(torch.optim.SGD)):  # type: ignore[misc]
        heard = 0

        def step(self, closure: Any = None) -> Any:
            self.heard += 1
            return super().step(closure)

    model = make_model()
    optimizer = Louder(model.parameters(), lr=0.1)
    assert isinstance(optimizer, torch.optim.SGD)
    train(model, optimizer)
    assert optimizer.heard == 3
    everybody = hvd.allgather(flat(model).unsqueeze(0))
    assert all(torch.equal(everybody[0], other) for other in everybody)

    counting = CountingSGD(make_model().parameters(), lr=0.1)
    assert type(pickle.loads(pickle.dumps(counting))) is CountingSGD
    assert type(copy.deepcopy(counting)) is CountingSGD


def check_step_hooks_run_once() -> None:
    seen: list[str] = []
    for algorithm in UNDER_TEST:
        model = make_model()
        optimizer = wrap(model, algorithm)
        optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
        optimizer.register_step_post_hook(lambda *_: seen.append("after"))
        train(model, optimizer, steps=1)
    assert seen == ["before", "after"] * len(UNDER_TEST)


def check_every_scheduler_works_without_a_warning() -> None:
    make = {
        "step": lambda o: torch.optim.lr_scheduler.StepLR(o, 1),
        "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 5),
        "one cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=10),
        "lambda": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda epoch: 0.5**epoch),
        "plateau": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o),
    }
    for name, scheduler_of in make.items():
        model = make_model()
        optimizer = wrap(model, "dpsgd", torch.optim.SGD)
        scheduler: Any = scheduler_of(optimizer)
        for _ in range(3):
            train(model, optimizer, steps=1)
            scheduler.step(1.0) if name == "plateau" else scheduler.step()


def check_nothing_is_kept_alive() -> None:
    for algorithm in UNDER_TEST:
        model = make_model()
        plain = torch.optim.SGD(model.parameters(), lr=0.1)
        wrapped = hvd.DistributedOptimizer(plain, algorithm=algorithm)
        train(model, wrapped)
        plain_alive, model_alive = weakref.ref(plain), weakref.ref(model)
        del plain, model, wrapped
        gc.collect()
        assert plain_alive() is None, algorithm
        assert model_alive() is None, algorithm


def check_after_shutdown_and_init_the_optimizer_goes_on() -> None:
    models = {algorithm: make_model() for algorithm in UNDER_TEST}
    optimizers = {algorithm: wrap(model, algorithm) for algorithm, model in models.items()}
    for algorithm, model in models.items():
        train(model, optimizers[algorithm])
    hvd.shutdown()
    for algorithm, model in models.items():
        loss_of(model, make_batch(0)).backward()
        with pytest.raises(ValueError, match="not been initialized"):
            optimizers[algorithm].step()
    hvd.init()
    for algorithm, model in models.items():
        model.zero_grad()
        train(model, optimizers[algorithm])


if __name__ == "__main__":
    run_checks(globals())
