"""Checks of ElasticSampler; run by test_elastic.py."""

from __future__ import annotations

import math

import hvd_gossip.torch as hvd
from torch.utils.data import DataLoader

from tests.torch_frontend.ranks import run_checks

ElasticSampler = hvd.elastic.ElasticSampler


def everybody(sampler: ElasticSampler) -> list[list[int]]:
    """What each rank gets of the sampler."""
    return hvd.allgather_object(list(sampler))


def check_each_sample_goes_to_one_worker_and_all_get_as_many() -> None:
    for length in (0, 1, 5, 12, 13):
        for shuffle in (False, True):
            sampler = ElasticSampler(range(length), shuffle=shuffle)
            parts = everybody(sampler)
            share = math.ceil(length / hvd.size())
            assert [len(part) for part in parts] == [share] * hvd.size()
            assert len(sampler) == sampler.num_samples == share
            assert sampler.total_size == share * hvd.size()
            assert {index for part in parts for index in part} == set(range(length))


def check_in_order_without_shuffling() -> None:
    sampler = ElasticSampler(range(3 * hvd.size()), shuffle=False)
    assert list(sampler) == [hvd.rank() + hvd.size() * i for i in range(3)]


def check_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = ElasticSampler(range(50), seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)


def check_recorded_samples_are_left_out_after_a_reset() -> None:
    """What one worker has recorded, until the state is synchronized, is known to that worker."""
    sampler = ElasticSampler(range(20 * hvd.size()))
    mine = list(sampler)
    sampler.record_batch(0, 4)
    sampler.record_batch(2, 4)
    assert sampler.get_indices(2, 4) == mine[8:12]
    assert sampler.processed_indices == set(mine[:4] + mine[8:12])
    assert list(sampler) == mine, "before a reset the partition stays"
    sampler.reset()
    assert not set(sampler.remaining_indices) & sampler.processed_indices
    assert len(sampler.remaining_indices) == 20 * hvd.size() - 8


def check_the_last_batch_may_be_short() -> None:
    sampler = ElasticSampler(range(10 * hvd.size()), shuffle=False)
    mine = list(sampler)
    sampler.record_batch(3, 3)
    assert sampler.processed_indices == set(mine[9:])
    sampler.record_indices([0])
    assert sampler.processed_indices == {0, *mine[9:]}


def check_set_epoch_forgets_what_was_processed() -> None:
    sampler = ElasticSampler(range(8 * hvd.size()))
    iter(sampler)
    sampler.record_batch(0, 8)
    sampler.reset()
    assert len(sampler) < 8
    sampler.set_epoch(1)
    assert (len(sampler), sampler.epoch, sampler.processed_indices) == (8, 1, set())


def check_state_dict_and_back() -> None:
    sampler = ElasticSampler(range(30), seed=5)
    sampler.set_epoch(3)
    iter(sampler)
    sampler.record_batch(1, 2)
    state = sampler.state_dict()
    sampler.record_batch(0, 2)
    assert state == {"epoch": 3, "processed_indices": set(sampler.get_indices(1, 2))}
    other = ElasticSampler(range(30), seed=5)
    other.load_state_dict(state)
    assert (other.epoch, other.processed_indices) == (3, state["processed_indices"])
    assert set(other.remaining_indices) == set(range(30)) - state["processed_indices"]


def check_nothing_is_left_at_the_end_of_an_epoch() -> None:
    sampler = ElasticSampler(range(4))
    sampler.record_indices(range(4))
    sampler.reset()
    assert (len(sampler), list(sampler), sampler.total_size) == (0, [], 0)


def check_in_a_data_loader() -> None:
    sampler = ElasticSampler(range(9 * hvd.size()))
    loader = DataLoader(list(range(9 * hvd.size())), batch_size=4, sampler=sampler)
    for number, batch in enumerate(loader):
        sampler.record_batch(number, 4)
        assert set(batch.tolist()) <= sampler.processed_indices
    assert len(sampler.processed_indices) == 9


def check_a_state_makes_processed_samples_everybody_s() -> None:
    """After sync() the rest of the epoch is dealt out anew: nothing is lost, nothing comes twice (horovod#2252)."""
    length = 12 * hvd.size()
    sampler = ElasticSampler(range(length))
    state = hvd.elastic.TorchState(sampler=sampler)
    mine = list(sampler)
    done = 1 + hvd.rank()
    sampler.record_batch(0, done)
    processed = {index for part in hvd.allgather_object(mine[:done]) for index in part}
    state.sync()
    assert sampler.processed_indices == processed
    rest = [index for part in everybody(sampler) for index in part]
    assert set(rest) == set(range(length)) - processed
    assert len(rest) < len(set(rest)) + hvd.size()


def check_restore_forgets_what_was_recorded_since_the_commit() -> None:
    sampler = ElasticSampler(range(10 * hvd.size()))
    state = hvd.elastic.TorchState(sampler=sampler)
    iter(sampler)
    sampler.record_batch(0, 2)
    state.commit()
    committed = set(sampler.processed_indices)
    sampler.record_batch(1, 2)
    state.restore()
    assert sampler.processed_indices == committed


if __name__ == "__main__":
    run_checks(globals(), default_device=False)
