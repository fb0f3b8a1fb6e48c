"""A sampler that, after a reset, hands out what no worker has processed yet in this epoch (Horovod's class)."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

from torch.utils.data import Sampler

from hvd_gossip.basics import rank, size


class ElasticSampler(Sampler[int]):
    """As DistributedSampler, but it may be told which samples were processed, and leaves those out after a reset.

    Give it to `TorchState`, call `record_batch` or `record_indices` when samples have been processed, and `set_epoch` at the
    end of each epoch, not at its beginning: it forgets what was processed.

    Each worker gets equally many samples: as DistributedSampler does, the sampler repeats a few if need be.

    Args:
        dataset: anything with a length.
        shuffle: permute the samples, every epoch anew.
        seed: equal on all ranks.

    Attributes:
        epoch: as given to `set_epoch`.
        processed_indices: the samples of this epoch that are known to be processed. On this worker, or, after
            `TorchState.sync()`, on any.
        num_replicas, rank: number of workers and this one's.
        remaining_indices: what was left to process in this epoch at the last reset, ascending.
        num_samples, total_size: how many samples this worker gets, and all.
        indices: this worker's samples, in the order of the last iteration.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int = 0) -> None:
        self.dataset = dataset
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0
        self.processed_indices: set[int] = set()
        self.indices: list[int] = []
        self.reset()

    def set_epoch(self, epoch: int) -> None:
        """Begins an epoch: nothing of it is processed. Call it at the end of the epoch before, so that an interrupted epoch
        keeps what was processed."""
        self.epoch = epoch
        self.processed_indices = set()
        self.reset()

    def record_batch(self, batch_idx: int, batch_size: int) -> None:
        """The `batch_idx`-th batch of this worker (counted from 0, since the last reset) has been processed."""
        self.record_indices(self.get_indices(batch_idx, batch_size))

    def record_indices(self, indices: Iterable[int]) -> None:
        """These samples have been processed."""
        self.processed_indices.update(map(int, indices))

    def get_indices(self, batch_idx: int, batch_size: int) -> list[int]:
        """The samples of the `batch_idx`-th batch of this worker's iteration."""
        return self.indices[batch_idx * batch_size : (batch_idx + 1) * batch_size]

    def state_dict(self) -> dict[str, Any]:
        """The epoch and what is processed of it."""
        return {"epoch": self.epoch, "processed_indices": set(self.processed_indices)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes on from `state_dict()`'s value, and resets."""
        self.epoch = state_dict["epoch"]
        self.processed_indices = set(state_dict["processed_indices"])
        self.reset()

    def reset(self) -> None:
        """Deals what is not processed out to the workers there are now."""
        self.num_replicas = size()
        self.rank = rank()
        self.remaining_indices = [i for i in range(len(self.dataset)) if i not in self.processed_indices]
        self.num_samples = -(-len(self.remaining_indices) // self.num_replicas)
        self.total_size = self.num_samples * self.num_replicas

    def __iter__(self) -> Iterator[int]:
        order = list(self.remaining_indices)
        if self.shuffle:
            random.Random(self.seed + self.epoch).shuffle(order)
        # Positions beyond the end begin again: every worker gets as many.
        self.indices = [order[i % len(order)] for i in range(self.rank, self.total_size, self.num_replicas)]
        return iter(self.indices)

    def __len__(self) -> int:
        return self.num_samples
