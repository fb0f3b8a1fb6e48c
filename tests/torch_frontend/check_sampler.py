"""Checks of WorkSharingSampler, by itself and in data loaders, for any number of ranks."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Iterable
from typing import Any

import hvd_gossip.torch as hvd
import pytest
import torch
from hvd_gossip.torch.sampler import WorkSharingSampler
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset, TensorDataset

from tests.torch_frontend.ranks import run_checks


def everybodys(mine: Iterable[int]) -> list[int]:
    """What all ranks were given, sorted."""
    return sorted(index for one in hvd.allgather_object(list(mine)) for index in one)


def dataset(length: int) -> TensorDataset:
    return TensorDataset(torch.arange(length))


def values(loader: DataLoader[tuple[torch.Tensor, ...]]) -> list[int]:
    return [value for (batch,) in loader for value in batch.tolist()]


def check_each_index_once_every_epoch() -> None:
    sampler = WorkSharingSampler(100, seed=3)
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        assert everybodys(sampler) == list(range(100))


def check_it_may_be_iterated_again_without_a_new_epoch() -> None:
    sampler = WorkSharingSampler(50)
    for _ in range(3):
        assert everybodys(sampler) == list(range(50))


def check_a_worker_begins_with_its_part_of_distributed_samplers_order() -> None:
    sampler = WorkSharingSampler(20 * hvd.size(), seed=5)
    sampler.set_epoch(2)
    theirs: DistributedSampler[int] = DistributedSampler(dataset(20 * hvd.size()), num_replicas=1, rank=0, seed=5)
    theirs.set_epoch(2)
    iterator = iter(sampler)
    assert next(iterator) == list(theirs)[20 * hvd.rank()]
    hvd.barrier()
    everybodys(iterator)


def check_alone_the_order_depends_on_seed_and_epoch_only() -> None:
    if hvd.size() > 1:
        return
    sampler = WorkSharingSampler(100, seed=3)
    first = list(sampler)
    assert list(sampler) == first
    assert list(WorkSharingSampler(100, seed=4)) != first
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(WorkSharingSampler(7, shuffle=False)) == list(range(7))


def check_data_loaders_get_everything_once() -> None:
    data = dataset(45)
    for workers in (0, 2):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)  # of a process with threads: torch's way
            loader = DataLoader(data, batch_size=8, sampler=WorkSharingSampler(data), num_workers=workers)
            for _ in range(2):
                assert everybodys(values(loader)) == list(range(45))
        assert len(loader) == -(-len(WorkSharingSampler(data)) // 8)


def check_batch_samplers_get_full_batches() -> None:
    batches = list(BatchSampler(WorkSharingSampler(90, shuffle=False), batch_size=4, drop_last=False))
    assert all(len(batch) == 4 for batch in batches[:-1])
    assert everybodys(index for batch in batches for index in batch) == list(range(90))


def check_blocks_are_neighbours_and_the_last_one_may_be_dropped() -> None:
    order = [int(index) for index in torch.randperm(43, generator=torch.Generator().manual_seed(0), device="cpu")]
    place = {index: position for position, index in enumerate(order)}
    for drop_last, length in ((False, 43), (True, 40)):
        sampler = WorkSharingSampler(43, block=4, drop_last=drop_last)
        places = [place[index] for index in sampler]
        for start in range(0, len(places) - 3, 4):
            assert places[start] % 4 == 0 or not drop_last
        if drop_last:
            assert all(places[at + 1] == places[at] + 1 for at in range(len(places)) if at % 4 < 3)
        assert everybodys(places) == list(range(length))
        assert len(sampler) == -(-length // hvd.size())
    assert everybodys(WorkSharingSampler(3, block=4, drop_last=True)) == []


def check_an_empty_data_set_has_no_samples() -> None:
    assert list(WorkSharingSampler(0)) == []
    assert len(WorkSharingSampler(0)) == 0


class Stream(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(())


def check_bad_arguments() -> None:
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"data_source": -1}, ValueError, "at least 0 samples, not -1"),
        ({"data_source": 5, "block": 0}, ValueError, "block must be at least 1 sample, not 0"),
        ({"data_source": 2.5}, TypeError, "not float"),
        ({"data_source": Stream()}, TypeError, "not Stream; an iterable data set"),
    ]
    for arguments, error, message in cases:
        with pytest.raises(error, match=message):
            WorkSharingSampler(**arguments)


def check_its_state_is_saved_between_epochs_only() -> None:
    sampler = WorkSharingSampler(20, seed=1)
    sampler.set_epoch(4)
    state = sampler.state_dict()
    iterator = iter(sampler)
    mine = [next(iterator)]
    hvd.barrier()
    with pytest.raises(RuntimeError, match="cannot be saved in the middle of epoch 4"):
        sampler.state_dict()
    assert everybodys([*mine, *iterator]) == list(range(20))
    assert sampler.state_dict() == state
    other = WorkSharingSampler(20, seed=1)
    other.load_state_dict(state)
    assert other.epoch == 4
    assert everybodys(other) == list(range(20))


def check_the_state_of_another_sampler_is_refused() -> None:
    state = WorkSharingSampler(20, seed=1).state_dict()
    with pytest.raises(ValueError, match="length was 20, is 30, seed was 1, is 0"):
        WorkSharingSampler(30).load_state_dict(state)


def check_an_epoch_that_is_left_early_is_over() -> None:
    sampler = WorkSharingSampler(20)
    iterator = iter(sampler)
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]
    assert sampler.state_dict()["epoch"] == 0
    assert everybodys(sampler) == list(range(20))


def check_copies_go_through_the_epoch_anew() -> None:
    sampler = WorkSharingSampler(10, name="copied")
    for other in (copy.deepcopy(sampler), pickle.loads(pickle.dumps(sampler)), sampler):
        assert everybodys(other) == list(range(10))


def check_slow_workers_take_fewer() -> None:
    data = dataset(600)
    loader = DataLoader(data, batch_size=10, sampler=WorkSharingSampler(data, block=10))
    mine: list[int] = []
    for (batch,) in loader:
        assert len(batch) == 10
        mine += batch.tolist()
        if hvd.rank() == 0 and len(mine) == 10:
            hvd.barrier()  # so slow is it: the others take the rest meanwhile
    if hvd.rank() > 0:
        hvd.barrier()
    elif hvd.size() > 1:
        assert len(mine) <= 20, "but for what it had asked for already"
    assert everybodys(mine) == list(range(600))


if __name__ == "__main__":
    run_checks(globals(), default_device=False)
