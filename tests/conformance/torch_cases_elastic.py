"""Horovod, "Elastic Horovod", and API, horovod.torch.elastic: states, the sampler, and the loop, within one job."""

from __future__ import annotations

from typing import Any

import torch

from tests.conformance.case import Cases, everybodys, ours, raises, same
from tests.conformance.torch_framework import TorchFramework
from tests.conformance.torch_training import RATE, assert_alike, batch, loss_of, make_model, wrap

CASES = Cases()


def _train(f: TorchFramework, model: torch.nn.Module, optimizer: Any) -> None:
    optimizer.zero_grad()
    loss_of(model, batch(f.hvd.rank())).backward()
    optimizer.step()


@CASES.add()
def restore_goes_back_to_the_last_commit(f: TorchFramework) -> None:
    """Elastic: state.commit() backs up a copy of your state in memory; parameters are restored to the last commit."""
    model = make_model()
    optimizer = wrap(f, model)
    state = f.hvd.elastic.TorchState(model, optimizer, batch=0, epoch=0)
    state.batch = 3
    _train(f, model, optimizer)
    state.commit()
    committed = [parameter.detach().clone() for parameter in model.parameters()]
    state.batch, state.epoch = 7, 1
    optimizer.param_groups[0]["lr"] = 100.0
    _train(f, model, optimizer)
    state.restore()
    assert (state.batch, state.epoch) == (3, 0)
    assert optimizer.param_groups[0]["lr"] == RATE
    for parameter, before in zip(model.parameters(), committed, strict=True):
        torch.testing.assert_close(parameter.detach(), before, rtol=0, atol=0)


@CASES.add()
def sync_gives_everybody_the_state_of_worker_0(f: TorchFramework) -> None:
    """Elastic: synchronize state among the workers by broadcasting from the new worker-0."""
    rank = f.hvd.rank()
    model = make_model(seed=rank)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE * (rank + 1), momentum=0.9)
    state = f.hvd.elastic.TorchState(model=model, optimizer=optimizer, epoch=rank, best={"loss": float(rank)})
    state.sync()
    assert (state.epoch, state.best) == (0, {"loss": 0.0})
    assert optimizer.param_groups[0]["lr"] == RATE
    assert_alike(model, make_model(seed=0), 0.0)
    state.epoch = 9
    state.restore()
    assert state.epoch == 0


@CASES.add()
def the_function_is_run_with_a_synchronized_state(f: TorchFramework) -> None:
    """Elastic: before executing the decorated function, the state object is synchronized across workers."""

    def train(state: Any, more: int) -> tuple[int, int]:
        return state.epoch, more

    state = f.hvd.elastic.TorchState(epoch=f.hvd.rank() + 5)
    assert f.hvd.elastic.run(train)(state, 8) == (5, 8)


@CASES.add(ranks=2)
def after_a_failure_it_goes_on_from_the_last_commit(f: TorchFramework) -> None:
    """Elastic, reset process: catch HorovodInternalError, restore, reinitialize, callbacks, synchronize, resume."""
    events: list[object] = []

    def train(state: Any) -> str:
        events.append(("run", state.step))
        for state.step in range(state.step, 6):  # noqa: B020
            if state.step == 2 and len(events) == 1:
                state.commit()
            if state.step == 4 and len(events) == 1:
                f.hvd.allreduce(ours(f, 3 + (f.hvd.rank() == 0)), name="broken")
            same(f, f.hvd.allreduce(ours(f, 3), name=f"step {state.step}"), everybodys(f, 3).mean(0))
        return "done"

    state = f.hvd.elastic.TorchState(step=0)
    state.register_reset_callbacks([lambda: events.append(("reset", f.hvd.is_initialized(), state.step))])
    assert f.hvd.elastic.run(train)(state) == "done"
    assert events == [("run", 0), ("reset", True, 2), ("run", 2)]
    same(f, f.hvd.allreduce(ours(f, 3)), everybodys(f, 3).mean(0))


@CASES.add()
def changed_hosts_interrupt_without_restoring(f: TorchFramework) -> None:
    """Elastic: HostsUpdatedInterrupt is handled similarly, except that state is not restored to the last commit."""
    from hvd_gossip.errors import HostsUpdatedInterrupt

    seen: list[int] = []

    def train(state: Any) -> None:
        seen.append(state.step)
        if len(seen) == 1:
            state.commit()
            f.hvd.barrier()  # a departure before another's commit is a failure there
            state.step = 4
            raise HostsUpdatedInterrupt

    state = f.hvd.elastic.TorchState(step=0)
    f.hvd.elastic.run(train)(state)
    assert seen == [0, 4]


@CASES.add()
def other_errors_end_the_function(f: TorchFramework) -> None:
    """Elastic, reset process: it follows a HorovodInternalError or HostsUpdatedInterrupt; others are the script's."""

    def train(state: Any) -> None:
        raise KeyError("of the script")

    with raises(KeyError, about=["of the script"]):
        f.hvd.elastic.run(train)(f.hvd.elastic.TorchState(step=0))


@CASES.add()
def object_states_keep_objects(f: TorchFramework) -> None:
    """API, elastic.ObjectState: attributes are kept, restored and broadcast; State is its base."""
    hvd = f.hvd
    state = hvd.elastic.ObjectState(bcast_object=hvd.broadcast_object, get_rank=hvd.rank, names=["a"], rank=hvd.rank())
    assert isinstance(state, hvd.elastic.State)
    state.names = ["b"]
    state.restore()
    assert state.names == ["a"]
    state.names = ["c"]
    state.commit()
    state.sync()
    assert (state.names, state.rank) == (["c"], 0)


SAMPLES = 23


@CASES.add()
def the_elastic_sampler_partitions_the_samples(f: TorchFramework) -> None:
    """API, ElasticSampler: partitions dataset across ranks; works similarly to DistributedSampler."""
    for shuffle in (False, True):
        sampler = f.hvd.elastic.ElasticSampler(list(range(SAMPLES)), shuffle=shuffle)
        mine = list(sampler)
        assert len(mine) == len(sampler) == -(-SAMPLES // f.hvd.size())
        everybody = f.hvd.allgather_object(mine)
        assert {i for part in everybody for i in part} == set(range(SAMPLES))
        again = list(f.hvd.elastic.ElasticSampler(list(range(SAMPLES)), shuffle=shuffle))
        assert again == mine


@CASES.add()
def the_elastic_sampler_shuffles_each_epoch_anew(f: TorchFramework) -> None:
    """API, ElasticSampler, shuffle, seed, set_epoch."""
    sampler = f.hvd.elastic.ElasticSampler(list(range(SAMPLES)), seed=1)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert list(f.hvd.elastic.ElasticSampler(list(range(SAMPLES)), seed=2)) != first


@CASES.add()
def processed_samples_are_not_given_out_again_in_the_epoch(f: TorchFramework) -> None:
    """API, ElasticSampler: record_batch tracks what was processed; a TorchState repartitions the rest among workers."""
    sampler = f.hvd.elastic.ElasticSampler(list(range(SAMPLES)), shuffle=False)
    state = f.hvd.elastic.TorchState(sampler=sampler)
    done = list(sampler)[:4]
    sampler.record_batch(0, 2)
    sampler.record_batch(1, 2)
    state.commit()
    state.sync()
    processed = {i for part in f.hvd.allgather_object(done) for i in part}
    rest = f.hvd.allgather_object(list(sampler))
    assert {i for part in rest for i in part} == set(range(SAMPLES)) - processed
    sampler.set_epoch(1)
    assert {i for part in f.hvd.allgather_object(list(sampler)) for i in part} == set(range(SAMPLES))


@CASES.add()
def the_elastic_samplers_progress_is_saved_and_loaded(f: TorchFramework) -> None:
    """API, ElasticSampler: its state dictionary holds the epoch and what was processed; for another sampler to go on."""
    sampler = f.hvd.elastic.ElasticSampler(list(range(SAMPLES)), shuffle=True)
    sampler.set_epoch(2)
    done = list(sampler)[:3]
    sampler.record_batch(0, 3)
    other = f.hvd.elastic.ElasticSampler(list(range(SAMPLES)), shuffle=True)
    other.load_state_dict(sampler.state_dict())
    assert not set(done) & set(other)
    assert other.state_dict() == sampler.state_dict()


@CASES.add()
def the_elastic_sampler_feeds_a_data_loader(f: TorchFramework) -> None:
    """API, ElasticSampler: a torch.utils.data.Sampler."""
    samples = list(range(SAMPLES))
    loader = torch.utils.data.DataLoader(samples, batch_size=4, sampler=f.hvd.elastic.ElasticSampler(samples))
    mine = [int(i) for indices in loader for i in indices]
    assert len(loader) == -(-len(mine) // 4)
    assert {i for part in f.hvd.allgather_object(mine) for i in part} == set(samples)
